"""What the upsampler costs as clips get longer: a call of its network for clips of more and more
frames, against one of the shortest. It is a cost, not a finding of the paper.

Groups span all frames. In the published form, whose latents alone compute, patches times the
latents of a group is linear in the frames; local layers, which the small preset has, let patches of
a group attend to each other, which is quadratic. Time is of one thread and float32, networks and
lengths in turn; FLOPs are counted, so they say the same on every machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.claim_report import Check, Figure, write
from benchmarks.plot import Point, plot_lines
from benchmarks.snap_video import SYSTEM
from benchmarks.snap_video.fused import told
from vidgen.nn.fit import FIT, FITConfig
from vidgen.nn.meta import on_meta
from vidgen.stages.costs import flops_of
from vidgen.systems.snap_video import WORLD

CLAIM = "frames"
LINEAR = "no local layers"


@dataclass(frozen=True)
class Settings:
    """Which lengths, and how often."""

    frames: tuple[int, ...] = (4, 8, 16, 32, 64)
    local_layers: tuple[int, ...] = (0, 1)
    rounds: int = 5


SMOKE = Settings(frames=(2, 4), rounds=2)


def config_of(frames: int, local_layers: int) -> FITConfig:
    """The small upsampler, for clips of this length."""
    small = WORLD["pixels-upsampler"]
    group = (frames, *small.group[1:])
    return replace(small, num_frames=frames, group=group, local_layers=local_layers)


def run(out: Path, settings: Settings) -> dict[str, Any]:
    report = write(out, SYSTEM, CLAIM, asdict(settings), lambda: measure(settings))
    plot(report, out / f"{SYSTEM}-{CLAIM}.png")
    return report


def measure(settings: Settings) -> tuple[dict[str, Any], list[Check]]:
    s, figures = settings, {}
    for layers in s.local_layers:
        flops = [_flops(config_of(t, layers)) for t in s.frames]
        taken = _milliseconds([config_of(t, layers) for t in s.frames], s.rounds)
        figures[LINEAR if layers == 0 else f"local layers {layers}"] = {
            "frames": list(s.frames),
            "GFLOPs": [n / 1e9 for n in flops],
            "ms": [Figure.of(row).to_dict() for row in taken],
            "FLOPs over the shortest's": [n / flops[0] for n in flops],
            "time over the shortest's": [
                Figure.of(a / b for a, b in zip(row, taken[0], strict=True)).to_dict()
                for row in taken
            ],
        }
    return figures, []


def _call(network: FIT, given: dict[str, Any]) -> Callable[[], object]:
    @torch.no_grad()
    def once() -> object:
        return network(**given)

    return once


def _told(network: FIT) -> dict[str, Any]:
    given = told(network, 1)
    return given | {"noise_level": torch.full((1,), 0.1)}


def _flops(config: FITConfig) -> int:
    with on_meta():
        network = FIT(config)
    given = {k: x.to("meta") for k, x in _told(network).items()}
    return flops_of(_call(network, given))


def _milliseconds(configs: list[FITConfig], rounds: int) -> list[list[float]]:
    """Of one call of each network, round by round."""
    torch.manual_seed(0)
    calls = [_call(made, _told(made)) for made in (FIT(config).eval() for config in configs)]
    for call in calls:
        call()
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, row in zip(calls, found, strict=True):
            began = time.perf_counter()
            call()
            row.append(1000 * (time.perf_counter() - began))
    return found


def plot(report: dict[str, Any], path: Path) -> None:
    """Both costs over those of the shortest clip, against the frames."""
    lines: dict[str, list[Point]] = {}
    for name, found in report["figures"].items():
        rows = zip(found["frames"], found["time over the shortest's"], strict=True)
        lines[f"time, {name}"] = [Point(t, x["mean"], x["low"], x["high"]) for t, x in rows]
        rows = zip(found["frames"], found["FLOPs over the shortest's"], strict=True)
        lines[f"FLOPs, {name}"] = [Point(t, x) for t, x in rows]
    plot_lines(
        lines, path, title="cost of the upsampler over that of the shortest clip",
        x_label="frames", y_range=(0.0, 1.0),
    )  # fmt: skip
