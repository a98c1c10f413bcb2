"""The distance of two sets of features, taken for two Gaussians (Fréchet 1957; Dowson & Landau
1982; of images, Heusel et al. 2017, Eq. 6; of videos, Unterthiner et al. 2018):

    |mean x − mean y|² + tr(Cx + Cy − 2 (Cx Cy)^½),   in the features' unit squared

All in float64. The trace of the root is the sum of the singular values of Rx Ryᵀ for any Rx, Ry
with RxᵀRx = Cx and RyᵀRy = Cy. That is never complex, needs no ε on the diagonal, and holds for
covariances of any rank: where samples are fewer than dimensions, their centered selves are R.

From finite sets the distance comes out too large, by about k/n with a k of its own for each model:
compare distances of equal n and m only, or extrapolate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vidgen.metrics import samples

Divisor = Literal["n-1", "n"]  # of covariances: "n-1" as Google's FVD, "n" as StyleGAN-V's
SIZES = 15  # of subsets to extrapolate from, as Chong & Forsyth
PIVOT = 1e-6  # least over largest, from where a Cholesky root is as good as any


class Moments:
    """Count, mean and scatter (the sum of (x − mean)(x − mean)ᵀ) of `d` features, gathered batch by
    batch: all that the distance needs of a set, in memory that does not grow with it.

    Sums are of centered features (Chan, Golub & LeVeque 1979), so that a mean far from zero costs
    no digits: batches and shards give what the whole set gives, to rounding.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"{dim} features a sample")
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64)

    @classmethod
    def of(cls, x: Tensor) -> Moments:
        """Those of features `n d`."""
        x = samples.features(x)
        moments = cls(x.shape[1])
        moments.n = len(x)
        moments.mean = x.mean(dim=0)
        centered = x - moments.mean
        moments.scatter = centered.T @ centered
        return moments

    @property
    def dim(self) -> int:
        return len(self.mean)

    def add(self, x: Tensor) -> None:
        """Take in a batch `n d`; one of no samples changes nothing."""
        self._same(x.shape[-1])
        if len(x):
            self.merge(Moments.of(x))

    def merge(self, other: Moments) -> None:
        """Take in what another has gathered from other samples."""
        self._same(other.dim)
        if not other.n:
            return
        n = self.n + other.n
        apart = other.mean - self.mean
        self.scatter = self.scatter + other.scatter
        self.scatter += torch.outer(apart, apart) * (self.n * other.n / n)
        self.mean = self.mean + apart * (other.n / n)
        self.n = n

    def covariance(self, divisor: Divisor = "n-1") -> Tensor:
        """`d d`. ValueError of too few samples: two are needed, one if the divisor is n."""
        return self.scatter / _divided(self.n, divisor)

    def rank(self) -> int:
        """Of the covariance: less than `dim` says that no sample ever went some directions."""
        return len(_root(self, "n")) if self.n else 0

    def to_tensors(self) -> dict[str, Tensor]:
        """For a file: `moments.n` (int64), `moments.mean`, `moments.scatter` (float64)."""
        n = torch.tensor(self.n, dtype=torch.int64)
        return {"moments.n": n, "moments.mean": self.mean, "moments.scatter": self.scatter}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Moments:
        """What `to_tensors` gave. ValueError of anything else."""
        try:
            n, mean, scatter = (tensors[f"moments.{key}"] for key in ("n", "mean", "scatter"))
        except KeyError as error:
            raise ValueError(f"no tensor {error.args[0]}") from None
        if mean.ndim != 1 or scatter.shape != (len(mean), len(mean)) or n.numel() != 1:
            raise ValueError(
                f"moments of {list(n.shape)}, {list(mean.shape)} {list(scatter.shape)}"
            )
        if n.dtype != torch.int64 or {mean.dtype, scatter.dtype} != {torch.float64}:
            raise ValueError(f"moments in {n.dtype}, {mean.dtype} and {scatter.dtype}")
        if not (mean.isfinite().all() and scatter.isfinite().all()) or int(n) < 0:
            raise ValueError("moments that are NaN, infinite or negative")
        moments = cls(len(mean))
        moments.n, moments.mean, moments.scatter = int(n), mean.clone(), scatter.clone()
        return moments

    def _same(self, dim: int) -> None:
        if dim != self.dim:
            raise ValueError(f"{self.dim} features a sample against {dim}")


@dataclass(frozen=True)
class Fit:
    """A straight line through distances over 1/n: `intercept` is where n has no end."""

    intercept: float
    slope: float
    points: tuple[tuple[int, float], ...]  # n, the mean distance of the subsets of n samples

    @property
    def residual(self) -> float:
        """Root mean square of what the line leaves of the points, in their unit: a line it is only
        where this is small beside them, which n near the number of features or below never are."""
        left = [value - self.intercept - self.slope / n for n, value in self.points]
        return math.sqrt(sum(v * v for v in left) / len(left))


def frechet_distance(x: Tensor, y: Tensor, divisor: Divisor = "n-1") -> float:
    """Of features `n d` and `m d`. ValueError if they are NaN or infinite, of different d, or if a
    set has fewer than two samples (one, if the divisor is n)."""
    x, y = samples.pair(x, y)
    mean_x, mean_y = x.mean(dim=0), y.mean(dim=0)
    a = (x - mean_x) / math.sqrt(_divided(len(x), divisor))
    b = (y - mean_y) / math.sqrt(_divided(len(y), divisor))
    return _distance(mean_x, _short(a), mean_y, _short(b))


def frechet_of_moments(a: Moments, b: Moments, divisor: Divisor = "n-1") -> float:
    """The same, of sets of which only the moments are left: to about 1e-7 of the larger trace
    where covariances are singular, better where they aren't."""
    if a.dim != b.dim:
        raise ValueError(f"{a.dim} features a sample against {b.dim}")
    return _distance(a.mean, _root(a, divisor), b.mean, _root(b, divisor))


def extrapolated(
    x: Tensor,
    y: Tensor,
    sizes: Sequence[int] | None = None,
    repeats: int = 1,
    seed: int = 0,
    divisor: Divisor = "n-1",
) -> Fit:
    """The distance that sets without end would have: a least-squares line over 1/n through the
    distances of random subsets (FID∞, Chong & Forsyth 2020, Sec. 4).

    Subsets are drawn without replacement, of n samples from either side, `repeats` at each n of
    `sizes` (default: `sizes_of`). The intercept may be negative: it estimates, and without bias
    only as far as distances are straight in 1/n, which starts at a few n for each feature.
    """
    x, y = samples.pair(x, y, least=2)
    most = min(len(x), len(y))
    sizes = sorted(set(sizes_of(most, x.shape[1]) if sizes is None else sizes))
    if len(sizes) < 2 or sizes[0] < 2 or sizes[-1] > most:
        raise ValueError(f"sizes {sizes}: two or more from 2 to {most} make a line")
    if repeats < 1:
        raise ValueError(f"{repeats} repeats")
    draw = torch.Generator().manual_seed(seed)
    points = []
    for n in sizes:
        found = 0.0
        for _ in range(repeats):
            i = torch.randperm(len(x), generator=draw)[:n]
            j = torch.randperm(len(y), generator=draw)[:n]
            found += frechet_distance(x[i], y[j], divisor) / repeats
        points.append((n, found))
    over = [1 / n for n in sizes]
    middle, mean = sum(over) / len(over), sum(v for _, v in points) / len(points)
    slope = sum((u - middle) * v for u, (_, v) in zip(over, points, strict=True))
    slope /= sum((u - middle) ** 2 for u in over)
    return Fit(mean - slope * middle, slope, tuple(points))


def sizes_of(n: int, dim: int) -> list[int]:
    """At most 15 sizes, evenly apart in 1/size, up to `n`: from a tenth of it, or from twice as
    many as there are features if that is more, but at least from half of `n`."""
    least = max(2, min(max(n // 10, 2 * dim), n // 2))
    over = torch.linspace(1 / least, 1 / n, SIZES, dtype=torch.float64)
    return sorted({round(1 / u) for u in over.tolist()})


def _distance(mean_x: Tensor, a: Tensor, mean_y: Tensor, b: Tensor) -> float:
    """Of means, and roots `k d` of covariances."""
    traces = a.square().sum() + b.square().sum()
    found = (mean_x - mean_y).square().sum() + traces - 2 * torch.linalg.svdvals(a @ b.T).sum()
    if not found.isfinite():
        raise ValueError("features are so large that their squares overflow")
    return max(0.0, float(found))  # rounding: the distance of equal sets is 0


def _short(a: Tensor) -> Tensor:
    """`k d` with the same aᵀa and k ≤ d, not by way of aᵀa, which has half of the digits."""
    return a if len(a) <= a.shape[1] else torch.linalg.qr(a, mode="r").R


def _root(moments: Moments, divisor: Divisor) -> Tensor:
    """R `k d` with RᵀR the covariance, and k its rank: no more than n − 1, no direction whose
    variance is rounding."""
    covariance = moments.covariance(divisor)
    if moments.n > moments.dim:  # of full rank, most likely: ten times faster
        lower, failed = torch.linalg.cholesky_ex(covariance)
        pivots = lower.diagonal().square()
        if not failed and pivots.min() > PIVOT * pivots.max():
            return lower.T
    values, vectors = torch.linalg.eigh(covariance)
    rounding = values[-1] * moments.dim * torch.finfo(torch.float64).eps
    most = min(moments.dim, moments.n - 1)
    kept = (values > rounding) & (torch.arange(moments.dim) >= moments.dim - most)
    return values[kept].sqrt()[:, None] * vectors[:, kept].T


def _divided(n: int, divisor: Divisor) -> int:
    if divisor not in ("n-1", "n"):
        raise ValueError(f"divisor {divisor!r} is neither 'n-1' nor 'n'")
    by = n - 1 if divisor == "n-1" else n
    if by < 1:
        raise ValueError(f"{n} samples have no covariance, divided by {divisor}")
    return by
