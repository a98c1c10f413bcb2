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

from typing import Any

import torch
from torch import Tensor

from vidgen.diffusion import prediction
from vidgen.diffusion.groups import PACKINGS
from vidgen.diffusion.prediction import Denoiser
from vidgen.nn.unet import UNet, UNetConfig
from vidgen.systems.base import ClipSampler, ModelFolder
from vidgen.systems.load import ClipNetwork

# How a network sees groups → the component of the model folder that holds such a network.
COMPONENTS = {"grouped": "interpolation", "masked": "interpolation_masked"}


class Settings(ClipSampler):
    """How an interpolation network is sampled: `sample` in its config.json."""


class Interpolator(ClipNetwork):
    """An interpolation network that isn't loaded yet."""

    @classmethod
    def of(cls, folder: ModelFolder, method: str) -> Interpolator:
        """InputError if the model has no such network, or one of other channels than its latents
        have."""
        channels = PACKINGS[method].channels(folder.size("vae", "channels"))
        return cls.found(folder, COMPONENTS[method], Settings, channels)

    @property
    def method(self) -> str:
        """A key of COMPONENTS."""
        return next(method for method, name in COMPONENTS.items() if name == self.component)

    def denoiser(self, network: UNet) -> Denoiser:
        """The network as `denoise(z, level, cond) → x0`; cond is made by `cond`."""
        return prediction.denoiser(raw(network, self.method), self.prediction())


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
