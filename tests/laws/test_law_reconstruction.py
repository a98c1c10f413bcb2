"""Reconstruction guidance of Gaussian data, where everything is known in closed form.

x ~ N(0, S), z = alpha x + sigma eps: the best estimate of x is linear in z, what is still uncertain
about it is C = sigma^2 S (alpha^2 S + sigma^2)^-1, and of frames b, given frames a beside z,

    E[x_b | z, x_a] = x0_b + C_ba C_aa^-1 (x_a - x0_a)
"""

from __future__ import annotations

import pytest
import torch

from vidgen.diffusion import schedules
from vidgen.diffusion.guidance import certain, dynamic_threshold, reconstruction
from vidgen.diffusion.level import Level
from vidgen.diffusion.solvers import SOLVERS

RHO = 0.8
S = torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=torch.float64)  # a frame, and the next
MASK = torch.tensor([True, False]).view(1, 1, 2, 1, 1)
EYE = torch.eye(2, dtype=torch.float64)


def level(alpha: float, sigma: float) -> Level:
    return Level(*(torch.tensor([x], dtype=torch.float64) for x in (sigma, alpha, sigma)))


def gain(at: Level) -> torch.Tensor:
    a, s = float(at.alpha.flatten()[0]), float(at.sigma.flatten()[0])
    return a * S @ torch.linalg.inv(a**2 * S + s**2 * EYE)


def uncertain(at: Level) -> torch.Tensor:
    a, s = float(at.alpha.flatten()[0]), float(at.sigma.flatten()[0])
    return s**2 * S @ torch.linalg.inv(a**2 * S + s**2 * EYE)


def best(z: torch.Tensor, at: Level, cond: object) -> torch.Tensor:
    return torch.einsum("ij,bcjhw->bcihw", gain(at), z.double())


def exact(at: Level) -> torch.Tensor:
    """The weight that makes it the conditional mean."""
    return (at.sigma / at.alpha) ** 2 / uncertain(at)[0, 0]


def conditional_mean(z: torch.Tensor, known: torch.Tensor, at: Level) -> torch.Tensor:
    x0, c = best(z, at, None), uncertain(at)
    return x0[:, :, 1] + c[1, 0] / c[0, 0] * (known[:, :, 0] - x0[:, :, 0])


def draws(n: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(n)
    return torch.randn(3, 2, 2, 2, 2, dtype=torch.float64, generator=draw)


LEVELS = [(1.0, 0.05), (1.0, 1.0), (1.0, 40.0), (0.25, 0.7), (0.6, 0.8), (0.1, 0.9)]


@pytest.mark.parametrize("at", [level(*x) for x in LEVELS], ids=str)
def test_with_the_right_weight_it_is_the_conditional_mean(at):
    z, known = draws(0), draws(1)
    found = reconstruction(best, known, MASK, exact)(z, at, None)
    assert torch.equal(found[:, :, 0], known[:, :, 0])
    torch.testing.assert_close(found[:, :, 1], conditional_mean(z, known, at))


def off(weight: object, at: Level) -> float:
    """How far it is from the conditional mean, as a share of what guidance is to do."""
    z, known = draws(2), draws(3)
    found = reconstruction(best, known, MASK, weight)(z, at, None)[:, :, 1]
    should = conditional_mean(z, known, at)
    return float((found - should).norm() / (should - best(z, at, None)[:, :, 1]).norm())


def test_the_weight_by_certainty_is_right_at_both_ends_and_better_between():
    assert off(certain(1), level(1.0, 0.01)) < 1e-3 and off(certain(1), level(1.0, 10.0)) < 0.01
    assert off(1.0, level(1.0, 10.0)) > 0.98  # the paper's is next to nothing there
    nothing = level(0.0, 1.0)
    assert float(certain(2)(nothing)) == 2002.0  # and what it weighs is nothing
    for alpha, sigma in LEVELS:
        at = level(alpha, sigma)
        assert off(certain(1), at) < off(1.0, at), (alpha, sigma)
        # In other coordinates it is the same.
        assert off(certain(1), at) == pytest.approx(off(certain(1), level(3 * alpha, 3 * sigma)))


def test_pixels_beyond_the_threshold_are_pulled_too():
    """All estimates are beyond the limit, and with what is known, the new frame is within. Clipped
    before, most estimates are a number that no gradient goes through."""
    z, known, at = 3 + 0.1 * draws(6), 0.1 * draws(7) - 0.5, level(1.0, 1.0)
    should = conditional_mean(z, known, at)
    assert best(z, at, None).min() > 1.7 and should.abs().max() < 1
    pulled = reconstruction(best, known, MASK, exact)
    found = dynamic_threshold(pulled, 0.1, known=MASK)(z, at, None)
    assert torch.equal(found[:, :, 0], known[:, :, 0])
    torch.testing.assert_close(found[:, :, 1], should)

    clipped = dynamic_threshold(best, 0.1)
    late = reconstruction(clipped, known, MASK, exact)(z, at, None)[:, :, 1]
    assert ((late - 1).abs() < 1e-9).double().mean() > 0.6  # where the network alone leaves them


def test_a_run_of_sampling_ends_at_the_conditional_mean():
    """From the mean of its noise: every step is linear, so there the run's mean ends."""
    known = torch.full((1, 1, 2, 1, 1), 2.0, dtype=torch.float64)
    levels = [Level(*(x.double() for x in at)) for at in schedules.karras(150, 0.002, 80.0)]
    denoise = reconstruction(best, known, MASK, exact)
    start = torch.where(MASK, known, RHO * known)
    *_, step = SOLVERS["heun"](denoise, start, levels, None)
    assert float(step.z[0, 0, 0]) == 2.0
    assert float(step.z[0, 0, 1]) == pytest.approx(2 * RHO, abs=1e-3)
    assert levels[0].sigma > 79


def test_samples_have_the_conditional_spread():
    """Var[x_b | x_a] = 1 - rho^2, where without guidance it is 1."""
    draw = torch.Generator().manual_seed(5)
    eps = torch.randn(4000, 1, 2, 1, 1, dtype=torch.float64, generator=draw)
    known = torch.full_like(eps, -1.5)
    levels = [Level(*(x.double() for x in at)) for at in schedules.karras(40, 0.002, 80.0)]
    denoise = reconstruction(best, known, MASK, exact)
    *_, step = SOLVERS["heun"](denoise, known * MASK + 80 * eps, levels, None)
    made = step.z[:, 0, 1, 0, 0]
    assert float(made.mean()) == pytest.approx(-1.5 * RHO, abs=0.04)
    assert float(made.var()) == pytest.approx(1 - RHO**2, rel=0.08)


@pytest.mark.parametrize("weight", [1.0, 30.0, 1e6])
def test_a_step_moves_no_further_than_what_is_known_is_off(weight):
    """However steep the network: with weights far beyond the right one, and to the same side."""
    z, known, at = draws(8), draws(9), level(1.0, 2.0)

    def moved(weight):
        found = reconstruction(best, known, MASK, weight)(z, at, None)
        return (found - best(z, at, None))[:, :, 1].flatten(1)

    off = (known - best(z, at, None))[:, :, 0].flatten(1)
    sizes = moved(weight).square().mean(1).sqrt()
    assert (sizes <= off.square().mean(1).sqrt() * (1 + 1e-9)).all()
    if weight > 1:
        torch.testing.assert_close(sizes, off.square().mean(1).sqrt())
    torch.testing.assert_close(
        torch.nn.functional.normalize(moved(weight)), torch.nn.functional.normalize(moved(0.01))
    )


@pytest.mark.parametrize("known", [True, False])
def test_all_known_or_nothing(known):
    z, values, at = draws(10), draws(11), level(1.0, 1.0)
    found = reconstruction(best, values, torch.tensor(known).view(1, 1, 1, 1, 1), 5.0)(z, at, None)
    torch.testing.assert_close(found, values if known else best(z, at, None))
