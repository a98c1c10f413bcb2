"""Precision, recall, density and coverage against loops and sets whose values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vidgen.metrics import prdc as module
from vidgen.metrics.prdc import Prdc, prdc


def draw(seed: int, n: int, d: int, shift: float = 0.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d))) + shift


def by_loops(real: Tensor, fake: Tensor, k: int) -> Prdc:
    reals, fakes = real.tolist(), fake.tolist()

    def reach(of: list[list[float]]) -> list[float]:
        return [
            sorted(math.dist(u, v) for j, v in enumerate(of) if i != j)[k - 1]
            for i, u in enumerate(of)
        ]

    around_real, around_fake = reach(reals), reach(fakes)
    in_real = [
        [math.dist(r, f) < around for f in fakes]
        for r, around in zip(reals, around_real, strict=True)
    ]
    in_fake = [
        [math.dist(r, f) < around for f, around in zip(fakes, around_fake, strict=True)]
        for r in reals
    ]
    return Prdc(
        precision=sum(any(row[j] for row in in_real) for j in range(len(fakes))) / len(fakes),
        recall=sum(any(row) for row in in_fake) / len(reals),
        density=sum(sum(row) for row in in_real) / len(fakes) / k,
        coverage=sum(any(row) for row in in_real) / len(reals),
    )


def same(found: Prdc, other: Prdc) -> None:
    assert vars(found) == pytest.approx(vars(other), abs=1e-12)


@settings(max_examples=40)
@given(
    st.integers(0, 99), st.integers(6, 30), st.integers(6, 30), st.integers(1, 6),
    st.integers(1, 5), st.floats(0, 2), st.integers(1, 200),
)  # fmt: skip
def test_that_of_loops_in_blocks_of_any_size(
    seed: int, n: int, m: int, d: int, k: int, shift: float, block: int
) -> None:
    real, fake = draw(seed, n, d), draw(seed + 1000, m, d, shift)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        same(prdc(real, fake, k), by_loops(real, fake, k))


@settings(max_examples=25)
@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 3))
def test_ties_on_a_grid(seed: int, d: int, k: int) -> None:
    """Whole coordinates: many samples lie on balls, some are copies; far from zero, too."""
    r = np.random.default_rng(seed)
    real, fake = (torch.from_numpy(r.integers(0, 4, (12, d)).astype(float)) for _ in range(2))
    exact = by_loops(real, fake, k)
    same(prdc(real, fake, k), exact)
    same(prdc(real * 3 + 1000, fake * 3 + 1000, k), exact)
    turn = torch.linalg.qr(draw(seed, d, d))[0]
    same(prdc(real @ turn, fake @ turn, k), exact)


def test_a_set_and_itself() -> None:
    x = draw(1, 200, 8)
    same(prdc(x, x), Prdc(1, 1, 1, 1))
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    same(prdc(x, x[order]), Prdc(1, 1, 1, 1))


def test_sets_far_apart() -> None:
    same(prdc(draw(1, 50, 4), draw(2, 60, 4, 100.0)), Prdc(0, 0, 0, 0))


def test_fewer_kinds_lower_recall_and_coverage_alone() -> None:
    """Two clumps of reals, fakes in one of them."""
    real = torch.cat([draw(1, 200, 2), draw(2, 200, 2, 50.0)])
    found = prdc(real, draw(3, 200, 2))
    assert found.precision > 0.9 and found.density > 0.9
    assert 0.4 < found.recall <= 0.5 and 0.4 < found.coverage <= 0.5


def test_one_clip_made_again_and_again() -> None:
    """Copies have empty balls: nothing is recalled, however good the copy is."""
    real = draw(1, 100, 8)
    fake = real[:1].repeat(50, 1)
    found = prdc(real, fake)
    assert found.precision == 1 and found.recall == 0
    assert found.coverage < 0.5
    same(prdc(fake, fake), Prdc(0, 0, 0, 0))


def test_on_a_line() -> None:
    """0 1 2 3 and 0.5 9 10 11, k = 1: every ball is 1 wide, those of 0.5 reach 8.5."""
    real = torch.tensor([[0.0], [1], [2], [3]])
    fake = torch.tensor([[0.5], [9], [10], [11]])
    # Only 0.5 is in balls of reals (0's and 1's); all reals are in its ball, in no other.
    same(prdc(real, fake, k=1), Prdc(precision=1 / 4, recall=1, density=2 / 4, coverage=2 / 4))


def test_what_is_refused() -> None:
    x = draw(1, 6, 3)
    prdc(x, x)
    with pytest.raises(ValueError, match="5 samples, 6"):
        prdc(x, x[:5])
    with pytest.raises(ValueError, match="k 0"):
        prdc(x, x, k=0)
    with pytest.raises(ValueError, match="3 features a sample against 2"):
        prdc(x, x[:, :2])
    with pytest.raises(ValueError, match="NaN"):
        prdc(x, x * math.nan)
