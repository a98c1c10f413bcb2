"""Noise that depends on the sample, and on nothing else.

The draw for a sample is a function of (seed, name, stage, purpose): not of its place in a batch,
of the batch's size, of the device, or of what was drawn before. So a batch equals its singles to
the bit, and a run that stops at step k needs no generator state to go on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor

ALGORITHM = "sha256-mt19937-f64/1"  # goes into the record's log: same name, same bits


class Noise:
    """A source of unit Gaussian noise for a batch of samples.

    samples  (seed, name) for each sample of the batch, name being the record's id
    stage    the name of the stage, so that two stages of one pipeline draw different noise
    """

    def __init__(self, samples: Sequence[tuple[int, str]], stage: str) -> None:
        self.samples = tuple(samples)
        self.stage = stage

    def __len__(self) -> int:
        return len(self.samples)

    def initial(self, shape: Sequence[int]) -> Tensor:
        """The noise that sampling starts from: (b, *shape), float32, on the CPU."""
        return self._draw("initial", shape)

    def step(self, i: int, shape: Sequence[int]) -> Tensor:
        """The noise of step i of a stochastic solver: (b, *shape), float32, on the CPU."""
        return self._draw(f"step {i}", shape)

    def _draw(self, purpose: str, shape: Sequence[int]) -> Tensor:
        return torch.stack([self._one(seed, name, purpose, shape) for seed, name in self.samples])

    def _one(self, seed: int, name: str, purpose: str, shape: Sequence[int]) -> Tensor:
        key = json.dumps([seed, name, self.stage, purpose])
        digest = hashlib.sha256(key.encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        # Drawn in float64: torch's float32 path differs in the last bit between kinds of CPU.
        return torch.randn(tuple(shape), generator=generator, dtype=torch.float64).float()
