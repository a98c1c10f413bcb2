"""Pixels as files hold them, 0 … 255, and as networks take them, −1 … 1."""

from __future__ import annotations

import torch
from torch import Tensor


def from_uint8(pixels: Tensor) -> Tensor:
    """uint8 → float32 in −1 … 1, of any shape."""
    return pixels.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """−1 … 1 → uint8, rounded and clamped, of any shape."""
    return (x.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
