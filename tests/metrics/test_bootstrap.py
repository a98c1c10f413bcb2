"""Intervals of two samples: how often they hold what they should, and what they are made of."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vidgen.metrics import bootstrap
from vidgen.metrics.bootstrap import frechet_interval, frechet_intervals, interval
from vidgen.metrics.frechet import extrapolated, frechet_distance
from vidgen.metrics.kernel import kernel_distance


def draw(generator: torch.Generator, n: int, d: int, shift: float = 0.0) -> Tensor:
    return torch.randn(n, d, generator=generator, dtype=torch.float64) + shift


def held(shift: float, copies: bool, trials: int = 20, resamples: int = 30) -> float:
    """Share of intervals that hold the mean distance of sets of 40 and 50 Gaussian samples: ours,
    or percentiles of resamples with copies."""
    g = torch.Generator().manual_seed(0)
    pairs = [(draw(g, 40, 6), draw(g, 50, 6, shift)) for _ in range(120)]
    mean = sum(frechet_distance(x, y) for x, y in pairs) / len(pairs)
    hits = 0
    for seed, (x, y) in enumerate(pairs[:trials]):
        if copies:
            found = [
                frechet_distance(
                    x[torch.randint(40, (40,), generator=g)],
                    y[torch.randint(50, (50,), generator=g)],
                )
                for _ in range(resamples)
            ]
            low, high = sorted(found)[1], sorted(found)[-2]
        else:
            low, high = interval(
                lambda i, j, x=x, y=y: frechet_distance(x[i], y[j]), 40, 50, resamples, seed
            )
        hits += low <= mean <= high
    return hits / trials


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_it_holds_the_mean_distance_of_gaussians(shift: float) -> None:
    assert held(shift, copies=False) >= 0.85


def test_percentiles_of_resamples_with_copies_would_not() -> None:
    assert held(0.0, copies=True) < 0.7


def test_its_width_is_that_of_the_normal_distribution() -> None:
    """Of a difference of means, whose standard error is known."""
    g = torch.Generator().manual_seed(1)
    n, m = 200, 151
    x, y = draw(g, n, 1)[:, 0], 2 * draw(g, m, 1)[:, 0]

    def difference(i: Tensor, j: Tensor) -> float:
        return float(x[i].mean() - y[j].mean())

    error = math.sqrt(float(x.var()) / n + float(y.var()) / m)
    found = difference(torch.arange(n), torch.arange(m))
    low, high = interval(difference, n, m, resamples=600)
    assert low == pytest.approx(found - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(found + 1.96 * error, abs=0.2 * error)
    narrow = interval(difference, n, m, resamples=600, level=0.68)
    assert narrow[1] - narrow[0] == pytest.approx(2 * error, rel=0.15)


def test_the_whole_lies_inside_and_a_seed_is_all_that_is_random() -> None:
    g = torch.Generator().manual_seed(2)
    x, y = draw(g, 60, 5), draw(g, 60, 5, 0.3)
    for distance in (frechet_distance, lambda a, b: kernel_distance(a, b)[0]):
        first = interval(lambda i, j, f=distance: f(x[i], y[j]), 60, 60, 40, seed=3)
        assert first[0] < distance(x, y) < first[1]
        assert first == interval(lambda i, j, f=distance: f(x[i], y[j]), 60, 60, 40, seed=3)
        assert first != interval(lambda i, j, f=distance: f(x[i], y[j]), 60, 60, 40, seed=4)


def test_halves_have_no_copies_and_miss_nobody() -> None:
    seen: list[tuple[list[int], list[int]]] = []

    def statistic(i: Tensor, j: Tensor) -> float:
        seen.append((i.tolist(), j.tolist()))
        return float(len(seen))

    interval(statistic, 9, 6, 50)
    assert seen[0] == (list(range(9)), list(range(6)))
    for i, j in seen[1:]:
        assert len(i) == len(set(i)) == 4 and len(j) == len(set(j)) == 3
    assert {v for i, _ in seen[1:] for v in i} == set(range(9))
    assert len({tuple(i) for i, _ in seen[1:]}) > 20


def test_fewer_clips_than_dimensions() -> None:
    g = torch.Generator().manual_seed(5)
    x, y = draw(g, 20, 64), draw(g, 24, 64, 0.5)
    low, high = interval(lambda i, j: frechet_distance(x[i], y[j]), 20, 24, 40)
    assert 0 < low < frechet_distance(x, y) < high


def test_ends_stay_in_bounds() -> None:
    g = torch.Generator().manual_seed(6)
    x = draw(g, 30, 1)[:, 0]

    def share(i: Tensor, j: Tensor) -> float:
        return float((x[i] > -1.8).double().mean())

    assert interval(share, 30, 30)[1] > 1
    assert interval(share, 30, 30, bounds=(0, 1))[1] == 1
    assert interval(lambda i, j: 2.5, 30, 30) == (2.5, 2.5)


def test_what_is_refused() -> None:
    for n, m in ((3, 9), (9, 3), (0, 0)):
        with pytest.raises(ValueError, match="needs 4 a side"):
            interval(lambda i, j: 0.0, n, m)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="NaN or infinite"):
            interval(lambda i, j, v=value: v, 9, 9)
    with pytest.raises(ValueError, match="1 resamples"):
        interval(lambda i, j: 0.0, 9, 9, resamples=1)
    with pytest.raises(ValueError, match="level of 95"):
        interval(lambda i, j: 0.0, 9, 9, level=95)


def test_groups_of_clips_say_what_single_clips_say(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(7)
    x, y = draw(g, 1100, 4), draw(g, 1200, 4, 0.5)
    grouped = frechet_interval(x, y, resamples=60)
    monkeypatch.setattr(bootstrap, "MANY", 100)
    single = frechet_interval(x, y, resamples=60)
    assert single == interval(
        lambda i, j: frechet_distance(x[i], y[j]), 1100, 1200, 60, bounds=(0, math.inf)
    )
    assert grouped != single
    assert grouped[0] < frechet_distance(x, y) < grouped[1]
    assert grouped[1] - grouped[0] == pytest.approx(single[1] - single[0], rel=0.45)
    assert frechet_interval(x, x, resamples=10)[0] == 0
    with pytest.raises(ValueError, match="3 samples, 4"):
        frechet_interval(x[:3], y)


def test_an_extrapolated_distance_has_the_interval_of_an_extrapolation_from_halves() -> None:
    g = torch.Generator().manual_seed(8)
    x, y = draw(g, 80, 4), draw(g, 96, 4, 0.3)

    def endless(i: Tensor, j: Tensor) -> float:
        return 2 * frechet_distance(x[i], y[j]) - frechet_distance(x[i[::2]], y[j[::2]])

    of_all, of_endless = frechet_intervals(x, y, 7.0, resamples=20, seed=3)
    assert of_all == frechet_interval(x, y, resamples=20, seed=3)
    low, high = interval(endless, 80, 96, 20, seed=3)
    whole = endless(torch.arange(80), torch.arange(96))
    assert of_endless == pytest.approx((7 + low - whole, 7 + high - whole), rel=1e-12)


def test_the_interval_of_an_extrapolated_distance_holds_that_of_gaussians() -> None:
    g = torch.Generator().manual_seed(9)
    known, hits = 4 * 0.5**2, 0
    for seed in range(20):
        x, y = draw(g, 120, 4), draw(g, 120, 4, 0.5)
        fit = extrapolated(x, y, seed=seed)
        low, high = frechet_intervals(x, y, fit.intercept, resamples=30, seed=seed)[1]
        hits += low <= known <= high
    assert hits >= 17
