"""How sure one can be of the mean of differences: of the same clips, measured twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from vidgen.metrics.intervals import Z

# Five differences of one sign are chance in 1 of 16 cases, six in 1 of 32: fewer tell nothing.
FEWEST = 6


def mean_interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """The interval of 95 % of their mean (Student 1908). None if fewer than six are not 0: then
    it would be narrower than what chance alone does."""
    n = len(differences)
    if sum(x != 0 for x in differences) < FEWEST:
        return None
    mean = fmean(differences)
    spread = math.sqrt(sum((x - mean) ** 2 for x in differences) / (n - 1))
    half = student(n - 1) * spread / math.sqrt(n)
    return mean - half, mean + half


def student(freedom: int) -> float:
    """What a t of 4 and more degrees of freedom is beyond, either way, in 5 % of all cases: the
    expansion around the normal's (Abramowitz & Stegun 26.7.5), to 0.001."""
    z = Z
    return z + sum(
        term / freedom**k
        for k, term in enumerate(
            (
                (z**3 + z) / 4,
                (5 * z**5 + 16 * z**3 + 3 * z) / 96,
                (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
                (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
            ),
            start=1,
        )
    )
