"""Means over clips: their intervals hold what is true, however few the clips are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidgen.cli.clip_scores import FEWEST, mean_score


@pytest.mark.parametrize(("clips", "least"), [(FEWEST, 0.90), (8, 0.93), (16, 0.93)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(clips: int, least: float) -> None:
    rng, held, trials = np.random.default_rng(3), 0, 400
    for row in rng.standard_normal((trials, clips)) + 7:
        low, high = mean_score(row.tolist()).interval or (0, 0)
        held += low <= 7 <= high
    assert least <= held / trials < 0.985


def test_ends_stay_within_the_values_and_few_clips_have_none() -> None:
    score = mean_score([0.0, 1, 1, 1, 1, 1], "higher", "dB")
    assert score.interval is not None and 0 <= score.interval[0] < score.value < 1
    assert score.interval[1] == 1
    assert mean_score([1.0, 2, 3, 4]).interval is None
    assert mean_score([1.0, 2, 3, 4, math.inf]).interval is None
