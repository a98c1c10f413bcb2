"""Train the network of features: rendered clips in; what they show, and what was done to them, out.

Every scene comes as several clips: one as it was rendered, the others distorted, so that the
network learns what a distortion is apart from the scene. No generated clip is ever seen here.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from vidgen.errors import UsageError
from vidgen.metrics import judge
from vidgen.metrics.world_features import (
    FRAMES,
    HEIGHT,
    WIDTH,
    FeatureNetwork,
    FeaturesConfig,
)
from vidgen.train.recipe import section
from vidgen.train.task import Modules, Task, generator, share
from vidgen.train.tasks.distort import KINDS, TIMING, distorted
from vidgen.world import motion
from vidgen.world.parts import Scene
from vidgen.world.render import frame_times, render
from vidgen.world.scene import VALIDATION_SEEDS, sample_scene
from vidgen.world.vocabulary import FULL

BEGIN = 2**29  # where its training seeds begin
STRETCHES = 1024
FPS = 8
RENDERED = 17  # frames, of which it is shown 16
PLACES = 6  # of the middle of all objects: x, y, log depth at the start, and how much they change

# Weights of the losses: what was done to a clip first, then what it shows.
STRENGTHS, SHOWN = 200.0, 0.25


@dataclass(frozen=True)
class Data:
    """Rendered clips."""

    full: float = 0.5  # share of scenes of the full world; the others are of the basic one
    large: float = 0.15  # share of batches rendered at twice the size and shrunk
    versions: int = 4  # clips of each scene: one as it is, the others distorted


class Heads(nn.Module):
    """What is read off the features, each by one linear map."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.shown = nn.ModuleDict({k: nn.Linear(features, len(v)) for k, v in FULL.items()})
        self.places = nn.Linear(features, PLACES)
        self.strengths = nn.Linear(features, len(KINDS))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        shown = {name: head(features) for name, head in self.shown.items()}
        return {
            **shown,
            "places": self.places(features),
            "strengths": self.strengths(features),
        }


class FeaturesTask(Task):
    """`model` is a `FeaturesConfig`; one sample is one clip."""

    name = "features"

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.config = section(FeaturesConfig, self.recipe.model, where="model")
        self.data = section(Data, self.recipe.data, where="data")
        if self.data.versions < 1 or self.recipe.batch_size % self.data.versions:
            raise UsageError(
                f"recipe: data.versions is {self.data.versions}, "
                f"batch_size {self.recipe.batch_size}",
                why="a batch holds all versions of its scenes",
                next="make batch_size a multiple of data.versions",
            )

    def build(self) -> dict[str, nn.Module]:
        network = FeatureNetwork(self.config)
        network.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return {"features": network, "heads": Heads(self.config.features)}

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        versions = self.data.versions
        rows = share(self.recipe.batch_size // versions, rank, world)
        draw = random.Random(f"{self.recipe.seed}/{step}/{rank}")
        # A stretch of seeds for each seed of a recipe: going on with another one repeats no clip.
        first = BEGIN + self.recipe.seed % STRETCHES * (BEGIN // STRETCHES)
        first += step * self.recipe.batch_size // versions
        scenes = [
            sample_scene(first + row, level="full" if draw.random() < self.data.full else "basic")
            for row in rows
        ]
        random_ = generator(self.recipe.seed, "distort", step, rank)
        clean = rendered(scenes, draw.randrange(3), large=draw.random() < self.data.large)
        strengths = drawn(len(scenes) * versions, random_)
        strengths[::versions] = 0
        clips = distorted(repeat(clean, "b ... -> (b v) ...", v=versions), strengths, random_)
        known = {name: x.repeat_interleave(versions, 0) for name, x in truth(scenes).items()}
        return {"clips": clips, "strengths": strengths, **known}

    def loss(
        self, modules: Modules, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        features = modules["features"](judge.normalized(batch["clips"])).float()
        out = {k: x.float() for k, x in modules["heads"](features).items()}
        kinds = list(KINDS)
        timing = batch["strengths"][:, [kinds.index(kind) for kind in TIMING]]
        steady = (timing.sum(dim=1) == 0).float()  # motions are what they were
        losses = {
            "strengths": STRENGTHS * (out["strengths"] - batch["strengths"]).square().mean(),
            "places": 2 * _mean((out["places"] - batch["places"]).square().mean(dim=1), steady),
            "size": 1e-3 * features.square().mean(),
        }
        for name in FULL:
            wrong = F.binary_cross_entropy_with_logits(out[name], batch[name], reduction="none")
            weight = steady if name in ("motion", "camera") else torch.ones_like(steady)
            losses[name] = SHOWN * _mean(wrong.sum(dim=1), weight)
        return torch.stack(list(losses.values())).sum(), {k: v.detach() for k, v in losses.items()}

    @torch.no_grad()
    def evaluate(self, modules: Modules, step: int) -> dict[str, float]:
        """Of held-out clips of the basic world: share of factors read rightly, and for each kind
        how well strengths are told apart (correlation with the truth)."""
        seeds = range(VALIDATION_SEEDS.start, VALIDATION_SEEDS.start + 64)
        scenes = [sample_scene(seed) for seed in seeds]
        clean, known = rendered(scenes, 0), truth(scenes)
        out = self._read(modules, clean)
        scores = {
            name: float((out[name].argmax(1) == known[name].argmax(1)).float().mean())
            for name in FULL
        }
        for i, kind in enumerate(KINDS):
            random_ = generator(0, "validation", kind)
            amounts = torch.linspace(0, 1, len(scenes))
            if kind == "reverse":
                amounts = amounts.round()
            strengths = torch.zeros(len(scenes), len(KINDS))
            strengths[:, i] = amounts
            said = self._read(modules, distorted(clean, strengths, random_))["strengths"][:, i]
            scores[f"strength_{kind}"] = float(torch.corrcoef(torch.stack((said, amounts)))[0, 1])
        return scores

    def _read(self, modules: Modules, clips: Tensor) -> dict[str, Tensor]:
        parts = []
        for part in clips.split(32):
            features = modules["features"](judge.normalized(part.to(self.device)))
            parts.append(modules["heads"](features))
        return {k: torch.cat([part[k].float().cpu() for part in parts]) for k in parts[0]}

    def sample_sheet(self, modules: Modules, path: Path) -> None:
        """What it is shown, one clip a row."""
        from vidgen.io.image import write_png

        clips = self.batch(0, 0, 1)["clips"][:16]
        write_png(path, rearrange(clips, "b t h w c -> (b h) (t w) c").numpy())

    def export(self, modules: Modules, folder: Path) -> None:
        """`config.json` and `model.safetensors` of the network without its heads."""
        network = cast(FeatureNetwork, modules["features"])
        config = {"_class_name": "FeatureNetwork"} | network.config.to_dict()
        self.write_component(folder, config, network, filename="model.safetensors")


def rendered(scenes: list[Scene], way: int, *, large: bool = False) -> Tensor:
    """Clips `b 16 h w 3`: of 17 frames all but the last or the first, or evenly chosen ones, as a
    clip of 17 frames comes to the network."""
    scale = 2 if large else 1
    clips = render(
        scenes,
        times=frame_times(RENDERED, FPS),
        height=HEIGHT * scale,
        width=WIDTH * scale,
        antialias=1 if large else 2,
    ).frames
    if large:
        planes = rearrange(clips.float(), "b t h w c -> (b t) c h w")
        planes = F.interpolate(planes, (HEIGHT, WIDTH), mode="bilinear", antialias=True)
        planes = planes.round().clamp(0, 255).to(torch.uint8)
        clips = rearrange(planes, "(b t) c h w -> b t h w c", t=RENDERED)
    even = torch.linspace(0, RENDERED - 1, FRAMES).round().long()
    return (clips[:, :FRAMES], clips[:, 1:], clips[:, even])[way]


def drawn(clips: int, generator: torch.Generator) -> Tensor:
    """Strengths `clips kinds`: one kind of distortion, or in one clip of three two of them."""
    size = clips, len(KINDS)
    rank = torch.rand(size, generator=generator).argsort(dim=1).argsort(dim=1)
    count = 1 + (torch.rand(clips, 1, generator=generator) < 1 / 3).long()
    strengths = torch.where(rank < count, torch.rand(size, generator=generator), 0.0)
    reverse = list(KINDS).index("reverse")
    strengths[:, reverse] = strengths[:, reverse].ceil()  # there is no half of it
    return strengths


def truth(scenes: list[Scene]) -> dict[str, Tensor]:
    """What scenes show: for each factor the values that are there, `b values`; `places` `b 6`."""
    shown = {name: torch.zeros(len(scenes), len(values)) for name, values in FULL.items()}
    places = torch.zeros(len(scenes), PLACES)
    moments = [0.0, (FRAMES - 1) / FPS]
    for i, scene in enumerate(scenes):
        said = {
            "shape": [thing.shape for thing in scene.objects],
            "color": [thing.color for thing in scene.objects],
            "motion": [event.motion for thing in scene.objects for event in thing.events],
            "ground": [scene.ground],
            "camera": [move.camera for move in scene.camera.moves],
        }
        for name, values in FULL.items():
            for value in said[name]:
                shown[name][i, values.index(value)] = 1
        path = motion.camera_path(scene.camera, moments)
        seen = torch.zeros(2, 3)
        for thing in scene.objects:
            center = motion.object_path(thing, moments).center
            for k, (x, y, z) in enumerate(motion.project(path, center, WIDTH / HEIGHT).tolist()):
                x, y = (min(max(v, -0.5), 1.5) for v in (x, y))
                seen[k] += torch.tensor([2 * x - 1, 2 * y - 1, math.log(max(z, 0.1)) - 1])
        seen /= len(scene.objects)
        places[i] = torch.cat((seen[0], seen[1] - seen[0]))
    return {**shown, "places": places}


def _mean(x: Tensor, weight: Tensor) -> Tensor:
    return (x * weight).sum() / weight.sum().clamp(min=1)
