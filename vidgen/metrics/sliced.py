"""The sliced distance of two sets of features: MIND (Berthet et al. 2026, arXiv 2605.06797).

Along each of many directions, the 2-Wasserstein distance of what the two sets project to is that
of their sorted projections, exactly: no Gaussian is assumed, no covariance needed, of any rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidgen.metrics import samples

BLOCK = 1 << 22  # projections in memory at a time, 32 MB


def sliced_distance(x: Tensor, y: Tensor, directions: int = 1000, seed: int = 0) -> float:
    """3 d times the mean squared difference of sorted projections of features `n d` and `m d`, over
    random unit directions: a shift by c costs 3 |c|², in a Fréchet distance |c|². In float64.

    Of sets of unequal size the larger is cut to the smaller at random. Cut and directions are drawn
    from `seed` as torch-fidelity does. ValueError of features that are NaN, infinite or of
    different d.
    """
    x, y = samples.pair(x, y)
    if directions < 1:
        raise ValueError(f"{directions} directions")
    draw = torch.Generator().manual_seed(seed)
    n, d = min(len(x), len(y)), x.shape[1]
    if len(x) > n:
        x = x[torch.randperm(len(x), generator=draw)[:n]]
    if len(y) > n:
        y = y[torch.randperm(len(y), generator=draw)[:n]]
    unit = torch.randn(directions, d, generator=draw)
    unit = (unit / unit.norm(dim=1, keepdim=True)).double()
    total = 0.0
    for along in unit.split(max(1, BLOCK // n)):
        u, v = (along @ x.T).sort(dim=1).values, (along @ y.T).sort(dim=1).values
        total += float((u - v).square().sum())
    return 3 * d * total / (n * directions)
