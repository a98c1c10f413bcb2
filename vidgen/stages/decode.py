"""Latents records → frames records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from einops import rearrange
from torch import Tensor

from vidgen.errors import InputError, OutOfMemory, is_out_of_memory
from vidgen.io import log
from vidgen.io.record import Record
from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.nn.pixels import to_uint8
from vidgen.stages.base import (
    FLOATS,
    Compute,
    Loading,
    Notify,
    Silent,
    require_kind,
    require_tensor,
    require_whole,
)
from vidgen.systems import world
from vidgen.systems.base import ModelFolder

STAGE = "decode"
SPENT = ("text.*", "latents")
CHUNK = 16  # frames decoded at once; smaller when memory runs out


def decode(
    records: Iterable[Record],
    folder: ModelFolder,
    *,
    keep: bool = False,
    compute: Compute = Compute(),
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Latents records → records with `frames` `T H W 3` (uint8), cropped to the size that the
    record names. What decoding spends (text, latents) is dropped unless `keep`.

    Raises InputError for latents of another autoencoder, before any weights are read.
    """
    loading = Loading(lambda: world.load_autoencoder(folder), now=compute.preload)
    for record in records:
        require_kind(record, "latents", made_by="vidgen sample-keyframes")
        require_space(record, folder)
        channels = folder.size("vae", "channels")
        require_tensor(record, "latents", FLOATS, channels, None, None, None)
        height, width = require_whole(record, "height"), require_whole(record, "width")
        frames = _frames(record.torch("latents"), loading.get(), compute, notify)
        yield record.replace(
            kind="frames",
            tensors={"frames": frames[:, :height, :width].contiguous()},
            drop=() if keep else SPENT,
            entry=log.new_entry(
                STAGE,
                argv=[STAGE, *(["--keep"] if keep else [])],
                model=folder.identity("vae"),
                inputs=[record.digest],
                **compute.described(),
            ),
        )


def require_space(record: Record, folder: ModelFolder) -> None:
    """InputError unless the record's latents are those of the folder's autoencoder."""
    space = record.attrs.get("latent_space")
    if space != folder.latent_space:
        raise InputError(
            f"record `{record.id}`: latents are in space `{space}`,"
            f" `{folder.name}` decodes `{folder.latent_space}`",
            why="another autoencoder made them, and this one would return noise",
            next="vidgen log FILE   (names the model that made them)",
        )


@torch.no_grad()
def _frames(latents: Tensor, vae: VideoAutoencoder, compute: Compute, notify: Notify) -> Tensor:
    """latents `c t h w` → frames `t h w 3` uint8, in chunks along time.

    The autoencoder works frame by frame, so chunks are exact, and half a chunk is the answer to
    too little memory.
    """
    vae = vae.to(device=compute.torch_device(), dtype=compute.torch_dtype())
    weight = vae.latents_mean
    chunk, start, done = CHUNK, 0, []
    while start < latents.shape[1]:
        z = latents[None, :, start : start + chunk].to(weight.device, weight.dtype)
        try:
            pixels = to_uint8(vae.decode(z)[0])
            done.append(rearrange(pixels, "c t h w -> t h w c").cpu())
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if chunk == 1:
                raise OutOfMemory(
                    f"one frame does not fit in the memory of {weight.device}",
                    why="the latents are untouched: nothing of the sampling is lost",
                    next="vidgen decode --device cpu …",
                ) from None
            chunk //= 2
            notify.warn(f"out of memory: frames decoded at once from here on: {chunk}")
            continue
        start += chunk
        notify.step(min(start, latents.shape[1]), latents.shape[1], "frame")
    return torch.cat(done)
