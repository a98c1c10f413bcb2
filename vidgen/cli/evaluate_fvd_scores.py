"""The scores of `vidgen evaluate-fvd`: distances of two sets of features, and how sure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidgen.cli.eval_clips import Warns
from vidgen.metrics.report import Score

if TYPE_CHECKING:
    from torch import Tensor

    from vidgen.metrics.feature_file import FeatureSet
    from vidgen.metrics.frechet import Divisor

SCORES = ("fvd", "fvd_infinity", "kvd", "precision", "recall", "density", "coverage")
RESAMPLES = 100
REPEATS = 3  # subsets of each size that the extrapolation averages
SUBSETS, SUBSET_SIZE = 100, 1000  # of KVD; a quarter of the clips where that is less
WHOLE = 2000  # clips of a side up to which KVD is computed of all at once
NEIGHBORS = 5
CROOKED = 0.02  # residual of the line, as a share of the distance, above which it is no line


@dataclass(frozen=True)
class Measured:
    scores: dict[str, Score]
    details: dict[str, Any]


def settings(divisor: Divisor, seed: int) -> dict[str, Any]:
    """What decides the scores beside features."""
    return {
        "divisor": divisor, "seed": seed, "bootstrap_resamples": RESAMPLES,
        "kernel": "(x.y/d + 1)^3, unbiased",
        "kvd_of_all_up_to": WHOLE,
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
    from vidgen.metrics import bootstrap, frechet

    x, y = real.features, fake.features
    n, m, dim = len(x), len(y), x.shape[1]
    least = min(n, m)
    ranks = [frechet.Moments.of(f).rank() for f in (x, y)]
    value = frechet.frechet_distance(x, y, divisor)
    low, high = bootstrap.interval(
        lambda i, j: frechet.frechet_distance(x[i], y[j], divisor), n, m, RESAMPLES, seed
    )
    scores = {"fvd": Score(value, low, high, "lower", n=least)}
    details: dict[str, Any] = {
        "n_real": n, "n_fake": m, "dim": dim, "rank_real": ranks[0], "rank_fake": ranks[1],
        "divisor": divisor,
    }  # fmt: skip
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
        fit = frechet.extrapolated(x, y, repeats=REPEATS, seed=seed, divisor=divisor)
        scores["fvd_infinity"] = Score(fit.intercept, better="lower", n=least)
        details["bias"] = {
            "n": [size for size, _ in fit.points], "value": [v for _, v in fit.points],
            "slope": fit.slope, "intercept": fit.intercept, "residual": fit.residual,
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


def _kernel(x: Tensor, y: Tensor, seed: int) -> tuple[Score, dict[str, Any]]:
    """KVD of the whole sets, or where they are large the mean of subsets; and how subsets scatter.

    The interval is an estimate: subsets of a quarter of the clips scatter by s, and what is
    computed from all of them, by about half of that.
    """
    from vidgen.metrics.intervals import Z
    from vidgen.metrics.kernel import kernel_distance

    least = min(len(x), len(y))
    size = min(SUBSET_SIZE, max(2, least // 4))
    mean, std = kernel_distance(x, y, subsets=SUBSETS, subset_size=size, seed=seed)
    value = mean if max(len(x), len(y)) > WHOLE else kernel_distance(x, y)[0]
    half = Z * std * math.sqrt(size / least)
    score = Score(value, value - half, value + half, "lower", n=least)
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
