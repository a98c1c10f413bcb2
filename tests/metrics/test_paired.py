"""The interval of a mean difference against SciPy, and how often it holds what is true."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vidgen.metrics.paired import FEWEST, mean_interval, student


@pytest.mark.parametrize("freedom", [4, 5, 6, 7, 10, 30, 1000])
def test_students_quantile(freedom: int) -> None:
    assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-3)


def test_against_scipy() -> None:
    x = np.random.default_rng(0).standard_normal(20) * 3 + 1
    wanted = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert mean_interval(x.tolist()) == pytest.approx((wanted.low, wanted.high), abs=1e-4)


def test_it_holds_the_truth_in_95_of_100_cases() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.standard_normal((4000, FEWEST)) + 2
    held = 0
    for row in drawn.tolist():
        ends = mean_interval(row)
        assert ends is not None
        held += ends[0] <= 2 <= ends[1]
    assert held / len(drawn) == pytest.approx(0.95, abs=0.012)


def test_few_that_differ_tell_nothing() -> None:
    assert mean_interval([]) is None
    assert mean_interval([1.0] * 5 + [0.0] * 100) is None
    assert mean_interval([1.0] * 6) == (1.0, 1.0)
    ends = mean_interval([1.0] * 6 + [0.0] * 100)
    assert ends is not None and ends[0] > 0
