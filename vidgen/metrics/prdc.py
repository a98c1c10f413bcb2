"""Where two sets of features lie in each other, by balls around samples that reach to their k-th
neighbor: how good samples are and how much of the truth they cover, told apart.

Improved precision and recall: Kynkäänniemi et al. 2019, Eq. 1-2; density and coverage: Naeem et
al. 2020, Eq. 3-4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vidgen.metrics import samples

BLOCK = 1 << 22  # distances in memory at a time, 32 MB
ROUNDING = 1e-12  # of squared distances, beside the squared lengths they are computed from


@dataclass(frozen=True)
class Prdc:
    precision: float  # share of fakes in the ball of a real, 0 … 1
    recall: float  # share of reals in the ball of a fake, 0 … 1
    density: float  # balls of reals that a fake lies in, in the mean, over k; may be more than 1
    coverage: float  # share of reals with a fake in their ball, 0 … 1


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> Prdc:
    """Of features `n d` and `m d`. A ball reaches to the k-th nearest other sample of its own set,
    which lies on it, not in it; nor does what is as far to within rounding (a millionth of the
    features' length). k + 1 copies of one sample have empty balls.

    In float64, blockwise. ValueError of sets of k samples or fewer, NaN, infinite or of different
    d. All four change with n, m and k: compare equal ones only.
    """
    if k < 1:
        raise ValueError(f"k {k}: a ball reaches to the first neighbor or farther")
    real, fake = samples.pair(real, fake, least=k + 1)
    middle = real.mean(dim=0)  # shorter features: less to cancel
    real, fake = real - middle, fake - middle
    around_real, around_fake = _reach(real, k), _reach(fake, k)
    hits = torch.zeros(len(fake), dtype=torch.int64)  # balls of reals around each fake
    recalled = covered = 0
    for rows in torch.arange(len(real)).split(_rows(len(fake))):
        distance = _squared(real[rows], fake, ROUNDING)
        inside = distance < around_real[rows, None]
        hits += inside.sum(dim=0)
        covered += int(inside.any(dim=1).sum())
        recalled += int(((distance - around_fake).amin(dim=1) < 0).sum())
    return Prdc(
        precision=float((hits > 0).double().mean()),
        recall=recalled / len(real),
        density=float(hits.double().mean()) / k,
        coverage=covered / len(real),
    )


def _reach(x: Tensor, k: int) -> Tensor:
    """Squared distance of each sample to its k-th nearest other one."""
    out = []
    for rows in torch.arange(len(x)).split(_rows(len(x))):
        distance = _squared(x[rows], x)
        distance[torch.arange(len(rows)), rows] = -torch.inf  # itself, before copies of it
        out.append(distance.topk(k + 1, dim=1, largest=False).values[:, k])
    return torch.cat(out)


def _squared(x: Tensor, y: Tensor, rounding: float = 0.0) -> Tensor:
    """Squared distances `n m`, and more by that share of the squared lengths."""
    lengths = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    return torch.addmm(lengths.mul_(1 + rounding), x, y.T, alpha=-2)


def _rows(columns: int) -> int:
    return max(1, BLOCK // columns)
