"""Latents records → frames records.

A decoder is the autoencoder's own, frame by frame, or a video decoder, which sees several frames at
once. Long clips go through in chunks of frames with as much of their neighbours as the decoder can
see, so that no result depends on the chunks. Attention over time sees everything: there chunks
overlap and are blended, and the log says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from vidgen.errors import InputError, OutOfMemory, UsageError, is_out_of_memory
from vidgen.io import log
from vidgen.io.record import Record
from vidgen.nn.attention import kernel
from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.nn.movq import MoVQDecoder
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
from vidgen.stages.chunks import Chunks, in_chunks
from vidgen.stages.decode_clips import (
    clip_frames,
    is_unnamed,
    precise,
    require_work,
    tiles_of,
    times,
)
from vidgen.systems import world
from vidgen.systems.base import PIXELS, ModelFolder
from vidgen.systems.video_decoder import COMPONENT, has_video_decoder, load_video_decoder

STAGE = "decode"
SPENT = ("text.*", "latents")
CHUNK = 16  # frames decoded at once, or as many as they can see, beside those they can see

Which = Literal["image", "video"]


@dataclass(frozen=True)
class Decoder:
    """Latents `1 c t h w` → pixels `1 3 t H W` in −1 … 1, where `weight` is.

    reach  how many frames away a latent can change a frame; None: any number
    """

    decode: Callable[[Tensor], Tensor]
    weight: Tensor
    reach: int | None = 0


def component_of(folder: ModelFolder, which: Which | None) -> str:
    """The component that decodes: the video decoder where the model has one, or what `which` says.
    UsageError for a video decoder that isn't there."""
    if which == "image" or (which is None and not has_video_decoder(folder)):
        return "vae"
    if not has_video_decoder(folder):
        raise UsageError(
            f"--decoder video: `{folder.name}` has no component `{COMPONENT}`",
            next="leave --decoder out to decode frame by frame",
        )
    return COMPONENT


def first_chunks(reach: int | None) -> Chunks:
    """The chunks to begin with: no frame is decoded more than about twice."""
    around = 2 * (reach or 0)
    return Chunks(max(CHUNK, around) + around, reach)


def load(folder: ModelFolder, component: str) -> VideoAutoencoder | MoVQDecoder:
    """The network that decodes, on the CPU."""
    if folder.released:
        return folder.released.load_autoencoder(folder)
    if component == COMPONENT:
        return load_video_decoder(folder)
    return world.load_autoencoder(folder)


def placed(network: VideoAutoencoder | MoVQDecoder, compute: Compute) -> Decoder:
    """The decoder on the device and in the dtype."""
    network = network.to(device=compute.torch_device(), dtype=compute.torch_dtype())
    if isinstance(network, MoVQDecoder):
        return Decoder(network, network.conv_in.weight, network.config.reach)
    return Decoder(network.decode, network.latents_mean)


def decode(
    records: Iterable[Record],
    folder: ModelFolder,
    *,
    which: Which | None = None,
    tile: tuple[int, int] | None = None,
    keep: bool = False,
    compute: Compute = Compute(),
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Latents records → records with `frames` `T H W 3` (uint8), cropped to the size that the
    record names. What decoding spends (text, latents) is dropped unless `keep`.

    which  of the model's decoders; None: the video decoder where it has one
    tile   width and height of what is decoded at once, pixels, which is an approximation; of
           released models (see `tiles_of`)

    Latents that are pixels are converted, whatever the model. Raises InputError for latents of
    another autoencoder, before any weights are read.
    """
    if folder.released:
        compute = precise(folder, compute)
    component, tiles = component_of(folder, which), tiles_of(folder, tile)
    shaping = ["--decoder", "image"] if component != component_of(folder, None) else []
    if tile is not None:
        shaping += ["--tile", f"{tile[0]}x{tile[1]}"]
    loading = Loading(lambda: load(folder, component), now=compute.preload)
    for record in records:
        require_kind(record, "latents", made_by="vidgen sample-keyframes")
        if record.attrs.get("latent_space") == PIXELS:
            yield converted(record, keep=keep)
            continue
        if not (folder.released and is_unnamed(record, folder, notify)):
            require_space(record, folder)
        require_tensor(record, "latents", FLOATS, folder.latent_sizes[0], None, None, None)
        height, width = require_whole(record, "height"), require_whole(record, "width")
        if folder.released:
            require_work(folder, tuple(record["latents"].shape), tiles, compute)
        with kernel("auto") as kernels:
            latents, network = record.torch("latents"), loading.get()
            made, approximations = {}, list[str]()
            if folder.released:
                if tiles is not None and tiles.count(*latents.shape[2:]) > 1:
                    approximations.append(tiles.in_words())
                    notify.warn(f"record `{record.id}`: {tiles.in_words()}")
                frames = clip_frames(latents, network, folder, tiles, compute, notify)
                if compute.offload != "none":  # it comes back for the next record
                    network.to("cpu")
                made = times(record, len(frames))
            else:
                frames, approximations = _frames(latents, placed(network, compute), notify)
        yield record.replace(
            kind="frames",
            tensors={"frames": frames[:, :height, :width].contiguous(), **made},
            drop=() if keep else SPENT,
            entry=log.new_entry(
                STAGE,
                argv=[STAGE, *shaping, *(["--keep"] if keep else [])],
                model=folder.identity(component),
                attention="+".join(sorted(kernels)) or None,
                approximations=approximations,
                inputs=[record.digest],
                **compute.described(),
            ),
        )


def converted(record: Record, *, keep: bool) -> Record:
    """The frames record of latents that are pixels, −1 … 1: no network is needed."""
    require_tensor(record, "latents", FLOATS, 3, None, None, None)
    height, width = require_whole(record, "height"), require_whole(record, "width")
    frames = rearrange(to_uint8(record.torch("latents")), "c t h w -> t h w c")
    return record.replace(
        kind="frames",
        tensors={"frames": frames[:, :height, :width].contiguous()},
        drop=() if keep else SPENT,
        entry=log.new_entry(
            STAGE, argv=[STAGE, *(["--keep"] if keep else [])], inputs=[record.digest]
        ),
    )


def require_space(record: Record, folder: ModelFolder, *, verb: str = "decodes") -> None:
    """InputError unless the record's latents are those of the folder's autoencoder. `verb`: what
    is to be done with them."""
    space = record.attrs.get("latent_space")
    if space != folder.latent_space:
        raise InputError(
            f"record `{record.id}`: latents are in space `{space}`,"
            f" `{folder.name}` {verb} `{folder.latent_space}`",
            why="another autoencoder made them, and this one would return noise",
            next="vidgen log FILE   (names the model that made them)",
        )


@torch.no_grad()
def _frames(latents: Tensor, decoder: Decoder, notify: Notify) -> tuple[Tensor, list[str]]:
    """latents `c t h w` → frames `t h w 3` uint8, and what is not exact about them. Smaller chunks
    are the answer to too little memory."""
    total, chunks = latents.shape[1], first_chunks(decoder.reach)
    weight = decoder.weight

    def call(z: Tensor) -> Tensor:
        return decoder.decode(z[None].to(weight.device, weight.dtype))[0]

    while True:
        done: list[Tensor] = []
        count = 0
        try:
            for pixels in in_chunks(latents, call, chunks):
                done.append(rearrange(to_uint8(pixels), "c t h w -> t h w c").cpu())
                count += len(done[-1])
                notify.step(count, total, "frame")
            return torch.cat(done), [] if chunks.exact(total) else [chunks.in_words()]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        if chunks.size == 1:
            raise OutOfMemory(
                f"one frame does not fit in the memory of {weight.device}",
                why="the latents are untouched: nothing of the sampling is lost",
                next="vidgen decode --device cpu …",
            ) from None
        chunks = chunks.smaller()
        notify.warn(f"out of memory: frames decoded at once from here on: {chunks.size}")
