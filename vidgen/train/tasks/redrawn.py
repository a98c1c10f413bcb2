"""Clips that were redrawn once and kept: what a decoder is trained on beside rendered ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from vidgen.errors import UsageError
from vidgen.stages.redraw import Redrawer
from vidgen.train.distributed import World
from vidgen.train.tasks.latents import cached
from vidgen.world.captions import caption
from vidgen.world.render import RENDERER
from vidgen.world.scene import sample_scene

TOGETHER = 16  # clips that begin at the same noise level
# Components that decide, beside the latent space, what clips come out as.
DECIDE = ("transformer", "text_encoder", "interpolation", "upsampler")


@dataclass(frozen=True)
class Redrawn:
    """How many clips, and how far they may be from what was rendered."""

    num: int = 2048  # of the basic world, made once
    num_full: int = 1024  # of the full world
    share: float = 0.75  # of the steps; the others see what the encoder makes
    # Sampling begins at a level of noise (of x0's spread) between these.
    noise: tuple[float, float] = (0.3, 0.75)
    cache: str = "runs/cache"

    def __post_init__(self) -> None:
        least, most = self.noise
        if not 0 < least <= most <= 1:
            raise UsageError(f"recipe: data.redrawn.noise is [{least:g}, {most:g}], within 0 and 1")
        if not 0 <= self.share <= 1:
            raise UsageError(f"recipe: data.redrawn.share is {self.share:g}, must be from 0 to 1")
        if self.num < 0 or self.num_full < 0 or not self.num + self.num_full:
            raise UsageError("recipe: data.redrawn has no clips: num and num_full")

    def parts(self) -> list[tuple[str, int]]:
        """The level and number of the clips of each part of the cache."""
        return [(k, n) for k, n in (("basic", self.num), ("full", self.num_full)) if n]


def redrawn_clips(
    redrawer: Redrawer,
    wanted: Redrawn,
    *,
    dtype: torch.dtype,
    world: World,
    say: Callable[[str], None],
) -> Tensor:
    """`n c t h w` of the training scenes, those of the basic world first; bfloat16, on the CPU.
    They are made where they aren't kept yet."""
    g, model = redrawer.geometry, redrawer.folder
    of = [model.sha256(part) for part in DECIDE if part in model.index]
    of += [model.latent_space, repr(model.sampler), str(dtype), str(RENDERER)]
    digest = sha256(" ".join(of).encode()).hexdigest()[:12]
    size, (least, most) = f"{g.num_frames}x{g.height}x{g.width}@{g.fps:g}", wanted.noise
    folder = Path(wanted.cache) / "redrawn" / f"{size}-{least:g}-{most:g}-{digest}"

    def made(level: str, num: int) -> Tensor:
        return cached(
            folder, level, num, lambda seeds: of_seeds(redrawer, seeds, level, wanted.noise, dtype),
            world=world, say=say,
        )  # fmt: skip

    return torch.cat([made(level, num) for level, num in wanted.parts()])


def of_seeds(
    redrawer: Redrawer,
    seeds: range,
    level: str,
    noise: tuple[float, float],
    dtype: torch.dtype,
) -> Tensor:
    """`n c t h w` of these scenes, under captions drawn anew; some together begin at one level."""
    clips = []
    for first in range(0, len(seeds), TOGETHER):
        some = seeds[first : first + TOGETHER]
        draw = random.Random(f"redrawn/{level}/{some.start}")
        scenes = [sample_scene(seed, level=level) for seed in some]
        captions = [caption(scene, draw) for scene in scenes]
        start = redrawer.start(draw.uniform(*noise))
        clips += [r.torch("latents") for r in redrawer.clips(scenes, captions, start, dtype)]
    return torch.stack(clips)
