"""Shares, their intervals, and the test of two on the same trials against scipy's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from vidgen.metrics.intervals import Paired, Share


@given(st.integers(1, 2000), st.data())
def test_wilson_interval_is_scipys(of: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, of))
    low, high = Share(right, of).interval
    ours = binomtest(right, of).proportion_ci(method="wilson")
    assert low == pytest.approx(ours.low, abs=1e-9)
    assert high == pytest.approx(ours.high, abs=1e-9)


def test_share_of_nothing_is_not_a_number() -> None:
    assert math.isnan(Share(0, 0).share)
    assert Share(0, 0).interval == (0.0, 1.0)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemars_test_is_scipys_binomial_one(first: int, second: int) -> None:
    ours = Paired(7, first, second, 3).p
    theirs = binomtest(first, first + second).pvalue if first + second else 1.0
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_many_trials_are_no_hardship() -> None:
    assert 0 < Paired(0, 49_000, 51_000, 0).p < 1e-9


def test_pairs_are_counted() -> None:
    first = [True, True, True, False, False, False]
    second = [True, True, False, True, False, False]
    assert Paired.of(first, second) == Paired(both=2, first=1, second=1, neither=2)
    with pytest.raises(ValueError, match="shorter"):
        Paired.of(first, second[:5])
