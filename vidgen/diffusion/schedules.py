"""Schedules: from a number of steps to a list of noise levels, noisiest first, the last clean.

Everything is computed in float64 and rounded once to float32. A schedule is only a list: start from
the middle with `levels[k:]`, or build one by hand with `flow_levels` or `from_table`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vidgen.diffusion.level import Level, Levels
from vidgen.errors import UsageError


def _levels(t: Tensor, alpha: Tensor, sigma: Tensor) -> Levels:
    return [Level(*row) for row in torch.stack([t, alpha, sigma], dim=1).float()]


def _at_least_one(n: int) -> None:
    if n < 1:
        raise UsageError(f"num_inference_steps is {n}, and must be at least 1")


# --- rectified flow -------------------------------------------------------------------------------


def flow_levels(t: Tensor, *, t_scale: float = 1.0, whole_t: bool = False) -> Levels:
    """Levels z = (1 - t) x0 + t eps for times that the caller chose; the network is told t_scale t.

    whole_t cuts the told time down to a whole number, as diffusers' UniPC does.
    """
    t = t.double()
    told = (t_scale * t).trunc() if whole_t else t_scale * t
    return _levels(told, 1 - t, t)


def linear_flow(
    n: int,
    shift: float = 1.0,
    *,
    t_end: float = 0.0,
    t_max: float = 1.0,
    t_scale: float = 1.0,
    whole_t: bool = False,
) -> Levels:
    """n even steps in t from 1 to 0, then shifted: t' = shift t / (1 + (shift - 1) t).

    shift    > 1 spends more steps at high noise (Esser et al. 2024, Eq. 23)
    t_end    the even steps run towards this time instead of 0; the last level is still t = 0
    t_max    no time is larger than this, after shifting
    t_scale  what the network is told is t_scale t'; 1000 for Wan

    diffusers' UniPC for flow models is t_end = 1 / 1000, t_max = 1 - 1e-6, whole_t; the released
    Wan schedules are that one with t_scale 1000 and shift 3 or more.
    """
    _at_least_one(n)
    t = torch.linspace(1, t_end, n + 1, dtype=torch.float64)
    t[-1] = 0
    t = (shift * t / (1 + (shift - 1) * t)).clamp(max=t_max)
    return flow_levels(t, t_scale=t_scale, whole_t=whole_t)


# --- EDM ------------------------------------------------------------------------------------------


def karras(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Levels:
    """EDM's levels (Karras et al. 2022, Eq. 5): even in sigma^(1/rho), then 0. t is sigma."""
    _at_least_one(n)
    if not 0 < sigma_min < sigma_max < math.inf:
        raise UsageError(
            f"noise levels from sigma {sigma_max:g} down to {sigma_min:g}: both must be above 0,"
            " and the first the larger one"
        )
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigma = torch.cat([(top + ramp * (bottom - top)) ** rho, ramp.new_zeros(1)])
    return _levels(sigma, torch.ones_like(sigma), sigma)


def snap(
    n: int,
    sigma_in: float = 4.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Levels:
    """EDM's levels of a signal shrunk by sigma_in (Snap Video, Menapace et al. 2024, Sec. 3.2).

    sigma_in = k sqrt(T), for T frames whose sides are k times the 64 pixels that EDM was made for.
    The last level has alpha = 1: the step that arrives there gives the sample its size back.
    """
    if not 0 < sigma_in < math.inf:
        raise UsageError(f"sigma_in is {sigma_in}, and must be above 0, and finite")
    levels = karras(n, sigma_min, sigma_max, rho)
    small = torch.tensor(1 / sigma_in)
    return [Level(t, small, sigma) for t, _, sigma in levels[:-1]] + [levels[-1]]


# --- DDPM: a table of training timesteps, and a choice among them ---------------------------------


def scaled_linear_betas(
    num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> Tensor:
    """Even steps in sqrt(beta): latent diffusion, Stable Diffusion, CogVideoX."""
    ends = math.sqrt(beta_start), math.sqrt(beta_end)
    return torch.linspace(*ends, num_train_timesteps, dtype=torch.float64) ** 2


def linear_betas(
    num_train_timesteps: int = 1000, beta_start: float = 0.0001, beta_end: float = 0.02
) -> Tensor:
    """Even steps in beta (Ho et al. 2020)."""
    return torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float64)


def cosine_betas(num_train_timesteps: int = 1000, *, beta_max: float = 0.999) -> Tensor:
    """Alpha falls like a cosine (Nichol and Dhariwal 2021, Eq. 17), betas cut at beta_max."""
    time = torch.linspace(0, 1, num_train_timesteps + 1, dtype=torch.float64)
    alpha_bar = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=beta_max)


def ddpm_table(betas: Tensor, *, zero_snr: bool = False, snr_shift: float = 1.0) -> Level:
    """The level of every training timestep, from betas: a `Level` of (T,) tensors, cleanest first.

    zero_snr   stretch sqrt(alpha_bar) so that the last timestep is pure noise, alpha = 0
               (Lin et al. 2023, Algorithm 1)
    snr_shift  alpha_bar' = alpha_bar / (s + (1 - s) alpha_bar), before zero_snr; 3 in CogVideoX-2B
    """
    alpha_bar = torch.cumprod(1 - betas.double(), dim=0)
    alpha_bar = alpha_bar / (snr_shift + (1 - snr_shift) * alpha_bar)
    alpha = alpha_bar.sqrt()
    if zero_snr:
        alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    t = torch.arange(len(betas), dtype=torch.float64)
    return Level(t, alpha, (1 - alpha**2).sqrt())


def from_table(
    table: Level,
    n: int,
    spacing: str = "trailing",
    *,
    steps_offset: int = 0,
    skip_cleanest: bool = False,
) -> Levels:
    """n of the training timesteps, evenly spaced (Lin et al. 2023, Table 2), then alpha = 1.

    trailing  counts down from the last timestep, so it starts where training ends
    leading   counts up from timestep 0, plus steps_offset (Stable Diffusion: 1)
    linspace  both ends

    skip_cleanest: take n + 1 and leave the cleanest out, as diffusers' multistep schedulers
    (DPM-Solver, UniPC) do for leading and linspace.
    """
    _at_least_one(n)
    last = len(table.t)
    m = n + 1 if skip_cleanest and spacing != "trailing" else n
    up = torch.arange(m, dtype=torch.float64)
    match spacing:
        case "trailing":
            index = (last - up * last / m).round() - 1
        case "leading":
            index = (up * (last // m) + steps_offset).flip(0)
        case "linspace":
            index = torch.linspace(0, last - 1, m, dtype=torch.float64).round().flip(0)
        case _:
            raise UsageError(f"no spacing `{spacing}`", next="trailing, leading or linspace")
    if m > last or index[0] >= last:
        raise UsageError(
            f"{n} steps asked of a schedule with {last} training timesteps"
            + (f", counting from {steps_offset}" if steps_offset else "")
        )
    t, alpha, sigma = (x[index[:n].long()] for x in table)
    clean = t.new_tensor([0.0]), t.new_tensor([1.0]), t.new_tensor([0.0])
    return _levels(*(torch.cat(pair) for pair in zip((t, alpha, sigma), clean, strict=True)))


def ddpm_scaled_linear(
    n: int,
    spacing: str = "trailing",
    *,
    num_train_timesteps: int = 1000,
    beta_start: float = 0.00085,
    beta_end: float = 0.012,
    zero_snr: bool = False,
    snr_shift: float = 1.0,
    steps_offset: int = 0,
    skip_cleanest: bool = False,
) -> Levels:
    """Stable Diffusion's levels; with zero_snr, CogVideoX's. t is the training timestep."""
    betas = scaled_linear_betas(num_train_timesteps, beta_start, beta_end)
    table = ddpm_table(betas, zero_snr=zero_snr, snr_shift=snr_shift)
    return from_table(table, n, spacing, steps_offset=steps_offset, skip_cleanest=skip_cleanest)


def cosine(
    n: int,
    spacing: str = "trailing",
    *,
    num_train_timesteps: int = 1000,
    zero_snr: bool = False,
    steps_offset: int = 0,
    skip_cleanest: bool = False,
) -> Levels:
    """The levels of Nichol and Dhariwal's cosine schedule. t is the training timestep."""
    table = ddpm_table(cosine_betas(num_train_timesteps), zero_snr=zero_snr)
    return from_table(table, n, spacing, steps_offset=steps_offset, skip_cleanest=skip_cleanest)


SCHEDULES: dict[str, Callable[..., Levels]] = {
    "linear_flow": linear_flow,
    "karras": karras,
    "snap": snap,
    "ddpm_scaled_linear": ddpm_scaled_linear,
    "cosine": cosine,
}
