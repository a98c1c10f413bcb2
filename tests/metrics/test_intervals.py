"""Shares and their intervals against scipy's."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from vidgen.metrics.intervals import Share


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
