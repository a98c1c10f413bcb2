"""Train Snap Video's FIT on cached latents: input-scaled EDM, latent self-conditioning.

In nine of ten samples the network first runs without gradient and without latents of a call before,
and what it ends with is given to the call that is trained (RIN, Jabri et al. 2022; Snap Video,
Menapace et al. 2024, table 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vidgen.diffusion import losses
from vidgen.diffusion.level import Level, noised
from vidgen.diffusion.prediction import Network, Snap, denoiser
from vidgen.errors import UsageError
from vidgen.nn.fit import FIT, FITConfig
from vidgen.systems.base import Sampler
from vidgen.systems.snap_video import SELF_CONDITIONED, Carried, told
from vidgen.train.recipe import section
from vidgen.train.task import Modules
from vidgen.train.tasks.text_to_latents import TextToLatentsTask


@dataclass(frozen=True)
class Loss:
    """Input scaling, and the distribution of noise levels: ln(sigma) ~ N(mean, std²)."""

    sigma_in: float = 1.0
    sigma_data: float = 1.0
    mean: float = -1.2
    std: float = 1.2
    self_conditioned: float = SELF_CONDITIONED  # share of the samples


class SnapVideoTask(TextToLatentsTask):
    """`model` is a `FITConfig`; one sample is the frames of one clip."""

    name = "snap-video"
    config_class = FITConfig
    system = "snap-video"

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.weights = w = section(Loss, self.recipe.loss, where="loss")
        if self.data.start is not None:
            raise UsageError("recipe: data.start is not for this task: it starts from nothing")
        self.prediction = Snap(w.sigma_data)
        self.sampler = Sampler(
            "snap", "snap", "heun", 16, 2.5, sigma_in=w.sigma_in, sigma_data=w.sigma_data
        )

    def network(self) -> FIT:
        return FIT(self.config)

    def draw_levels(self, n: int, generator: torch.Generator) -> Level:
        w = self.weights
        return losses.lognormal_edm(n, w.mean, w.std, generator, sigma_in=w.sigma_in)

    def called(self, modules: Modules) -> Network:
        network = modules["transformer"]
        assert isinstance(network, FIT)
        return Carried(network)

    def trained(self, modules: Modules, generator: torch.Generator) -> Network:
        network, share = modules["transformer"], self.weights.self_conditioned

        def raw(z: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
            known, latents = told(cond), None
            if share:
                with torch.no_grad():
                    _, latents = network(z, t, **known)
                drawn = torch.rand(len(z), 1, 1, generator=generator, device=z.device)
                latents = latents * (drawn < share)
            return network(z, t, latents=latents, **known)[0]

        return raw

    def error(
        self, modules: Modules, x0: Tensor, cond: dict[str, Tensor], draw: torch.Generator
    ) -> float:
        """EDM's weighted error of x0, self-conditioned once, on the levels of the input scaling at
        hand and EDM's own distribution; comparable between runs of one sigma_in."""
        level = losses.lognormal_edm(len(x0), generator=draw, sigma_in=self.weights.sigma_in)
        eps = torch.randn(x0.shape, generator=draw, device=x0.device)
        z = noised(x0, eps, level)
        denoise = denoiser(self.called(modules), self.prediction)
        denoise(z, level, cond)
        found = denoise(z, level, cond)
        weight = 1 + level.sigma**-2  # for data of unit spread
        return float((weight * (found - x0).square().flatten(1).mean(1)).mean())
