"""`python -m benchmarks.curve SAMPLES=FOLDER …`: accuracy against the clips that a model was
trained on, and where the line leads.

Each folder is a model; SAMPLES, how many clips its keyframe network had seen by then. All sample
the same validation captions of the full world, one motion an object, and the judge of the full
world says what their clips show. The share that is wrong is taken for a power of the samples,
fitted by least squares in logarithms. Writes docs/curve.json and docs/curve.png.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import machine
from benchmarks.plot import Point, plot_lines
from vidgen.metrics.judge import SHIPPED, load_judge
from vidgen.metrics.world_accuracy import tally
from vidgen.stages.base import Compute
from vidgen.stages.judge_model import judge_model
from vidgen.systems.base import ModelFolder
from vidgen.world.scene import VALIDATION_SEEDS, sample_scene

DOCS = Path(__file__).parent.parent / "docs"
AIM = 0.8  # of whole captions


def power(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(a, b) of the best a·x^b through points whose y is above 0, in logarithms."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x = sum(x for x, _ in logs) / len(logs)
    mean_y = sum(y for _, y in logs) / len(logs)
    spread = sum((x - mean_x) ** 2 for x, _ in logs)
    b = sum((x - mean_x) * (y - mean_y) for x, y in logs) / spread
    return math.exp(mean_y - b * mean_x), b


def extrapolated(rows: Sequence[dict[str, Any]], factor: str, share: float) -> dict[str, Any]:
    """At how many samples the fitted line says that this share of a factor is right; None where it
    does not lead there."""
    points = [(row["samples"], 1 - row["scores"][factor]["share"]) for row in rows]
    points = [(x, y) for x, y in points if y > 0]
    if len({x for x, _ in points}) < 2:
        return {"aim": share, "samples": None}
    a, b = power(points)
    there = ((1 - share) / a) ** (1 / b) if b < 0 else None
    return {"aim": share, "factor": a, "exponent": b, "samples": there}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curve", description=__doc__)
    parser.add_argument("models", nargs="+", metavar="SAMPLES=FOLDER")
    parser.add_argument("--prompts", type=int, default=128)
    options = parser.parse_args()
    judge = load_judge(SHIPPED / "full")
    start = VALIDATION_SEEDS.start
    scenes = [
        sample_scene(s, level="full", num_events=1) for s in range(start, start + options.prompts)
    ]
    rows = []
    for word in options.models:
        samples, _, path = word.partition("=")
        folder = ModelFolder.find(path)
        marks = judge_model(folder, judge, scenes, compute=Compute("cpu", batch_size=32))
        scores = tally(marks)
        rows.append({"samples": int(samples), **folder.identity("transformer"), "scores": scores})
        print(samples, {k: round(v["share"], 3) for k, v in scores.items()}, flush=True)
    report = {
        "schema": "vidgen.bench-curve/1",
        "machine": machine(),
        "torch": torch.__version__,
        "prompts": options.prompts,
        "models": rows,
        "extrapolated": {
            name: extrapolated(rows, name, AIM if name == "all" else 0.95)
            for name in rows[-1]["scores"]
        },
    }
    (DOCS / "curve.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = {
        name: [
            Point(r["samples"] / 1000, s["share"], s["low"], s["high"])
            for r in rows
            for s in [r["scores"][name]]
        ]
        for name in rows[-1]["scores"]
    }
    plot_lines(
        lines, DOCS / "curve.png", title="full world: what is right", y_range=(0.0, 1.0),
        x_label="thousands of training clips", percent=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
