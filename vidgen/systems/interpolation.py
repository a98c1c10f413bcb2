"""Frames between keyframes: the latent interpolation of FusionFrames, and its masked baseline.

Arkhipkin et al. 2023 (arXiv 2311.13073), on the latents of any model. A diffusion network makes the
three frames between two neighboring keyframes in one pass, for all pairs of a clip at once, so T
latents become 4T − 3. It is told no text: what to show stands in the keyframes.

| symbol | here | meaning |
|---|---|---|
| z | `b 3c g h w` | the noisy frames of g groups (`vidgen.diffusion.groups`) |
| c | context | the keyframes left and right of each group |
| s | `skip` | frames of the training rate from one made frame to the next; 3, then 1 |
| t_p | `noise_level` | how noisy the told keyframes are; up to 250 in training, 0 here |
| w | `guidance_scale` − 1 | context guidance, (1 + w)·net(c) − w·net(0); 0.25 in the paper |

The network returns v = alpha·eps − sigma·x0. The paper's second pass makes 30 frames a second of
8, a skip of 0.75, and tells the network 1: skips are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidgen.diffusion import prediction
from vidgen.diffusion.groups import PACKINGS
from vidgen.diffusion.level import Levels
from vidgen.diffusion.prediction import Denoiser
from vidgen.diffusion.schedules import SCHEDULES
from vidgen.diffusion.solvers import SOLVERS, Solver
from vidgen.errors import InputError
from vidgen.nn.unet import UNet, UNetConfig
from vidgen.systems.base import ClipSampler, ModelFolder
from vidgen.systems.load import filled, named

# How a network sees groups → the component of the model folder that holds such a network.
COMPONENTS = {"grouped": "interpolation", "masked": "interpolation_masked"}


class Settings(ClipSampler):
    """How an interpolation network is sampled: `sample` in its config.json."""


@dataclass(frozen=True)
class Interpolator:
    """An interpolation network that isn't loaded yet: all that is known without its weights."""

    folder: ModelFolder
    method: str  # a key of COMPONENTS
    settings: Settings

    @classmethod
    def of(cls, folder: ModelFolder, method: str) -> Interpolator:
        """InputError if the model has no such network, or one of other channels than its latents
        have."""
        component = COMPONENTS[method]
        found = cls(folder, method, folder.sample(component, Settings))
        channels = folder.size("vae", "channels")
        for key, wanted in zip(
            ("in_channels", "out_channels"), PACKINGS[method].channels(channels), strict=True
        ):
            if folder.size(component, key) != wanted:
                raise InputError(
                    f"{folder.path / component}/config.json: {key} is"
                    f" {folder.size(component, key)}, latents of {channels} channels want {wanted}"
                )
        rows = folder.config(component).get("skip_rows") or 0
        if 0 < rows <= found.settings.max_skip:
            raise InputError(
                f"{folder.path / component}/config.json: sample.max_skip is"
                f" {found.settings.max_skip}, and skip_rows {rows}"
            )
        for key, table in (
            ("prediction", prediction.PREDICTIONS), ("schedule", SCHEDULES), ("solver", SOLVERS),
        ):  # fmt: skip
            found._named(key, table)
        return found

    @property
    def component(self) -> str:
        return COMPONENTS[self.method]

    @property
    def identity(self) -> dict[str, str]:
        return self.folder.identity(self.component)

    def load(self) -> UNet:
        """The network, in the dtype of its weights, on the CPU."""
        return filled(UNet, UNetConfig, self.folder, self.component)

    def levels(self, num_inference_steps: int) -> Levels:
        """The noise levels of a sampling run, noisiest first."""
        return self._named("schedule", SCHEDULES)(num_inference_steps)

    def solver(self) -> Solver:
        return self._named("solver", SOLVERS)

    def denoiser(self, network: UNet) -> Denoiser:
        """The network as `denoise(z, level, cond) → x0`; cond is made by `cond`."""
        meaning = self._named("prediction", prediction.PREDICTIONS)()
        return prediction.denoiser(raw(network, self.method), meaning)

    def _named(self, key: str, table: Any) -> Any:
        path = self.folder.path / self.component / "config.json"
        return named(key, table, self.settings, path)


def raw(network: Any, method: str) -> prediction.Network:
    """The network as (z, t, cond) → its raw output, in z's shape; cond is made by `cond`."""

    def call(z: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return PACKINGS[method].ask(network, z, t, **cond)

    return call


def cond(
    config: UNetConfig,
    method: str,
    keyframes: Tensor,
    skip: Tensor,
    fps: float,
    noise_level: Tensor | None = None,
) -> dict[str, Tensor]:
    """What a network of this config is told beside z.

    keyframes    b c t h w
    skip         (b,) whole numbers, frames of the rate `fps`
    noise_level  (b,) how noisy the keyframes are, in the unit of t; None: not at all
    """
    packing = PACKINGS[method]
    told = {
        "context": packing.context(keyframes),
        "times": packing.times(keyframes.shape[2] - 1, skip / fps),
    }
    if config.skip_rows:
        told["skip"] = skip
    if config.noise_embedding:
        zero = torch.zeros(len(skip), device=skip.device)
        told["noise_level"] = zero if noise_level is None else noise_level
    return told
