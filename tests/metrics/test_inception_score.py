"""The Inception score of predictions whose score is known, and against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidgen.metrics.inception_score import inception_score


def test_predictions_that_say_nothing() -> None:
    assert inception_score(torch.zeros(40, 7)) == pytest.approx((1, 0))
    always_one = torch.zeros(40, 7)
    always_one[:, 3] = 1000.0
    assert inception_score(always_one) == pytest.approx((1, 0))


@pytest.mark.parametrize("sure", [50.0, 1e4])
def test_sure_predictions_of_all_classes(sure: float) -> None:
    """As many as there are classes; probabilities of 0 in float64 are no NaN."""
    classes = torch.eye(5).repeat(20, 1) * sure
    assert inception_score(classes) == pytest.approx((5, 0))
    assert inception_score(classes, splits=1)[0] == pytest.approx(5)
    assert inception_score(classes * torch.tensor([1, 1, 0, 0, 0]), splits=1)[0] < 5


@settings(max_examples=20)
@given(st.integers(0, 99), st.integers(10, 50), st.integers(1, 9), st.integers(1, 10))
def test_that_of_numpy(seed: int, n: int, classes: int, splits: int) -> None:
    r = np.random.default_rng(seed)
    logits = 3 * r.standard_normal((n, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = []
    for i in range(splits):
        part = p[i * n // splits : (i + 1) * n // splits]
        each = [
            sum(q * math.log(q / m) for q, m in zip(row, part.mean(0), strict=True)) for row in part
        ]
        scores.append(math.exp(sum(each) / len(each)))
    found = inception_score(torch.from_numpy(logits), splits)
    assert found == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-9, abs=1e-9)


def test_order_matters_to_parts_alone() -> None:
    logits = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)) * 4
    by_class = logits[logits.argmax(dim=1).argsort()]
    one = inception_score(logits, splits=1)
    assert inception_score(by_class, splits=1) == pytest.approx(one)
    assert inception_score(by_class, splits=5)[0] < 0.8 * inception_score(logits, splits=5)[0]


def test_a_seed_shuffles_as_numpys() -> None:
    logits = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)) * 4
    order = torch.from_numpy(np.random.RandomState(42).permutation(60))
    assert inception_score(logits, 5, seed=42) == inception_score(logits[order], 5)
    assert inception_score(logits, 5, seed=42) != inception_score(logits, 5)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="9 samples, 10"):
        inception_score(torch.zeros(9, 4))
    with pytest.raises(ValueError, match="0 splits"):
        inception_score(torch.zeros(9, 4), splits=0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        inception_score(torch.full((10, 4), -math.inf))
