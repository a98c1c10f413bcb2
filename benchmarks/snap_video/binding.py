"""What makes a FIT bind patches to things: arms of one change each, at equal time on a CPU.

A FIT on pixels soon knows colors, ground and camera, and leaves things as scattered patches. The
first arm is the FIT without what may help; each other one on pixels has one thing more, and the one
on latents is another recipe. Nothing here is a finding of the paper, so there is no verdict.

    plain              no local layers, no latents carried over, clips alone
    self-conditioned   begins nine of ten samples with the latents of a call before
    local layers       patches of a group attend to each other before they are read
    twice the latents  128 instead of 64
    images as videos   half of the samples are one frame, of infinite frame rate
    latents            keyframes in the latents of the shipped autoencoder: `world-snap-video`, with
                       sizes and rates of its own, and no latents carried over

    curve    [seconds, samples, held-out loss] as the training went, evaluations among the seconds;
             its last third has a falling learning rate. Losses of pixels compare with each other,
             not with that of latents
    judged   shares of sampled validation clips in which the judge finds a factor right
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.claim_report import Check, place, write
from benchmarks.plot import Point, plot_lines
from benchmarks.snap_video import SYSTEM, arms
from vidgen.metrics.judge import load_judge
from vidgen.systems.base import ModelFolder
from vidgen.train.metrics import read_metrics
from vidgen.train.recipe import Recipe, load_recipe
from vidgen.world.scene import VALIDATION_SEEDS, sample_scene

CLAIM = "binding"
PIXELS, LATENTS = "world-snap-video-pixels", "world-snap-video"
PLAIN = {
    PIXELS: [
        "model.local_layers=0", "loss.self_conditioned=0", "data.images=0", "data.coarse=0",
        "data.fps=[4]",
    ],
    LATENTS: ["loss.self_conditioned=0"],
}  # fmt: skip
# Name → the recipe, and what it has of its own.
ARMS: dict[str, tuple[str, list[str]]] = {
    "plain": (PIXELS, []),
    "self-conditioned": (PIXELS, ["loss.self_conditioned=0.9"]),
    "local layers": (PIXELS, ["model.local_layers=1"]),
    "twice the latents": (PIXELS, ["model.latents=128"]),
    "images as videos": (PIXELS, ["data.images=0.5"]),
    "latents": (LATENTS, []),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The budget of each arm, on one core."""

    minutes: float = 5.0
    num: int = 4096  # training clips, cached
    clips: int = 64  # sampled and judged
    evaluations: dict[str, int] = field(default_factory=lambda: {PIXELS: 25, LATENTS: 100})  # steps
    steps: int | None = None  # instead of minutes: to see that all of it works
    more: tuple[str, ...] = ()  # overrides of all recipes


SMOKE = Settings(
    num=16, clips=4, evaluations={PIXELS: 2, LATENTS: 2}, steps=2,
    more=("batch_size=2", "loss.steps=2"),
)  # fmt: skip


def run(
    out: Path, folder: ModelFolder, settings: Settings, runs: Path, cache: Path
) -> dict[str, Any]:
    """folder: whose text encoder and autoencoder are worked with. Trains in `runs`; an arm that is
    trained there for these settings is not trained again."""
    told = asdict(settings) | {
        "text_encoder": folder.text_encoder, "latent_space": folder.latent_space, **arms.judges(),
    }  # fmt: skip
    report = write(out, SYSTEM, CLAIM, told, lambda: measure(folder, settings, runs, cache))
    plot(report, out / f"{SYSTEM}-{CLAIM}.png")
    return report


def measure(
    folder: ModelFolder, settings: Settings, runs: Path, cache: Path
) -> tuple[dict[str, Any], list[Check]]:
    judge = load_judge(arms.JUDGE)
    start = VALIDATION_SEEDS.start
    seeds = range(start, start + settings.clips)
    scenes = [sample_scene(seed, level="basic") for seed in seeds]
    rows = []
    for name in ARMS:
        wanted = recipe(name, settings, folder, cache)
        curve = place(runs, name, wanted.to_dict()) / "metrics.jsonl"
        row = arms.arm(
            name, wanted, settings, runs,
            lambda task, modules, curve=curve: {
                "curve": read_curve(curve),
                "judged": arms.judged(judge, arms.sampled(task, modules, seeds), scenes),
            },
        )  # fmt: skip
        rows.append(row)
    return {"rows": rows}, []


def recipe(name: str, settings: Settings, folder: ModelFolder, cache: Path) -> Recipe:
    """Of an arm: the shipped recipe, made plain, and what the arm has of its own."""
    s, (source, own) = settings, ARMS[name]
    budget = [f"steps={s.steps}", "minutes=null"] if s.steps else [f"minutes={s.minutes}"]
    parts = [f"data.text={folder.path}"] + [f"data.vae={folder.path}"] * (source == LATENTS)
    return load_recipe(source, overrides=[
        f"data.cache={cache}", f"data.num={s.num}", *parts, *PLAIN[source], *own, *budget,
        f"eval_every={s.evaluations[source]}", f"log_every={s.evaluations[source]}",
        "sample_every=0", "checkpoint_every_s=30",
        "schedule.warmup_steps=20", "schedule.decay_fraction=0.33", "ema=0.98",
        "ema_half_life=null", "data.canonical=0.5", *s.more,
    ])  # fmt: skip


def read_curve(path: Path) -> list[list[float]]:
    """[seconds, samples, held-out loss] of each evaluation in metrics.jsonl: seconds of the last
    step that was logged, and those of the samples since at the pace that it had."""
    curve, last = [], None
    for row in read_metrics(path):
        if "seconds" in row:
            last = row
        elif "eval.val_loss" in row and last is not None:
            since = (row["samples"] - last["samples"]) / last["samples_per_s"]
            curve.append([last["seconds"] + since, row["samples"], row["eval.val_loss"]])
    return curve


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Held-out losses against minutes, in logarithms: they fall by three quarters."""
    lines = {
        row["arm"]: [Point(s / 60, math.log10(loss)) for s, _, loss in row["curve"] if s]
        for row in report["figures"]["rows"]
    }
    plot_lines(
        lines, path, title="log10 of held-out error of the velocity; latents have another scale",
        x_label="minutes of one core",
    )  # fmt: skip
