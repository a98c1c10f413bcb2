"""Small FITs on pixels of the world, trained alike but for one thing, and what is measured of each:
what claims a, c and e share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from benchmarks.claim_report import once, place
from vidgen.diffusion import losses
from vidgen.diffusion.level import Level
from vidgen.diffusion.noise import Noise
from vidgen.io.weights import sha256
from vidgen.metrics import world_features
from vidgen.metrics.frechet import frechet_distance
from vidgen.metrics.judge import SHIPPED, WorldJudge, load_judge, prepared
from vidgen.metrics.world_accuracy import Asked, mark, tally
from vidgen.nn.fit import FITConfig
from vidgen.systems.base import ModelFolder
from vidgen.train import checkpoint
from vidgen.train.export import build
from vidgen.train.loop import train
from vidgen.train.recipe import Optim, Recipe, Schedule
from vidgen.train.task import Modules, make_task
from vidgen.train.tasks.captioned import CaptionedTask
from vidgen.train.tasks.snap_video import SnapPixelsTask
from vidgen.world.captions import caption
from vidgen.world.parts import Scene
from vidgen.world.render import render
from vidgen.world.scene import TEST_SEEDS, sample_scene

CHUNK = 32  # clips sampled at once
JUDGE = SHIPPED / "basic"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes and budgets of an arm; `elapsed_s` in the report is what each training took."""

    steps: int = 350
    batch_size: int = 16
    num: int = 2048  # training clips, cached
    num_frames: int = 16  # as the paper's, and as the features want
    height: int = 16
    width: int = 24
    fps: float = 8.0
    sampling_steps: int = 12
    clips: int = 32  # sampled for one distance
    groups: int = 4  # distances, each of other clips
    real: int = 128  # rendered clips that they are distances to
    model: dict[str, Any] = field(
        default_factory=lambda: {
            "patch": [1, 4, 4], "group": [16, 4, 3], "dim": 64, "latents": 32, "latent_dim": 96,
            "context_dim": 96, "text_dim": 128, "blocks": 3, "global_layers": 1, "head_dim": 32,
            "latent_head_dim": 32, "dropout": 0.0,
        }
    )  # fmt: skip

    @property
    def config(self) -> dict[str, Any]:
        sizes = {"num_frames": self.num_frames, "height": self.height, "width": self.width}
        return FITConfig(**{**self.model, **sizes}).to_dict()


# What an arm is made of in seconds.
TINY: dict[str, Any] = {
    "steps": 2, "batch_size": 2, "num": 16, "height": 8, "width": 12, "sampling_steps": 2,
    "clips": 4, "groups": 2, "real": 8,
    "model": {
        "patch": [1, 4, 4], "group": [16, 2, 3], "dim": 32, "latents": 4, "latent_dim": 32,
        "context_dim": 32, "text_dim": 128, "blocks": 1, "global_layers": 1, "head_dim": 16,
        "latent_head_dim": 16, "dropout": 0.0,
    },
}  # fmt: skip


class UnrelatedFramesTask(SnapPixelsTask):
    """Clips without redundancy in time: each frame is of another scene, and nothing is said."""

    name = "unrelated-frames"

    def prepare(self, modules: Modules, say) -> None:
        super().prepare(modules, say)
        self.video, self.held = unrelated(self.video), unrelated(self.held)


class ImagesApartTask(SnapPixelsTask):
    """Images not as videos (table 3's opponent of images as videos): as a process of single images
    has them, they are not shrunk, and all repetitions share their noise, so that there is no more
    to see than in one."""

    name = "images-apart"

    def loss(
        self, modules: Modules, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        x0, level = self.x0(batch), self.draw_levels(len(batch["frames"]), generator)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        eps, level = apart(eps, level, ~batch["times"].any(dim=1))
        cond, network = self.told(modules, batch, generator), self.trained(modules, generator)
        return losses.training_loss(network, self.prediction, x0, cond, level, eps).mean(), {}


def apart(eps: Tensor, level: Level, image: Tensor) -> tuple[Tensor, Level]:
    """Noise `b c t h w` and levels, with those of images as of single ones."""
    once = eps[:, :, :1].expand_as(eps)
    eps = torch.where(image.view(-1, 1, 1, 1, 1), once, eps)
    return eps, level._replace(alpha=torch.where(image, 1.0, level.alpha))


def unrelated(video: Tensor) -> Tensor:
    """`b t h w 3` → the same frames, each in its place in time, of another clip each."""
    frames = [frame.roll(t, dims=0) for t, frame in enumerate(video.unbind(1))]
    return torch.stack(frames, dim=1)


def recipe(
    settings: Settings,
    folder: ModelFolder,
    cache: Path,
    *,
    task: str = "snap-video-pixels",
    seed: int = 0,
    model: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    loss: dict[str, Any] | None = None,
) -> Recipe:
    """Of one arm: what is given here is what it has of its own. `folder`: whose text it reads."""
    s = settings
    shared = {
        "text": str(folder.path), "cache": str(cache), "num": s.num, "num_held": min(64, s.real),
        "images": 0.0, "coarse": 0.0, "canonical": 0.5, "num_frames": s.num_frames,
        "height": s.height, "width": s.width, "fps": [s.fps],
    }  # fmt: skip
    return Recipe(
        task=task, model=s.config | (model or {}), data=shared | (data or {}),
        loss={"steps": s.sampling_steps} | (loss or {}), optim=Optim(lr=1e-3),
        schedule=Schedule(warmup_steps=min(20, s.steps // 2)), steps=s.steps,
        batch_size=s.batch_size, ema=0.98, dtype="bfloat16", eval_every=0, sample_every=0,
        checkpoint_every_s=30.0, seed=seed,
    )  # fmt: skip


def arm(
    name: str,
    wanted: Recipe,
    settings: Settings,
    runs: Path,
    measure: Callable[[Any, Modules], dict[str, Any]],
) -> dict[str, Any]:
    """Train an arm, or go on where it was stopped, and measure it: measure(task, modules) → what is
    kept beside the run, and not measured again for the same settings."""
    here = place(runs, name, wanted.to_dict())

    def made() -> dict[str, Any]:
        result = train(wanted, here, device="cpu")
        task = make_task(wanted)
        modules = build(task)
        checkpoint.load_ema(checkpoint.checkpoints(here)[-1], modules)
        for module in modules.values():
            module.eval().requires_grad_(False)
        found = measure(task, modules)
        cost = {"samples": result.samples, "elapsed_s": round(result.elapsed_s, 1)}
        return {**found, **result.measures, **cost}

    told = asdict(settings) | {"recipe": wanted.to_dict(), **judges()}
    kept = once(here / "measured.json", told, made)
    row = {"arm": name, **{k: v for k, v in kept.items() if k != "settings"}}
    print({k: v for k, v in row.items() if not isinstance(v, dict | list)}, flush=True)
    return row


def judges() -> dict[str, str]:
    """What the distances and the shares depend on beside the clips."""
    return {
        "features": sha256(world_features.SHIPPED / "model.safetensors"),
        "judge": sha256(JUDGE / "model.safetensors"),
    }


class Real:
    """Rendered test clips, and how far others are from them."""

    def __init__(self, settings: Settings, *, mixed: bool = False) -> None:
        self.settings, self.mixed = settings, mixed
        self.extract = world_features.load()
        self.judge = load_judge(JUDGE)
        s, count = settings, max(settings.real, settings.clips * settings.groups)
        self.seeds = range(TEST_SEEDS.start, TEST_SEEDS.start + count)
        self.scenes = [sample_scene(seed, level="basic") for seed in self.seeds]
        self.frames = rendered(s, self.seeds[: s.real])
        if mixed:
            self.frames = unrelated(self.frames)
        self.features = self.extract(self.frames)

    def sampled(self, task: SnapPixelsTask, modules: Modules) -> list[Tensor]:
        """Clips uint8 `b t h w 3` of these captions, a group at a time."""
        s = self.settings
        task.sampler = replace(
            task.sampler, guidance_scale=1.0
        )  # costs half, and is one thing less
        return [
            sampled(task, modules, self.seeds[i * s.clips : (i + 1) * s.clips], told=not self.mixed)
            for i in range(s.groups)
        ]

    def distances(self, groups: Sequence[Tensor]) -> list[float]:
        """The Fréchet distance of each group's clips."""
        return [frechet_distance(self.extract(group), self.features) for group in groups]

    def judged(self, groups: Sequence[Tensor]) -> dict[str, float]:
        """Shares of clips that the judge finds right, as evaluate-world tells them."""
        frames = torch.cat(list(groups))
        return judged(self.judge, frames, self.scenes[: len(frames)])


def sampled(
    task: CaptionedTask, modules: Modules, seeds: Sequence[int], *, told: bool = True
) -> Tensor:
    """Clips uint8 `b t h w 3` of the captions of these scenes, or of no caption."""
    made = []
    for part in _parts(seeds):
        said = [caption(sample_scene(seed, level="basic")) if told else "" for seed in part]
        noise = Noise([(seed, str(seed)) for seed in part], stage="claim")
        z = task.sampled(modules, said, noise, {})
        made.append(rearrange(task.frames(modules, z), "b c t h w -> b t h w c").contiguous())
    return torch.cat(made)


def judged(judge: WorldJudge, frames: Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
    """Shares of clips that the judge finds right, as evaluate-world tells them."""
    looked = torch.stack([prepared(clip) for clip in frames])
    verdicts = [v for part in looked.split(CHUNK) for v in judge.judge(part)]
    marks = [
        mark(verdict, Asked.of_scene(scene), counted=False)
        for verdict, scene in zip(verdicts, scenes, strict=True)
    ]
    return {name: share["share"] for name, share in tally(marks).items()}


def rendered(settings: Settings, seeds: Sequence[int]) -> Tensor:
    """Frames uint8 `b t h w 3` of these scenes."""
    s, scenes = settings, [sample_scene(seed, level="basic") for seed in seeds]
    times = [i / s.fps for i in range(s.num_frames)]
    return render(scenes, times=times, height=s.height, width=s.width).frames


def _parts(seeds: Sequence[int]) -> Iterator[Sequence[int]]:
    for i in range(0, len(seeds), CHUNK):
        yield seeds[i : i + CHUNK]
