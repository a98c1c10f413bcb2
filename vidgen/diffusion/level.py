"""A noise level: how much signal and how much noise there is in z.

    z = alpha * x0 + sigma * eps

One number cannot say this for every process. CogVideoX starts at alpha = 0 (zero terminal SNR),
and so does rectified flow (t = 1); Snap Video lives at alpha = 1 / sigma_in, EDM at alpha = 1. So
a level is always the pair, together with the time that the network is told.

Shapes: () or (b,), or anything that broadcasts against z once `expand` has appended axes. Levels
are made in float64, kept in float32 on the CPU, and moved to z's device only for the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Level(NamedTuple):
    """One noise level (or one for each sample of a batch)."""

    t: Tensor  # what the network is told; its unit belongs to the schedule
    alpha: Tensor  # how much of x0 is in z
    sigma: Tensor  # how much unit Gaussian noise is in z

    def on(self, z: Tensor) -> Level:
        """The same level for every sample of the batch z: (b,), float32, on z's device."""
        here = (x.to(z.device, torch.float32) for x in self)
        return Level(*(x.expand(z.shape[0]) if x.ndim == 0 else x for x in here))

    def double(self) -> Level:
        """The same level in float64, for computing a solver's coefficients."""
        return Level(*(x.double() for x in self))

    @property
    def half_log_snr(self) -> Tensor:
        """lambda = log(alpha / sigma): -inf where alpha = 0, +inf where sigma = 0."""
        return self.alpha.log() - self.sigma.log()


Levels = Sequence[Level]  # noisiest first, n + 1 long for n steps, the last has sigma = 0


def expand(x: Tensor, like: Tensor) -> Tensor:
    """x with axes appended, so that (b,) broadcasts against `like`, in its dtype.

    A number without axes stays on the CPU, where torch reads it without a copy to the device.
    """
    if x.ndim == 0:
        return x.to(like.dtype)
    return x.to(like.device, like.dtype)[(..., *(None,) * (like.ndim - x.ndim))]


def noised(x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """z = alpha x0 + sigma eps."""
    return expand(level.alpha, x0) * x0 + expand(level.sigma, x0) * eps


def implied_eps(x0: Tensor, z: Tensor, level: Level) -> Tensor:
    """The noise that z must hold if x0 is right: (z - alpha x0) / sigma. Needs sigma > 0."""
    return (z - expand(level.alpha, z) * x0) / expand(level.sigma, z)
