"""The distance of two sets of features, taken for two Gaussians."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """|mean x − mean y|² + tr(Cx + Cy − 2 (Cx Cy)^½) of features `n d` and `m d`, in their unit
    squared (Fréchet 1957; of images, Heusel et al. 2017, Eq. 6). Covariances are divided by n − 1.

    In float64. The trace of the root is the sum of the singular values of Xᵀ-centered times
    Y-centered, which also holds for fewer samples than dimensions. Small sets come out too far
    apart: compare distances of equal n and m only.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features of {list(x.shape)} and {list(y.shape)}")
    x, y = x.double(), y.double()
    a = (x - x.mean(dim=0)) / (len(x) - 1) ** 0.5
    b = (y - y.mean(dim=0)) / (len(y) - 1) ** 0.5
    root = torch.linalg.svdvals(a @ b.T).sum()
    apart = (x.mean(dim=0) - y.mean(dim=0)).square().sum()
    return max(0.0, float(apart + a.square().sum() + b.square().sum() - 2 * root))
