"""Train the keyframe transformer: rectified flow on cached latents, conditioned on captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vidgen.diffusion import losses, self_conditioning
from vidgen.diffusion.level import Level, expand, noised
from vidgen.diffusion.prediction import PREDICTIONS, Network, denoiser
from vidgen.errors import UsageError
from vidgen.nn.dit import DiTConfig, VideoDiT, grown
from vidgen.systems import world
from vidgen.systems.base import ModelFolder, Sampler
from vidgen.train.recipe import section
from vidgen.train.task import Modules
from vidgen.train.tasks.text_to_latents import TextToLatentsTask


@dataclass(frozen=True)
class Loss:
    """What the network's output means, and the distribution of noise levels:
    t = sigmoid(N(mean, std)) (Esser et al. 2024, §3.1)."""

    prediction: Literal["flow", "x0", "x0_flow", "v"] = "flow"
    t_mean: float = 0.4
    t_std: float = 1.0
    object_weight: float = 1.0  # see `TextToLatentsTask.weigh_objects`
    self_conditioned: float = 0.5  # share of the samples, where the model is


class KeyframesTask(TextToLatentsTask):
    """`model` is a `DiTConfig`; one sample is the keyframes of one clip."""

    name = "keyframes"
    config_class = DiTConfig
    system = "world"

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.weights = section(Loss, self.recipe.loss, where="loss")
        meaning = self.weights.prediction
        self.prediction = PREDICTIONS[meaning]()
        self.weigh_objects(self.weights.object_weight)
        if not 0 <= self.weights.self_conditioned <= 1:
            raise UsageError(
                f"recipe: loss.self_conditioned is {self.weights.self_conditioned:g}, must be from"
                " 0 to 1"
            )
        if "self_conditioned" in self.recipe.loss and not self.config.self_conditioned:
            raise UsageError(
                "recipe: loss.self_conditioned is given, and the model is not self-conditioned",
                next="model.self_conditioned=true",
            )
        self.sampler = Sampler(meaning, "linear_flow", "dpmpp_2m_sde", 16, 2.5, shift=3.0)

    def network(self) -> VideoDiT:
        """With `data.start`, what that computes; with other patches, its blocks alone."""
        network = VideoDiT(self.config)
        if self.data.start is None:
            return network
        folder = ModelFolder(Path(self.data.start))
        trained = world.load_transformer(folder)
        known = folder.sampler.prediction
        if trained.config.patch == self.config.patch and known != self.weights.prediction:
            raise UsageError(
                f"recipe: data.start is {self.data.start}, which predicts `{known}`, and"
                f" loss.prediction is `{self.weights.prediction}`"
            )
        try:
            return grown(trained.float(), self.config).requires_grad_(True)
        except ValueError:
            raise UsageError(
                f"recipe: data.start is {self.data.start}, whose transformer has other sizes",
                next=f"make `model` the same as {self.data.start}/transformer/config.json,"
                " but for more depth, self_conditioned, skip, or patch",
            ) from None

    def draw_levels(self, n: int, generator: torch.Generator) -> Level:
        return losses.logit_normal_flow(
            n, mean=self.weights.t_mean, std=self.weights.t_std, generator=generator
        )

    def called(self, modules: Modules) -> Network:
        network = modules["transformer"]
        if isinstance(network, VideoDiT):
            return world.called(network)

        def raw(z: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
            return network(z, t, **cond)

        return raw

    def trained(self, modules: Modules, generator: torch.Generator) -> Network:
        network, share = modules["transformer"], self.weights.self_conditioned
        if not isinstance(network, VideoDiT) or not self.config.self_conditioned:
            return self.called(modules)
        return self_conditioning.trained(world.step(network), share, generator)

    def error(
        self, modules: Modules, x0: Tensor, cond: dict[str, Tensor], draw: torch.Generator
    ) -> float:
        """Of the velocity eps − x0, whatever the network predicts; self-conditioned once, if it
        is."""
        t = losses.logit_normal_flow(len(x0), mean=Loss.t_mean, std=Loss.t_std, generator=draw)
        eps = torch.randn(x0.shape, generator=draw, device=x0.device)
        z = noised(x0, eps, t)
        denoise = denoiser(self.called(modules), self.prediction)
        if self.config.self_conditioned:
            denoise(z, t, cond)
        found = denoise(z, t, cond)
        velocity = (z - found) / expand(t.sigma, z)
        return float((velocity - (eps - x0)).square().mean())
