"""Claim a: temporal parts as blocks of their own, behind the spatial ones, against temporal layers
inside them (§3.2 and table 1 of the paper). Expected: blocks are better.

A text-to-image U-Net is trained on keyframes as pictures and frozen; each kind of temporal parts is
trained on top of it, for the same steps on the same clips, with equally many parameters (the layers
are widened, see `keyframes_task.equalized`). A seed is another start and another order of clips.

    val_loss    error of the velocity on held-out clips, the same noise levels for both
    distance    Fréchet distance of what the judge of pixels sees in sampled clips, and in rendered
                ones of the same captions; comparable among themselves only
    path        test clips are noised to `level` and sampled from there; pixels from where their
                object is in truth. `path_floor` is that of the true clips, encoded and decoded
    all, …      shares of sampled clips that the judge finds right
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from benchmarks.claim_report import Check, Figure, difference, once, place, write
from benchmarks.fusion_frames import SYSTEM
from benchmarks.fusion_frames.keyframes_task import UNetKeyframesTask, equalized
from benchmarks.fusion_frames.paths import path_error
from benchmarks.plot import Point, plot_lines
from vidgen.io.weights import sha256
from vidgen.metrics.frechet import frechet_distance
from vidgen.metrics.judge import SHIPPED, WorldJudge, load_judge, normalized, prepared
from vidgen.metrics.world_accuracy import Asked, mark, tally
from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.nn.pixels import from_uint8, to_uint8
from vidgen.nn.unet import UNet, UNetConfig, temporal_parameters
from vidgen.systems import world
from vidgen.systems.base import Geometry, ModelFolder
from vidgen.systems.fusion_frames import WORLD
from vidgen.train import checkpoint
from vidgen.train.export import build
from vidgen.train.loop import train
from vidgen.train.recipe import Optim, Recipe, Schedule
from vidgen.train.task import Modules
from vidgen.world.render import geometry, render
from vidgen.world.scene import TEST_SEEDS, sample_scene

CLAIM = "blocks"
TASK = "benchmarks.fusion_frames.keyframes_task:UNetKeyframesTask"
VARIANTS = {"layers": "conv1d_attn1d_layers", "blocks": "conv1d_attn1d_blocks"}
MEASURES = {"val_loss": "held-out loss", "distance": "Fréchet distance", "path": "path error, px"}
PIXELS = (40, 64)
CHUNK = 32  # clips sampled at once
JUDGE = SHIPPED / "basic"


@dataclass(frozen=True)
class Settings:
    """Sizes and budgets; `elapsed_s` in the report is what each training took."""

    pictures_steps: int = 1000  # of the text-to-image network
    steps: int = 500  # of each kind of temporal parts
    seeds: tuple[int, ...] = (0, 1, 2)
    batch_size: int = 16
    lr: float = 1e-3
    prediction: str = "x0"
    num: int = 8192  # training clips, cached
    num_frames: int = 5
    pixels: tuple[int, int] = PIXELS
    clips: int = 256  # test clips sampled and judged
    paths: int = 128  # of them, restored from noise
    level: float = 0.8
    model: dict[str, Any] = field(default_factory=lambda: WORLD["pictures"].to_dict())

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.num_frames, *self.pixels, 2.0)

    def config(self, variant: str) -> UNetConfig:
        return UNetConfig(**{**self.model, "variant": variant})


SMOKE = Settings(
    pictures_steps=2, steps=2, seeds=(0, 1), batch_size=4, num=16, pixels=(16, 32), clips=4,
    paths=2,
    model=WORLD["pictures"].to_dict() | {
        "init_channels": 16, "widths": (16, 32), "head_dim": 8, "groups": 4, "time_dim": 32,
    },
)  # fmt: skip


def run(
    out: Path, folder: ModelFolder, settings: Settings, runs: Path, cache: Path
) -> dict[str, Any]:
    """folder: whose autoencoder and text encoder the networks work with. Trains in `runs`; what is
    trained there already for these settings is not trained again."""
    told = asdict(settings) | {
        "latent_space": folder.latent_space, "text_encoder": folder.text_encoder,
        "judge": judge_sha256(),
    }  # fmt: skip
    report = write(out, SYSTEM, CLAIM, told, lambda: measure(folder, settings, runs, cache))
    plot(report, out / f"fusion-frames-{CLAIM}.png")
    return report


def judge_sha256() -> str:
    """Of the weights that see the features and judge the clips."""
    return sha256(JUDGE / "model.safetensors")


def measure(
    folder: ModelFolder, settings: Settings, runs: Path, cache: Path
) -> tuple[dict[str, Any], list[Check]]:
    def recipe_of(variant: str, steps: int, seed: int, start: Path | None) -> Recipe:
        return recipe(folder, settings, variant, steps, seed=seed, start=start, cache=cache)

    wanted = recipe_of("spatial", settings.pictures_steps, 0, None)
    pictures = place(runs, "pictures", wanted.to_dict())
    train(wanted, pictures, device="cpu")
    scenes = TestScenes(folder, settings)
    rows = []
    for seed in settings.seeds:
        for name, variant in VARIANTS.items():
            wanted = recipe_of(variant, settings.steps, seed, pictures / "model")
            here = place(runs, f"{name}-{seed}", wanted.to_dict())
            kept = once(
                here / "measured.json",
                asdict(settings) | {"recipe": wanted.to_dict(), "judge": judge_sha256()},
                lambda r=wanted, p=here, s=seed: measured(r, p, s, scenes),
            )
            row = {"variant": name, "seed": seed, **kept}
            rows.append({k: v for k, v in row.items() if k != "settings"})
            print({k: v for k, v in rows[-1].items() if not isinstance(v, dict)}, flush=True)
    count = parameters(settings)
    figures = {
        "parameters": count,
        "temporal_ratio": count["layers"]["temporal"] / count["blocks"]["temporal"],
        "rows": rows,
        "path_floor": Figure.of(scenes.path_floor).to_dict(),
        **{m: {v: Figure.of(_of(rows, v, m)).to_dict() for v in VARIANTS} for m in MEASURES},
    }
    return figures, checks(rows)


def checks(rows: Sequence[dict[str, Any]]) -> list[Check]:
    """That blocks have less of each measure."""
    return [
        difference(f"{said}, blocks − layers, by seed", _of(rows, "blocks", m),
                   _of(rows, "layers", m), side="below")
        for m, said in MEASURES.items()
    ]  # fmt: skip


def _of(rows: Sequence[dict[str, Any]], variant: str, measure: str) -> list[float]:
    return [r[measure] for r in rows if r["variant"] == variant]


def recipe(
    folder: ModelFolder, settings: Settings, variant: str, steps: int, *, seed: int,
    start: Path | None, cache: Path,
) -> Recipe:  # fmt: skip
    s = settings
    return Recipe(
        task=TASK,
        model=s.config(variant).to_dict(),
        data={
            "vae": str(folder.path), "text": str(folder.path), "cache": str(cache), "num": s.num,
            "start": start and str(start), "num_frames": s.num_frames, "height": s.pixels[0],
            "width": s.pixels[1],
        },
        loss={"prediction": s.prediction},
        optim=Optim(name="adamw", lr=s.lr, weight_decay=0.01),
        schedule=Schedule(warmup_steps=min(50, steps // 2)),
        steps=steps, batch_size=s.batch_size, ema=0.99, dtype="bfloat16", eval_every=0,
        sample_every=0, checkpoint_every_s=60.0, seed=seed,
    )  # fmt: skip


def parameters(settings: Settings) -> dict[str, dict[str, int]]:
    """All of a network's, and those that time alone has."""
    found = {}
    for name, variant in VARIANTS.items():
        network = UNet(settings.config(variant))
        if name == "layers":
            equalized(network)
        found[name] = {
            "all": sum(p.numel() for p in network.parameters()),
            "temporal": sum(p.numel() for p in temporal_parameters(network).values()),
        }
    return found


class TestScenes:
    """Test scenes as the measures want them: frames, latents, owners of pixels, features."""

    __test__ = False  # pytest would collect it

    def __init__(self, folder: ModelFolder, settings: Settings) -> None:
        self.settings, g = settings, settings.geometry
        self.seeds = range(TEST_SEEDS.start, TEST_SEEDS.start + settings.clips)
        self.scenes = [sample_scene(seed, level="basic") for seed in self.seeds]
        self.frames = render(
            self.scenes, times=g.times, height=g.height, width=g.width
        ).frames  # b t h w 3
        self.owners = [
            geometry(scene, g.times, g.height, g.width)[1]
            for scene in self.scenes[: settings.paths]
        ]
        self.judge = load_judge(JUDGE)
        vae = world.load_autoencoder(folder).float()
        x = from_uint8(rearrange(self.frames[: settings.paths], "b t h w c -> b c t h w"))
        with torch.no_grad():
            self.latents = torch.cat([vae.encode(part) for part in x.split(CHUNK)])
        self.features = features(self.judge, self.frames)
        self.path_floor = self.path_errors(frames_of(vae, self.latents))

    def path_errors(self, made: Tensor) -> list[float]:
        """Pixels, of each clip `t h w 3` of the first scenes."""
        return [
            path_error(m, t, o)
            for m, t, o in zip(made, self.frames, self.owners, strict=False)
        ]  # fmt: skip


def measured(recipe: Recipe, run: Path, seed: int, scenes: TestScenes) -> dict[str, Any]:
    """Train a variant, or go on where it was stopped, and measure it."""
    result = train(recipe, run, device="cpu")
    task = UNetKeyframesTask(recipe)
    modules: Modules = build(task)
    checkpoint.load_ema(checkpoint.checkpoints(run)[-1], modules)
    for module in modules.values():
        module.eval().requires_grad_(False)
    vae = modules["vae"]
    assert isinstance(vae, VideoAutoencoder)
    made, seeds = [], scenes.seeds
    for part in _parts(seeds):
        made.append(frames_of(vae, task.generated(modules, part, seed)))
    frames = torch.cat(made)
    restored = []
    for part, x0 in zip(_parts(seeds[: len(scenes.latents)]), scenes.latents.split(CHUNK),
                        strict=True):  # fmt: skip
        z = task.restored(modules, part, x0, scenes.settings.level, seed)
        restored.append(frames_of(vae, z))
    verdicts = [v for part in frames.split(CHUNK) for v in scenes.judge.judge(_prepared(part))]
    marks = [
        mark(verdict, Asked.of_scene(scene), counted=False)
        for verdict, scene in zip(verdicts, scenes.scenes, strict=True)
    ]
    paths = Figure.of(scenes.path_errors(torch.cat(restored)))
    return {
        "val_loss": result.measures["val_loss"],
        "distance": frechet_distance(features(scenes.judge, frames), scenes.features),
        "path": paths.mean,
        "paths": paths.to_dict(),
        "judged": {name: share["share"] for name, share in tally(marks).items()},
        "samples": result.samples,
        "elapsed_s": round(result.elapsed_s, 1),
    }


def _parts(seeds: Sequence[int]) -> Iterator[Sequence[int]]:
    for i in range(0, len(seeds), CHUNK):
        yield seeds[i : i + CHUNK]


def frames_of(vae: VideoAutoencoder, latents: Tensor) -> Tensor:
    """`b c t h w` → uint8 `b t h w 3`"""
    with torch.no_grad():
        return rearrange(to_uint8(vae.decode(latents)), "b c t h w -> b t h w c")


def _prepared(frames: Tensor) -> Tensor:
    return torch.stack([prepared(clip) for clip in frames])


@torch.no_grad()
def features(judge: WorldJudge, frames: Tensor) -> Tensor:
    """Clips uint8 `b t h w 3` → what the judge's last layer is told of each, the mean over cells:
    `b dim`."""
    found: list[Tensor] = []
    handle = judge.norm.register_forward_hook(lambda *call: found.append(call[2].mean(dim=1)))
    try:
        for part in frames.split(CHUNK):
            judge(normalized(_prepared(part)))
    finally:
        handle.remove()
    return torch.cat(found).float()


def plot(report: dict[str, Any], path: Path) -> None:
    """Each measure in shares of what the layers have, a point a seed."""
    rows = report["figures"]["rows"]
    lines = {}
    for x, (m, said) in enumerate(MEASURES.items()):
        base = Figure.of(_of(rows, "layers", m)).mean
        for name in VARIANTS:
            figure = Figure.of(v / base for v in _of(rows, name, m))
            spread = figure.sd if figure.n > 1 else 0.0
            where = x + (0.2 if name == "blocks" else 0.0)
            lines[f"{said.partition(',')[0].replace('é', 'e')}, {name}"] = [
                Point(where, figure.mean, figure.mean - spread, figure.mean + spread)
            ]
    plot_lines(
        lines, path, title="temporal blocks in shares of temporal layers; sd over seeds",
        x_label="measure", x_ticks=range(len(MEASURES)),
    )  # fmt: skip
