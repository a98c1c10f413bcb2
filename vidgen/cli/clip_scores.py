"""Scores that are means over clips, with how sure they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Annotated, Any, Literal

from vidgen.cli.options import option
from vidgen.metrics.report import Score

Better = Literal["lower", "higher"] | None

RESAMPLES, SEED, FEWEST = 2000, 0, 5
INTERVAL = {
    "interval": f"bootstrap of clips, {RESAMPLES} resamples, seed {SEED}, widened for few clips"
}

# Why a score that there is isn't measured.
PAIRS_ONLY = "it is of two inputs, REF and MADE"
UNNAMED = "--metrics does not name it"

SkipBad = Annotated[
    bool,
    option("--skip-bad", settable=False,
           help="leave out, and count, what can't be read or has no counterpart"),
]  # fmt: skip


def mean_score(values: Sequence[float], better: Better = None, unit: str = "") -> Score:
    """The mean over clips. Its interval is a bootstrap of the clips, of ends farther out than 2.5 %
    where they are few, as Student's are (Hesterberg 2015, expanded percentiles): plain ones of five
    clips would hold the truth in 84 % of all cases. Of fewer than five there is none, and none
    where a value is infinite."""
    import numpy as np

    from vidgen.metrics.paired import student

    x = np.asarray(values, dtype=np.float64)
    if len(x) < FEWEST or not np.isfinite(x).all():
        return Score(float(x.mean()), better=better, unit=unit, n=len(x))
    drawn = np.random.default_rng(SEED).integers(0, len(x), (RESAMPLES, len(x)))
    out = 100 * NormalDist().cdf(-math.sqrt(len(x) / (len(x) - 1)) * student(len(x) - 1))
    low, high = np.percentile(x[drawn].mean(axis=1), (out, 100 - out))
    return Score(float(x.mean()), float(low), float(high), better, unit, len(x))


def mean_scores(
    items: Sequence[Mapping[str, Any]], kinds: Mapping[str, tuple[Better, str]]
) -> dict[str, Score]:
    """A score for each name that any item has a number for; `kinds`: what is better, and unit.
    What is infinite is left out unless all is: one such clip would hide all others."""
    found = {}
    for name, (better, unit) in kinds.items():
        values = [item[name] for item in items if item.get(name) is not None]
        if values:
            finite = [value for value in values if not math.isinf(value)]
            found[name] = mean_score(finite or values, better, unit)
    return found
