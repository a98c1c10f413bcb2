"""What the distances between two sets of features take: `n d`, float32 or float64, finite."""

from __future__ import annotations

import torch
from torch import Tensor


def features(x: Tensor, least: int = 1) -> Tensor:
    """`x` in float64 on the CPU. ValueError unless it is `n d` of at least `least` samples, float32
    or float64 (sums of anything shorter have no digits left), and finite."""
    if x.ndim != 2 or x.shape[1] < 1:
        raise ValueError(f"features are [n, d], these are {list(x.shape)}")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"features are float32 or float64, these are {x.dtype}")
    if len(x) < least:
        raise ValueError(f"{len(x)} samples, {least} are needed")
    x = x.detach().to("cpu", torch.float64)
    wrong = (~x.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(x)} samples have features that are NaN or infinite, "
            f"the first is sample {wrong[0]}"
        )
    return x


def pair(x: Tensor, y: Tensor, least: int = 1) -> tuple[Tensor, Tensor]:
    """Two sets as `features` gives them. ValueError if their features differ in number."""
    x, y = features(x, least), features(y, least)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{x.shape[1]} features a sample against {y.shape[1]}")
    return x, y
