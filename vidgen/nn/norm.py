"""Normalisation, and its adaptive form: a condition shifts, scales and gates what a block does."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root-mean-square normalisation of the last axis with a learned gain (Zhang & Sennrich 2019).

    The statistics are float32 and the result has the dtype of x, also under autocast, where
    torch's own falls back to a slow path because its gain stays float32.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        power = x.float().square().mean(dim=-1, keepdim=True)
        return x * (power + self.eps).rsqrt().to(x.dtype) * self.weight.to(x.dtype)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x·(1 + scale) + shift, with x `b n d` and shift, scale `b d` or `b n d`."""
    if shift.ndim == x.ndim - 1:
        shift, scale = shift.unsqueeze(1), scale.unsqueeze(1)
    return x * (1 + scale) + shift


class AdaptiveTable(nn.Module):
    """`parts` modulation vectors for a block: one projection shared by all blocks, plus the
    block's own offsets (adaLN-single, Chen et al. 2023, PixArt-α §2.3).

    The offsets start at zero, and so does the shared projection (`SharedModulation`): every gate is
    closed at the start, so that a new network is the identity on its residual stream.
    """

    def __init__(self, dim: int, parts: int) -> None:
        super().__init__()
        self.offsets = nn.Parameter(torch.zeros(parts, dim))

    def forward(self, shared: Tensor) -> tuple[Tensor, ...]:
        """shared `b parts d` → `parts` tensors `b d`."""
        return (shared + self.offsets).unbind(dim=1)


class SharedModulation(nn.Module):
    """Condition `b d` → `b parts d`, zero at the start; computed once for all blocks."""

    def __init__(self, dim: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.project = nn.Linear(dim, parts * dim)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, cond: Tensor) -> Tensor:
        return self.project(nn.functional.silu(cond)).unflatten(-1, (self.parts, -1))
