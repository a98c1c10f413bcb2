"""Solvers: from noise to a sample, one generator each, over levels z = alpha x0 + sigma eps.

Freeze the estimate of x0 while z goes from level s to level t, and the probability-flow equation
has an exact solution (DDIM, Song et al. 2021, Eq. 12; DPM-Solver++, Lu et al. 2022, Prop. 4.1):

    z_t = (sigma_t / sigma_s) z_s + alpha_t (1 - q) x0,    q = alpha_s sigma_t / (alpha_t sigma_s)

q is e^-h, with h the step in lambda = log(alpha / sigma). Written with q, nothing is infinite at
alpha_s = 0 (zero terminal SNR, flow at t = 1) nor at sigma_t = 0 (the end): q is 0 there. That
formula is `move`, and the deterministic solvers differ in the estimate they freeze:

    euler      x0 as it is now                                     order 1
    heun       the mean of now and of a trial step ahead           order 2, two calls a step
    dpmpp_2m   extrapolated from now and from one step ago         order 2
    unipc      the same, and corrected once the next x0 is known   order 2 to 4

The stochastic ones draw part of the noise anew: ddim(eta), ancestral, dpmpp_2m(eta), dpmpp_2m_sde.
What an estimate got wrong is forgotten with the noise that is drawn anew, where a deterministic
solver carries it on: of a network that is far from perfect they make cleaner samples, in more
steps.

Every solver yields one `Step` for each pair of neighboring levels; the last step's z is the sample.
Progress, preview, checkpoint and early stop are a for-loop around it. Any step can be handed back
as `start`, and what follows is the same to the bit: noise is a function of the step's number, and
`memory` holds whatever else the solver would have known. z and all estimates are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from vidgen.diffusion.level import Level, Levels, expand, implied_eps
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import Denoiser
from vidgen.errors import UsageError


class Step(NamedTuple):
    """One step taken, and everything needed to go on from here."""

    i: int  # the number of the step, from 0
    level: Level  # the level of z: levels[i + 1]
    z: Tensor  # (b, ...) float32
    x0: Tensor  # the estimate that this step was made with, for previews
    memory: dict[str, Tensor]  # what a multistep solver remembers beyond x0; often empty


class Steer(Protocol):
    """Moves z before a step (DiTFlow). Gradients are on inside, and nowhere else in a solver."""

    def __call__(self, z: Tensor, level: Level, i: int) -> Tensor: ...


# --- what all solvers share -----------------------------------------------------------------------


def decay(s: Level, t: Level) -> Tensor:
    """q = e^-h of the step from s to t: 0 if it leaves pure noise or ends clean, 1 if h = 0."""
    return (s.alpha * t.sigma) / (t.alpha * s.sigma)


def move(z: Tensor, x0: Tensor, s: Level, t: Level) -> Tensor:
    """Carry z from level s to level t along the probability flow, with x0 frozen."""
    return expand(t.sigma / s.sigma, z) * z + expand(t.alpha * (1 - decay(s, t)), z) * x0


def _begin(
    z: Tensor, levels: Levels, start: Step | None
) -> tuple[Tensor, Iterator[tuple[int, Level, Level]]]:
    """z in float32, and (i, from, to) for the steps still to take; the levels are in float64."""
    if len(levels) < 2:
        raise UsageError(f"a solver needs two noise levels or more, got {len(levels)}")
    first = start.i + 1 if start else 0
    todo = ((i, levels[i].double(), levels[i + 1].double()) for i in range(first, len(levels) - 1))
    return (start.z if start else z).float(), todo


def _look(
    denoise: Denoiser, z: Tensor, s: Level, cond: Any, steer: Steer | None, i: int
) -> tuple[Tensor, Tensor]:
    """(z, x0): z where the steering, if any, put it, and the clean estimate there."""
    level = s.on(z)
    if steer is not None:
        with torch.enable_grad():
            z = steer(z, level, i).detach().float()
    return z, denoise(z, level, cond).float()


def _draw(noise: Noise | None, i: int, z: Tensor) -> Tensor:
    """The noise of step i, like z."""
    if noise is None or len(noise) != len(z):
        have = "none" if noise is None else f"one for {len(noise)} samples"
        raise UsageError(f"a stochastic step of {len(z)} samples needs a noise source, got {have}")
    return noise.step(i, z.shape[1:]).to(z)


def _check_eta(eta: float) -> None:
    if not 0 <= eta <= 1:
        raise UsageError(f"eta is {eta}, and must be between 0 (no noise) and 1 (ancestral)")


# --- one step, one call ---------------------------------------------------------------------------


@torch.no_grad()
def euler(
    denoise: Denoiser,
    z: Tensor,
    levels: Levels,
    cond: Any,
    noise: Noise | None = None,
    *,
    steer: Steer | None = None,
    start: Step | None = None,
) -> Iterator[Step]:
    """Euler's method; the same in EDM's sigma, in flow time, and as DDIM with eta = 0."""
    z, todo = _begin(z, levels, start)
    for i, s, t in todo:
        z, x0 = _look(denoise, z, s, cond, steer, i)
        z = move(z, x0, s, t)
        yield Step(i, levels[i + 1], z, x0, {})


@torch.no_grad()
def ddim(
    denoise: Denoiser,
    z: Tensor,
    levels: Levels,
    cond: Any,
    noise: Noise | None = None,
    *,
    eta: float = 0.0,
    steer: Steer | None = None,
    start: Step | None = None,
) -> Iterator[Step]:
    """DDIM (Song et al. 2021, Eq. 12 and 16). eta: how much of the noise is drawn anew, 0 to 1."""
    _check_eta(eta)
    z, todo = _begin(z, levels, start)
    for i, s, t in todo:
        z, x0 = _look(denoise, z, s, cond, steer, i)
        eps = implied_eps(x0, z, s)
        new = eta * t.sigma * (1 - decay(s, t) ** 2).sqrt()
        old = (t.sigma**2 - new**2).sqrt()
        z = expand(t.alpha, z) * x0 + expand(old, z) * eps
        if (new > 0).any():
            z = z + expand(new, z) * _draw(noise, i, z)
        yield Step(i, levels[i + 1], z, x0, {})


@torch.no_grad()
def ancestral(
    denoise: Denoiser,
    z: Tensor,
    levels: Levels,
    cond: Any,
    noise: Noise | None = None,
    *,
    steer: Steer | None = None,
    start: Step | None = None,
) -> Iterator[Step]:
    """DDPM (Ho et al. 2020, Eq. 7, with the small variance): draw z_t from q(z_t | z_s, x0)."""
    z, todo = _begin(z, levels, start)
    for i, s, t in todo:
        z, x0 = _look(denoise, z, s, cond, steer, i)
        q = decay(s, t)
        std = t.sigma * (1 - q**2).sqrt()
        z = expand(q * t.sigma / s.sigma, z) * z + expand(t.alpha * (1 - q**2), z) * x0
        if (std > 0).any():
            z = z + expand(std, z) * _draw(noise, i, z)
        yield Step(i, levels[i + 1], z, x0, {})


# --- one step, two calls --------------------------------------------------------------------------


@torch.no_grad()
def heun(
    denoise: Denoiser,
    z: Tensor,
    levels: Levels,
    cond: Any,
    noise: Noise | None = None,
    *,
    steer: Steer | None = None,
    start: Step | None = None,
) -> Iterator[Step]:
    """Heun's method (EDM, Karras et al. 2022, Algorithm 1); the last step to sigma = 0 is Euler's.

    dz = x0 d(alpha) + eps d(sigma) by the trapezoid rule: EDM's where alpha = 1, and Heun on the
    velocity for flows, without a division by alpha.
    """
    z, todo = _begin(z, levels, start)
    for i, s, t in todo:
        z, x0 = _look(denoise, z, s, cond, steer, i)
        ahead = move(z, x0, s, t)
        if (t.sigma > 0).all():
            x0_ahead = denoise(ahead, t.on(z), cond).float()
            mean_x0 = (x0 + x0_ahead) / 2
            mean_eps = (implied_eps(x0, z, s) + implied_eps(x0_ahead, ahead, t)) / 2
            z = z + expand(t.alpha - s.alpha, z) * mean_x0 + expand(t.sigma - s.sigma, z) * mean_eps
        else:
            z = ahead
        yield Step(i, levels[i + 1], z, x0, {})


# --- multistep ------------------------------------------------------------------------------------


@torch.no_grad()
def dpmpp_2m(
    denoise: Denoiser,
    z: Tensor,
    levels: Levels,
    cond: Any,
    noise: Noise | None = None,
    *,
    eta: float = 0.0,
    steer: Steer | None = None,
    start: Step | None = None,
) -> Iterator[Step]:
    """DPM-Solver++(2M), midpoint form (Lu et al. 2022, Algorithm 2).

    eta = 1 is its stochastic form, SDE-DPM-Solver++(2M): the sampler of CogVideoX-5B and of the
    shipped model.
    A step from alpha = 0, to sigma = 0, or right after one from alpha = 0 is of first order.
    """
    _check_eta(eta)
    z, todo = _begin(z, levels, start)
    before = start.x0 if start else None
    for i, s, t in todo:
        z, x0 = _look(denoise, z, s, cond, steer, i)
        q, guess = decay(s, t), x0
        if before is not None:
            h, h_before = -q.log(), -decay(levels[i - 1].double(), s).log()
            lever = torch.where(h.isfinite(), h / (2 * h_before), 0)
            guess = x0 + expand(lever, z) * (x0 - before)
        keep = t.sigma / s.sigma * q**eta
        z = expand(keep, z) * z + expand(t.alpha * (1 - q ** (1 + eta)), z) * guess
        new = t.sigma * (1 - q ** (2 * eta)).sqrt()
        if (new > 0).any():
            z = z + expand(new, z) * _draw(noise, i, z)
        before = x0
        yield Step(i, levels[i + 1], z, x0, {})


def dpmpp_2m_sde(
    denoise: Denoiser,
    z: Tensor,
    levels: Levels,
    cond: Any,
    noise: Noise | None = None,
    *,
    steer: Steer | None = None,
    start: Step | None = None,
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M): `dpmpp_2m` with eta = 1."""
    return dpmpp_2m(denoise, z, levels, cond, noise, eta=1.0, steer=steer, start=start)


@torch.no_grad()
def unipc(
    denoise: Denoiser,
    z: Tensor,
    levels: Levels,
    cond: Any,
    noise: Noise | None = None,
    *,
    order: int = 2,
    lower_order_final: bool = True,
    steer: Steer | None = None,
    start: Step | None = None,
) -> Iterator[Step]:
    """UniPC (Zhao et al. 2023), the form with B(h) = e^h - 1 ("bh2") that predicts x0.

    Each new x0 first corrects the step that led to it (UniC), at no extra call, then serves to
    predict the next (UniP). The correction is added to z, so what `steer` did to z stays.

    order              of the predictor, 1 to 3; the corrector gains one more
    lower_order_final  bring the order down to 1 over the last steps, as the released code does
    """
    if not 1 <= order <= 3:
        raise UsageError(f"unipc has order 1, 2 or 3, not {order}")
    z, todo = _begin(z, levels, start)
    n = len(levels) - 1
    past: list[tuple[Level, Tensor]] = []  # (level, x0 there), newest first
    guess = z  # the estimate that the last step froze; read only when there is a past
    if start:
        ago = sorted(name for name in start.memory if name.startswith("x0_"))  # x0_1, x0_2
        known = [start.x0, *(start.memory[name] for name in ago)]
        past = [(levels[start.i - k].double(), x0) for k, x0 in enumerate(known)]
        guess = start.memory["guess"]

    def reach(i: int) -> int:
        """How many x0 the predictor of step i uses: its order."""
        return min(order, i + 1, n - i if lower_order_final else order)

    for i, s, t in todo:
        z, x0 = _look(denoise, z, s, cond, steer, i)
        if past:  # UniC: the last step, from r to s, once more with x0 at its end
            r = past[0][0]
            better = _combine(r, s, [*past[: reach(i - 1)], (s, x0)])
            z = z + expand(s.alpha * (1 - decay(r, s)), z) * (better - guess)
        past = [(s, x0), *past][:order]
        guess = _combine(s, t, past[: reach(i)])  # UniP
        z = move(z, guess, s, t)
        memory = {f"x0_{k}": x for k, (_, x) in enumerate(past) if k > 0}
        yield Step(i, levels[i + 1], z, x0, {"guess": guess, **memory})


def _combine(s: Level, t: Level, nodes: list[tuple[Level, Tensor]]) -> Tensor:
    """UniPC's estimate for the step from s to t: m_0 + sum over k of rho_k (m_k - m_0) / r_k.

    nodes  (level, x0 there); the first is m_0, at s; r_k is how far along the step node k lies in
           lambda: negative before s, 1 at t
    rho    solves  sum_k rho_k r_k^(j-1) = b_j,  j = 1 ... K,  so that the sum is exact for x0
           polynomial in lambda up to degree K

    A node infinitely far off (alpha = 0), or seen from an infinite step (sigma_t = 0), is left out.
    """
    (_, base), *others = nodes
    end, h = t.half_log_snr, t.half_log_snr - s.half_log_snr
    placed = [(1 - (end - level.half_log_snr) / h, m) for level, m in others]
    placed = [(r, m) for r, m in placed if r.isfinite().all()]
    if not placed:
        return base
    r = torch.stack([r for r, _ in placed], dim=-1)
    if len(placed) == 1:
        rho = torch.full_like(r, 0.5)  # the paper's choice for K = 1: exact as h goes to 0
    else:
        # b_j = j! h phi_(j+1) / B(h), phi by its recursion; the signs are those of predicting x0
        big_b, b, psi, factorial = torch.expm1(-h), [], torch.expm1(-h) / -h - 1, 1
        for j in range(1, len(placed) + 1):
            b.append(psi * factorial / big_b)
            factorial *= j + 1
            psi = psi / -h - 1 / factorial
        powers = torch.stack([r**j for j in range(len(placed))], dim=-2)
        rho = torch.linalg.solve(powers, torch.stack(b, dim=-1))
    weighted = zip((rho / r).unbind(-1), placed, strict=True)
    return base + sum(expand(w, base) * (m - base) for w, (_, m) in weighted)


Solver = Callable[..., Iterator[Step]]

SOLVERS: dict[str, Solver] = {
    solver.__name__: solver
    for solver in (euler, heun, dpmpp_2m, dpmpp_2m_sde, unipc, ddim, ancestral)
}
EVALUATIONS = {heun.__name__: 2}  # calls of the denoiser a step, where that is not one
