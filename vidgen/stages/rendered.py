"""Scenes of the world as the stages take clips: rendered, and as records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vidgen.diffusion.groups import STRIDE, frames_after
from vidgen.io.record import Record
from vidgen.systems.base import Geometry
from vidgen.world.render import render
from vidgen.world.scene import Scene


def clips_of(geometry: Geometry, *, scale: int = 1) -> Geometry:
    """What interpolation makes of a model's keyframes, and its upsampler at that scale."""
    return replace(
        geometry, num_frames=frames_after(1, geometry.num_frames), fps=STRIDE * geometry.fps,
        height=scale * geometry.height, width=scale * geometry.width,
    )  # fmt: skip


def records(scenes: Sequence[Scene], geometry: Geometry) -> Iterator[Record]:
    """Frames records of the scenes."""
    times = torch.tensor(geometry.times, dtype=torch.float64)
    for scene, frames in zip(scenes, rendered(scenes, geometry), strict=True):
        tensors = {"frames": frames, "times": times}
        attrs = {"fps": geometry.fps, "seed": scene.seed}
        yield Record.make("frames", f"world-{scene.seed}", tensors, attrs)


def rendered(scenes: Sequence[Scene], geometry: Geometry) -> Tensor:
    """uint8 `b t h w 3`"""
    return render(scenes, times=geometry.times, height=geometry.height, width=geometry.width).frames
