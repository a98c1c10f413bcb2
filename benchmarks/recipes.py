"""`python -m benchmarks.recipes`: which recipe learns fastest, one change at a time.

Each run trains the keyframe network from nothing on the same clips, with one setting changed. The
held-out velocity loss and the judge's accuracy are set against samples and CPU seconds: seconds
of the process, so that other work on the machine doesn't count. Runs that are done are not
repeated. Writes docs/recipes.json and the table docs/recipes.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import machine
from vidgen.metrics.judge import SHIPPED, load_judge
from vidgen.metrics.world_accuracy import tally
from vidgen.stages.base import Compute
from vidgen.stages.judge_model import judge_model
from vidgen.stages.sample_keyframes import Choices
from vidgen.systems.base import ModelFolder
from vidgen.train.loop import train
from vidgen.train.recipe import load_recipe
from vidgen.world.scene import VALIDATION_SEEDS, sample_scene

DOCS = Path(__file__).parent.parent / "docs"
ROPE = "model.rope_dims="

# Name → settings laid over recipes/world-keyframes.yaml.
VARIANTS: dict[str, list[str]] = {
    "as shipped": [],
    "AdamW for all": ["optim.name=adamw"],
    "Muon at 0.04": ["optim.muon_lr=0.04"],
    "200 tokens (1×1 patches)": ["model.patch=[1,1,1]"],
    "width 256, depth 4": ["model.dim=256", "model.depth=4", "model.heads=4"],
    "width 128, depth 12": ["model.dim=128", "model.depth=12", "model.heads=2"],
    "predicts x0": ["loss.prediction=x0"],
    "predicts v": ["loss.prediction=v"],
    "noise level: t_mean 0": ["loss.t_mean=0.0"],
    "noise level: t_mean 1": ["loss.t_mean=1.0"],
    "batch 32": ["batch_size=32"],
    "batch 16": ["batch_size=16"],
    "batch 16, Muon at 0.01": ["batch_size=16", "optim.muon_lr=0.01"],
    "float32": ["dtype=float32"],
    "EMA 0.99": ["ema=0.99"],
    "captions dropped: 30 %": ["data.drop_caption=0.3"],
}


def run(name: str, settings: list[str], samples: int, out: Path, prompts: int) -> dict[str, Any]:
    """Train one variant, unless that is done, and measure it."""
    done = out / "study.json"
    if done.is_file():
        return json.loads(done.read_text())
    common = [
        f"data.num={samples}",
        "data.num_full=0",
        "ema=0.98",
        "eval_every=0",
        "sample_every=0",
        "log_every=8",
    ]
    recipe = load_recipe("world-keyframes", overrides=[*common, *settings])
    steps = samples // recipe.batch_size
    recipe = recipe.replace(steps=steps, minutes=None)
    seconds: list[float] = []

    def progress(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            seconds.append(time.process_time())

    result = train(recipe, out, device="cpu", progress=progress)
    logged = len(seconds)
    a_step = (seconds[-1] - seconds[0]) / ((logged - 1) * recipe.log_every)
    start = VALIDATION_SEEDS.start
    scenes = [sample_scene(seed, level="basic") for seed in range(start, start + prompts)]
    marks = judge_model(
        ModelFolder(out / "model"), load_judge(SHIPPED / "basic"), scenes,
        Choices(num_inference_steps=12), compute=Compute("cpu", batch_size=32),
    )  # fmt: skip
    row = {
        "name": name,
        "settings": settings,
        "samples": result.samples,
        "cpu_seconds": round(a_step * steps, 1),
        "val_loss": result.measures["val_loss"],
        "judged": {k: v["share"] for k, v in tally(marks).items()},
        "prompts": prompts,
    }
    done.write_text(json.dumps(row, indent=1) + "\n")
    return row


def as_table(report: dict[str, Any]) -> str:
    """Markdown, best held-out loss first."""
    on = ", ".join(f"{k} {v}" for k, v in report["machine"].items())
    lines = [
        "# Which recipe learns fastest",
        "",
        "Made by `python -m benchmarks.recipes`, which says how. One change at a time from",
        "`vidgen/recipes/world-keyframes.yaml`, all from nothing, on the same cached clips, with",
        "an EMA short enough for short runs (0.98), the learning rate decayed within each run.",
        f"On {on}; one thread each; CPU seconds of the process.",
        "",
        "| run | clips | CPU s | clips / CPU s | held-out loss | color | shape | motion | all |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(report["runs"], key=lambda r: r["val_loss"]):
        judged = row["judged"]
        shares = " | ".join(f"{100 * judged[k]:.0f} %" for k in ("color", "shape", "motion", "all"))
        lines.append(
            f"| {row['name']} | {row['samples']} | {row['cpu_seconds']:.0f} | "
            f"{row['samples'] / row['cpu_seconds']:.0f} | {row['val_loss']:.3f} | {shares} |"
        )
    prompts = report["runs"][0]["prompts"]
    lines += [
        "",
        f"Accuracy is the judge's on {prompts} validation prompts, 12 steps of dpmpp_2m, guidance",
        "2.5: with so few, differences under ten points say nothing. The held-out loss (error of",
        "the velocity on 256 clips, the same noise for all) is the finer measure.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__)
    parser.add_argument("--samples", type=int, default=6144)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("names", nargs="*", help=f"of: {', '.join(VARIANTS)} [all]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, settings in VARIANTS.items():
        if options.names and name not in options.names:
            continue
        folder = options.out / "".join(c if c.isalnum() else "-" for c in name.lower())
        rows.append(run(name, settings, options.samples, folder, options.prompts))
        print(json.dumps(rows[-1]), flush=True)
        report = {"schema": "vidgen.bench-recipes/1", "machine": machine(), "runs": rows}
        (DOCS / "recipes.json").write_text(json.dumps(report, indent=1) + "\n")
        (DOCS / "recipes.md").write_text(as_table(report))


if __name__ == "__main__":
    main()
