"""Clips that were redrawn once and kept: what a decoder is trained on beside rendered ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from vidgen.errors import UsageError
from vidgen.stages import refine
from vidgen.stages.base import Compute
from vidgen.stages.redraw import missing as missing
from vidgen.stages.redraw import redraw
from vidgen.stages.redraw import shown as shown
from vidgen.stages.sample_keyframes import unable as unable
from vidgen.systems.base import ModelFolder
from vidgen.train.distributed import World
from vidgen.train.tasks.latents import cached
from vidgen.world.captions import caption
from vidgen.world.render import RENDERER
from vidgen.world.scene import sample_scene

TOGETHER = 16  # clips in one call of a network
SHARD = 256  # clips are kept in files of so many: half a minute to some minutes of work
# Networks that decide, beside the autoencoder, what clips come out as.
DECIDE = ("transformer", "text_encoder", "interpolation", "upsampler")
DTYPES = {"float32": "fp32", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Redrawn:
    """How many clips, and how far they may be from what was rendered."""

    num: int = 2048  # of the basic world, made once
    num_full: int = 1024  # of the full world
    share: float = 0.75  # of the steps; the others see what the encoder makes
    # How much of the keyframes is noise where sampling begins, between these; see `redraw`.
    strength: tuple[float, float] = (0.35, 0.8)
    cache: str = "runs/cache"

    def __post_init__(self) -> None:
        least, most = self.strength
        if not 0 < least <= most <= 1:
            raise UsageError(
                f"recipe: data.redrawn.strength is [{least:g}, {most:g}], must go from less to more"
                " within 0 and 1"
            )
        if not 0 < self.share <= 1:
            raise UsageError(
                f"recipe: data.redrawn.share is {self.share:g}, must be above 0, and 1 at most"
            )
        for key in ("num", "num_full"):
            if getattr(self, key) < 0:
                raise UsageError(f"recipe: data.redrawn.{key} is {getattr(self, key)}")
        if not self.num + self.num_full:
            raise UsageError("recipe: data.redrawn.num and num_full are 0, which leaves no clips")

    def parts(self) -> list[tuple[str, int]]:
        """The level and number of the clips of each part of the cache."""
        return [(k, n) for k, n in (("basic", self.num), ("full", self.num_full)) if n]


def compute_of(dtype: str, device: torch.device) -> Compute:
    """How clips are redrawn in a run that trains in this dtype."""
    return Compute(str(device), DTYPES[dtype], batch_size=TOGETHER)


def redrawn_clips(
    folder: ModelFolder,
    wanted: Redrawn,
    *,
    compute: Compute,
    world: World,
    say: Callable[[str], None],
) -> Tensor:
    """`n c t h w` of the training scenes, those of the basic world first; bfloat16, on the CPU.
    They are made where they aren't kept yet, in whole files."""
    least, most = wanted.strength
    cache = Path(wanted.cache) / "redrawn" / f"{least:g}-{most:g}-{digest(folder, compute)}"

    def made(level: str, num: int) -> Tensor:
        def of(seeds: range) -> Tensor:
            return of_seeds(folder, seeds, level, wanted.strength, compute)

        return cached(cache, level, num, of, world=world, say=say, shard=SHARD)

    return torch.cat([made(level, num) for level, num in wanted.parts()])


def digest(folder: ModelFolder, compute: Compute) -> str:
    """Of all that decides how a model draws a scene."""
    words = sha256((folder.place("tokenizer") / "tokenizer.json").read_bytes()).hexdigest()
    of: dict[str, object] = {"words": words, "sampler": repr(folder.sampler)}
    for part in (part for part in DECIDE if part in folder.index):
        of |= {part: folder.config(part), f"{part} weights": folder.sha256(part)}
    of |= {"space": folder.latent_space, "geometry": asdict(shown(folder))}
    of |= {"dtype": compute.dtype, "renderer": RENDERER}
    if folder.config("interpolation").get("sample", {}).get("refine"):
        of["refined"] = refine.VERSION
    return sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:12]


def of_seeds(
    folder: ModelFolder,
    seeds: range,
    level: str,
    strength: tuple[float, float],
    compute: Compute,
) -> Tensor:
    """`n c t h w` of these scenes, under captions drawn anew; all begin with as much noise."""
    draw = random.Random(f"redrawn/{level}/{seeds.start}")
    scenes = [sample_scene(seed, level=level) for seed in seeds]
    captions = [caption(scene, draw) for scene in scenes]
    made = redraw(scenes, captions, folder, draw.uniform(*strength), compute=compute)
    return torch.stack([record.torch("latents") for record in made])
