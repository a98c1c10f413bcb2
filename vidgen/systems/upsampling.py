"""Larger latents of smaller ones: a second diffusion network behind the one that made them.

Cascaded diffusion (Ho et al. 2021, arXiv 2106.15282; of video, Ho et al. 2022, arXiv 2210.02303),
on the latents of any model: what comes out lies in the space of what came in, and its sides are
twice as long. The network is shown the small latents, enlarged, and in training with some noise on
them, which hides what is wrong with latents that another network made: it learns to paint details
rather than to copy faults. How much noise that is, it is told.

| symbol | here | meaning |
|---|---|---|
| x0 | `b c t 2h 2w` | latents of the larger clip |
| z | `b c t 2h 2w` | the same with the noise of diffusion, (1 − t)·x0 + t·eps |
| c_p | `told` | the small latents, enlarged and noised, (1 − p)·c + p·eps′ |
| p | `noise_level` | 0 to `max_noise_level` |
| s | `skip` | frames of the training rate from one frame of the clip to the next |

No text is told, so there is nothing to guide by. All of this is ours but for the idea.

The shipped recipe's network returns x0. On latents of the shipped autoencoder, a small spatial
network (widths 64, 96) had after 55 s on one CPU core, on clips it had not seen, with 4 steps, this
mean square error of x0, and decoded this far from the decoded truth (one seed each):

    x0 = network              0.158   29.6 dB
    x0 = c_p + network        0.177   28.8 dB
    v = network               0.568   26.1 dB
    eps − x0 = network        0.718   24.9 dB
    c, without a network      0.707   21.7 dB

So enlarged latents are no guess to start from: their correlation with the true ones is 0.53, since
the autoencoder does not say the same of a picture at two sizes. And nothing in the U-Net passes
full-size noise on to the output, as a prediction of eps or of a velocity would want it to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vidgen.diffusion import prediction
from vidgen.diffusion.level import Level, noised
from vidgen.diffusion.prediction import Denoiser
from vidgen.nn.unet import UNet, UNetConfig
from vidgen.systems.base import ClipSampler, ModelFolder
from vidgen.systems.load import ClipNetwork

COMPONENT = "upsampler"
FACTOR = 2  # of each side, in one pass


@dataclass(frozen=True)
class Settings(ClipSampler):
    """How an upsampler is sampled: `sample` in its config.json."""

    guidance_scale: float = 1.0  # off
    noise_level: float = 0.05  # unless the user names one
    max_noise_level: float = 0.5  # the largest that it was trained on


@dataclass(frozen=True)
class Upsampler(ClipNetwork):
    """An upsampler that isn't loaded yet."""

    settings: Settings

    @classmethod
    def of(cls, folder: ModelFolder) -> Upsampler:
        """InputError if the model has none, or one that isn't for its latents."""
        channels = folder.size("vae", "channels")
        return cls.found(folder, COMPONENT, Settings, (2 * channels, channels))

    def denoiser(self, network: UNet) -> Denoiser:
        """The network as `denoise(z, level, cond) → x0`; cond is made by `cond`."""
        return prediction.denoiser(raw(network), self.prediction())


def enlarged(latents: Tensor) -> Tensor:
    """`b c t h w` → `b c t 2h 2w`, bilinearly, every frame by itself."""
    frames = rearrange(latents, "b c t h w -> (b t) c h w")
    frames = F.interpolate(frames, scale_factor=FACTOR, mode="bilinear", align_corners=False)
    return rearrange(frames, "(b t) c h w -> b c t h w", b=len(latents))


def cond(
    config: UNetConfig, large: Tensor, noise: Tensor, noise_level: Tensor, skip: Tensor, fps: float
) -> dict[str, Tensor]:
    """What a network of this config is told beside z.

    large        b c t h w, latents of the clip as they were enlarged
    noise        the same, unit Gaussian
    noise_level  (b,) how much of it
    skip         (b,) whole numbers, frames of the rate `fps` from one frame to the next
    """
    frames = torch.arange(large.shape[2], device=large.device)
    level = Level(noise_level, 1 - noise_level, noise_level)
    told = {"told": noised(large, noise, level), "times": frames * (skip / fps)[:, None]}
    if config.skip_rows:
        told["skip"] = skip
    if config.noise_embedding:
        told["noise_level"] = noise_level
    return told


def raw(network: Any) -> prediction.Network:
    """The network as (z, t, cond) → its raw output, in z's shape; cond is made by `cond`."""

    def call(z: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        others = {k: x for k, x in cond.items() if k != "told"}
        # No x0 = told + network: what is told is noisy, and even without noise a poor guess.
        return network(torch.cat((z, cond["told"].to(z.dtype)), dim=1), t, **others)

    return call


def memory_bytes(config: UNetConfig, shape: tuple[int, ...], itemsize: int) -> int:
    """About how much sampling takes for z `b c t h w`, with weights and activations of `itemsize`
    bytes; a test compares it with what is alive during a call.

    The widest moment of a level is on the way up: what came up beside what came down, twice as
    large, the shortcut beside the block, and the norm in front of a layer. The deepest has half.
    """
    b, c, t, h, w = shape
    cells = b * t * (h + -h % config.stride) * (w + -w % config.stride)
    *upper, deepest = (width / 4**level for level, width in enumerate(config.widths))
    widest = max(*(10 * width for width in upper), 6 * deepest, 0)
    return int(cells * (widest * itemsize + 8 * c * 4)) + weights(config) * itemsize


@cache
def weights(config: UNetConfig) -> int:
    """How many numbers a network of this config has."""
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(config).parameters())
