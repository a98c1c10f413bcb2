"""Rotary position embedding over several axes (Su et al. 2021; the axes share the head's width).

Positions are real numbers, not indices: keyframes half a second apart and frames an eighth of a
second apart then live on the same time axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor

from vidgen.nn.fused import plain


def axial_angles(positions: Tensor, dims: Sequence[int], base: float = 100.0) -> Tensor:
    """Rotation angles of tokens at `positions` `b n a` (a axes) → `b n sum(dims)/2`.

    `dims` says how many of the head's channels turn with each axis; each is even. Channel pair i
    of an axis with d channels turns by position · base^(−2i/d). The base is small because our axes
    are short: with 10,000 most pairs would never turn.
    """
    parts = []
    for axis, dim in enumerate(dims):
        pairs = torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32)
        frequencies = base ** (-pairs / dim)  # dim/2
        parts.append(positions[..., axis, None].float() * frequencies)  # b n dim/2
    return torch.cat(parts, dim=-1)


def grid_rotary(
    size: Sequence[int], dims: Sequence[int], base: float = 10_000.0, device: Any = None
) -> Tensor:
    """Cosine and sine, float32 `n sum(dims)/2 2`, of a grid of n tokens whose axes count 0, 1, 2,
    …, the last one fastest. The angles are float64, as in the released Wan."""
    parts = []
    for axis, (length, dim) in enumerate(zip(size, dims, strict=True)):
        pairs = torch.arange(0, dim, 2, dtype=torch.float64)
        angles = torch.arange(length, dtype=torch.float64)[:, None] * base ** (-pairs / dim)
        wave = cos_sin(angles).float().to(device)  # length dim/2 2
        before, behind = prod(size[:axis]), prod(size[axis + 1 :])
        parts.append(repeat(wave, "n d two -> (a n b) d two", a=before, b=behind))
    return torch.cat(parts, dim=-2)


def cos_sin(angles: Tensor) -> Tensor:
    """Angles `…` → cosine and sine of each beside each other, `… 2`."""
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn neighbouring channel pairs of x `b h n d` by angles `b n d/2`, computed in float32."""
    return _turned(x, angles.cos()[:, None], angles.sin()[:, None])  # b 1 n d/2


def turn(x: Tensor, wave: Tensor) -> Tensor:
    """The same by cosines and sines that broadcast to `b h n d/2 2`, made once for many layers.

    Pairs are multiplied as complex numbers, in one pass, but with gradients, in compiled code and
    where there are no such kernels."""
    if plain() or x.device.type not in ("cpu", "cuda", "meta"):
        return _turned(x, wave[..., 0], wave[..., 1])
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # b h n d/2
    turned = torch.view_as_real(pairs * torch.view_as_complex(wave))
    return turned.flatten(-2).to(x.dtype)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = rearrange(x.float(), "b h n (d two) -> two b h n d", two=2)
    turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)  # b h n d/2 2
    return rearrange(turned, "b h n d two -> b h n (d two)").to(x.dtype)


def grid_positions(times: Tensor, height: int, width: int) -> Tensor:
    """Positions of a grid of tokens: times `b t` × rows × columns → `b (t h w) 3`.

    Rows and columns count from the middle, so that a larger picture extends the grid outwards.
    """
    rows = torch.arange(height, device=times.device, dtype=torch.float32) - (height - 1) / 2
    cols = torch.arange(width, device=times.device, dtype=torch.float32) - (width - 1) / 2
    b, t = times.shape
    return torch.stack(
        (
            repeat(times.float(), "b t -> b (t h w)", h=height, w=width),
            repeat(rows, "h -> b (t h w)", b=b, t=t, w=width),
            repeat(cols, "w -> b (t h w)", b=b, t=t, h=height),
        ),
        dim=-1,
    )
