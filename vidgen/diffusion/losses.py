"""The training loss, and the distributions of noise levels to train on.

The loss takes its target and its weight from the prediction, so that training and sampling cannot
disagree about what the network's output means.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from vidgen.diffusion.level import Level, expand, noised
from vidgen.diffusion.prediction import Network, Prediction


def training_loss(
    network: Network,
    prediction: Prediction,
    x0: Tensor,
    cond: Any,
    level: Level,
    eps: Tensor,
    importance: Tensor | None = None,
) -> Tensor:
    """Weighted mean squared error of the network's output, one number for each sample: (b,).

    x0, eps: (b, ...); level: (b,); importance: how much each number counts, of a shape that
    broadcasts to x0's. Call it under autocast if the network should run in bfloat16; the error
    itself is float32.
    """
    level = level.on(x0)
    z = noised(x0, eps, level)
    scaled, t = prediction.inputs(z, level)
    error = network(scaled, t, cond).float() - prediction.target(x0, eps, level)
    squared = expand(prediction.weight(level), error) * error**2
    if importance is not None:
        squared = squared * importance
    return squared.flatten(1).mean(1)


def logit_normal_flow(
    b: int, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Level:
    """Flow levels with logit(t) ~ N(mean, std^2) (Esser et al. 2024, Sec. 3.1).

    A time shift s of the schedule is the same thing as adding ln(s) to `mean`.
    """
    t = torch.sigmoid(mean + std * torch.randn(b, generator=generator, device=_device(generator)))
    return Level(t, 1 - t, t)


def uniform_flow(b: int, generator: Generator | None = None) -> Level:
    """Flow levels with t uniform in [0, 1)."""
    t = torch.rand(b, generator=generator, device=_device(generator))
    return Level(t, 1 - t, t)


def lognormal_edm(
    b: int,
    mean: float = -1.2,
    std: float = 1.2,
    generator: Generator | None = None,
    *,
    sigma_in: float = 1.0,
) -> Level:
    """EDM levels with ln(sigma) ~ N(mean, std^2) (Karras et al. 2022, Table 1); of a signal shrunk
    by `sigma_in`, Snap Video's."""
    sigma = torch.exp(mean + std * torch.randn(b, generator=generator, device=_device(generator)))
    return Level(sigma, torch.full_like(sigma, 1 / sigma_in), sigma)


def uniform(b: int, table: Level, generator: Generator | None = None) -> Level:
    """Levels drawn uniformly from a table of training timesteps (see `schedules.ddpm_table`)."""
    index = torch.randint(len(table.t), (b,), generator=generator, device=_device(generator))
    index = index.to(table.t.device)
    return Level(*(x[index].float() for x in table))


def tilted(b: int, table: Level, power: float, generator: Generator | None = None) -> Level:
    """The same with a density that grows like i^(power − 1) along the table, which begins with its
    cleanest level: above 1 the noisy ones come more often, and 1 is `uniform`."""
    u = torch.rand(b, generator=generator, device=_device(generator))
    last = len(table.t) - 1
    index = (len(table.t) * u ** (1 / power)).long().clamp(max=last).to(table.t.device)
    return Level(*(x[index].float() for x in table))


def _device(generator: Generator | None) -> torch.device | None:
    """Where the generator lives, so that a CUDA generator draws CUDA tensors."""
    return None if generator is None else generator.device
