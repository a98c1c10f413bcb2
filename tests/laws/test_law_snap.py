"""Input-scaled diffusion is EDM seen in other coordinates: y = sigma_in z, tau = sigma_in sigma."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidgen.diffusion.level import Level, noised
from vidgen.diffusion.losses import lognormal_edm, training_loss
from vidgen.diffusion.prediction import Edm, SingularLevel, Snap, denoiser
from vidgen.diffusion.schedules import karras, snap
from vidgen.diffusion.solvers import dpmpp_2m, euler, heun

SIGMAS = st.floats(0.002, 80)
DATA = st.sampled_from([0.5, 1.0])
SCALES = st.sampled_from([1.0, 2.0, 4.0, 32.0])


def level(alpha, sigma):
    return Level(*(torch.tensor([x], dtype=torch.float64) for x in (sigma, alpha, sigma)))


def pair(*shape):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, *shape, generator=generator).double().unbind(0)


@given(s=SIGMAS, sd=DATA, si=SCALES)
def test_coefficients_are_those_of_the_paper(s, sd, si):
    """Table 1, in the set of signs that agrees with itself."""
    x0, eps = pair(1, 50)
    at, it = level(1 / si, s), Snap(sd)
    z, out = noised(x0, eps, at), torch.full_like(x0, 0.3)
    norm = (s**2 + sd**2) ** 0.5
    c_skip = si * sd**2 / (si * s**2 + sd**2)
    c_out = -si * s * sd * norm / (sd**2 + si * s**2)
    torch.testing.assert_close(it.x0(out, z, at), c_skip * z + c_out * out)
    torch.testing.assert_close(it.target(x0, eps, at), (sd**2 * eps - s * x0) / (sd * norm))
    c_in = 1 / (sd**2 / si**2 + s**2) ** 0.5
    shown, t = it.inputs(z, at)
    torch.testing.assert_close(shown, c_in * z)
    torch.testing.assert_close(t, torch.tensor([s], dtype=torch.float64).log() / 4)
    w = (s**2 + sd**2) ** 2 / (s**2 + sd**2 / si) ** 2
    torch.testing.assert_close(it.weight(at), torch.tensor([w], dtype=torch.float64))
    # The weight of the output is EDM's weight of x0, carried over.
    torch.testing.assert_close(w, (1 / sd**2 + 1 / s**2) * c_out**2)


@given(s=SIGMAS, sd=DATA, si=SCALES)
def test_what_the_network_sees_and_makes_has_unit_variance(s, sd, si):
    x0, eps = pair(1, 20_000)
    x0 = (x0 - x0.mean()) / x0.std(correction=0)
    eps = eps - (eps * x0).mean() * x0
    eps = (eps - eps.mean()) / eps.std(correction=0)
    at = level(1 / si, s)
    shown, _ = Snap(sd).inputs(noised(sd * x0, eps, at), at)
    assert float(shown.std(correction=0)) == pytest.approx(1, abs=1e-3)
    assert float(Snap(sd).target(sd * x0, eps, at).std(correction=0)) == pytest.approx(1, abs=1e-3)


@given(s=SIGMAS, sd=DATA)
def test_without_scaling_it_is_edm_with_the_sign_turned(s, sd):
    x0, eps = pair(1, 50)
    at = level(1.0, s)
    z, out = noised(x0, eps, at), torch.full_like(x0, -0.7)
    torch.testing.assert_close(Snap(sd).target(x0, eps, at), -Edm(sd).target(x0, eps, at))
    torch.testing.assert_close(Snap(sd).x0(-out, z, at), Edm(sd).x0(out, z, at))
    torch.testing.assert_close(Snap(sd).weight(at), torch.ones(1).double())
    for a, b in zip(Snap(sd).inputs(z, at), Edm(sd).inputs(z, at), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("inf"), float("nan")])
def test_no_network_is_told_a_sigma_that_is_none(sigma):
    with pytest.raises(SingularLevel, match="isn't above 0 and finite"):
        Snap(0.5).inputs(torch.ones(1, 3).double(), level(0.25, sigma))


def nonlinear(x, sigma, _):
    """Some denoiser of x0 + sigma eps, far from perfect."""
    return torch.tanh(x / (1 + sigma**2).sqrt()) + 0.1 * torch.sin(3 * x)


@pytest.mark.parametrize("solver", [euler, heun, dpmpp_2m])
@pytest.mark.parametrize("si", [2.0, 4.0, 32.0])
def test_sampling_in_both_coordinates_gives_the_same_video(solver, si):
    noise, _ = pair(2, 40)
    small = snap(12, sigma_in=si)

    def shrunk(z, at, cond):
        return nonlinear(z * si, (at.sigma * si)[:, None], cond)

    def plain(y, at, cond):
        return nonlinear(y, at.sigma[:, None], cond)

    *_, here = solver(shrunk, noise.float() * small[0].sigma, small, None)
    large = karras(12, 0.002 * si, 80.0 * si)
    *_, there = solver(plain, noise.float() * large[0].sigma, large, None)
    assert here.level.alpha == 1 and here.level.sigma == 0
    torch.testing.assert_close(here.z, there.z, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("solver", [euler, heun])
def test_what_a_network_of_snap_samples_edm_samples_in_its_coordinates(solver):
    """In `Snap`'s own coefficients, and by EDM's solver at alpha 1, told what it estimates."""
    si, (noise, _) = 4.0, pair(2, 40)

    def network(z, t, cond):
        return torch.tanh(2 * z) + 0.1 * t[:, None]

    own = denoiser(network, Snap(0.5))

    def plain(y, at, cond):
        return own(
            y / si, Level(at.sigma / si, torch.full_like(at.alpha, 1 / si), at.sigma / si), cond
        )

    small, large = snap(12, sigma_in=si), karras(12, 0.002 * si, 80.0 * si)
    *_, here = solver(own, noise.float() * small[0].sigma, small, None)
    *_, there = solver(plain, noise.float() * large[0].sigma, large, None)
    torch.testing.assert_close(here.z, there.z, rtol=2e-5, atol=2e-5)
    assert here.z.std() > 0.1


@pytest.mark.parametrize("si", [1.0, 4.0])
def test_the_loss_in_both_coordinates(si):
    """The weighted error of the output is EDM's weight of the error of x0, at sigma, not at tau."""
    x0, eps = (x.float() for x in pair(6, 30))
    it, at = Snap(1.0), lognormal_edm(6, generator=torch.Generator().manual_seed(0), sigma_in=si)
    assert torch.equal(at.alpha, torch.full((6,), 1 / si))

    def network(z, t, cond):
        return 0.2 * z.sin()

    got = training_loss(network, it, x0, None, at, eps)
    y, tau = si * noised(x0, eps, at), si * at.sigma
    torch.testing.assert_close(y, x0 + tau[:, None] * eps)
    shown, t = it.inputs(y / si, at)
    found = it.x0(network(shown, t, None), y / si, at)
    weight = 1 / it.sigma_data**2 + si**2 / tau**2
    torch.testing.assert_close(got, weight * (found - x0).square().mean(1), rtol=1e-4, atol=1e-5)


def test_redundant_frames_reveal_their_mean_unless_the_signal_is_shrunk():
    """The reason for it all (§3.2): the mean of 16 equal frames has a sixteenth of the noise, as if
    the level were lower; sigma_in = sqrt(16) makes it what a single image shows."""
    image = torch.randn(5000, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(16, 5000, generator=torch.Generator().manual_seed(2))

    def left(si):
        at = Level(*(torch.tensor([x]) for x in (1.0, 1 / si, 1.0)))
        seen = si * noised(image.expand(16, -1), noise, at).mean(0)
        return float((seen - image).square().mean())

    assert left(1.0) == pytest.approx(1 / 16, rel=0.1)
    assert left(4.0) == pytest.approx(1.0, rel=0.1)
