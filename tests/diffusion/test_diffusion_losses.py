"""The training loss, and the levels to train on."""

import math

import pytest
import torch

from vidgen.diffusion import losses, schedules
from vidgen.diffusion.level import Level
from vidgen.diffusion.prediction import PREDICTIONS

B, SHAPE = 4, (3, 2, 4, 4)


def generator():
    return torch.Generator().manual_seed(11)


def clip():
    return torch.randn(2, B, *SHAPE, generator=generator()).unbind(0)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_perfect_network_has_no_loss(name):
    prediction, (x0, eps) = PREDICTIONS[name](), clip()
    level = losses.logit_normal_flow(B, generator=generator())

    def perfect(z, t, cond):
        assert t.shape == (B,) and cond == "c"
        return prediction.target(x0, eps, level)

    loss = losses.training_loss(perfect, prediction, x0, "c", level, eps)
    assert loss.shape == (B,) and float(loss.max()) == 0


def test_loss_is_the_mean_square_for_each_sample():
    x0, eps = clip()
    level = losses.uniform_flow(B, generator())

    def zero(z, t, cond):
        return torch.zeros_like(z, dtype=torch.bfloat16)

    loss = losses.training_loss(zero, PREDICTIONS["flow"](), x0, None, level, eps)
    torch.testing.assert_close(loss, (eps - x0).square().mean((1, 2, 3, 4)))
    assert loss.dtype == torch.float32


def test_edm_loss_is_lambda_times_the_error_of_x0():
    edm, (x0, eps) = PREDICTIONS["edm"](sigma_data=0.5), clip()
    level = losses.lognormal_edm(B, generator=generator())
    out = torch.full_like(x0, 0.3)
    loss = losses.training_loss(lambda z, t, c: out, edm, x0, None, level, eps)
    z = x0 + level.sigma.view(B, 1, 1, 1, 1) * eps
    weight = (level.sigma**2 + 0.25) / (level.sigma * 0.5) ** 2
    expected = weight * (edm.x0(out, z, level) - x0).square().mean((1, 2, 3, 4))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_the_weight_of_the_prediction_counts():
    class Tripled(type(PREDICTIONS["eps"]())):
        def weight(self, level):
            return 3 * level.sigma

    (x0, eps), level = clip(), losses.uniform_flow(B, generator())

    def loss(prediction):
        return losses.training_loss(lambda z, t, c: z, prediction, x0, None, level, eps)

    torch.testing.assert_close(loss(Tripled()), 3 * level.sigma * loss(PREDICTIONS["eps"]()))


def test_gradients_reach_the_network():
    (x0, eps), weight = clip(), torch.ones(1, requires_grad=True)
    level = losses.uniform_flow(B, generator())
    losses.training_loss(
        lambda z, t, c: weight * z, PREDICTIONS["v"](), x0, None, level, eps
    ).sum().backward()
    assert weight.grad is not None and float(weight.grad.abs()) > 0


N = 20_000


def test_logit_normal_flow():
    level = losses.logit_normal_flow(N, 0.5, 0.8, generator())
    logit = torch.logit(level.t.double())
    assert float(logit.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(logit.std()) == pytest.approx(0.8, abs=0.02)
    torch.testing.assert_close(level.alpha + level.sigma, torch.ones(N))


def test_a_shift_of_the_schedule_is_a_mean_of_the_logit():
    plain = losses.logit_normal_flow(64, 0.0, 1.0, generator()).t
    shifted = losses.logit_normal_flow(64, math.log(3.0), 1.0, generator()).t
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain))


def test_lognormal_edm():
    level = losses.lognormal_edm(N, generator=generator())
    assert float(level.sigma.log().mean()) == pytest.approx(-1.2, abs=0.03)
    assert float(level.sigma.log().std()) == pytest.approx(1.2, abs=0.03)
    assert torch.equal(level.alpha, torch.ones(N)) and torch.equal(level.t, level.sigma)


def test_uniform_draws_rows_of_the_table():
    table = schedules.ddpm_table(schedules.scaled_linear_betas(), zero_snr=True)
    level = losses.uniform(N, table, generator())
    index = level.t.long()
    assert index.min() == 0 and index.max() == 999
    assert float(level.t.mean()) == pytest.approx(499.5, abs=8)
    assert torch.equal(level.alpha, table.alpha[index].float()) and level.t.dtype == torch.float32


def test_tilted_levels_lean_towards_noise():
    table = schedules.ddpm_table(schedules.cosine_betas())
    for power in (1.0, 2.0, 5.0):
        level = losses.tilted(N, table, power, generator())
        index = level.t.long()
        assert index.min() >= 0 and index.max() == 999
        assert float(level.t.mean()) == pytest.approx(1000 * power / (power + 1), abs=8)
        assert torch.equal(level.sigma, table.sigma[index].float())


@pytest.mark.parametrize(
    "draw",
    [
        losses.logit_normal_flow,
        losses.lognormal_edm,
        lambda b, generator: losses.uniform_flow(b, generator),
        lambda b, generator: losses.uniform(
            b, schedules.ddpm_table(schedules.linear_betas()), generator
        ),
    ],
)
def test_the_generator_decides(draw):
    a, b = draw(B, generator=generator()), draw(B, generator=generator())
    assert isinstance(a, Level) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert all(x.shape == (B,) and x.dtype == torch.float32 for x in a)
