"""The scores of `vidgen evaluate-fvd`: distances of two sets of features, and how sure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vidgen.cli.eval_clips import Warns
from vidgen.metrics.report import Score

if TYPE_CHECKING:
    from torch import Tensor

    from vidgen.metrics.feature_file import FeatureSet
    from vidgen.metrics.frechet import Divisor, Moments

SCORES = ("fvd", "fvd_infinity", "kvd", "precision", "recall", "density", "coverage")
RESAMPLES = 100  # random halves, see vidgen.metrics.bootstrap
LEAST = 4  # clips of a side that intervals take
MANY = 2000  # clips of a side from which on time matters more than the last bit of variance
GROUPS = 64  # whose moments are resampled in place of so many clips
REPEATS = 3  # subsets of each size that the extrapolation averages
SUBSETS, SUBSET_SIZE = 100, 1000  # of KVD; a quarter of the clips where that is less
NEIGHBORS = 5
CROOKED = 0.02  # residual of the line, as a share of the distance, above which it is no line


@dataclass(frozen=True)
class Measured:
    scores: dict[str, Score]
    details: dict[str, Any]


def settings(divisor: Divisor, seed: int) -> dict[str, Any]:
    """What decides the scores beside features."""
    return {
        "divisor": divisor, "seed": seed, "resampled_halves": RESAMPLES,
        "kernel": "(x.y/d + 1)^3, unbiased",
        "kvd_of_all_up_to": MANY,
        "kvd_subsets": SUBSETS, "kvd_subset_size": SUBSET_SIZE,
        "neighbors": NEIGHBORS, "extrapolation_repeats": REPEATS,
    }  # fmt: skip


def measure(
    real: FeatureSet, fake: FeatureSet, divisor: Divisor, seed: int, warns: Warns
) -> Measured:
    """All scores of two sets of at least two clips each. What can't be told is left out, and said.

    Keeping all features is no matter of memory: 10,000 of 400 take 16 MB. Intervals, subsets and
    neighbors need them one by one; for a Fréchet distance alone `frechet.Moments` would do.
    """
    from vidgen.metrics import frechet

    x, y = real.features, fake.features
    n, m, dim = len(x), len(y), x.shape[1]
    least = min(n, m)
    ranks = [frechet.Moments.of(f).rank() for f in (x, y)]
    value = frechet.frechet_distance(x, y, divisor)
    low, high = _fvd_interval(x, y, divisor, seed)
    scores = {"fvd": Score(value, low, high, "lower", n=least)}
    details: dict[str, Any] = {
        "n_real": n, "n_fake": m, "dim": dim, "rank_real": ranks[0], "rank_fake": ranks[1],
        "divisor": divisor,
    }  # fmt: skip
    if low is None:
        warns.warn(f"no intervals: they take {LEAST} clips of each side")
    if n != m:
        warns.warn(
            f"{n} real and {m} fake clips: the bias of FVD depends on both numbers, so compare it"
            " with others of the same two only"
        )
    if least <= dim:
        warns.warn(
            f"{least} clips for {dim} features: covariances are singular (rank {min(ranks)}), and"
            f" fvd is far too large; it takes more than {dim} clips of each side, better"
            f" {10 * dim}. There is no fvd_infinity"
        )
    else:
        repeats = REPEATS if least < MANY else 1
        fit = frechet.extrapolated(x, y, repeats=repeats, seed=seed, divisor=divisor)
        low, high = _fvd_interval(x, y, divisor, seed, around=fit.intercept)
        scores["fvd_infinity"] = Score(fit.intercept, low, high, "lower", n=least)
        details["bias"] = {
            "n": [size for size, _ in fit.points], "value": [v for _, v in fit.points],
            "slope": fit.slope, "intercept": fit.intercept, "residual": fit.residual,
            "repeats": repeats,
            "of_fvd": value - fit.intercept,
        }  # fmt: skip
        if fit.residual > CROOKED * max(value, abs(fit.intercept)):
            warns.warn(
                f"fvd_infinity is a guess: fvd over 1/n is no straight line with so few clips"
                f" ({least} for {dim} features; residual {fit.residual:.3g})"
            )
    scores["kvd"], details["kvd_subsets"] = _kernel(x, y, seed)
    if least > NEIGHBORS:
        scores |= _neighbors(x, y)
    else:
        warns.warn(
            f"no precision, recall, density and coverage: they take more than {NEIGHBORS} clips"
            f" of each side, here are {least}"
        )
    return Measured(scores, details)


def _fvd_interval(
    x: Tensor, y: Tensor, divisor: Divisor, seed: int, *, around: float | None = None
) -> tuple[float, float] | tuple[None, None]:
    """The interval of the distance; or, `around` an extrapolated one, that of an extrapolation
    from all and half of the clips, which strays no less than the line through more sizes.

    Of many clips, halves are made of groups of clips that were drawn once: moments of groups are
    merged, so that a resample costs no pass through the features.
    """
    import torch

    from vidgen.metrics.bootstrap import interval
    from vidgen.metrics.frechet import Moments, frechet_distance, frechet_of_moments

    least, dim = min(len(x), len(y)), x.shape[1]
    if least < LEAST:
        return None, None
    many = least >= max(MANY, 8 * dim)
    sizes = (GROUPS, GROUPS) if many else (len(x), len(y))
    groups = [_groups(f, seed) for f in (x, y)] if many else []

    def distance(i: Tensor, j: Tensor) -> float:
        if not many:
            return frechet_distance(x[i], y[j], divisor)
        merged = Moments(dim), Moments(dim)
        for into, of, chosen in zip(merged, groups, (i, j), strict=True):
            for k in chosen.tolist():
                into.merge(of[k])
        return frechet_of_moments(*merged, divisor)

    def endless(i: Tensor, j: Tensor) -> float:
        return 2 * distance(i, j) - distance(i[::2], j[::2])

    if around is None:
        return interval(distance, *sizes, RESAMPLES, seed, bounds=(0, math.inf))
    low, high = interval(endless, *sizes, RESAMPLES, seed)
    whole = endless(*(torch.arange(size) for size in sizes))
    return around + low - whole, around + high - whole


def _groups(x: Tensor, seed: int) -> list[Moments]:
    """Moments of random groups of clips, of one size to within a clip."""
    import torch

    from vidgen.metrics.frechet import Moments

    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return [Moments.of(x[part]) for part in order.tensor_split(GROUPS)]


def _kernel(x: Tensor, y: Tensor, seed: int) -> tuple[Score, dict[str, Any]]:
    """KVD of the whole sets, or where they are large the mean of subsets; and how subsets scatter.

    What a subset of k of n clips strays from the whole has the variance 1/k − 1/n, the whole
    strays from the truth by 1/n: hence the factor (see vidgen.metrics.bootstrap).
    """
    from vidgen.metrics.intervals import Z
    from vidgen.metrics.kernel import kernel_distance

    least = min(len(x), len(y))
    size = min(SUBSET_SIZE, max(2, least // 4))
    mean, std = kernel_distance(x, y, subsets=SUBSETS, subset_size=size, seed=seed)
    value = mean if max(len(x), len(y)) > MANY else kernel_distance(x, y)[0]
    score = Score(value, better="lower", n=least)
    if least >= LEAST:
        half = Z * std * math.sqrt(size / (least - size))
        score = replace(score, low=value - half, high=value + half)
    return score, {"mean": mean, "std": std, "size": size, "count": SUBSETS}


def _neighbors(x: Tensor, y: Tensor) -> dict[str, Score]:
    """Shares, with their Wilson intervals, as of clips that are independent. Density is no share:
    above 1 it isn't better, so no direction is stated."""
    from vidgen.metrics.intervals import Share
    from vidgen.metrics.prdc import prdc

    found = prdc(x, y, k=NEIGHBORS)
    scores = {}
    for name, of in (("precision", y), ("recall", x), ("coverage", x)):
        value = getattr(found, name)
        low, high = Share(round(value * len(of)), len(of)).interval
        scores[name] = Score(value, low, high, "higher", n=len(of))
    scores["density"] = Score(found.density, n=len(y))
    return scores
