"""Latents of a released model → frames, by its causal autoencoder, a few latents at a time.

Each chunk is made with the last frames of every convolution before it, so that it is what the whole
clip would have there: no overlap, nothing blended, and memory that doesn't grow with the clip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor, nn

from vidgen.errors import OutOfMemory, UsageError, is_out_of_memory
from vidgen.io.record import Record
from vidgen.nn.pixels import to_uint8
from vidgen.stages import needs
from vidgen.stages.base import Compute, Notify
from vidgen.stages.costs import live_bytes
from vidgen.stages.memory import free_bytes, require_memory
from vidgen.stages.tiles import Tiles
from vidgen.systems.base import ModelFolder

FRAMES = 16  # made whole numbers at once
SURE = 8  # times what is thought to be there is more than there ever is
TILES = (768, 512, 384, 256, 128)  # sides that may be told to fit


def precise(folder: ModelFolder, compute: Compute) -> Compute:
    """Float32 for the autoencoders that are run in it as released, unless another dtype is asked
    for."""
    if folder.released.FLOAT32_VAE and compute.dtype == "auto":
        return replace(compute, dtype="fp32")
    return compute


def tiles_of(folder: ModelFolder, tile: tuple[int, int] | None) -> Tiles | None:
    """Tiles of that width and height, pixels. UsageError for sides that no tile has, and for models
    that aren't decoded in tiles."""
    if tile is None:
        return None
    if not folder.released:
        raise UsageError(
            f"--tile: `{folder.name}` decodes in little memory as it is",
            why="it is for the autoencoders of released models",
            next="leave --tile out",
        )
    return Tiles.of(*tile, folder.latent_sizes[1])


def require_work(
    folder: ModelFolder, shape: tuple[int, ...], tiles: Tiles | None, compute: Compute
) -> None:
    """OutOfMemory where decoding latents of this shape takes more than there is. What is sure to
    fit isn't counted: that takes a second."""
    device, (_, t, h, w) = compute.torch_device(), shape
    free, stride = free_bytes(device), folder.latent_sizes[1]
    pixels = min(1 + 4 * (t - 1), 12) * h * w * stride**2
    about = live_bytes(pixels, folder.released.decoder_width(folder), 1, compute)
    if free is None or SURE * about < free:
        return
    needed = _peak(folder, shape, tiles, compute)
    if needed > free:
        require_memory(
            needed, device, what=f"decoding {w * stride}x{h * stride} pixels",
            next=_fitting(folder, shape, compute, free),
        )  # fmt: skip


def _peak(
    folder: ModelFolder, shape: tuple[int, ...], tiles: Tiles | None, compute: Compute
) -> int:
    return needs.decoding(folder, compute, Counter({shape: 1}), tiles).peak


def _fitting(folder: ModelFolder, shape: tuple[int, ...], compute: Compute, free: int) -> str:
    """The option that makes it fit and costs the least: another dtype, or tiles as large as can
    be."""
    stride = folder.latent_sizes[1]
    if compute.torch_dtype() == torch.float32:
        half = replace(compute, dtype="bf16")
        if _peak(folder, shape, None, half) < free:
            return "--dtype bf16"
    for side in TILES:
        if _peak(folder, shape, Tiles.of(side, side, stride), compute) < free:
            return f"vidgen decode --tile {side}x{side} …, which is an approximation"
    return "latents of a smaller --size, or another --device"


@torch.no_grad()
def clip_frames(
    latents: Tensor,
    vae: nn.Module,
    folder: ModelFolder,
    tiles: Tiles | None,
    compute: Compute,
    notify: Notify,
) -> Tensor:
    """latents `c t h w` → frames `t' H W 3` uint8, on the CPU. OutOfMemory where one chunk is too
    much."""
    device, dtype = compute.torch_device(), compute.torch_dtype()
    vae = vae.to(device=device, dtype=dtype)

    def decode(z: Tensor) -> Iterator[Tensor]:
        for pixels in folder.released.decoded(vae, z[None].to(device, dtype)):
            yield pixels[0].float()

    try:
        if tiles is not None and tiles.count(*latents.shape[2:]) > 1:
            whole = tiles.decoded(latents, decode, lambda i, n: notify.step(i, n, "tile"))
            return torch.cat([_as_frames(some) for some in whole.split(FRAMES, dim=1)])
        total, done = 1 + 4 * (latents.shape[1] - 1), list[Tensor]()
        for pixels in decode(latents):
            done.append(_as_frames(pixels))
            notify.step(sum(map(len, done)), total, "frame")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"the frames of one latent don't fit in the memory of {device}",
            why="latents that are in a file are untouched: nothing of their sampling is lost",
            next="vidgen decode --device cpu …, or --dtype bf16, or --tile 256x256",
        ) from None
    return torch.cat(done)


def _as_frames(pixels: Tensor) -> Tensor:
    """pixels `3 t h w` in −1…1 → `t h w 3` uint8, on the CPU."""
    return rearrange(to_uint8(pixels), "c t h w -> t h w c").cpu()


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
