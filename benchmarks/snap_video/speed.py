"""Claim b: a FIT computes a video in less time than a U-Net that has attention over time (table 2
of the paper: 500 M against 284 M, 3.31 times in training, 4.49 times in sampling).

Each measure is a process of its own, so that its peak memory is its own: it builds the network with
random weights, runs once for nothing and then some times, and says how long a video took. Networks
take turns, round by round. Training is a forward and a backward pass, and of the FIT, as it is
trained, another forward pass without gradients before, for self-conditioning; sampling is a forward
pass without gradients. One video at a time, float32 on a CPU, bfloat16 on CUDA.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.claim_report import Check, Figure, write
from benchmarks.plot import Point, plot_lines
from benchmarks.snap_video import SYSTEM
from vidgen.nn.adm_unet import AdmUNet, AdmUNetConfig
from vidgen.nn.fit import FIT, FITConfig
from vidgen.systems import snap_video

CLAIM = "speed"
WORDS = 64  # tokens of text; the paper doesn't say how many
MODES = ("train", "sample")

FITS: dict[str, FITConfig] = {
    "published": snap_video.PRESETS["500m"],
    "small": FITConfig(
        dim=256, latents=128, latent_dim=512, context_dim=256, blocks=4, global_layers=2,
        head_dim=32,
    ),
}  # fmt: skip
UNETS: dict[str, AdmUNetConfig] = {
    "published": snap_video.UNETS["unet-284m"],
    "small": AdmUNetConfig(base=64, multipliers=(1, 2, 3, 4)),
}


@dataclass(frozen=True)
class Settings:
    """Which sizes, and how often."""

    sizes: tuple[str, ...] = ("published", "small")
    rounds: int = 3  # processes of each
    runs: int = 2  # timed in each, behind one that isn't


SMOKE = Settings(sizes=("small",), rounds=1, runs=1)


def run(out: Path, settings: Settings, device: str, threads: int) -> dict[str, Any]:
    told = asdict(settings) | {"device": device, "threads": threads, "words": WORDS}
    told |= {"self_conditioned": True}
    claim = CLAIM if device == "cpu" else f"{CLAIM}-{device}"
    report = write(out, SYSTEM, claim, told, lambda: measure(settings, device, threads))
    plot(report, out / f"{SYSTEM}-{claim}.png")
    return report


def measure(settings: Settings, device: str, threads: int) -> tuple[dict[str, Any], list[Check]]:
    figures: dict[str, Any] = {}
    checks = []
    for size in settings.sizes:
        for mode in MODES:
            rounds = [
                {kind: child(kind, size, mode, settings.runs, device, threads)
                 for kind in ("fit", "unet")}
                for _ in range(settings.rounds)
            ]  # fmt: skip
            ratio = Figure.of(r["unet"]["ms"] / r["fit"]["ms"] for r in rounds)
            memory = Figure.of(r["unet"]["mib"] / r["fit"]["mib"] for r in rounds)
            figures[f"{size}, {mode}"] = {
                "parameters": {kind: rounds[0][kind]["parameters"] for kind in ("fit", "unet")},
                "ms a video": {
                    kind: Figure.of(r[kind]["ms"] for r in rounds).to_dict()
                    for kind in ("fit", "unet")
                },
                "peak MiB": {
                    kind: Figure.of(r[kind]["mib"] for r in rounds).to_dict()
                    for kind in ("fit", "unet")
                },
                "U-Net's time over FIT's": ratio.to_dict(),
                "U-Net's memory over FIT's": memory.to_dict(),
            }
            checks.append(Check(f"{size}, {mode}: U-Net's time over FIT's", "above", ratio, 1.0))
    return figures, checks


def child(kind: str, size: str, mode: str, runs: int, device: str, threads: int) -> dict[str, Any]:
    """What `timed` says, in a process of its own."""
    words = [kind, size, mode, str(runs), device, str(threads)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.snap_video.speed", *words],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def network(kind: str, size: str) -> nn.Module:
    torch.manual_seed(0)
    return FIT(FITS[size]) if kind == "fit" else AdmUNet(UNETS[size])


def timed(kind: str, size: str, mode: str, runs: int, device: str) -> dict[str, Any]:
    """Median milliseconds of a video, and the peak of memory, MiB."""
    grid, made = FITS[size], network(kind, size).to(device)
    made.train(mode == "train")
    z = torch.randn(1, 3, grid.num_frames, grid.height, grid.width, device=device)
    t, text = torch.zeros(1, device=device), torch.randn(1, WORDS, 1024, device=device)

    def output() -> Tensor:
        if kind != "fit":
            return made(z, t, text=text)
        before = None
        if mode == "train":
            with torch.no_grad():
                _, before = made(z, t, text=text)
        return made(z, t, text=text, latents=before)[0]

    def once() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            if mode == "train":
                output().float().square().mean().backward()
                made.zero_grad(set_to_none=True)
            else:
                with torch.no_grad():
                    output()
        if device != "cpu":
            torch.cuda.synchronize()

    return {
        "ms": statistics.median(_milliseconds(once, runs)),
        "mib": _peak(device),
        "parameters": sum(p.numel() for p in made.parameters()),
    }


def _milliseconds(once: Callable[[], None], runs: int) -> list[float]:
    once()
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        once()
        taken.append(1000 * (time.perf_counter() - began))
    return taken


def _peak(device: str) -> float:
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plot(report: dict[str, Any], path: Path) -> None:
    """How many times longer the U-Net takes, against its size."""
    lines: dict[str, list[Point]] = {mode: [] for mode in MODES}
    for name, found in report["figures"].items():
        _, mode = name.split(", ")
        ratio, count = found["U-Net's time over FIT's"], found["parameters"]["unet"] / 1e6
        low, high = (ratio[k] if ratio[k] is not None else ratio["mean"] for k in ("low", "high"))
        lines[mode].append(Point(count, ratio["mean"], low, high))
    most = max(p.y for points in lines.values() for p in points)
    plot_lines(
        lines, path,
        title="time of the U-Net over that of the FIT", y_range=(0.0, 1.2 * most),
        x_label="millions of weights of the U-Net",
    )  # fmt: skip


if __name__ == "__main__":
    which, of, how, repeats, where, cores = sys.argv[1:]
    torch.set_num_threads(int(cores))
    print(json.dumps(timed(which, of, how, int(repeats), where)))
