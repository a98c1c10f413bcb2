"""Guidance: a denoiser made of denoisers. It never lives in a network or in a solver.

    contrast            x0 + sum of w_k (x0 - x0 under condition k): what the next four are made of
    cfg                 classifier-free guidance
    dynamic_cfg         its scale rises over the steps (CogVideoX)
    separate            one scale for each of several conditions (AC3D: text and camera)
    guided_by           one named condition against zeros in its place (FusionFrames: keyframes)
    autoguide           away from a weaker model
    only_between        only at some noise levels
    oscillating_cfg     a high scale and a low one in turn (Imagen Video, Snap Video)
    dynamic_threshold   clip x0 where guidance overshoots (Imagen)
    reconstruction      towards frames that are known (Video Diffusion Models)

A scale of 1 means off, always, and then costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vidgen.diffusion.cond import Cond, cat
from vidgen.diffusion.level import Level, Levels, expand
from vidgen.diffusion.prediction import Denoiser

Weight = float | Callable[[Level], Tensor]  # a number, or (b,) of the level


def contrast(
    denoise: Denoiser,
    terms: Sequence[tuple[Any, Weight]],
    *,
    batched: bool = True,
    rescaled: float = 0.0,
) -> Denoiser:
    """x0 = full + sum over (cond_k, w_k) of w_k (full - denoise(z, cond_k)).

    terms     a condition that lacks something, and how far to go away from what it gives;
              those of weight 0 are left out, and with none left this is `denoise` itself
    batched   all branches in one call, which needs conditions that `cat` can join; or a call each
    rescaled  Lin et al. 2023, Sec. 3.4: how far to bring each sample's spread back, 0 to 1
    """
    terms = [(cond, w) for cond, w in terms if callable(w) or w != 0]
    if not terms:
        return denoise

    def guided(z: Tensor, level: Level, cond: Any) -> Tensor:
        full, *others = branches(denoise, z, level, [cond, *(c for c, _ in terms)], batched)
        x0 = full
        for (_, w), other in zip(terms, others, strict=True):
            x0 = x0 + (expand(w(level), z) if callable(w) else w) * (full - other)
        return rescale(x0, full, rescaled) if rescaled else x0

    return guided


def branches(
    denoise: Denoiser, z: Tensor, level: Level, conds: Sequence[Any], batched: bool
) -> Sequence[Tensor]:
    """denoise(z, level, cond) for each condition, in one call or in several."""
    if not batched:
        return [denoise(z, level, cond) for cond in conds]
    k = len(conds)
    levels = Level(*(torch.cat([x] * k) for x in level.on(z)))
    return denoise(torch.cat([z] * k), levels, cat(*conds)).chunk(k)


def cfg(
    denoise: Denoiser,
    uncond: Cond,
    scale: float,
    *,
    batched: bool = True,
    rescaled: float = 0.0,
) -> Denoiser:
    """Classifier-free guidance (Ho and Salimans 2022): x0 = u + scale (c - u).

    Papers that write (1 + w) c - w u mean scale = 1 + w.
    """
    return contrast(denoise, [(uncond, scale - 1)], batched=batched, rescaled=rescaled)


def dynamic_cfg(
    denoise: Denoiser,
    uncond: Cond,
    scale: float,
    num_inference_steps: int,
    *,
    batched: bool = True,
) -> Denoiser:
    """CogVideoX's: scale_t = 1 + scale (1 - cos(pi ((N - t) / N)^5)) / 2.

    N is the number of steps but t the training timestep up to 999, as in the released code; the
    ratio is far outside [0, 1], and the scale jumps about rather than rises. Kept as it is.
    """

    def beyond_one(level: Level) -> Tensor:
        n = num_inference_steps
        # Python floats: the cosine of numbers near 1e7 has no digits left in float32.
        angles = [math.pi * ((n - t) / n) ** 5 for t in level.t.tolist()]
        return torch.tensor([scale * (1 - math.cos(a)) / 2 for a in angles], dtype=torch.float32)

    return contrast(denoise, [(uncond, beyond_one)], batched=batched)


def separate(
    denoise: Denoiser, *without: tuple[Cond, float], batched: bool = True, rescaled: float = 0.0
) -> Denoiser:
    """A scale for each condition: `separate(d, (no_text, 6.0), (no_camera, 4.0))`.

    AC3D (Bahmani et al. 2024): (1 + w_y + w_c) x0(text, camera) - w_y x0(camera) - w_c x0(text),
    with w = scale - 1. Each pair is the condition with one thing taken away, and its scale.
    """
    terms = [(cond, scale - 1) for cond, scale in without]
    return contrast(denoise, terms, batched=batched, rescaled=rescaled)


def guided_by(
    denoise: Denoiser, cond: Cond, name: str, scale: float, *, batched: bool = True
) -> Denoiser:
    """Away from what the denoiser gives when `cond[name]` is zeros, the rest as it is.

    FusionFrames (Arkhipkin et al. 2023) guides by its keyframes: (1 + w) x0(c) - w x0(0), so
    scale = 1 + w; its w is 0.25.
    """
    told = cond[name]
    dropped = {**cond, name: None if told is None else torch.zeros_like(told)}
    return contrast(denoise, [(dropped, scale - 1)], batched=batched)


def autoguide(denoise: Denoiser, weak: Denoiser, scale: float) -> Denoiser:
    """Away from a weaker version of the model (Karras et al. 2024): weak + scale (x0 - weak)."""
    if scale == 1:
        return denoise

    def guided(z: Tensor, level: Level, cond: Any) -> Tensor:
        x0 = denoise(z, level, cond)
        return x0 + (scale - 1) * (x0 - weak(z, level, cond))

    return guided


def only_between(guided: Denoiser, plain: Denoiser, low: float, high: float) -> Denoiser:
    """`guided` where low < sigma <= high, else `plain` (Kynkäänniemi et al. 2024)."""

    def denoise(z: Tensor, level: Level, cond: Any) -> Tensor:
        inside = (low < level.sigma) & (level.sigma <= high)
        if inside.all():
            return guided(z, level, cond)
        if not inside.any():
            return plain(z, level, cond)
        return torch.where(expand(inside, z) > 0, guided(z, level, cond), plain(z, level, cond))

    return denoise


def oscillating_cfg(
    denoise: Denoiser,
    uncond: Cond,
    high: float,
    low: float,
    levels: Levels,
    hold: int,
    *,
    batched: bool = True,
    looks_ahead: bool = False,
) -> Denoiser:
    """Scale `high` for the first `hold` steps, then `low` and `high` in turn (Imagen Video).

    looks_ahead  the solver calls twice a step, first where it begins and then where it arrives, as
                 Heun's does: both calls have one scale, or each step would average the two scales

    The step is recognized by its level, and where the solver looks ahead by that of the call
    before: resuming changes nothing. Both branches are computed at a scale of 1, too: what a
    network carries from call to call is of one batch. Neither Imagen Video nor Snap Video publishes
    its pattern: that `low` comes first is our guess.
    """
    times = torch.stack([level.t.flatten()[0] for level in levels])
    before: int | None = None  # the number of the level of the last call

    def beyond_one(level: Level) -> Tensor:
        nonlocal before
        i = at = int((times - level.t.flatten()[0].to(times)).abs().argmin())
        if looks_ahead and before is not None and at == before + 1:
            i = before  # the same level again will be where the next step begins
        before = at
        scale = low if i >= hold and (i - hold) % 2 == 0 else high
        return torch.full_like(level.t, scale - 1, dtype=torch.float32)

    return contrast(denoise, [(uncond, beyond_one)], batched=batched)


def rescale(x0: Tensor, like: Tensor, amount: float) -> Tensor:
    """Each sample of x0 with its standard deviation moved towards that of `like`, by `amount`.

    Lin et al. 2023, Sec. 3.4 (`amount` is their phi), applied to x0.
    """
    axes = tuple(range(1, x0.ndim))
    factor = like.std(axes, keepdim=True) / x0.std(axes, keepdim=True)
    return x0 * (1 + amount * (factor - 1))


def dynamic_threshold(
    denoise: Denoiser,
    percentile: float = 0.995,
    *,
    limit: float = 1.0,
    known: Tensor | None = None,
) -> Denoiser:
    """Imagen's dynamic thresholding (Saharia et al. 2022, Sec. 2.3), for data within +-limit.

    With s the percentile of |x0| of a sample, and s > limit: clip to +-s, and scale s to the limit.

    known   true where x0 is known, broadcasts against a sample: those numbers stay, and have no
            part in s, which many of them would keep at the limit
    """

    def thresholded(z: Tensor, level: Level, cond: Any) -> Tensor:
        x0 = denoise(z, level, cond)
        size = x0.abs() if known is None else x0.abs().masked_fill(known, -1)  # they come first
        apart = 0 if known is None else int(known.expand_as(x0[:1]).sum())
        # Sorted by hand: torch.quantile takes no more than 16 million numbers.
        size = size.flatten(1).sort(dim=1).values
        place = apart + percentile * (size.shape[1] - apart - 1)
        below, above = size[:, math.floor(place)], size[:, math.ceil(place)]
        s = expand(torch.lerp(below, above, place % 1).clamp(min=limit), x0)
        within = x0.clamp(-s, s) * (limit / s)
        return within if known is None else torch.where(known, x0, within)

    return thresholded


def reconstruction(
    denoise: Denoiser, known: Tensor, mask: Tensor, weight: Weight = 1.0
) -> Denoiser:
    """Reconstruction guidance (Ho et al. 2022, Video Diffusion Models, Eq. 7).

    known   (b, ...) clean values, wherever mask is true; mask broadcasts against z
    weight  w_r of the paper; see `certain`
    x0 of the known part is what is known; of the rest, it takes a step that makes the network's
    own estimate of the known part agree: x0 - (weight alpha / 2) grad_z |known - x0|^2.

    That step is bounded, which is ours: on average over numbers, what isn't known moves no further
    than what is known is off. A conditional mean of frames alike moves by a correlation's share of
    that, so that nothing is lost; but where a network's gradient is larger than its estimate is
    uncertain, unbounded steps lead out of all data, and there further still.

    It needs a backward pass through the network at each call. What clips estimates belongs around
    it (`dynamic_threshold`): through a number that is clipped no gradient goes, and what is taken
    here may lead beyond the limit itself.
    """

    def guided(z: Tensor, level: Level, cond: Any) -> Tensor:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            x0 = denoise(z, level, cond)
            error = torch.where(mask, known - x0, 0)
            (gradient,) = torch.autograd.grad(error.square().sum(), z)
        factor = weight(level) if callable(weight) else weight
        step = torch.where(mask, 0, expand(factor / 2 * level.alpha, z) * gradient)
        step = step * _at_most(error.detach(), step, mask)
        return torch.where(mask, known, x0.detach() - step)

    return guided


def _at_most(error: Tensor, step: Tensor, mask: Tensor) -> Tensor:
    """1, or the smaller factor by which a sample's step `b …`, where the mask is false, is as large
    as its error where it is true: root mean squares, of 0 elsewhere."""
    axes, known = tuple(range(1, step.ndim)), mask.expand_as(step[:1])
    count = known.sum()
    off = error.square().sum(axes, keepdim=True) / count
    moved = step.square().sum(axes, keepdim=True) / (known.numel() - count)
    return (off / moved).sqrt().nan_to_num(nan=1.0, posinf=1.0).clamp(max=1)


def certain(scale: float, most: float = 1000.0) -> Callable[[Level], Tensor]:
    """A weight of reconstruction guidance by how sure the network can be: scale (1 + sigma^2 /
    alpha^2), but no ratio above `most`, where a network's gradient is noise. Ours.

    The paper's 1 takes it that estimates of known numbers err by sigma / alpha, which is more than
    data of unit spread vary by where there is much noise: it asks for next to nothing there, where
    the picture is laid out. Without anything to go by they err by (1 + alpha^2 / sigma^2)^(-1/2),
    as in pseudoinverse guidance (Song et al. 2023). Of Gaussian data the guided x0 is the exact
    conditional mean at both ends, with little noise and with much, at a scale of 1; between them it
    is nearer to that than with a constant.
    """

    def weight(level: Level) -> Tensor:
        return scale * (1 + (level.sigma**2 / level.alpha**2).clamp(max=most))

    return weight
