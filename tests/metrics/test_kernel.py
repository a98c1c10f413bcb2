"""The kernel distance against loops, closed values, and what must not change it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vidgen.metrics import kernel
from vidgen.metrics.kernel import kernel_distance


def draw(seed: int, n: int, d: int, shift: float = 0.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d))) + shift


def by_loops(
    x: Tensor, y: Tensor, degree: int, coef0: float, gamma: float, unbiased: bool
) -> float:
    """Pair by pair, in Python's own numbers."""

    def k(a: list[float], b: list[float]) -> float:
        return (gamma * math.fsum(u * v for u, v in zip(a, b, strict=True)) + coef0) ** degree

    def within(a: list[list[float]]) -> float:
        pairs = [
            k(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j or not unbiased
        ]
        return math.fsum(pairs) / len(pairs)

    xs, ys = x.tolist(), y.tolist()
    between = math.fsum(k(a, b) for a in xs for b in ys) / (len(xs) * len(ys))
    return within(xs) + within(ys) - 2 * between


@settings(max_examples=25)
@given(
    st.integers(0, 99), st.integers(2, 9), st.integers(2, 9), st.integers(1, 5),
    st.integers(1, 4), st.sampled_from([0.0, 1.0, 2.5]), st.booleans(), st.integers(1, 4),
)  # fmt: skip
def test_that_of_loops_in_blocks_of_any_size(
    seed: int, n: int, m: int, d: int, degree: int, coef0: float, unbiased: bool, block: int
) -> None:
    x, y = draw(seed, n, d), draw(seed + 1000, m, d, 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "BLOCK", block)
        found, spread = kernel_distance(x, y, degree=degree, coef0=coef0, unbiased=unbiased)
    assert found == pytest.approx(
        by_loops(x, y, degree, coef0, 1 / d, unbiased), rel=1e-9, abs=1e-9
    )
    assert spread == 0


def test_integers() -> None:
    """The example that JEDi's code carries; what it gives, not all that its comments say."""
    x = torch.arange(1.0, 10).reshape(3, 3)
    y = torch.tensor([[7.0, 6, 5], [4, 3, 2], [1, 1, 8], [0, 2, 5]])

    def found(degree: int, coef0: float, **others: float) -> float:
        return kernel_distance(x, y, degree=degree, coef0=coef0, unbiased=False, **others)[0]  # type: ignore[arg-type]

    assert found(2, 0.0) == pytest.approx(270.7222, abs=1e-4)
    assert found(3, 1.0) == pytest.approx(23088.0833, abs=1e-4)
    assert found(2, 0.0, gamma=1.0) == pytest.approx(2436.5)
    assert found(2, 0.0, scale=100.0) == pytest.approx(27072.22, abs=1e-2)


def test_a_set_and_itself() -> None:
    x = draw(1, 30, 6)
    assert kernel_distance(x, x, unbiased=False)[0] == pytest.approx(0, abs=1e-12)
    every = (x @ x.T / 6 + 1) ** 3
    diagonal = float(every.diagonal().mean())
    others = float(every.sum() - every.diagonal().sum()) / (30 * 29)
    found = kernel_distance(x, x)[0]
    assert found == pytest.approx(-2 * (diagonal - others) / 30)
    assert found < 0  # and is not clamped


def test_unbiased_is_zero_in_the_mean_where_distributions_are_equal() -> None:
    found = [kernel_distance(draw(i, 20, 4), draw(1000 + i, 20, 4))[0] for i in range(200)]
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found)) < 3 * error
    assert min(found) < 0
    biased = [
        kernel_distance(draw(i, 20, 4), draw(1000 + i, 20, 4), unbiased=False)[0] for i in range(20)
    ]
    assert min(biased) > 0


@settings(max_examples=20)
@given(st.integers(0, 99), st.integers(2, 30), st.integers(2, 30), st.integers(1, 12))
def test_what_keeps_it(seed: int, n: int, m: int, d: int) -> None:
    x, y = draw(seed, n, d), draw(seed + 1000, m, d, 0.3)
    was = pytest.approx(kernel_distance(x, y)[0], rel=1e-9, abs=1e-9)
    assert kernel_distance(y, x)[0] == was
    turn = torch.linalg.qr(draw(seed, d, d))[0]
    assert kernel_distance(x @ turn, y @ turn)[0] == was
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert kernel_distance(x[order], y)[0] == was


def test_subsets_are_those_of_numpys_generator() -> None:
    x, y = draw(2, 40, 3), draw(3, 50, 3, 0.4)
    rng, found = np.random.RandomState(2020), []
    for _ in range(5):
        i, j = rng.choice(40, 10, replace=False), rng.choice(50, 10, replace=False)
        found.append(kernel_distance(x[i], y[j])[0])
    mean, std = kernel_distance(x, y, subsets=5, subset_size=10, seed=2020)
    assert mean == pytest.approx(np.mean(found)) and std == pytest.approx(np.std(found))
    assert kernel_distance(x, y, subsets=5, subset_size=10, seed=1) != (mean, std)
    assert kernel_distance(x, y, subsets=3, scale=1000.0)[0] == pytest.approx(
        1000 * kernel_distance(x, y, subsets=3)[0]
    )
    # All of both sets, each time.
    assert kernel_distance(x, y[:40], subsets=3) == pytest.approx(
        (kernel_distance(x, y[:40])[0], 0), abs=1e-9
    )


def test_what_is_refused() -> None:
    x = draw(1, 10, 3)
    with pytest.raises(ValueError, match="1 samples, 2"):
        kernel_distance(x, x[:1])
    assert kernel_distance(x[:1], x[:1], unbiased=False)[0] == pytest.approx(0)
    with pytest.raises(ValueError, match="3 features a sample against 2"):
        kernel_distance(x, x[:, :2])
    with pytest.raises(ValueError, match="NaN"):
        kernel_distance(x, x * math.nan)
    for size in (1, 11):
        with pytest.raises(ValueError, match=f"subsets of {size} samples"):
            kernel_distance(x, x, subsets=2, subset_size=size)
    with pytest.raises(ValueError, match="0 subsets"):
        kernel_distance(x, x, subsets=0)
    with pytest.raises(ValueError, match="how many"):
        kernel_distance(x, x, subset_size=5)
    with pytest.raises(ValueError, match="degree"):
        kernel_distance(x, x, degree=0)
