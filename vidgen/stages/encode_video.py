"""Frames records → latents records, and video files → frames records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.errors import InputError
from vidgen.io import log, video
from vidgen.io.record import Record
from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.nn.pixels import from_uint8
from vidgen.stages.base import Compute, Loading, Notify, Silent, require_kind, require_tensor
from vidgen.stages.decode import CHUNK
from vidgen.stages.decode_clips import precise
from vidgen.stages.encode_text import Names, Prompt
from vidgen.systems import world
from vidgen.systems.base import ModelFolder

STAGE = "encode-video"


class Reading(NamedTuple):
    """How a video became a frames record, in the words of the log."""

    argv: list[str]  # the options that shaped it
    inputs: list[str]  # digests of the file


def read_videos(
    paths: Iterable[str | Path],
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Video files, or folders of pictures → frames records: `frames` `T H W 3`, `times` `T`
    (seconds from the first frame), and `audio` `channels samples` where there is sound.

    A video at a varying rate is brought to its average rate, or to `fps`: later stages and mp4
    know one rate per record. Its duration stays.
    """
    names = Names()
    for path in paths:
        info = video.probe(path)
        rate = fps or info.fps
        frames, times, audio, sample_rate, info = video.read_video(
            path, fps=rate, num_frames=num_frames, exact=False
        )
        attrs = {
            "fps": rate,
            "num_frames": len(frames),
            "height": frames.shape[1],
            "width": frames.shape[2],
            "video": {"codec": info.codec, "pix_fmt": info.pix_fmt, "rotation": info.rotation},
        }
        tensors = {"frames": frames, "times": times}
        if audio is not None:
            tensors["audio"] = audio
            attrs["sample_rate"] = sample_rate
        name = names.of(Prompt(text="", id=id_of_name(path)))
        yield Record.make("frames", name, tensors, attrs)


def id_of_name(path: str | Path) -> str:
    """A record's id from a file's name: `my clip.mp4` → `my-clip`"""
    return re.sub(r"[^A-Za-z0-9._-]", "-", Path(path).stem)[:120] or "video"


def encode_video(
    records: Iterable[Record],
    folder: ModelFolder,
    *,
    readings: Mapping[str, Reading] = MappingProxyType({}),
    compute: Compute = Compute(),
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Frames records → latents records with `latents` `C T h w` (float32).

    readings  by record id, where the same command made the record of a video: its one entry in
              the log tells of both

    A size that the autoencoder's stride does not divide is filled up by repeating the last row and
    column; the record keeps the true size, to which `decode` crops. InputError for a number of
    frames that a released model's autoencoder doesn't take.
    """
    if folder.released:
        compute = precise(folder, compute)
    system = folder.released or world
    loading = Loading(lambda: system.load_autoencoder(folder), now=compute.preload)
    for record in records:
        require_kind(record, "frames", made_by="vidgen convert FILE.mp4")
        require_tensor(record, "frames", ("U8",), None, None, None, 3)
        frames = record.torch("frames")
        if folder.released:
            latents = clip_latents(record, loading.get(), folder, compute)
        else:
            latents = _latents(frames, loading.get(), compute, notify)
        argv, inputs = readings.get(record.id) or Reading([], [record.digest])
        yield record.replace(
            kind="latents",
            tensors={"latents": latents},
            drop=("frames",),
            attrs={
                "latent_space": folder.latent_space,
                "num_frames": frames.shape[0],
                "height": frames.shape[1],
                "width": frames.shape[2],
            },
            entry=log.new_entry(
                STAGE,
                argv=[STAGE, *argv],
                model=folder.identity("vae"),
                inputs=inputs,
                **compute.described(),
            ),
        )


@torch.no_grad()
def clip_latents(record: Record, vae: nn.Module, folder: ModelFolder, compute: Compute) -> Tensor:
    """The record's frames → latents `c t' h w` by a causal autoencoder: the mean of what they could
    be. InputError for a number of frames that it doesn't take."""
    device, dtype = compute.torch_device(), compute.torch_dtype()
    x = from_uint8(rearrange(record.torch("frames"), "t h w c -> c t h w"))
    x = padded(x, folder.latent_sizes[1])[None].to(device, dtype)
    try:
        return folder.released.encoded(vae.to(device, dtype), x)[0].float().cpu()
    except ValueError as error:
        raise InputError(
            f"record `{record.id}`: {error}",
            next="vidgen encode-video --frames N takes the first N",
        ) from None


@torch.no_grad()
def _latents(frames: Tensor, vae: VideoAutoencoder, compute: Compute, notify: Notify) -> Tensor:
    """frames `t h w 3` uint8 → latents `c t h/8 w/8`, in chunks along time (exact: frames do not
    see each other)."""
    vae = vae.to(device=compute.torch_device(), dtype=compute.torch_dtype())
    weight = vae.latents_mean
    done = []
    for start in range(0, len(frames), CHUNK):
        x = from_uint8(rearrange(frames[start : start + CHUNK], "t h w c -> c t h w"))
        x = padded(x, vae.config.stride)
        done.append(vae.encode(x[None].to(weight.device, weight.dtype))[0].float().cpu())
        notify.step(min(start + CHUNK, len(frames)), len(frames), "frame")
    return torch.cat(done, dim=1)


def padded(frames: Tensor, stride: int) -> Tensor:
    """frames `3 t h w` with the last row and column repeated until both divide by `stride`."""
    height, width = frames.shape[-2:]
    return F.pad(frames, (0, -width % stride, 0, -height % stride), mode="replicate")
