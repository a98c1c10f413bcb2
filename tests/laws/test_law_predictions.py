"""L1: whatever a network predicts, its own training target gives x0 back, at every noise level."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidgen.diffusion.level import Level, implied_eps, noised
from vidgen.diffusion.prediction import (
    PREDICTIONS,
    Edm,
    Eps,
    Shrunk,
    SingularLevel,
    Snap,
    denoiser,
)
from vidgen.diffusion.schedules import SCHEDULES

NAMES = ["x0", "x0_flow", "shrunk", "eps", "v", "flow", "edm", "snap"]
ROWS = [PREDICTIONS[name]() for name in NAMES] + [Edm(1.0), Edm(0.1), Snap(0.5)]
IDS = [*NAMES, "edm-1.0", "edm-0.1", "snap-0.5"]


def level(alpha, sigma, dtype=torch.float64):
    return Level(*(torch.tensor([x], dtype=dtype) for x in (sigma, alpha, sigma)))


def pair(dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 1, 4, 3, generator=generator, dtype=dtype).unbind(0)


def test_the_table_is_complete():
    assert sorted(PREDICTIONS) == sorted(NAMES)


@given(alpha=st.floats(0, 10), sigma=st.floats(0.01, 100))
def test_shrunk_shows_the_best_linear_guess(alpha, sigma):
    """Its error, of data and noise of unit spread, is the least there is along the line of z."""
    x0, eps = torch.randn(2, 4000, generator=torch.Generator().manual_seed(1)).double()
    x0, eps = x0 / x0.norm(), eps - (eps @ x0) * x0 / x0.norm() ** 2
    eps = eps / eps.norm()  # now x0 and eps have one length, and are at a right angle
    at = level(alpha, sigma)
    z = noised(x0[None], eps[None], at)
    shown, t = PREDICTIONS["shrunk"]().inputs(z, at)
    assert t == at.t
    assert abs(float((shown - x0) @ z[0])) < 1e-9 * (1 + float(z.norm()))


@given(t=st.floats(0.1, 1), off=st.floats(-2, 2))
def test_x0_flow_counts_errors_as_flow_does(t, off):
    """On flow's levels: the loss of an estimate that is off by so much, as either network says
    it."""
    x0, eps = pair()
    at = level(1 - t, t)
    z = noised(x0, eps, at)
    velocity = (z - (x0 + off)) / t
    losses = []
    for name, out in (("flow", velocity), ("x0_flow", x0 + off)):
        prediction = PREDICTIONS[name]()
        torch.testing.assert_close(prediction.x0(out, z, at), x0 + off, rtol=1e-9, atol=1e-9)
        error = (out - prediction.target(x0, eps, at)).square().mean()
        losses.append(float(error * prediction.weight(at)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("prediction", ROWS, ids=IDS)
@given(alpha=st.floats(1e-3, 10), sigma=st.floats(1e-3, 100))
def test_target_inverts_to_x0(prediction, alpha, sigma):
    x0, eps = pair()
    at = level(alpha, sigma)
    z = noised(x0, eps, at)
    out = prediction.target(x0, eps, at)
    torch.testing.assert_close(prediction.x0(out, z, at), x0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", ROWS, ids=IDS)
def test_target_inverts_on_every_level_of_every_schedule(prediction, schedule):
    x0, eps = pair(torch.float32)
    for at in SCHEDULES[schedule](7):
        if at.alpha == 0 and isinstance(prediction, Eps):
            continue
        z = noised(x0, eps, at)
        out = prediction.target(x0, eps, at)
        # Rounding of z, of relative size 1e-7, is divided by alpha: that is the law's only slack.
        slack = 1e-6 * (1 + float(at.sigma)) / (float(at.alpha) if at.alpha > 0 else 1)
        torch.testing.assert_close(prediction.x0(out, z, at), x0, rtol=1e-5, atol=slack)


@pytest.mark.parametrize("prediction", ROWS, ids=IDS)
def test_ends_hold_or_say_why_not(prediction):
    x0, eps = pair()
    for at in level(0.0, 1.0), level(1.0, 0.0):
        z, out = noised(x0, eps, at), prediction.target(x0, eps, at)
        if isinstance(prediction, Eps) and at.alpha == 0:
            with pytest.raises(SingularLevel, match="alpha = 0"):
                prediction.x0(out, z, at)
        else:
            torch.testing.assert_close(prediction.x0(out, z, at), x0)
        if isinstance(prediction, Edm):
            with pytest.raises(SingularLevel, match="alpha = 0 or sigma = 0"):
                prediction.inputs(z, at)
        elif isinstance(prediction, Snap):
            if at.sigma == 0:
                with pytest.raises(SingularLevel, match="whose sigma isn't above 0"):
                    prediction.inputs(z, at)
        else:
            scaled, t = prediction.inputs(z, at)
            assert t is at.t
            if isinstance(prediction, Shrunk):  # nothing of pure noise, all of a clean z
                assert torch.equal(scaled, at.alpha * z)
            else:
                assert scaled is z


def test_edm_has_the_coefficients_of_its_paper():
    x0, eps = pair()
    sd, s = 0.5, 1.7
    z, out = x0 + s * eps, torch.full_like(x0, 0.3)
    edm, at = Edm(sd), level(1.0, s)
    c_skip, c_out = sd**2 / (s**2 + sd**2), s * sd / (s**2 + sd**2) ** 0.5
    torch.testing.assert_close(edm.x0(out, z, at), c_skip * z + c_out * out)
    torch.testing.assert_close(edm.target(x0, eps, at), (x0 - c_skip * z) / c_out)
    scaled, t = edm.inputs(z, at)
    torch.testing.assert_close(scaled, z / (s**2 + sd**2) ** 0.5)
    torch.testing.assert_close(t, at.sigma.log() / 4)
    weight_on_x0 = (s**2 + sd**2) / (s * sd) ** 2
    torch.testing.assert_close(edm.weight(at), torch.tensor([weight_on_x0 * c_out**2]).double())


def test_edm_with_sigma_data_1_is_minus_v_for_a_variance_preserving_level():
    x0, eps = pair()
    at = level(0.6, 0.8)
    v = PREDICTIONS["v"]().target(x0, eps, at)
    torch.testing.assert_close(Edm(1.0).target(x0, eps, at), -v)


def test_levels_of_a_batch_are_applied_sample_by_sample():
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 2, 4, generator=generator).unbind(0)
    t = torch.tensor([0.1, 0.5, 0.9])
    at = Level(t, 1 - t, t)
    for k in range(3):
        one = Level(*(x[k : k + 1] for x in at))
        torch.testing.assert_close(noised(x0, eps, at)[k], noised(x0[[k]], eps[[k]], one)[0])
    torch.testing.assert_close(implied_eps(x0, noised(x0, eps, at), at), eps)


def test_denoiser_runs_only_the_network_in_its_dtype():
    x0, eps = pair(torch.float32)
    at = level(0.5, 0.5, torch.float32)
    seen = {}

    def network(z, t, cond):
        seen.update(z=z.dtype, t=t.dtype, cond=cond)
        return (eps - x0).to(z.dtype)

    denoise = denoiser(network, PREDICTIONS["flow"](), dtype=torch.bfloat16)
    out = denoise(noised(x0, eps, at), at, {"text": None})
    assert seen == {"z": torch.bfloat16, "t": torch.float32, "cond": {"text": None}}
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, x0, rtol=0, atol=0.02)
