"""What a network's raw output means, and how to get x0 from it.

Eight conventions, one table; all are written for any (alpha, sigma), so none assumes
alpha^2 + sigma^2 = 1 or alpha + sigma = 1:

    name     output                                    x0 =
    x0       x0                                        out
    x0_flow  x0, its error weighed as flow's           out
    shrunk   x0, seeing z as a guess of it             out
    eps      eps                                       (z - sigma out) / alpha
    v        alpha eps - sigma x0                      (alpha z - sigma out) / (alpha^2 + sigma^2)
    flow     eps - x0                                  (z - sigma out) / (alpha + sigma)
    edm      (sigma x0 / sd - alpha sd eps) / n        c_skip z + c_out out
    snap     (sd eps - sigma x0 / sd) / m              c_skip z + c_out out

with sd = sigma_data, n^2 = sigma^2 + alpha^2 sd^2 and m^2 = sigma^2 + sd^2. Law L1:
x0(target(x0, eps), z) = x0 for every row and every level; at alpha = 0 `eps` alone cannot hold and
raises `SingularLevel`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from vidgen.diffusion.level import Level, expand
from vidgen.errors import VidgenError


class SingularLevel(VidgenError):
    """This prediction has no value at this noise level (alpha = 0 or sigma = 0)."""


class Prediction(Protocol):
    """What the raw output of a network means. Tensors (b, ...), levels (b,)."""

    def inputs(self, z: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """What the network is shown: z, scaled, and the time (b,)."""

    def x0(self, out: Tensor, z: Tensor, level: Level) -> Tensor:
        """The clean estimate that the output stands for."""

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """The output that a perfect network would give; what training regresses to."""

    def weight(self, level: Level) -> Tensor:
        """Weight (b,) of the squared error of the output in the training loss."""


class _Plain:
    """Shows the network z and t as they are, and weighs every level the same."""

    def inputs(self, z: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        return z, level.t

    def weight(self, level: Level) -> Tensor:
        return torch.ones_like(level.sigma)


class X0(_Plain):
    """The clean sample itself."""

    def x0(self, out: Tensor, z: Tensor, level: Level) -> Tensor:
        return out

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return x0


class X0Flow(X0):
    """x-prediction with the v-loss (Li and He 2025, arXiv 2511.13720): the clean sample, and its
    error counts as that of the velocity it stands for, on levels of flow error / sigma. What is
    clean lies near few directions, and noise in all: a network that is narrow for the numbers of
    its patches learns the one sooner. Of sigma below `FLOOR` errors count as at `FLOOR`."""

    FLOOR = 0.1

    def weight(self, level: Level) -> Tensor:
        return 1 / level.sigma.clamp(min=self.FLOOR) ** 2


class Shrunk(X0):
    """The clean sample, and the network is shown z as the best linear guess of it from z alone, for
    data of unit spread: alpha z / (alpha^2 + sigma^2). In pure noise it then sees nothing of z,
    and what it can tell from its conditions it learns undisturbed. Ours."""

    def inputs(self, z: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        alpha, sigma = expand(level.alpha, z), expand(level.sigma, z)
        return alpha * z / (alpha**2 + sigma**2), level.t


class Eps(_Plain):
    """The noise (DDPM, Ho et al. 2020, Eq. 14)."""

    def x0(self, out: Tensor, z: Tensor, level: Level) -> Tensor:
        if (level.alpha == 0).any():
            raise SingularLevel(
                "an `eps` prediction says nothing about x0 at alpha = 0",
                why="z is pure noise there (zero terminal SNR), so its noise is z itself",
                next="use a `v` or `x0` model, or a schedule that starts below alpha = 0",
            )
        return (z - expand(level.sigma, z) * out) / expand(level.alpha, z)

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return eps


class V(_Plain):
    """v = alpha eps - sigma x0 (Salimans and Ho 2022, App. D)."""

    def x0(self, out: Tensor, z: Tensor, level: Level) -> Tensor:
        alpha, sigma = expand(level.alpha, z), expand(level.sigma, z)
        return (alpha * z - sigma * out) / (alpha**2 + sigma**2)

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return expand(level.alpha, x0) * eps - expand(level.sigma, x0) * x0


class Flow(_Plain):
    """eps - x0, the velocity of the straight line z = (1 - t) x0 + t eps (Liu et al. 2022)."""

    def x0(self, out: Tensor, z: Tensor, level: Level) -> Tensor:
        alpha, sigma = expand(level.alpha, z), expand(level.sigma, z)
        return (z - sigma * out) / (alpha + sigma)

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return eps - x0


@dataclass(frozen=True)
class Edm:
    """EDM preconditioning (Karras et al. 2022, Table 1 and Eq. 8).

    The paper has alpha = 1. Written for z / alpha at noise sigma / alpha, its coefficients stay
    finite at alpha = 0 and at sigma = 0; only c_noise, a logarithm, does not.
    """

    sigma_data: float = 0.5  # standard deviation of the data

    def _norm(self, level: Level) -> Tensor:
        return (level.sigma**2 + level.alpha**2 * self.sigma_data**2).sqrt()

    def inputs(self, z: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        c_in = 1 / self._norm(level)
        c_noise = (level.sigma / level.alpha).log() / 4
        if not c_noise.isfinite().all():
            raise SingularLevel(
                "an `edm` network cannot be told a level with alpha = 0 or sigma = 0",
                why="its time is ln(sigma / alpha) / 4, which is infinite there",
                next="use a schedule with a finite sigma_max, such as karras",
            )
        return expand(c_in, z) * z, c_noise

    def x0(self, out: Tensor, z: Tensor, level: Level) -> Tensor:
        norm = self._norm(level)
        c_skip = level.alpha * self.sigma_data**2 / norm**2
        c_out = level.sigma * self.sigma_data / norm
        return expand(c_skip, z) * z + expand(c_out, z) * out

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        # (x0 - c_skip z) / c_out, simplified by hand: no 0 / 0 at sigma = 0.
        norm = self._norm(level)
        of_x0 = level.sigma / (self.sigma_data * norm)
        of_eps = level.alpha * self.sigma_data / norm
        return expand(of_x0, x0) * x0 - expand(of_eps, x0) * eps

    def weight(self, level: Level) -> Tensor:
        # lambda(sigma) c_out^2 = 1: the paper's weight, carried over from x0 to the output.
        return torch.ones_like(level.sigma)


@dataclass(frozen=True)
class Snap:
    """Input-scaled EDM (Snap Video, Menapace et al. 2024, Table 1): z = x0 / sigma_in + sigma eps.

    alpha is 1 / sigma_in. With sigma_in = 1 it is EDM with the sign of the output turned. The
    target does not know of sigma_in: to put x0 / sigma_in into EDM would add a part of the size of
    1 / sigma. The paper writes the target with two signs; here is the set that agrees with itself.
    """

    sigma_data: float = 1.0  # standard deviation of the data; 1 in the final model

    def _level(self, level: Level) -> tuple[Tensor, Tensor, Tensor]:
        """sigma, its root sum of squares with sigma_data, and sigma^2 + alpha sigma_data^2."""
        sigma, sd = level.sigma, self.sigma_data
        return sigma, (sigma**2 + sd**2).sqrt(), sigma**2 + level.alpha * sd**2

    def inputs(self, z: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        c_in = (level.sigma**2 + (level.alpha * self.sigma_data) ** 2).rsqrt()
        c_noise = level.sigma.log() / 4
        if not c_noise.isfinite().all():
            raise SingularLevel(
                "a `snap` network cannot be told a level whose sigma isn't above 0 and finite",
                why="its time is ln(sigma) / 4, which is no number there",
                next="use a schedule that ends with a step to sigma = 0, such as snap",
            )
        return expand(c_in, z) * z, c_noise

    def x0(self, out: Tensor, z: Tensor, level: Level) -> Tensor:
        sigma, norm, power = self._level(level)
        c_skip = self.sigma_data**2 / power
        c_out = -sigma * self.sigma_data * norm / power
        return expand(c_skip, z) * z + expand(c_out, z) * out

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        sigma, norm, _ = self._level(level)
        of_eps, of_x0 = self.sigma_data / norm, sigma / (self.sigma_data * norm)
        return expand(of_eps, x0) * eps - expand(of_x0, x0) * x0

    def weight(self, level: Level) -> Tensor:
        # EDM's weight of x0, carried over: (1/sd^2 + 1/sigma^2) c_out^2; sigma_in^2 as sigma -> 0.
        _, norm, power = self._level(level)
        return (norm**2 / power) ** 2


PREDICTIONS: dict[str, Callable[..., Prediction]] = {
    "x0": X0,
    "x0_flow": X0Flow,
    "shrunk": Shrunk,
    "eps": Eps,
    "v": V,
    "flow": Flow,
    "edm": Edm,
    "snap": Snap,
}


class Denoiser(Protocol):
    """The one contract: (z, level, cond) -> the float32 estimate of x0, in z's shape."""

    def __call__(self, z: Tensor, level: Level, cond: Any) -> Tensor: ...


Network = Callable[[Tensor, Tensor, Any], Tensor]  # (scaled z, t (b,), cond) -> raw output


def denoiser(
    network: Network, prediction: Prediction, *, dtype: torch.dtype = torch.float32
) -> Denoiser:
    """A network and the meaning of its output, as a denoiser.

    Only the network runs in `dtype`; scaling its input and reading its output are float32, because
    x0 from eps or flow is a difference of nearly equal numbers at one end of the schedule.
    """

    def denoise(z: Tensor, level: Level, cond: Any) -> Tensor:
        z = z.float()
        scaled, t = prediction.inputs(z, level)
        out = network(scaled.to(dtype), t, cond)
        return prediction.x0(out.float(), z, level)

    return denoise
