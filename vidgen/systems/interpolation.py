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

In the paper z is the frames themselves, and the network returns v = alpha·eps − sigma·x0: `target`
"frames". The shipped network makes a "residual" instead: what the frames have beside the linear
blend of their keyframes, over its spread, (frames − blend)/(spread·s). It returns that as x0, so
one whose output starts at zero is linear blending at first, and learns but the rest.

What was tried, on latents of the shipped autoencoder: 1.3 million weights, one CPU core, one seed,
keyframes half a second apart; dB of the latents on clips it had not seen:

| 45 s, AdamW, 4 steps | dB | | 60 s, Muon, clean keyframes | 1 step | 4 steps |
|---|---|---|---|---|---|
| x0 of frames (30 s) | 27.5 | | residual, x0 | 29.6 | 29.0 |
| x0 of frames = blend + network | 29.1 | | residual, `shrunk` | 30.6 | 29.3 |
| v of residual | 27.8 | | blending | 29.6 | 29.6 |
| x0 of residual | 29.7 | | | | |
| blending | 30.2 | | | | |

Rows were measured on 32 clips at the left and 24 at the right, so blending differs, too. In 4 steps
none of them was above blending by then; where pixels change, decoded frames of `shrunk` were: 21.8
dB, against 20.8 with x0 and 20.6 by blending.

Measured once. A row like them, but for "blend + network", which is no setting any more, is `vidgen
train world-interpolation --minutes 1 --set loss.target=frames --set loss.prediction=v --set
loss.steps=4`: eval.psnr, and eval.psnr_linear of blending, in its metrics.jsonl. The shipped
network against blending, in pixels: `python -m benchmarks.cascade`.

Not in the paper: where the model wants it (`Settings.refine`), the network of the keyframes draws
the made frames anew from a share of noise (`vidgen.stages.refine`).

The paper's second pass makes 30 frames a second of 8, a skip of 0.75, and tells the network 1:
skips are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vidgen.diffusion import groups, prediction
from vidgen.diffusion.groups import PACKINGS
from vidgen.diffusion.level import expand
from vidgen.diffusion.prediction import Denoiser
from vidgen.nn.group_dit import GroupDiTConfig
from vidgen.nn.unet import UNetConfig
from vidgen.systems.base import INTERPOLATIONS, ClipSampler, ModelFolder
from vidgen.systems.load import ClipNetwork

TARGETS = {
    "frames": "z, without its noise, is the frames between",
    "residual": "it is what they have beside the linear blend of their keyframes, over its spread",
}


@dataclass(frozen=True)
class Settings(ClipSampler):
    """How an interpolation network is sampled: `sample` in its config.json.

    ValueError for more than all noise."""

    target: str = "frames"  # of TARGETS
    spread: float = 1.0  # of a residual, for each frame of the skip
    refine: float | None = None  # share of noise to draw frames anew from; see `stages.refine`

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refine is not None and self.refine > 1:
            raise ValueError(f"refine is {self.refine:g}, must be 1 at most")

    def packed(self, method: str, keyframes: Tensor, between: Tensor, skip: Tensor) -> Tensor:
        """The frames between `b c 3g h w`, at skips (b,), as the z that the network makes of
        noise."""
        packing = PACKINGS[method]
        if self.target == "frames":
            return packing.pack(keyframes, between)
        rest = (between - groups.linear(keyframes)) / expand(self.spread * skip, between)
        return packing.pack(torch.zeros_like(keyframes), rest)

    def unpacked(self, method: str, keyframes: Tensor, z: Tensor, skip: Tensor) -> Tensor:
        """The frames between that a z stands for."""
        made = PACKINGS[method].unpack(z)
        if self.target == "frames":
            return made
        return groups.linear(keyframes) + expand(self.spread * skip, made) * made


@dataclass(frozen=True)
class Interpolator(ClipNetwork):
    """An interpolation network that isn't loaded yet."""

    settings: Settings
    config: UNetConfig | GroupDiTConfig

    KINDS = ("UNet", "GroupDiT")

    @classmethod
    def of(cls, folder: ModelFolder, method: str) -> Interpolator:
        """InputError if the model has no such network, or one of other channels than its latents
        have."""
        channels = PACKINGS[method].channels(folder.size("vae", "channels"))
        found = cls.found(folder, INTERPOLATIONS[method], Settings, channels)
        found._named("target", TARGETS)
        return found

    @property
    def method(self) -> str:
        """A key of INTERPOLATIONS."""
        return next(method for method, name in INTERPOLATIONS.items() if name == self.component)

    def denoiser(self, network: nn.Module) -> Denoiser:
        """The network as `denoise(z, level, cond) → x0`; cond is made by `cond`."""
        return prediction.denoiser(raw(network, self.method), self.prediction())


def raw(network: Any, method: str) -> prediction.Network:
    """The network as (z, t, cond) → its raw output, in z's shape; cond is made by `cond`."""

    def call(z: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return PACKINGS[method].ask(network, z, t, **cond)

    return call


def cond(
    config: UNetConfig | GroupDiTConfig,
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
