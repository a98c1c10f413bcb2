"""The Fréchet distance: closed forms, scipy's matrix root, and what must not change it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import linalg
from scipy.spatial.transform import Rotation
from torch import Tensor

from vidgen.metrics.frechet import (
    Fit,
    Moments,
    extrapolated,
    frechet_distance,
    frechet_of_moments,
    sizes_of,
)

DIVISORS = ("n-1", "n")


def features(seed: int, n: int, d: int, shift: float = 0.0) -> Tensor:
    r = np.random.default_rng(seed)
    mixed = r.standard_normal((d, d)) / np.sqrt(d)
    return torch.from_numpy(r.standard_normal((n, d)) @ mixed + shift)


def known(mean: list[float], covariance: np.ndarray, n: int = 40) -> Tensor:
    """Samples whose mean and covariance (over n − 1) are these to rounding."""
    x = np.random.default_rng(0).standard_normal((n, len(mean)))
    x -= x.mean(axis=0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return torch.from_numpy(white @ np.linalg.cholesky(covariance).T + np.array(mean))


def gathered(x: Tensor, *at: int) -> Moments:
    """Moments of `x`, added in batches that are cut at `at`."""
    moments = Moments(x.shape[1])
    for batch in x.tensor_split(sorted(at)):
        moments.add(batch)
    return moments


def by_matrix_root(x: Tensor, y: Tensor) -> float:
    """As most do it, by a complex root of an unsymmetric product."""
    cx, cy = np.cov(x.numpy().T), np.cov(y.numpy().T)
    gap = float((x.mean(dim=0) - y.mean(dim=0)).square().sum())
    return gap + float(np.trace(cx + cy - 2 * linalg.sqrtm(cx @ cy).real))


def both_ways(x: Tensor, y: Tensor) -> list[float]:
    return [frechet_distance(x, y), frechet_of_moments(Moments.of(x), Moments.of(y))]


def test_axis_aligned_gaussians() -> None:
    x = known([0, 0, 0], np.diag([1.0, 4, 9]))
    y = known([1, 2, 3], np.diag([4.0, 9, 16]))
    assert both_ways(x, y) == pytest.approx([17, 17], abs=1e-9)


def test_gaussians_whose_covariances_do_not_commute() -> None:
    turn = Rotation.from_euler("xyz", [20, 30, 40], degrees=True).as_matrix()
    x = known([0, 0, 0], turn @ np.diag([1.0, 2, 3]) @ turn.T)
    y = known([0.1, 0.2, 0.3], np.diag([2.0, 5, 0.5]))
    assert both_ways(x, y) == pytest.approx([1.9211540048] * 2, abs=1e-9)


def test_fewer_samples_than_dimensions() -> None:
    x, y = features(31, 20, 64), features(32, 24, 64, 0.5)
    assert both_ways(x, y) == pytest.approx([94.7775048917] * 2, abs=1e-8)
    assert frechet_distance(x, y, "n") == pytest.approx(91.4000168364, abs=1e-8)
    found = frechet_of_moments(Moments.of(x), Moments.of(y), "n")
    assert found == pytest.approx(91.4000168364, abs=1e-8)
    assert Moments.of(x).rank() == 19


@pytest.mark.parametrize(("n", "m", "d"), [(80, 70, 5), (60, 300, 32), (50, 20, 30), (20, 24, 64)])
def test_that_of_the_matrix_root(n: int, m: int, d: int) -> None:
    x, y = features(1, n, d), features(2, m, d, 0.3)
    assert both_ways(x, y) == pytest.approx([by_matrix_root(x, y)] * 2, rel=1e-6)


@settings(max_examples=20)
@given(
    st.integers(0, 99), st.integers(2, 30), st.integers(2, 30), st.integers(1, 12),
    st.floats(-3, 3), st.floats(0.1, 10),
)  # fmt: skip
def test_what_keeps_it_and_what_scales_it(
    seed: int, n: int, m: int, d: int, shift: float, scale: float
) -> None:
    x, y = features(seed, n, d), features(seed + 1000, m, d, shift)
    was = frechet_distance(x, y)
    close = {"rel": 1e-9, "abs": 1e-9 * (1 + d)}
    assert was >= 0
    assert frechet_distance(y, x) == pytest.approx(was, **close)
    assert frechet_of_moments(Moments.of(x), Moments.of(y)) == pytest.approx(was, abs=1e-6)
    turn = torch.linalg.qr(features(seed, d, d))[0]
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(was, **close)
    assert frechet_distance(x + 9, y + 9) == pytest.approx(was, **close)
    assert frechet_distance(scale * x, scale * y) == pytest.approx(
        scale**2 * was, rel=1e-9, abs=1e-7 * scale**2
    )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert frechet_distance(x[order], y) == pytest.approx(was, **close)
    for divisor in DIVISORS:
        assert frechet_distance(x, x, divisor) == pytest.approx(0, abs=1e-8)
        apart = frechet_distance(x, x + shift, divisor)
        assert apart == pytest.approx(d * shift**2, rel=1e-9, abs=1e-8)


@settings(max_examples=20)
@given(st.integers(0, 99), st.lists(st.integers(0, 50), max_size=6), st.integers(0, 50))
def test_batches_and_shards_are_the_whole(seed: int, cuts: list[int], shard: int) -> None:
    x, y = features(seed, 50, 7, 100.0), features(seed + 1000, 40, 7, 100.5)
    whole = Moments.of(x)
    first, second = gathered(x[:shard], *(c for c in cuts if c < shard)), gathered(x[shard:])
    first.merge(second)
    for parts in (gathered(x, *cuts), first):
        assert parts.n == 50
        assert_allclose(parts.mean, whole.mean, rtol=1e-12)
        assert_allclose(parts.scatter, whole.scatter, rtol=1e-9, atol=1e-9)
        found = frechet_of_moments(parts, Moments.of(y))
        assert found == pytest.approx(frechet_distance(x, y), rel=1e-9)


def test_moments_are_numpys() -> None:
    x = features(3, 30, 4, 2.0)
    moments = gathered(x, 1, 2, 17)
    assert_allclose(moments.mean, x.numpy().mean(axis=0), rtol=1e-12)
    for divisor, ddof in zip(DIVISORS, (1, 0), strict=True):
        assert_allclose(moments.covariance(divisor), np.cov(x.numpy().T, ddof=ddof), rtol=1e-12)


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    """Sums of squares would have lost all of them: (1e8)² in float64 is good to 2."""
    x, y = features(4, 200, 3).round(decimals=3), features(5, 200, 3, 0.4).round(decimals=3)
    far = frechet_of_moments(gathered(x + 1e8, 10, 90), gathered(y + 1e8, 33))
    assert far == pytest.approx(frechet_distance(x, y), rel=1e-6)


def test_float32_features_are_summed_in_float64() -> None:
    """100,000 of them about 1000: sums in float32 would end at the third digit."""
    x = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0)) + 1000
    moments = gathered(x, *range(0, 100_000, 1000))
    assert moments.mean.dtype == moments.scatter.dtype == torch.float64
    theirs = np.cov(x.double().numpy().T)
    assert_allclose(moments.covariance(), theirs, rtol=1e-9, atol=1e-12)
    for short in (torch.float16, torch.bfloat16, torch.int64):
        with pytest.raises(ValueError, match="float32 or float64"):
            moments.add(x.to(short))


def test_moments_through_tensors() -> None:
    moments = Moments.of(features(6, 9, 5))
    again = Moments.from_tensors(moments.to_tensors())
    assert again.n == 9
    assert torch.equal(again.mean, moments.mean) and torch.equal(again.scatter, moments.scatter)
    again.add(features(7, 3, 5))
    assert moments.n == 9 and again.n == 12  # its own copy


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("moments.mean", None, "no tensor moments.mean"),
        ("moments.mean", torch.zeros(4, dtype=torch.float64), "moments of"),
        ("moments.mean", torch.zeros(5), "float32"),
        ("moments.n", torch.tensor(-1), "negative"),
        ("moments.n", torch.tensor(9.0), "float32"),
        ("moments.scatter", torch.full((5, 5), math.nan, dtype=torch.float64), "NaN"),
    ],
)
def test_tensors_that_are_no_moments(key: str, value: Tensor | None, said: str) -> None:
    tensors = Moments.of(features(6, 9, 5)).to_tensors() | {key: value}
    with pytest.raises(ValueError, match=said):
        Moments.from_tensors({k: v for k, v in tensors.items() if v is not None})


def test_singular_covariances() -> None:
    x, y = features(8, 40, 6), features(9, 40, 6, 0.2)
    for v in (x, y):
        v[:, 3] = 1.0  # constant
        v[:, 4] = v[:, 0] + v[:, 1]  # follows from others
    assert Moments.of(x).rank() == 4
    whole, moments = both_ways(x, y)
    assert moments == pytest.approx(whole, abs=1e-7)
    # The same in coordinates of the four directions that there are.
    basis = torch.linalg.svd(x - x.mean(dim=0))[2][:4].T
    assert whole == pytest.approx(frechet_distance(x @ basis, y @ basis), abs=1e-9)
    assert both_ways(x, x) == pytest.approx([0, 0], abs=1e-8)


@pytest.mark.parametrize("least", [1e-3, 1e-9, 1e-14])
def test_covariances_that_are_nearly_singular(least: float) -> None:
    """On either side of where the root is taken another way."""
    x, y = features(8, 60, 6), features(9, 50, 6, 0.2)
    x[:, 5] = x[:, 0] + least * x[:, 5]
    y[:, 5] = y[:, 1] + least * y[:, 5]
    whole, moments = both_ways(x, y)
    assert moments == pytest.approx(whole, abs=1e-7)


def test_constant_features_have_their_shift_alone() -> None:
    x = torch.full((5, 3), 2.0)
    assert both_ways(x, x + 1) == pytest.approx([3, 3])
    assert both_ways(x, x) == [0, 0]
    assert Moments.of(x).rank() == 0


def test_two_samples_a_side() -> None:
    """One direction each, at an angle: tr √(Cx Cy) = |a·b|."""
    x = torch.tensor([[1.0, 0, 0], [-1, 0, 0]])
    y = torch.tensor([[3.0, 4, 0], [-3, -4, 0]])
    # a = √2 (1, 0, 0), b = √2 (3, 4, 0): 2 + 50 − 2·6
    assert both_ways(x, y) == pytest.approx([40, 40])


def test_what_is_refused() -> None:
    x = features(1, 10, 3)
    for wrong, said in (
        (x[:1], "no covariance"),
        (x[:0], "0 samples"),
        (x[:, :2], "3 features a sample against 2"),
        (x[:, :0], r"\[n, d\]"),
        (x[0], r"\[n, d\]"),
        (x.half(), "float16"),
        (x * 1e200, "overflow"),
    ):
        with pytest.raises(ValueError, match=said):
            frechet_distance(x, wrong)
    with pytest.raises(ValueError, match="3 features a sample against 2"):
        frechet_of_moments(Moments.of(x), Moments.of(x[:, :2]))
    with pytest.raises(ValueError, match="0 samples have no covariance"):
        frechet_of_moments(Moments.of(x), Moments(3))
    with pytest.raises(ValueError, match="divisor"):
        frechet_distance(x, x, "n-2")  # type: ignore[arg-type]
    assert frechet_distance(x[:1], x[:1] + 1, "n") == pytest.approx(3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_features_that_are_no_numbers(value: float) -> None:
    x = features(1, 10, 3)
    wrong = x.clone()
    wrong[4, 1] = wrong[7, 2] = value
    with pytest.raises(ValueError, match=r"2 of 10 samples .* sample 4"):
        frechet_distance(x, wrong)
    moments = Moments.of(x)
    with pytest.raises(ValueError, match="NaN or infinite"):
        moments.add(wrong)
    assert moments.n == 10  # what there was is as it was


def test_bias_of_small_sets_is_a_line_over_their_size() -> None:
    p = torch.from_numpy(np.random.default_rng(777).standard_normal((2048, 32)))
    sizes = [64, 128, 256, 512, 1024]
    found = [frechet_distance(p[:n], p[1024 : 1024 + n]) for n in sizes]
    assert found == pytest.approx([9.289989, 4.947905, 2.231901, 1.196198, 0.557765], abs=1e-6)
    slope, intercept = np.polyfit([1 / n for n in sizes], found, 1)
    assert (slope, intercept) == (
        pytest.approx(599.491, abs=1e-3),
        pytest.approx(0.015022, abs=1e-6),
    )
    fit = extrapolated(p[:1024], p[1024:], sizes, repeats=4, seed=3)
    assert [n for n, _ in fit.points] == sizes
    assert fit.points[-1][1] == pytest.approx(0.557765, abs=1e-6)  # all of them, each time
    slope, intercept = np.polyfit([1 / n for n in sizes], [v for _, v in fit.points], 1)
    assert fit.slope == pytest.approx(slope) and fit.intercept == pytest.approx(intercept)
    assert abs(fit.intercept) < 0.1 < fit.points[-1][1]


def test_extrapolation_finds_the_distance_of_the_gaussians() -> None:
    x, y = features(10, 2000, 8), features(10, 4000, 8, 0.5)[2000:]  # one covariance
    fit = extrapolated(x, y, repeats=3)
    assert abs(fit.intercept - 2) < 0.1  # d · shift²
    assert abs(fit.intercept - 2) < abs(fit.points[0][1] - 2)
    assert fit == extrapolated(x, y, repeats=3)
    assert fit != extrapolated(x, y, repeats=3, seed=1)


def test_sizes_to_extrapolate_from() -> None:
    assert sizes_of(10_000, 400)[0] == 1000 and sizes_of(10_000, 400)[-1] == 10_000
    assert sizes_of(2048, 400)[0] == 800
    assert sizes_of(500, 400) == sorted(set(sizes_of(500, 400)))
    assert sizes_of(500, 400)[0] == 250
    assert sizes_of(4, 400) == [2, 3, 4]
    assert len(sizes_of(10_000, 400)) == 15


def test_what_makes_no_line() -> None:
    x = features(1, 10, 3)
    for sizes in ([10], [5, 5], [1, 5], [5, 11]):
        with pytest.raises(ValueError, match="from 2 to 10"):
            extrapolated(x, x, sizes)
    with pytest.raises(ValueError, match="0 repeats"):
        extrapolated(x, x, repeats=0)


def test_what_a_line_leaves() -> None:
    assert Fit(1.0, 6.0, ((2, 4.0), (3, 3.0), (6, 2.0))).residual == pytest.approx(0)
    assert Fit(0.0, 0.0, ((2, 3.0), (3, -4.0))).residual == pytest.approx(math.sqrt(12.5))
