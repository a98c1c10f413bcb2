"""What happens to videos between who made them and who looks: blur, compression, noise, light."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

BLOCK = 8  # pixels; what JPEG and MPEG transform at once


def roughened(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Clips uint8 `b t h w 3`, each roughened by amounts of its own, the same in all its frames
    (but for noise)."""

    def amount(most: float, power: float = 1.0) -> Tensor:
        drawn = torch.rand(len(clips), 1, 1, 1, 1, generator=generator)
        return most * drawn**power

    x = rearrange(clips.float(), "b t h w c -> b t c h w")
    x = _blurred(x, amount(1.3, 1.5).flatten().tolist())
    x = compressed(x, amount(40.0, 2.0))
    x = x + amount(10.0, 2.0) * torch.randn(x.shape, generator=generator)
    x = (x - 128) * (1 + (amount(2.0) - 1) * 0.1) + 128 + (amount(2.0) - 1) * 8
    return rearrange(x.round().clamp(0, 255).to(torch.uint8), "b t c h w -> b t h w c")


def _blurred(x: Tensor, sigmas: list[float]) -> Tensor:
    """Gaussian blur of each clip `t c h w`; or of none, below a quarter of a pixel."""
    out = []
    for clip, sigma in zip(x, sigmas, strict=True):
        if sigma < 0.25:
            out.append(clip)
            continue
        offsets = torch.arange(-3, 4, dtype=torch.float32)
        kernel = (-offsets.square() / (2 * sigma**2)).exp()
        kernel = (kernel / kernel.sum()).view(1, 1, 1, 7)
        planes = rearrange(clip, "t c h w -> (t c) 1 h w")
        planes = F.conv2d(F.pad(planes, (3, 3, 0, 0), mode="replicate"), kernel)
        planes = F.conv2d(F.pad(planes, (0, 0, 3, 3), mode="replicate"), kernel.mT)
        out.append(rearrange(planes, "(t c) 1 h w -> t c h w", c=3))
    return torch.stack(out)


def compressed(x: Tensor, step: Tensor) -> Tensor:
    """Blocks' cosine transform rounded to multiples of `step`, coarser the finer the detail."""
    basis = _cosines()
    h = x.shape[-2]
    blocks = rearrange(x, "b t c (h i) (w j) -> b t c h w i j", i=BLOCK, j=BLOCK)
    coarse = 1 + (torch.arange(BLOCK)[:, None] + torch.arange(BLOCK)) / 4
    unit = step[..., None, None] * coarse + 1e-3
    rounded = ((basis @ blocks @ basis.T) / unit).round() * unit
    return rearrange(basis.T @ rounded @ basis, "b t c h w i j -> b t c (h i) (w j)", h=h // BLOCK)


def _cosines() -> Tensor:
    """The orthonormal cosine transform (DCT-II) of eight values."""
    k, n = torch.arange(BLOCK)[:, None], torch.arange(BLOCK)
    basis = torch.cos(math.pi * (n + 0.5) * k / BLOCK) * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    return basis
