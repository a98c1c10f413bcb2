"""Larger latents of smaller ones: a second diffusion network behind the one that made them.

Cascaded diffusion (Ho et al. 2021, arXiv 2106.15282; of video, Ho et al. 2022, arXiv 2210.02303),
on the latents of any model: what comes out lies in the space of what came in, and its sides are
twice as long. The network is shown the small latents, enlarged, and in training with some noise on
them, which hides what is wrong with latents that another network made: it learns to paint details
rather than to copy faults. How much noise that is, it is told.

| symbol | here | meaning |
|---|---|---|
| c | `enlarged` | the small latents: decoded, enlarged bicubically, and encoded again |
| x0 | `b c t 2h 2w` | details: (latents of the larger clip − c) / `spread` |
| z | `b c t 2h 2w` | the same with the noise of diffusion, (1 − t)·x0 + t·eps |
| c_p | `told` | the same noised, (1 − p)·c + p·eps′ |
| p | `noise_level` | 0 to `max_noise_level` |
| s | `skip` | frames of the training rate from one frame of the clip to the next |

No text is told, so there is nothing to guide by. All of this is ours but for the idea.

How to enlarge, and what the network makes, was tried out on latents of the shipped autoencoder: a
spatial network of widths 64 and 96, 55 s on one CPU core, one seed, then 4 steps on clips that it
had not seen, with p up to 0.5 in training and 0.05 here. Mean square error of the latents, and how
far their frames are from those of the true latents:

| network | c bilinear | c bicubic, through pixels |
|---|---|---|
| none, c itself | 0.707, 21.7 dB | 0.068, 34.4 dB |
| latents − c_p | 0.177, 28.8 dB | 0.074, 34.0 dB |
| latents | 0.158, 29.6 dB | 0.130, 30.8 dB |

An autoencoder does not say the same of a picture at two sizes: stretched latents agree with the
true ones at a correlation of 0.50, those of stretched frames at 0.96. Above c_p, noise has to be
taken away before a detail can be added; so the shipped recipe adds to c itself. Its network with
half the clips in a batch, after 90 s (204 steps) with p up to 0.2, on 32 other clips:

| | error | dB | dB, against rendered frames |
|---|---|---|---|
| c itself | 0.0726 | 34.40 | 31.81 |
| 1 step | 0.0688 | 34.50 | 31.88 |
| 2 steps | 0.0888 | 33.86 | 31.52 |
| 4 steps | 0.1107 | 33.24 | 31.15 |
| true latents | 0 | | 36.35 |

A network of three times the weights that was told the caption as well, and half of the time clips
that the keyframe network had drawn again from a noise level of 0.6 (so that it would learn to mend
its faults), was given up: after 24 thousand clips, its learning rate still high, it stood at 31.85
dB on true clips, where enlarging had 31.84 and the shipped one after as many 32.29, and on redrawn
ones at 26.45, where enlarging had 26.40. After 12 thousand, to the eye, it left what keyframes got
wrong as it was, in 1, 4 and 8 steps.

One step gives the mean of what the details may be. More steps choose among them, and what is chosen
is seldom what was there: that is why the shipped default is 1.

Measured once; what came out of the first table is no setting any more. A row like those of the
second is `vidgen train world-upsampler --minutes 1.5 --set loss.steps=2`: eval.psnr, beside
eval.psnr_bicubic of c and eval.psnr_autoencoder of true latents, in its metrics.jsonl. The shipped
network against enlarging: `python -m benchmarks.cascade`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.diffusion import prediction
from vidgen.diffusion.level import Level, noised
from vidgen.diffusion.prediction import Denoiser
from vidgen.nn.autoencoder import AutoencoderConfig, VideoAutoencoder
from vidgen.nn.meta import on_meta
from vidgen.nn.unet import UNet, UNetConfig
from vidgen.systems.base import ClipSampler, Enlarged, ModelFolder
from vidgen.systems.load import ClipNetwork

COMPONENT = "upsampler"
FACTOR = 2  # of each side, in one pass
FRAMES = 4  # that go through pixels at once


@dataclass(frozen=True)
class Settings(Enlarged, ClipSampler):
    """How an upsampler is sampled: `sample` in its config.json."""

    guidance_scale: float = 1.0  # off
    spread: float = 0.27  # of what latents have beside enlarged ones
    noise_level: float = 0.05  # unless the user names one
    max_noise_level: float = 0.5  # the largest that it was trained on

    def details(self, enlarged: Tensor, latents: Tensor) -> Tensor:
        """What the network makes of noise."""
        return (latents - enlarged) / self.spread

    def detailed(self, enlarged: Tensor, details: Tensor) -> Tensor:
        """Latents with the details that the network made; with zeros the enlarged ones."""
        return enlarged + self.spread * details


@dataclass(frozen=True)
class Upsampler(ClipNetwork):
    """An upsampler that isn't loaded yet."""

    settings: Settings
    config: UNetConfig

    @classmethod
    def of(cls, folder: ModelFolder) -> Upsampler:
        """InputError if the model has none, or one that isn't for its latents."""
        channels = folder.size("vae", "channels")
        return cls.found(folder, COMPONENT, Settings, (2 * channels, channels))

    def denoiser(self, network: nn.Module) -> Denoiser:
        """The network as `denoise(z, level, cond) → x0`; cond is made by `cond`."""
        return prediction.denoiser(raw(network), self.prediction())


@torch.no_grad()
def enlarged(latents: Tensor, vae: VideoAutoencoder) -> Tensor:
    """`b c t h w` → `b c t 2h 2w`, float32, where and as exactly as the autoencoder computes:
    decoded, enlarged bicubically, and encoded again, every frame by itself and a few at once."""
    like, made = vae.latents_mean, []
    for frames in rearrange(latents, "b c t h w -> (b t) c 1 h w").split(FRAMES):
        pixels = vae.decode(frames.to(like))[:, :, 0].float().clamp(-1, 1)
        pixels = F.interpolate(pixels, scale_factor=FACTOR, mode="bicubic").clamp(-1, 1)
        made.append(vae.encode(pixels[:, :, None].to(like)).float())
    return rearrange(torch.cat(made), "(b t) c 1 h w -> b c t h w", b=len(latents))


def stretched(latents: Tensor) -> Tensor:
    """`b c t h w` → `b c t 2h 2w`: the latents themselves, bilinearly, every frame by itself."""
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


def pixel_bytes(config: AutoencoderConfig, shape: tuple[int, ...], itemsize: int) -> int:
    """About how much `enlarged` takes for latents that become `b c t h w`, beside the autoencoder's
    weights; a test compares it, too.

    The widest moment is the encoder's, of a few frames: a level's map, what a block adds to it, and
    the norm in front of a layer, in float32 and as it goes on.
    """
    b, c, t, h, w = shape
    frames, stride = min(FRAMES, b * t), config.stride
    widest = max(width / 4 ** (i + 1) for i, width in enumerate(config.encoder_widths))
    pixels = frames * (stride * h) * (stride * w)
    return int(pixels * (4 * widest + 3) * itemsize) + 2 * 4 * b * c * t * h * w


@cache
def weights(config: UNetConfig | AutoencoderConfig) -> int:
    """How many numbers a network of this config has."""
    with on_meta():
        network = UNet(config) if isinstance(config, UNetConfig) else VideoAutoencoder(config)
    return sum(p.numel() for p in network.parameters())
