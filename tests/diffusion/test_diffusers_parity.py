"""The same samples as diffusers' schedulers, on a denoiser known in closed form.

The denoiser is the posterior mean of a mixture of two Gaussians: curved enough that a wrong
coefficient shows. Where diffusers has a habit of its own, the option that follows it is named here.
"""

import math
import warnings
from functools import partial

import pytest
import torch

from vidgen.diffusion import schedules
from vidgen.diffusion.level import Level, expand
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import PREDICTIONS, denoiser
from vidgen.diffusion.solvers import ancestral, ddim, dpmpp_2m, euler, unipc

with warnings.catch_warnings():
    # Its import warns about optional packages and its own old annotations; ours must not.
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")
    from diffusers import (
        CogVideoXDDIMScheduler,
        CogVideoXDPMScheduler,
        DDIMScheduler,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
        UniPCMultistepScheduler,
    )

# diffusers turns torch tensors into numpy arrays in a way that numpy 2 is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NOISE = Noise([(1, "a"), (2, "b")], "parity")
SHAPE = (4, 2, 3, 3)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def mixture(z, alpha, sigma):
    """E[x0 | z] for x0 ~ half N(-1, 0.3^2), half N(1, 0.3^2)."""
    gain = alpha * 0.09 / (alpha**2 * 0.09 + sigma**2)
    side = torch.tanh(alpha * z / (alpha**2 * 0.09 + sigma**2))
    return side + gain * (z - alpha * side)


def exact(z, level, cond):
    return mixture(z, expand(level.alpha, z), expand(level.sigma, z))


def network_of(name, levels):
    """What a perfect network of this prediction would say at one of `levels`, found by its t."""
    prediction = PREDICTIONS[name]()
    known = {float(level.t): level for level in levels[:-1]}

    def network(z, t, cond=None):
        level = Level(*(x.reshape(1) for x in known[float(t.flatten()[0])]))
        x0 = exact(z, level, None)
        eps = (z - expand(level.alpha, z) * x0) / expand(level.sigma, z)
        return prediction.target(x0, eps, level)

    return denoiser(network, prediction), network


def ours(solver, denoise, levels):
    *_, step = solver(denoise, NOISE.initial(SHAPE), levels, None, NOISE)
    return step.z


def theirs(scheduler, n, network, levels, table=None, **per_step):
    """diffusers' loop, with our noise where it wants some; checks that its timesteps are ours.

    It accumulates its table in float32, which is visible in the fifth digit near pure noise: the
    tables are compared on their own, and the solvers on our table in float64.
    """
    if table is not None:
        torch.testing.assert_close(table.alpha**2, scheduler.alphas_cumprod.double(), **CLOSE)
        scheduler.alphas_cumprod = table.alpha**2
    scheduler.set_timesteps(n)
    assert [float(t) for t in scheduler.timesteps] == [float(level.t) for level in levels[:-1]]
    z = NOISE.initial(SHAPE) * scheduler.init_noise_sigma
    for i, t in enumerate(scheduler.timesteps):
        options = {k: make(i) for k, make in per_step.items()}
        z = scheduler.step(network(z, t), t, z, return_dict=False, **options)[0]
    return z


def step_noise(i):
    return NOISE.step(i, SHAPE)


# --- DDIM and DDPM --------------------------------------------------------------------------------

STEPS = 20  # divides 1000: DDIM takes t - 1000 // n as the next timestep, even where it is not


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize(
    ("spacing", "offset", "prediction", "zero_snr"),
    [
        ("leading", 1, "eps", False),
        ("leading", 0, "v", False),
        ("trailing", 0, "eps", False),
        ("trailing", 0, "v", True),
        ("trailing", 0, "x0", True),
    ],
)
def test_ddim(spacing, offset, prediction, zero_snr, eta):
    levels = schedules.ddpm_scaled_linear(STEPS, spacing, steps_offset=offset, zero_snr=zero_snr)
    denoise, network = network_of(prediction, levels)
    scheduler = DDIMScheduler(
        **STABLE_DIFFUSION,
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing=spacing,
        steps_offset=offset,
        rescale_betas_zero_snr=zero_snr,
        prediction_type={"eps": "epsilon", "v": "v_prediction", "x0": "sample"}[prediction],
    )
    table = schedules.ddpm_table(schedules.scaled_linear_betas(), zero_snr=zero_snr)
    expected = theirs(
        scheduler,
        STEPS,
        network,
        levels,
        table,
        eta=lambda i: eta,
        variance_noise=lambda i: step_noise(i) if eta else None,
    )
    found = ours(partial(ddim, eta=eta), denoise, levels)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_cosine_table_is_squaredcos_cap_v2():
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2")
    table = schedules.ddpm_table(schedules.cosine_betas())
    found = scheduler.alphas_cumprod.double()
    torch.testing.assert_close(table.alpha**2, found, rtol=2e-4, atol=1e-6)


def test_linear_table_is_ddpms():
    table = schedules.ddpm_table(schedules.linear_betas())
    found = DDPMScheduler().alphas_cumprod.double()
    torch.testing.assert_close(table.alpha**2, found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("snr_shift", [1.0, 3.0], ids=["5B", "2B"])
def test_cogvideox_ddim(snr_shift):
    options = {"zero_snr": True, "snr_shift": snr_shift}
    levels = schedules.ddpm_scaled_linear(STEPS, **options)
    denoise, network = network_of("v", levels)
    scheduler = CogVideoXDDIMScheduler(
        **STABLE_DIFFUSION,
        prediction_type="v_prediction",
        clip_sample=False,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=snr_shift,
    )
    table = schedules.ddpm_table(schedules.scaled_linear_betas(), **options)
    expected = theirs(scheduler, STEPS, network, levels, table)
    torch.testing.assert_close(ours(ddim, denoise, levels), expected, **CLOSE)


def test_cogvideox_dpm_is_the_stochastic_dpmpp_2m(monkeypatch):
    levels = schedules.ddpm_scaled_linear(STEPS, zero_snr=True)
    denoise, network = network_of("v", levels)
    scheduler = CogVideoXDPMScheduler(
        **STABLE_DIFFUSION,
        prediction_type="v_prediction",
        clip_sample=False,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        snr_shift_scale=1.0,
    )
    table = schedules.ddpm_table(schedules.scaled_linear_betas(), zero_snr=True)
    scheduler.alphas_cumprod = table.alpha**2
    scheduler.set_timesteps(STEPS)
    z, old, back = NOISE.initial(SHAPE), None, None
    for i, t in enumerate(scheduler.timesteps):
        monkeypatch.setitem(
            scheduler.step.__globals__, "randn_tensor", lambda *a, i=i, **k: step_noise(i)
        )
        z, old = scheduler.step(network(z, t), old, t, back, z, return_dict=False)
        back = t
    torch.testing.assert_close(ours(partial(dpmpp_2m, eta=1.0), denoise, levels), z, **CLOSE)


def test_ddpm(monkeypatch):
    levels = schedules.ddpm_scaled_linear(STEPS)
    denoise, network = network_of("eps", levels)
    scheduler = DDPMScheduler(
        **STABLE_DIFFUSION,
        clip_sample=False,
        timestep_spacing="trailing",
        variance_type="fixed_small",
    )
    made = iter(range(STEPS))
    monkeypatch.setitem(
        scheduler.step.__globals__, "randn_tensor", lambda *a, **k: step_noise(next(made))
    )
    table = schedules.ddpm_table(schedules.scaled_linear_betas())
    expected = theirs(scheduler, STEPS, network, levels, table)
    torch.testing.assert_close(ours(ancestral, denoise, levels), expected, **CLOSE)


# --- multistep solvers on Stable Diffusion's levels -----------------------------------------------
# They take n + 1 timesteps and leave the cleanest out (skip_cleanest), and the last step, to
# sigma = 0, is of first order, as it is here.


@pytest.mark.parametrize("n", [1, 2, 8, 20])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_dpmpp_2m(spacing, n):
    levels = schedules.ddpm_scaled_linear(n, spacing, skip_cleanest=True)
    denoise, network = network_of("eps", levels)
    scheduler = DPMSolverMultistepScheduler(
        **STABLE_DIFFUSION, timestep_spacing=spacing, solver_order=2, solver_type="midpoint"
    )
    table = schedules.ddpm_table(schedules.scaled_linear_betas())
    expected = theirs(scheduler, n, network, levels, table)
    torch.testing.assert_close(ours(dpmpp_2m, denoise, levels), expected, **CLOSE)


def test_sde_dpmpp_2m():
    levels = schedules.ddpm_scaled_linear(STEPS)
    denoise, network = network_of("eps", levels)
    scheduler = DPMSolverMultistepScheduler(
        **STABLE_DIFFUSION, timestep_spacing="trailing", algorithm_type="sde-dpmsolver++"
    )
    table = schedules.ddpm_table(schedules.scaled_linear_betas())
    expected = theirs(scheduler, STEPS, network, levels, table, variance_noise=step_noise)
    torch.testing.assert_close(ours(partial(dpmpp_2m, eta=1.0), denoise, levels), expected, **CLOSE)


@pytest.mark.parametrize("final", [True, False], ids=["lower order final", "full order"])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_unipc(spacing, order, final):
    n = 12
    levels = schedules.ddpm_scaled_linear(n, spacing, skip_cleanest=True)
    denoise, network = network_of("eps", levels)
    scheduler = UniPCMultistepScheduler(
        **STABLE_DIFFUSION,
        timestep_spacing=spacing,
        solver_order=order,
        solver_type="bh2",
        lower_order_final=final,
        # With full order to the end diffusers needs an end above zero.
        final_sigmas_type="zero" if final else "sigma_min",
    )
    table = schedules.ddpm_table(schedules.scaled_linear_betas())
    if not final:
        first = Level(*(x[0].float() for x in table))
        levels = [*levels[:-1], first]
    expected = theirs(scheduler, n, network, levels, table)
    solver = partial(unipc, order=order, lower_order_final=final)
    torch.testing.assert_close(ours(solver, denoise, levels), expected, **CLOSE)


# --- flows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_euler(shift):
    n = 10
    levels = schedules.linear_flow(n, shift, t_scale=1000)
    denoise, network = network_of("flow", levels)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=[1 - i / n for i in range(n)])  # as the pipelines call it
    z = NOISE.initial(SHAPE)
    for t, level in zip(scheduler.timesteps, levels, strict=False):
        assert float(t) == pytest.approx(float(level.t), rel=1e-6)
        z = scheduler.step(network(z, level.t), t, z, return_dict=False)[0]
    torch.testing.assert_close(ours(euler, denoise, levels), z, **CLOSE)


@pytest.mark.parametrize("shift", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("order", [2, 3])
def test_unipc_on_a_flow_as_wan_ships_it(order, shift):
    n = 20
    levels = schedules.linear_flow(
        n, shift, t_end=1 / 1000, t_max=1 - 1e-6, t_scale=1000, whole_t=True
    )
    denoise, network = network_of("flow", levels)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift,
        solver_order=order,
        solver_type="bh2",
    )
    expected = theirs(scheduler, n, network, levels)
    found = ours(partial(unipc, order=order), denoise, levels)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_unipc_from_exactly_pure_noise_is_the_limit_of_wans():
    """diffusers stops at t = 1 - 1e-6, where log-SNR is finite. t = 1 itself is no different."""
    near = schedules.linear_flow(20, 3.0, t_max=1 - 1e-6)
    whole = schedules.linear_flow(20, 3.0)
    torch.testing.assert_close(
        ours(unipc, exact, near), ours(unipc, exact, whole), rtol=0, atol=0.05
    )
    assert math.isfinite(float(ours(unipc, exact, whole).sum()))
