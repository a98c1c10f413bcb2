"""Rendered clips that no network has seen, and their way through the stages of the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from vidgen.diffusion.groups import STRIDE
from vidgen.io.record import Record
from vidgen.stages import interpolate as interpolation
from vidgen.stages import part_model
from vidgen.stages.base import Compute
from vidgen.stages.decode import Which, decode
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.encode_video import encode_video
from vidgen.stages.interpolate import interpolate
from vidgen.systems.base import ModelFolder
from vidgen.world.clips import clip_record
from vidgen.world.scene import TEST_SEEDS, sample_scene

FPS = 8.0


@dataclass(frozen=True)
class Size:
    """Of clips."""

    num_frames: int = 17
    height: int = 40
    width: int = 64


SIZE = Size()


def rendered(count: int, size: Size = SIZE, *, level: str = "basic", seed: int = 0) -> list[Record]:
    """Frames records of the first test scenes; `seed` is that of the sampling to come."""
    records = []
    for n in range(TEST_SEEDS.start, TEST_SEEDS.start + count):
        record = clip_record(
            sample_scene(n, level=level), num_frames=size.num_frames, fps=FPS,
            height=size.height, width=size.width, with_truth=False,
        )  # fmt: skip
        records.append(record.replace(attrs={"seed": seed}))
    return records


def frames_of(records: Sequence[Record]) -> Tensor:
    """uint8 `b t h w 3`"""
    return torch.stack([r.torch("frames") for r in records])


def latents_of(records: Sequence[Record]) -> Tensor:
    """float32 `b c t h w`"""
    return torch.stack([r.torch("latents") for r in records])


def encoded(records: Sequence[Record], folder: ModelFolder, compute: Compute) -> list[Record]:
    return list(encode_video(iter(records), folder, compute=compute))


def captioned(records: Sequence[Record], folder: ModelFolder, compute: Compute) -> list[Record]:
    """The records with the text of their captions."""
    prompts = [Prompt(str(record.attrs["prompt"])) for record in records]
    texts = encode_text(prompts, folder, compute=compute)
    return [
        record.replace(
            tensors={name: text.torch(name) for name in text.tensors},
            attrs={"text_encoder": text.attrs["text_encoder"]},
        )
        for record, text in zip(records, texts, strict=True)
    ]


def keyframes(records: Sequence[Record]) -> list[Record]:
    """Latents records with every fourth latent alone."""
    return list(map(part_model.keyframes, records))


def interpolated(
    records: Sequence[Record],
    folder: ModelFolder | None,
    method: str,
    compute: Compute,
    *,
    guidance_scale: float | None = None,
    refine: bool = False,
) -> list[Record]:
    """`refine`: of records with text, as much as the model wants (`stages.refine`)."""
    share = None if refine or method == interpolation.LINEAR else 0.0
    choices = interpolation.Choices(method=method, guidance_scale=guidance_scale, refine=share)
    return list(interpolate(iter(records), folder, choices, compute=compute))


def decoded(
    records: Sequence[Record], folder: ModelFolder, compute: Compute, which: Which = "image"
) -> Tensor:
    """uint8 `b t h w 3`"""
    return frames_of(list(decode(iter(records), folder, which=which, compute=compute)))


def between(clips: Tensor) -> Tensor:
    """`b t h w 3` → the frames that are no keyframes."""
    t = clips.shape[1]
    return clips[:, [i for i in range(t) if i % STRIDE]]


def middle(clips: Tensor) -> Tensor:
    """`b t h w 3` → the frames halfway between keyframes, farthest from both."""
    return clips[:, STRIDE // 2 :: STRIDE]


def jerkiness(clips: Tensor) -> Tensor:
    """How far frames are from the mean of their neighbors, levels: the mean absolute second
    difference over time, halved, `b`. Of true clips it is not zero: the nearer to theirs, the
    smoother a motion is made."""
    x = rearrange(clips, "b t h w c -> b t (h w c)").float()
    return (x[:, 1:-1] - (x[:, :-2] + x[:, 2:]) / 2).abs().mean(dim=(1, 2))
