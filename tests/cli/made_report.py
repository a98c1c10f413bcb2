"""A report of evaluate-world and the folder of a run, made up for tests of the model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidgen.metrics.intervals import Share

RECIPE = """\
task: keyframes
optim: {name: muon}
batch_size: 64
dtype: bfloat16
"""
LOSSES = (0.6, 0.5, 0.45, 0.4, 0.375, 0.36, 0.355, 0.35)


def shares(of: int, **right: int) -> dict[str, Any]:
    return {name: Share(count, of).to_dict() for name, count in right.items()}


def report(**changes: Any) -> dict[str, Any]:
    """Of 512 clips: shapes right, motion wrong at times, color in between."""
    confusion = {
        "shape": {"ball": {"ball": 512}},
        "color": {"red": {"orange": 20, "red": 492}},
        "motion": {"spins": {"spins": 140, "stays": 90}, "moves left": {"moves left": 282}},
    }
    wrong = {"id": "a", "prompt": "a ball", "asked": ["motion spins"], "seen": ["motion stays"]}
    return {
        "schema": "vidgen.evaluate-world/1",
        "clips": 512,
        "level": "basic",
        "judge": {"name": "basic", "sha256": "ab" * 32},
        "models": [{"name": "world/transformer", "sha256": "cd" * 32}],
        "ceiling": shares(256, shape=255, color=256, motion=256, all=255),
        "floor": shares(8192, shape=2730, color=1024, motion=1170, all=12),
        "scores": shares(512, shape=512, color=492, motion=422, all=410),
        "unseen": shares(64, shape=64, color=60, motion=32, all=30),
        "seen": shares(448, shape=448, color=432, motion=390, all=380),
        "places": {"prompts": 16, "clips": 64, "places": 40, "share": 0.625},
        "confusion": confusion,
        "wrong": [wrong] * 102,
        **changes,
    }


def run_folder(folder: Path) -> Path:
    """Eight rows of losses and as many evaluations; the last line was cut by a crash."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    lines = []
    for i, loss in enumerate(LOSSES, 1):
        at = {"step": 20 * i, "samples": 1280 * i}
        lines.append(json.dumps({**at, "seconds": 90.0 * i, "loss": loss, "lr": 1e-3}))
        lines.append(json.dumps({**at, "eval.val_loss": loss - 0.01}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 180, "sam')
    return folder
