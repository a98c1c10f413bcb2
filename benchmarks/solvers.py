"""`python -m benchmarks.solvers`: accuracy against number of function evaluations.

The shipped model, validation prompts, the judge: for each solver and several step counts, and for
several guidance scales. A call of the guided denoiser (both branches) is one evaluation. Writes
docs/solvers.json and the plot docs/solvers.png.
"""

from __future__ import annotations

import argparse
import json
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
from vidgen.stages.sample_keyframes import Choices
from vidgen.systems.base import ModelFolder
from vidgen.world.scene import VALIDATION_SEEDS, sample_scene

DOCS = Path(__file__).parent.parent / "docs"
STEPS = (2, 3, 4, 6, 8, 12, 20)
HEUN_STEPS = (2, 3, 4, 6, 10)  # two evaluations each, but for the last one
SOLVERS = ("euler", "dpmpp_2m", "unipc", "heun")
SCALES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)


def measure(folder: ModelFolder, scenes: Sequence[Any], **choices: Any) -> dict[str, Any]:
    """Shares by factor with these choices."""
    marks = judge_model(
        folder, load_judge(SHIPPED / "basic"), scenes, Choices(**choices),
        compute=Compute("cpu", batch_size=32),
    )  # fmt: skip
    return tally(marks)


def plot(points: list[dict[str, Any]], path: Path) -> None:
    """All-five accuracy with its intervals, a line a solver."""
    lines = {
        name: [
            Point(p["evaluations"], p["all"]["share"], p["all"]["low"], p["all"]["high"])
            for p in points
            if p["solver"] == name
        ]
        for name in SOLVERS
    }
    plot_lines(
        lines, path, title="all five factors right", x_label="evaluations of the guided denoiser",
        y_range=(0.0, 1.0), percent=True, x_ticks=sorted({p["evaluations"] for p in points}),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solvers", description=__doc__)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--model", default=None)
    parser.add_argument("--only", choices=("steps", "scales"), default=None)
    options = parser.parse_args()
    folder = ModelFolder.find(options.model)
    start = VALIDATION_SEEDS.start
    scenes = [sample_scene(s, level="basic") for s in range(start, start + options.prompts)]
    path = DOCS / "solvers.json"
    report = json.loads(path.read_text()) if path.is_file() and options.only else {}
    report |= {
        "schema": "vidgen.bench-solvers/1",
        "machine": machine(),
        "torch": torch.__version__,
        "model": folder.identity("transformer"),
    }
    if options.only != "scales":
        report["solvers"] = []
        for solver in SOLVERS:
            for steps in HEUN_STEPS if solver == "heun" else STEPS:
                evaluations = 2 * steps - 1 if solver == "heun" else steps
                shares = measure(folder, scenes, solver=solver, num_inference_steps=steps)
                point = {"solver": solver, "steps": steps, "evaluations": evaluations, **shares}
                report["solvers"].append(point)
                print(solver, evaluations, shares["all"], flush=True)
        plot(report["solvers"], DOCS / "solvers.png")
    if options.only != "steps":
        report["scales"] = []
        for scale in SCALES:
            shares = measure(folder, scenes, guidance_scale=scale)
            report["scales"].append({"guidance_scale": scale, **shares})
            print(scale, shares["all"], flush=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
