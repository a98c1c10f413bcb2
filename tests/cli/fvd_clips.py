"""Clips for the tests of evaluate-fvd, and a network of six features for them."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import torch
from clips import save
from json_schema import faults

from vidgen.cli.evaluate_fvd import SCHEMAS
from vidgen.io.record import Record


class Colors:
    """Mean and spread of each color of a clip."""

    name, sha256, dim, min_frames = "world", "ab" * 32, 6, 2
    settings: ClassVar[dict[str, Any]] = {"extractor": "world", "sha256": "ab" * 32}

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        x = clips.double().flatten(1, 3)
        return torch.cat((x.mean(dim=1), x.std(dim=1)), dim=1).float()


def noise(id: str, seed: int, *, frames: int = 5, side: int = 8, bright: float = 0) -> Record:
    """A clip of colored noise of its own mean and spread."""
    r = np.random.default_rng([seed, *id.encode()])
    x = r.normal(
        100 + bright + 10 * r.normal(size=3), 20 + 3 * r.random(3), (frames, side, side, 3)
    )
    pixels = x.clip(0, 255).astype(np.uint8)
    return Record.make("frames", id, {"frames": pixels}, {"fps": 8})


def some(path: str, n: int, seed: int, **how: Any) -> str:
    return save(path, *(noise(f"c{i}", seed, **how) for i in range(n)))


FOUR = ("--num-frames", "4")


def report(ran) -> dict:
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert faults(found, SCHEMAS["vidgen.report/1"]) == []
    return found
