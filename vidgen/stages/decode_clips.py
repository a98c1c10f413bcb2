"""Latents of a released model → frames, by its causal autoencoder, a few latents at a time.

Each chunk is made with the last frames of every convolution before it, so that it is what the whole
clip would have there: no overlap, nothing blended, and memory that doesn't grow with the clip.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor, nn

from vidgen.errors import OutOfMemory, is_out_of_memory
from vidgen.io.record import Record
from vidgen.nn.pixels import to_uint8
from vidgen.stages.base import Compute, Notify
from vidgen.systems.base import ModelFolder


def precise(folder: ModelFolder, compute: Compute) -> Compute:
    """Float32 for the autoencoders that are run in it as released, unless another dtype is asked
    for."""
    if folder.released.FLOAT32_VAE and compute.dtype == "auto":
        return replace(compute, dtype="fp32")
    return compute


@torch.no_grad()
def clip_frames(
    latents: Tensor, vae: nn.Module, folder: ModelFolder, compute: Compute, notify: Notify
) -> Tensor:
    """latents `c t h w` → frames `t' H W 3` uint8, on the CPU. OutOfMemory where one chunk is too
    much."""
    device, dtype = compute.torch_device(), compute.torch_dtype()
    vae = vae.to(device=device, dtype=dtype)
    total, done = 1 + 4 * (latents.shape[1] - 1), []
    try:
        for pixels in folder.released.decoded(vae, latents[None].to(device, dtype)):
            done.append(rearrange(to_uint8(pixels[0].float()), "c t h w -> t h w c").cpu())
            notify.step(sum(map(len, done)), total, "frame")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"the frames of one latent don't fit in the memory of {device}",
            why="the latents are untouched: nothing of the sampling is lost",
            next="vidgen decode --device cpu …, or --dtype bf16",
        ) from None
    return torch.cat(done)


def times(record: Record, count: int) -> dict[str, Tensor]:
    """`times` `count` of the frames, seconds, where the record tells their rate."""
    fps = record.attrs.get("fps")
    if not isinstance(fps, int | float) or not fps > 0:
        return {}
    return {"times": torch.arange(count, dtype=torch.float64) / fps}


def is_unnamed(record: Record, folder: ModelFolder, notify: Notify) -> bool:
    """Whether the latents are of the folder's system, sampled where there was no autoencoder to
    name them for; which is warned of."""
    if record.attrs.get("latent_space") != f"{folder.system}-vae":
        return False
    notify.warn(
        f"record `{record.id}`: its latents were sampled without an autoencoder beside them;"
        f" they are taken as those of `{folder.latent_space}`"
    )
    return True
