"""Claim b: three frames at once against frames one by one that are told which of them are keyframes
(§3.3 of the paper). Expected: no worse, in under a third of the time; and both better than blending
the neighbors.

Test scenes are rendered at 8 frames a second and encoded; every fourth latent is told, the three
between are made by each way, and all are decoded by the image decoder. Their signal-to-noise ratio
is against the rendered frames, so even the true latents, decoded, have one: the ceiling.

What a way costs is counted as well as timed: calls of the network, the pictures it computes in them
(a group is one picture for the grouped network and five for the masked one), and FLOPs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.claim_report import Check, Figure, difference, write
from benchmarks.fusion_frames import SYSTEM, clips
from benchmarks.fusion_frames.clips import SIZE, Size
from benchmarks.plot import Point, plot_lines
from vidgen.io.record import Record
from vidgen.metrics.fidelity import error_change, psnr, ssim
from vidgen.nn.unet import UNet
from vidgen.stages.base import Compute
from vidgen.systems.base import INTERPOLATIONS, ModelFolder

CLAIM = "grouped"
NETWORKS = tuple(INTERPOLATIONS)
THIRD = 1 / 3


@dataclass(frozen=True)
class Settings:
    """How many clips, and of what size."""

    clips: int = 64
    seeds: tuple[int, ...] = (0, 1, 2)  # of the sampling
    size: Size = SIZE
    batch_size: int = 16
    timed: int = 5  # runs of each network, in turn


SMOKE = Settings(clips=2, seeds=(0, 1), size=Size(9, 16, 32), timed=2)


def run(out: Path, models: dict[str, ModelFolder], settings: Settings) -> dict[str, Any]:
    """models: "grouped" and "masked", whose autoencoder is the same."""
    told = asdict(settings) | {
        name: models[name].identity(component) for name, component in INTERPOLATIONS.items()
    }
    report = write(out, SYSTEM, CLAIM, told, lambda: measure(models, settings))
    plot(report, out / f"fusion-frames-{CLAIM}.png")
    return report


def measure(
    models: dict[str, ModelFolder], settings: Settings
) -> tuple[dict[str, Any], list[Check]]:
    compute = Compute("cpu", batch_size=settings.batch_size)
    true_records = clips.rendered(settings.clips, settings.size)
    true = clips.frames_of(true_records)
    latents = clips.encoded(true_records, models["grouped"], compute)

    scores = {
        "true latents": scored(clips.decoded(latents, models["grouped"], compute), true),
        "linear": ways("linear", latents, models["grouped"], true, compute, (0,)),
    }
    for name in NETWORKS:
        scores[name] = ways(name, latents, models[name], true, compute, settings.seeds)
    cost = costs(latents[: settings.batch_size], models, compute, settings.timed)
    figures = {
        "scores": {
            name: {k: Figure.of(v).to_dict() for k, v in found.items()}
            for name, found in scores.items()
        },
        "true_jerkiness": Figure.of(clips.jerkiness(true).tolist()).to_dict(),
        "costs": cost,
        "by_seed": {
            name: [
                float(Figure.of(part).mean)
                for part in _chunks(scores[name]["middle_psnr"], settings.clips)
            ]
            for name in NETWORKS
        },
    }
    of_clips = {name: _mean_of_seeds(found, settings.clips) for name, found in scores.items()}
    middle = {name: found["middle_psnr"] for name, found in of_clips.items()}
    jerks = {name: found["jerkiness_error"] for name, found in of_clips.items()}
    checks = [
        difference("grouped − linear, middle frames, dB", middle["grouped"], middle["linear"],
                   side="above"),
        difference("masked − linear, middle frames, dB", middle["masked"], middle["linear"],
                   side="above"),
        Check("grouped − masked, middle frames, dB (no worse by a tenth)", "above",
              Figure.of(a - b for a, b in zip(middle["grouped"], middle["masked"], strict=True)),
              -0.1),
        difference("grouped − masked, distance to the true jerkiness, levels", jerks["grouped"],
                   jerks["masked"], side="below"),
        Check("time of grouped / masked", "below", Figure.of(cost["time_ratio"]), THIRD),
    ]  # fmt: skip
    return figures, checks


def ways(
    method: str,
    latents: list[Record],
    folder: ModelFolder,
    true: Tensor,
    compute: Compute,
    seeds: tuple[int, ...],
) -> dict[str, list[float]]:
    """The scores of a way to make the frames between, seed after seed, clip by clip."""
    found: dict[str, list[float]] = {}
    for seed in seeds:
        told = [r.replace(attrs={"seed": seed}) for r in clips.keyframes(latents)]
        made = clips.interpolated(told, folder, method, compute)
        for name, values in scored(clips.decoded(made, folder, compute), true).items():
            found.setdefault(name, []).extend(values)
    return found


def scored(made: Tensor, true: Tensor) -> dict[str, list[float]]:
    """Measures of clips, one a clip; psnr and ssim of the frames between keyframes."""
    between = clips.between(made), clips.between(true)
    jerks = (clips.jerkiness(made) - clips.jerkiness(true)).abs()
    found = {
        "psnr": psnr(*between).mean(dim=1),
        "middle_psnr": psnr(clips.middle(made), clips.middle(true)).mean(dim=1),
        "ssim": ssim(*between).mean(dim=1),
        "error_change": error_change(made, true),
        "jerkiness": clips.jerkiness(made),
        "jerkiness_error": jerks,
    }
    return {name: values.tolist() for name, values in found.items()}


def costs(
    latents: list[Record], models: dict[str, ModelFolder], compute: Compute, timed: int
) -> dict[str, Any]:
    """Of a clip among these, with each network's own steps and guidance. Weights are read in every
    run, so let there be enough clips that this doesn't count."""
    told = clips.keyframes(latents)
    found: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in NETWORKS}
    for name in NETWORKS:
        with counted() as count, FlopCounterMode(display=False) as flops:
            clips.interpolated(told, models[name], name, compute)
        total = {**count, "flops": flops.get_total_flops()}
        found[name] = {key: value / len(told) for key, value in total.items()}
    for _ in range(timed):
        for name in NETWORKS:  # in turn, so that both see the same machine
            began = time.perf_counter()
            clips.interpolated(told, models[name], name, compute)
            seconds[name].append((time.perf_counter() - began) / len(told))
    for name in NETWORKS:
        found[name]["seconds"] = Figure.of(seconds[name]).to_dict()
    pairs = zip(*(seconds[name] for name in NETWORKS), strict=True)
    found["time_ratio"] = [a / b for a, b in pairs]
    found["flops_ratio"] = found["grouped"]["flops"] / found["masked"]["flops"]
    return found


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Counts what U-Nets do in the block: samples × branches that they are called with, and the
    pictures in those."""
    count = {"evaluations": 0, "pictures": 0}

    def see(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, UNet):
            z = args[0]
            count["evaluations"] += z.shape[0]
            count["pictures"] += z.shape[0] * z.shape[2]

    handle = register_module_forward_pre_hook(see)
    try:
        yield count
    finally:
        handle.remove()


def plot(report: dict[str, Any], path: Path) -> None:
    """Middle frames against what they cost; blending costs nothing."""
    scores, cost = report["figures"]["scores"], report["figures"]["costs"]
    gigaflops = {n: cost[n]["flops"] / 1e9 for n in NETWORKS} | {"linear": 0.0, "true latents": 0.0}
    lines = {}
    for name, x in gigaflops.items():
        y = scores[name]["middle_psnr"]
        lines[name] = [Point(x, y["mean"], y["low"], y["high"])]
    plot_lines(
        lines, path, title="frames halfway between keyframes, dB", x_label="GFLOP a clip"
    )  # fmt: skip


def _chunks(values: list[float], size: int) -> list[list[float]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


def _mean_of_seeds(found: dict[str, list[float]], count: int) -> dict[str, list[float]]:
    """One value a clip: a clip's seeds are no new clips."""
    return {
        name: torch.tensor(values).view(-1, count).mean(dim=0).tolist()
        for name, values in found.items()
    }
