"""The sliced distance against loops, and sets whose distance is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vidgen.metrics import sliced
from vidgen.metrics.sliced import sliced_distance


def draw(seed: int, n: int, d: int, shift: float = 0.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d))) + shift


@settings(max_examples=20)
@given(
    st.integers(0, 99), st.integers(1, 20), st.integers(1, 20), st.integers(1, 6),
    st.integers(1, 9), st.integers(1, 60),
)  # fmt: skip
def test_that_of_loops_in_blocks_of_any_size(
    seed: int, n: int, m: int, d: int, directions: int, block: int
) -> None:
    x, y = draw(seed, n, d), draw(seed + 1000, m, d, 0.4)
    g = torch.Generator().manual_seed(seed)
    i = torch.randperm(n, generator=g)[:m] if n > m else torch.arange(n)
    j = torch.randperm(m, generator=g)[:n] if m > n else torch.arange(m)
    total = 0.0
    for unit in torch.randn(directions, d, generator=g).tolist():
        length = math.hypot(*unit)
        u = sorted(math.fsum(a * b for a, b in zip(unit, v, strict=True)) for v in x[i].tolist())
        v = sorted(math.fsum(a * b for a, b in zip(unit, w, strict=True)) for w in y[j].tolist())
        gaps = [((a - b) / length) ** 2 for a, b in zip(u, v, strict=True)]
        total += sum(gaps) / len(gaps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliced, "BLOCK", block)
        found = sliced_distance(x, y, directions, seed)
    assert found == pytest.approx(3 * d * total / directions, rel=1e-5)  # float32 directions


def test_one_feature_has_no_directions_to_choose() -> None:
    x, y = torch.tensor([[0.0], [2], [1]]), torch.tensor([[1.0], [5], [1]])
    # 0 1 2 against 1 1 5: (1 + 0 + 9) / 3
    assert sliced_distance(x, y, 3) == pytest.approx(3 * 10 / 3)


def test_shifts_and_scales() -> None:
    x = draw(1, 80, 12)
    assert sliced_distance(x, x) == 0
    assert sliced_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-18)
    shift = torch.arange(12.0) / 4
    near = 3 * float(shift.square().sum())
    assert sliced_distance(x, x + shift, 20_000) == pytest.approx(near, rel=0.03)
    y = draw(2, 80, 12, 0.3)
    was = sliced_distance(x, y)
    assert sliced_distance(y, x) == pytest.approx(was)
    assert sliced_distance(5 * x, 5 * y) == pytest.approx(25 * was)
    assert sliced_distance(x, y, seed=1) != was
    assert sliced_distance(x, y, seed=1) == pytest.approx(was, rel=0.1)


def test_what_is_refused() -> None:
    x = draw(1, 10, 3)
    with pytest.raises(ValueError, match="3 features a sample against 2"):
        sliced_distance(x, x[:, :2])
    with pytest.raises(ValueError, match="NaN"):
        sliced_distance(x, x * math.nan)
    with pytest.raises(ValueError, match="0 directions"):
        sliced_distance(x, x, 0)
    with pytest.raises(ValueError, match="0 samples"):
        sliced_distance(x, x[:0])
