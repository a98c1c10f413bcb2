"""Train the judge of the world: rendered clips in, what they show out.

Clips are roughened as videos are on their way to a judge: rendered larger and shrunk, blurred,
compressed, noisy, brighter or darker. No generated clip is ever seen here.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vidgen.errors import UsageError
from vidgen.metrics import judge
from vidgen.metrics.judge import HEIGHT, STRIDE, TIMES, WIDTH, JudgeConfig, WorldJudge
from vidgen.metrics.world_accuracy import Asked, mark, tally
from vidgen.train.recipe import section
from vidgen.train.task import Modules, Task, generator, share
from vidgen.train.tasks.roughen import roughened
from vidgen.world import motion
from vidgen.world.parts import Scene
from vidgen.world.render import render
from vidgen.world.scene import VALIDATION_SEEDS, sample_scene

ROWS, COLUMNS = HEIGHT // STRIDE, WIDTH // STRIDE
MOST = 3  # objects in a scene
SPREAD = 0.8  # of an object's heat, in cells
BEGIN = 2**30  # where its training seeds begin: scenes that no generator was trained on
STRETCHES = 1024


@dataclass(frozen=True)
class Data:
    """Rendered clips."""

    full: float = 0.0  # share of clips of the full world; the others are of the basic one
    large: float = 0.15  # share of batches rendered at twice the size and shrunk
    rough: float = 0.85  # share that is roughened
    start: str | None = None  # a folder that holds a judge: where its weights begin


class JudgeTask(Task):
    """`model` is a `JudgeConfig`; one sample is one clip."""

    name = "judge"

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.config = section(JudgeConfig, self.recipe.model, where="model")
        self.data = section(Data, self.recipe.data, where="data")
        if self.config.level not in judge.LEVELS:
            raise UsageError(
                f"recipe: model.level is `{self.config.level}`",
                next=f"one of: {', '.join(judge.LEVELS)}",
            )
        if self.config.level == "basic" and self.data.full:
            raise UsageError(
                f"recipe: data.full is {self.data.full:g}, and model.level basic",
                why="a judge of the basic world has no names for what the full one shows",
                next="--set model.level=full",
            )

    def build(self) -> dict[str, torch.nn.Module]:
        network = WorldJudge(self.config)
        if self.data.start is not None:
            network.load_state_dict(judge.load_judge(Path(self.data.start)).state_dict())
        return {"judge": network.to(memory_format=torch.channels_last)}  # type: ignore[call-overload]

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        scenes, clips = self._shown(step, rank, share(self.recipe.batch_size, rank, world))
        return {"clips": clips, **self._truth(scenes)}

    def _shown(self, step: int, rank: int, rows: range) -> tuple[list[Scene], Tensor]:
        """Scenes of these rows of a batch, and clips of them as the judge is shown them."""
        draw = random.Random(f"{self.recipe.seed}/{step}/{rank}")
        # A stretch of seeds for each seed of a recipe: going on with another one repeats no clip.
        first = BEGIN + self.recipe.seed % STRETCHES * (BEGIN // STRETCHES)
        first += step * self.recipe.batch_size
        scenes = [
            sample_scene(
                first + row,
                level="full" if draw.random() < self.data.full else "basic",
                held_out=True,  # a judge of combinations that no generator saw must know them
            )
            for row in rows
        ]
        clips = self._rendered(scenes, 2 if draw.random() < self.data.large else 1)
        rough = generator(self.recipe.seed, "rough", step, rank)
        kept = torch.rand(len(clips), generator=rough) >= self.data.rough
        return scenes, torch.where(kept[:, None, None, None, None], clips, roughened(clips, rough))

    def _rendered(self, scenes: list[Scene], scale: int) -> Tensor:
        frames = render(scenes, times=TIMES, height=HEIGHT * scale, width=WIDTH * scale).frames
        return frames if scale == 1 else torch.stack([judge.prepared(clip) for clip in frames])

    def _truth(self, scenes: list[Scene]) -> dict[str, Tensor]:
        """Object by object, `b 3`: cell (−1 where there is none) and factors, `b 3 2`: place across
        and log depth at the start; heat `b n`; ground and camera `b`."""
        values = judge.LEVELS[self.config.level]
        cells = torch.full((len(scenes), MOST), -1)
        starts = torch.zeros(len(scenes), MOST, 2)
        factors = {name: torch.zeros_like(cells) for name in judge.OBJECT_FACTORS}
        heat = torch.zeros(len(scenes), ROWS, COLUMNS)
        grid = torch.stack(
            torch.meshgrid(torch.arange(ROWS) + 0.5, torch.arange(COLUMNS) + 0.5, indexing="ij")
        )
        for i, scene in enumerate(scenes):
            moments = [0.0, scene.duration_s / 2]
            path = motion.camera_path(scene.camera, moments)
            for n, thing in enumerate(scene.objects):
                center = motion.object_path(thing, moments).center
                (x0, _, z0), (x, y, _) = motion.project(path, center, WIDTH / HEIGHT).tolist()
                row = min(max(y * ROWS, 0.0), ROWS - 1e-3)
                column = min(max(x * COLUMNS, 0.0), COLUMNS - 1e-3)
                cells[i, n] = int(row) * COLUMNS + int(column)
                starts[i, n] = torch.tensor([min(max(x0, -1.0), 2.0), math.log(max(z0, 0.1))])
                for name in judge.OBJECT_FACTORS:
                    factors[name][i, n] = values[name].index(getattr(thing, name))
                away = (grid[0] - row).square() + (grid[1] - column).square()
                heat[i] = torch.maximum(heat[i], (-away / (2 * SPREAD**2)).exp())
        return {
            "cells": cells,
            "starts": starts,
            "heat": heat.flatten(1),
            **factors,
            "ground": torch.tensor([values["ground"].index(s.ground) for s in scenes]),
            "camera": torch.tensor([values["camera"].index(s.camera.camera) for s in scenes]),
        }

    def loss(
        self, modules: Modules, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        out = modules["judge"](judge.normalized(batch["clips"]))
        out = {name: x.float() for name, x in out.items()}
        there = batch["cells"] >= 0
        at = batch["cells"].clamp(min=0)
        losses = {
            "heat": F.binary_cross_entropy_with_logits(out["heat"], batch["heat"], reduction="sum")
            / len(at)
            * 0.2,
            "start": 2 * (_at(out["start"], at) - batch["starts"])[there].square().mean(),
        }
        for name in judge.OBJECT_FACTORS:
            losses[name] = F.cross_entropy(_at(out[name], at)[there], batch[name][there])
        for name in judge.CLIP_FACTORS:
            losses[name] = F.cross_entropy(out[name], batch[name])
        return torch.stack(list(losses.values())).sum(), {k: v.detach() for k, v in losses.items()}

    @torch.no_grad()
    def evaluate(self, modules: Modules, step: int) -> dict[str, float]:
        """Share of factors read rightly in held-out clips of its level, clean and rough."""
        network = cast(WorldJudge, modules["judge"])
        start = VALIDATION_SEEDS.start
        level = self.config.level
        scenes = [sample_scene(s, level=level, num_events=1) for s in range(start, start + 512)]
        wanted = [Asked.of_scene(scene) for scene in scenes]
        clean = self._rendered(scenes, 1)
        scores: dict[str, float] = {}
        for kind, clips in (
            ("clean", clean),
            ("rough", roughened(clean, generator(0, "rough validation"))),
        ):
            marks = [
                mark(verdict, asked, counted=level == "full")
                for i in range(0, len(scenes), 64)
                for verdict, asked in zip(
                    network.judge(clips[i : i + 64]), wanted[i : i + 64], strict=True
                )
            ]
            scores |= {f"{kind}_{name}": share["share"] for name, share in tally(marks).items()}
        return scores

    def sample_sheet(self, modules: Modules, path: Path) -> None:
        """What it is shown: roughened clips, one a row."""
        from vidgen.io.image import write_png

        _, clips = self._shown(0, 0, range(12))
        write_png(path, rearrange(clips, "b t h w c -> (b h) (t w) c").numpy())

    def export(self, modules: Modules, folder: Path) -> None:
        """`config.json` and `model.safetensors`."""
        network = cast(WorldJudge, modules["judge"])
        config = {"_class_name": "WorldJudge"} | network.config.to_dict()
        self.write_component(folder, config, network, filename="model.safetensors")


def _at(cells: Tensor, at: Tensor) -> Tensor:
    """`b n k` and cell numbers `b m` → what those cells say, `b m k`."""
    return cells.gather(1, at[..., None].expand(-1, -1, cells.shape[-1]))
