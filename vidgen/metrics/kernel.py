"""The kernel distance of two sets of features: squared maximum mean discrepancy (Gretton et al.
2012) under the polynomial kernel k(x, y) = (gamma x·y + coef0)^degree.

With the defaults it is KID (Bińkowski et al. 2018) and, of I3D features, KVD. JEDi (Luo et al.
2025) is `kernel_distance(x, y, degree=2, coef0=0.0, unbiased=False, scale=100.0)`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidgen.metrics import samples

BLOCK = 2048  # samples a side: what is in memory at a time, 32 MB
SUBSET = 1000  # samples of a subset at most, if nobody says


def kernel_distance(
    x: Tensor,
    y: Tensor,
    *,
    degree: int = 3,
    coef0: float = 1.0,
    gamma: float | None = None,  # None: 1 / number of features
    unbiased: bool = True,
    scale: float = 1.0,
    subsets: int | None = None,
    subset_size: int | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Mean and standard deviation (of the population, divided by their count) over random subsets
    of features `n d` and `m d`; of the whole sets, and 0, if `subsets` is None. In float64.

    Unbiased, kernels of a sample with itself are left out: the expectation is 0 for equal
    distributions, single values go below it and are not clamped. Biased, they count, and the
    distance of a set to itself is 0.

    Subsets are drawn without replacement, `subset_size` from either side (None: all of the smaller
    set, but at most 1000), by numpy's RandomState(seed): the same as torch-fidelity's. ValueError
    of sets that are too small, NaN, infinite or of different d.
    """
    x, y = samples.pair(x, y, least=2 if unbiased else 1)
    gamma = 1 / x.shape[1] if gamma is None else gamma
    if degree < 1:
        raise ValueError(f"degree {degree}")

    def squared(x: Tensor, y: Tensor) -> float:
        within = _within(x, gamma, coef0, degree, unbiased)
        within += _within(y, gamma, coef0, degree, unbiased)
        return scale * (within - 2 * _between(x, y, gamma, coef0, degree))

    if subsets is None:
        if subset_size is not None:
            raise ValueError(f"subsets of {subset_size} samples, but not how many subsets")
        return squared(x, y), 0.0
    most = min(len(x), len(y))
    size = min(most, SUBSET) if subset_size is None else subset_size
    if subsets < 1 or not (2 if unbiased else 1) <= size <= most:
        raise ValueError(f"{subsets} subsets of {size} samples, from {len(x)} and {len(y)}")
    draw = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        i = torch.from_numpy(draw.choice(len(x), size, replace=False))
        j = torch.from_numpy(draw.choice(len(y), size, replace=False))
        found.append(squared(x[i], y[j]))
    return float(np.mean(found)), float(np.std(found))


def _between(x: Tensor, y: Tensor, gamma: float, coef0: float, degree: int) -> float:
    """The mean kernel of a sample of `x` and one of `y`."""
    total = sum(_sum(u, v, gamma, coef0, degree) for u in x.split(BLOCK) for v in y.split(BLOCK))
    return total / (len(x) * len(y))


def _within(x: Tensor, gamma: float, coef0: float, degree: int, unbiased: bool) -> float:
    """The mean kernel of two samples of `x`: two different ones, if unbiased."""
    n, total = len(x), 0.0
    blocks = x.split(BLOCK)
    for i, u in enumerate(blocks):
        total += _sum(u, u, gamma, coef0, degree)
        total += 2 * sum(_sum(u, v, gamma, coef0, degree) for v in blocks[i + 1 :])
    if not unbiased:
        return total / n**2
    same = float((x.square().sum(dim=1) * gamma + coef0).pow(degree).sum())
    return (total - same) / (n * (n - 1))


def _sum(x: Tensor, y: Tensor, gamma: float, coef0: float, degree: int) -> float:
    return float((x @ y.T).mul_(gamma).add_(coef0).pow_(degree).sum())
