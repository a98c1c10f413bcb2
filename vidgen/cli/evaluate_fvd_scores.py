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
    from vidgen.metrics.frechet import Divisor

SCORES = ("fvd", "fvd_infinity", "kvd", "precision", "recall", "density", "coverage", "failed")
RESAMPLES = 100  # random halves, see vidgen.metrics.bootstrap
MANY = 2000  # clips of a side from which on time matters more than the last bit of variance
REPEATS = 3  # subsets of each size that the extrapolation averages
SUBSETS, SUBSET_SIZE = (
    100,
    1000,
)  # of KVD; a quarter (of neighbors, half) of the clips where that is less
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
        "neighbors": NEIGHBORS, "neighbors_subset_size": SUBSET_SIZE,
        "extrapolation_repeats": REPEATS,
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
    scores = {"fvd": Score(value, better="lower", n=least)}
    details: dict[str, Any] = {
        "n_real": n, "n_fake": m, "dim": dim, "rank_real": ranks[0], "rank_fake": ranks[1],
        "divisor": divisor,
    }  # fmt: skip
    if least < bootstrap.LEAST:
        warns.warn(
            f"no intervals: they take {bootstrap.LEAST} clips of each side, here are {least}"
        )
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
        if least >= bootstrap.LEAST:
            low, high = bootstrap.frechet_interval(x, y, divisor, RESAMPLES, seed)
            scores["fvd"] = replace(scores["fvd"], low=low, high=high)
    else:
        repeats = REPEATS if least < MANY else 1
        fit = frechet.extrapolated(x, y, repeats=repeats, seed=seed, divisor=divisor)
        scores["fvd_infinity"] = Score(fit.intercept, better="lower", n=least)
        if least >= bootstrap.LEAST:
            both = bootstrap.frechet_intervals(x, y, fit.intercept, divisor, RESAMPLES, seed)
            for name, (low, high) in zip(("fvd", "fvd_infinity"), both, strict=True):
                scores[name] = replace(scores[name], low=low, high=high)
        details["bias"] = {
            "n": [size for size, _ in fit.points], "value": [v for _, v in fit.points],
            "slope": fit.slope, "intercept": fit.intercept, "residual": fit.residual,
            "repeats": repeats,
            "of_fvd": value - fit.intercept,
        }  # fmt: skip
        if fit.residual > CROOKED * max(value, abs(fit.intercept)):
            warns.warn(
                f"fvd_infinity is a guess: fvd over 1/n strays from a straight line by"
                f" {fit.residual:.3g} ({least} clips for {dim} features)"
            )
    scores["kvd"], details["kvd_subsets"] = _kernel(x, y, seed)
    if least > NEIGHBORS:
        scores |= _neighbors(x, y, seed, warns)
    else:
        warns.warn(
            f"no precision, recall, density and coverage: they take more than {NEIGHBORS} clips"
            f" of each side, here are {least}"
        )
    return Measured(scores, details)


def _kernel(x: Tensor, y: Tensor, seed: int) -> tuple[Score, dict[str, Any]]:
    """KVD of the whole sets, or where they are large the mean of subsets; and how subsets scatter.

    What a subset of k of n clips strays from the whole has the variance 1/k − 1/n, the whole
    strays from the truth by 1/n: hence the factor (see vidgen.metrics.bootstrap). A mean of subsets
    strays from the whole, too.
    """
    from vidgen.metrics.bootstrap import LEAST
    from vidgen.metrics.intervals import Z
    from vidgen.metrics.kernel import kernel_distance

    least = min(len(x), len(y))
    size = min(SUBSET_SIZE, max(2, least // 4))
    mean, std = kernel_distance(x, y, subsets=SUBSETS, subset_size=size, seed=seed)
    whole = None if max(len(x), len(y)) > MANY else kernel_distance(x, y)[0]
    value = mean if whole is None else whole
    score = Score(value, better="lower", n=least)
    if least >= LEAST:
        strays = size / (least - size) + (1 / SUBSETS if whole is None else 0)
        half = Z * std * math.sqrt(strays)
        score = replace(score, low=value - half, high=value + half)
    return score, {"mean": mean, "std": std, "size": size, "count": SUBSETS}


def _neighbors(x: Tensor, y: Tensor, seed: int, warns: Warns) -> dict[str, Score]:
    """Their intervals are of random halves (smaller parts of more clips, with the factor of
    `_kernel`), about the values of the whole; of shares, at least those of Wilson. By themselves
    these hold the mean four times of five, since balls change with the clips too.

    Density is no share: above 1 it isn't better, so no direction is stated."""
    import torch

    from vidgen.metrics.intervals import Share, Z
    from vidgen.metrics.prdc import prdc

    found = vars(prdc(x, y, k=NEIGHBORS))
    part = min(0.5, SUBSET_SIZE / max(len(x), len(y)))
    n, m = int(part * len(x)), int(part * len(y))
    half: dict[str, float] = {}
    if min(n, m) > NEIGHBORS:
        draw = torch.Generator().manual_seed(seed)

        def some(of: Tensor, size: int) -> Tensor:
            return of[torch.randperm(len(of), generator=draw)[:size]]

        parts = [vars(prdc(some(x, n), some(y, m), k=NEIGHBORS)) for _ in range(RESAMPLES)]
        for name in found:
            std = float(torch.tensor([of[name] for of in parts], dtype=torch.float64).std())
            half[name] = Z * std * math.sqrt(part / (1 - part))
    else:
        warns.warn(
            f"precision, recall, density and coverage have no intervals: halves of {len(x)} and"
            f" {len(y)} clips are too small for them"
        )
    scores = {}
    for name, of in (("precision", y), ("recall", x), ("density", y), ("coverage", x)):
        score = Score(value := found[name], better="higher", n=len(of))
        if name == "density":
            score = replace(score, better=None)
        if name in half:
            low, high = max(0.0, value - half[name]), value + half[name]
            if name != "density":
                wilson = Share(round(value * len(of)), len(of)).interval
                low, high = min(low, wilson[0]), min(1.0, max(high, wilson[1]))
            score = replace(score, low=low, high=high)
        scores[name] = score
    return scores
