"""L2: a perfect denoiser is solved exactly; solvers converge with the order that they claim."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch

from vidgen.diffusion import schedules
from vidgen.diffusion.level import Level, expand, implied_eps, noised
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.schedules import SCHEDULES
from vidgen.diffusion.solvers import (
    SOLVERS,
    ancestral,
    ddim,
    dpmpp_2m,
    dpmpp_2m_sde,
    euler,
    heun,
    unipc,
)
from vidgen.errors import UsageError

LEVELS = {
    **{name: make(6) for name, make in SCHEDULES.items()},
    "linear_flow, shift 5": schedules.linear_flow(6, 5.0),
    "zero terminal SNR": schedules.ddpm_scaled_linear(6, zero_snr=True),
    "CogVideoX-2B": schedules.ddpm_scaled_linear(6, zero_snr=True, snr_shift=3.0),
    "leading": schedules.ddpm_scaled_linear(6, "leading", steps_offset=1),
    "one step": schedules.linear_flow(1),
    "Snap Video": [lv._replace(alpha=lv.alpha / 4) for lv in schedules.karras(6)],
}
DETERMINISTIC = {
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "unipc-1": partial(unipc, order=1),
    "unipc-2": unipc,
    "unipc-3": partial(unipc, order=3),
    "unipc-3 to the end": partial(unipc, order=3, lower_order_final=False),
    "ddim": ddim,
}
STOCHASTIC = {
    "ancestral": ancestral,
    "ddim 0.5": partial(ddim, eta=0.5),
    "ddim 1": partial(ddim, eta=1.0),
    "dpmpp_2m 0.5": partial(dpmpp_2m, eta=0.5),
    "dpmpp_2m_sde": dpmpp_2m_sde,
}
NOISE = Noise([(7, "a"), (8, "b")], "test")
SHAPE = (3, 2, 4, 4)


def last(steps):
    *_, step = steps
    return step


def perfect(x0):
    return lambda z, level, cond: x0.expand_as(z)


def data():
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))


def test_every_solver_is_tested():
    assert {name.split("-")[0].split()[0] for name in DETERMINISTIC | STOCHASTIC} == set(SOLVERS)


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS.keys())
@pytest.mark.parametrize("solver", DETERMINISTIC.values(), ids=DETERMINISTIC.keys())
def test_perfect_denoiser_is_solved_exactly(solver, levels):
    """Not only at the end: all along, z is alpha x0 + sigma eps with the eps of the start."""
    x0, eps = data(), NOISE.initial(SHAPE)
    steps = list(solver(perfect(x0), noised(x0, eps, levels[0]), levels, None))
    assert [step.i for step in steps] == list(range(len(levels) - 1))
    for step, level in zip(steps, levels[1:], strict=True):
        assert step.level is level and step.z.dtype == torch.float32
        slack = 2e-6 * (1 + float(levels[0].sigma))
        torch.testing.assert_close(step.z, noised(x0, eps, level), rtol=1e-5, atol=slack)
    # alpha is 1 at the end of all schedules but Snap Video's, where z = x0 / sigma_in.
    torch.testing.assert_close(steps[-1].z / levels[-1].alpha, x0, rtol=0, atol=0)


@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS.keys())
@pytest.mark.parametrize("solver", STOCHASTIC.values(), ids=STOCHASTIC.keys())
def test_perfect_denoiser_keeps_the_noise_at_its_level(solver, levels):
    """A stochastic solver changes the noise, not how much of it there is."""
    shape = (8, 1024)
    x0 = torch.full((2, *shape), 0.5)
    z = noised(x0, NOISE.initial(shape), levels[0])
    for step in solver(perfect(x0), z, levels, None, NOISE):
        if step.level.sigma > 0:
            eps = implied_eps(x0, step.z, step.level)
            assert abs(float(eps.mean())) < 0.03 and abs(float(eps.std()) - 1) < 0.03
    torch.testing.assert_close(step.z / levels[-1].alpha, x0, rtol=0, atol=0)


# --- a linear equation with a known solution: Gaussian data ---------------------------------------

MEAN, STD = 0.7, 0.3


def gaussian(z, level, cond):
    """E[x0 | z] for x0 ~ N(MEAN, STD^2)."""
    alpha, sigma = expand(level.alpha, z), expand(level.sigma, z)
    gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
    return MEAN + gain * (z - alpha * MEAN)


def flowed(z, s, t):
    """The probability flow of Gaussian data from level s to level t: a scaling about the mean."""
    spread = [(lv.alpha**2 * STD**2 + lv.sigma**2).sqrt() for lv in (s, t)]
    return t.alpha * MEAN + spread[1] / spread[0] * (z - s.alpha * MEAN)


def even_in_lambda(n, low=-2.0, high=3.0):
    half_log_snr = torch.linspace(low, high, n + 1, dtype=torch.float64)
    alpha = torch.sigmoid(2 * half_log_snr).sqrt()
    sigma = torch.sigmoid(-2 * half_log_snr).sqrt()
    return [Level(*x) for x in torch.stack([half_log_snr, alpha, sigma], 1).float()]


def error(solver, levels):
    z = torch.tensor([[2.0, -1.0, 0.3]])
    found = last(solver(gaussian, z, levels, None)).z
    return float((found - flowed(z, levels[0], levels[-1])).abs().max())


@pytest.mark.parametrize(
    ("solver", "order", "n"),
    [
        (euler, 1, 40),
        (ddim, 1, 40),
        (heun, 2, 20),
        (dpmpp_2m, 2, 40),
        (partial(unipc, order=1), 2, 20),
        (partial(unipc, order=2, lower_order_final=False), 3, 20),
    ],
    ids=["euler", "ddim", "heun", "dpmpp_2m", "unipc-1", "unipc-2"],
)
def test_order_of_convergence(solver, order, n):
    errors = [error(solver, even_in_lambda(m)) for m in (n, 2 * n, 4 * n)]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes == pytest.approx([order, order], abs=0.15)


def test_unipc_3_beats_unipc_2_beats_dpmpp_2m():
    levels = even_in_lambda(40)
    whole = {k: partial(unipc, order=k, lower_order_final=False) for k in (2, 3)}
    errors = [error(solver, levels) for solver in (whole[3], whole[2], dpmpp_2m)]
    assert errors[0] < errors[1] / 5 < errors[2] / 10


@pytest.mark.parametrize("solver", DETERMINISTIC.values(), ids=DETERMINISTIC.keys())
def test_converges_from_pure_noise_to_clean(solver):
    """The ends are where log-SNR is infinite: errors must shrink over the whole schedule too."""
    coarse, fine = (error(solver, schedules.linear_flow(n)) for n in (10, 160))
    assert fine < 0.01 and fine < coarse / 5


@pytest.mark.parametrize("solver", STOCHASTIC.values(), ids=STOCHASTIC.keys())
def test_stochastic_solvers_give_the_data_distribution(solver):
    shape, levels = (4096,), schedules.ddpm_scaled_linear(500, zero_snr=True)
    found = last(solver(gaussian, NOISE.initial(shape), levels, None, NOISE)).z
    assert float(found.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(found.std()) == pytest.approx(STD, rel=0.04)


# --- identities between solvers -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear_flow", "karras", "zero terminal SNR"])
def test_solvers_that_are_the_same_method_agree(name):
    levels, z = LEVELS[name], NOISE.initial(SHAPE) * LEVELS[name][0].sigma

    def run(solver):
        return last(solver(gaussian, z, levels, None, NOISE)).z

    torch.testing.assert_close(run(euler), run(ddim), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(run(ancestral), run(partial(ddim, eta=1.0)), rtol=1e-5, atol=1e-5)


def test_heun_is_algorithm_1_of_edm():
    levels = schedules.karras(8)
    z = x = NOISE.initial(SHAPE) * levels[0].sigma
    for s, t in pairwise(levels):
        d = (x - gaussian(x, s, None)) / s.sigma
        ahead = x + (t.sigma - s.sigma) * d
        if t.sigma > 0:
            d = (d + (ahead - gaussian(ahead, t, None)) / t.sigma) / 2
        x = x + (t.sigma - s.sigma) * d
    torch.testing.assert_close(last(heun(gaussian, z, levels, None)).z, x, rtol=1e-4, atol=1e-4)


def test_heun_on_a_flow_is_heun_on_its_velocity():
    levels = schedules.linear_flow(8)
    z = x = NOISE.initial(SHAPE)

    def velocity(x, level):
        return implied_eps(gaussian(x, level, None), x, level) - gaussian(x, level, None)

    for s, t in pairwise(levels[:-1]):
        d = velocity(x, s)
        ahead = x + (t.t - s.t) * d
        x = x + (t.t - s.t) * (d + velocity(ahead, t)) / 2
    *_, before_last, _ = heun(gaussian, z, levels, None)
    torch.testing.assert_close(before_last.z, x, rtol=1e-5, atol=1e-5)


def test_a_level_for_each_sample_is_a_solver_for_each_sample():
    """Samples may walk different schedules in one batch."""
    pair = [schedules.linear_flow(6, shift) for shift in (1.0, 4.0)]
    both = [
        Level(*(torch.stack(x) for x in zip(*at, strict=True))) for at in zip(*pair, strict=True)
    ]
    z = NOISE.initial(SHAPE)
    for solver in (*DETERMINISTIC.values(), *STOCHASTIC.values()):
        together = last(solver(gaussian, z, both, None, NOISE)).z
        for k, (seed, name) in enumerate(NOISE.samples):
            alone = Noise([(seed, name)], NOISE.stage)
            one = last(solver(gaussian, z[[k]], pair[k], None, alone)).z
            torch.testing.assert_close(together[[k]], one, rtol=1e-5, atol=1e-5)


# --- calls, steering, errors ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "calls"), [("heun", 11), *((k, 6) for k in SOLVERS if k != "heun")]
)
def test_calls_of_the_denoiser(name, calls):
    seen = []

    def counted(z, level, cond):
        seen.append((level.t.shape, level.t.dtype, cond))
        return gaussian(z, level, cond)

    last(SOLVERS[name](counted, NOISE.initial(SHAPE), LEVELS["linear_flow"], "a prompt", NOISE))
    assert seen == [(torch.Size([2]), torch.float32, "a prompt")] * calls


@pytest.mark.parametrize("solver", DETERMINISTIC.values(), ids=DETERMINISTIC.keys())
def test_steering_moves_z_and_may_take_gradients(solver):
    seen = []

    def steer(z, level, i):
        seen.append(i)
        z = z.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((z - 1).square().sum(), z)
        return z - 0.5 * gradient  # exactly 1 everywhere

    def keeps(z, level, cond):
        seen.append(float(z.min()))
        return torch.zeros_like(z)

    levels = even_in_lambda(4)
    step = last(solver(keeps, NOISE.initial(SHAPE), levels, None, steer=steer))
    assert not step.z.requires_grad
    assert [x for x in seen if isinstance(x, int)] == [0, 1, 2, 3]
    # Each steered z is 1, and x0 = 0 only lets it fade: the corrector of UniPC must not undo that.
    faded = torch.full_like(step.z, float(levels[-1].sigma / levels[-2].sigma))
    torch.testing.assert_close(step.z, faded, rtol=1e-5, atol=1e-6)


def test_no_graph_is_built():
    weight = torch.ones(1, requires_grad=True)

    def network_like(z, level, cond):
        return weight * gaussian(z, level, cond)

    for name, solver in SOLVERS.items():
        step = last(solver(network_like, NOISE.initial(SHAPE), LEVELS["karras"], None, NOISE))
        assert not step.z.requires_grad and not step.x0.requires_grad, name


def test_what_a_caller_can_get_wrong():
    z, levels = NOISE.initial(SHAPE), LEVELS["linear_flow"]
    with pytest.raises(UsageError, match="two noise levels"):
        last(euler(gaussian, z, levels[:1], None))
    with pytest.raises(UsageError, match="needs a noise source, got none"):
        last(ancestral(gaussian, z, levels, None))
    with pytest.raises(UsageError, match="got one for 1 samples"):
        last(ddim(gaussian, z, levels, None, Noise([(1, "a")], "s"), eta=1.0))
    for solver in (ddim, dpmpp_2m):
        with pytest.raises(UsageError, match="eta is 2"):
            last(solver(gaussian, z, levels, None, NOISE, eta=2.0))
    with pytest.raises(UsageError, match="order 1, 2 or 3, not 4"):
        last(unipc(gaussian, z, levels, None, order=4))
