"""Embeddings of scalars: noise levels, times, rates."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoid(x: Tensor, dim: int, *, scale: float = 1000.0, max_period: float = 10_000.0) -> Tensor:
    """Scalars x `b` → `b dim`: cosines, then sines, of scale·x at geometric frequencies.

    Vaswani et al. 2017, §3.5. `scale` brings a time in 0…1 to the range the periods were made for.
    Computed in float32 whatever the dtype of x.
    """
    half = dim // 2
    steps = torch.arange(half, device=x.device, dtype=torch.float32)
    frequencies = torch.exp(-math.log(max_period) * steps / half)
    angles = scale * x.float()[:, None] * frequencies  # b half
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class ScalarEmbedding(nn.Module):
    """Scalar `b` → `b dim` through a sinusoid and two layers."""

    def __init__(self, dim: int, frequencies: int = 128, scale: float = 1000.0) -> None:
        super().__init__()
        self.frequencies, self.scale = frequencies, scale
        self.layers = nn.Sequential(nn.Linear(frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        dtype = next(self.parameters()).dtype
        return self.layers(sinusoid(x, self.frequencies, scale=self.scale).to(dtype))
