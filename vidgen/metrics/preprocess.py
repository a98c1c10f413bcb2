"""How each protocol makes a network's input of a clip: pure functions, uint8 `b t h w 3` → float32
`b 3 t side side`; −1 … 1 but for C3D.

Numbers of different pipelines are not comparable, so none is improved upon: what a reference leaves
out (antialiasing, rounding, half a pixel) is left out here.
"""

from __future__ import annotations

from math import ceil

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

SIDE = 224


def google(clips: Tensor) -> Tensor:
    """Google's FVD (frechet_video_distance.py): straight to 224 × 224 as TensorFlow 1 resizes; the
    aspect is lost. 2x/255 − 1."""
    return _joined(2 * tf1_bilinear(_frames(clips), SIDE, SIDE) / 255 - 1, clips)


def stylegan_v(clips: Tensor) -> Tensor:
    """StyleGAN-V: the square in the middle, to 224 × 224; half-pixel bilinear, not antialiased.
    2x/255 − 1. That its loader resizes to the resolution of training is the caller's."""
    x = _frames(clips)
    side = min(x.shape[-2:])
    return _joined(2 * bilinear(center(x, side), SIDE, SIDE) / 255 - 1, clips)


def tats(clips: Tensor) -> Tensor:
    """TATS: straight to 224 × 224, half-pixel bilinear, not antialiased; the aspect is lost.
    2x/255 − 1."""
    return _joined(2 * bilinear(_frames(clips), SIDE, SIDE) / 255 - 1, clips)


def videogpt(clips: Tensor) -> Tensor:
    """VideoGPT: the shorter side to 224 and the longer rounded up, half-pixel bilinear, not
    antialiased; the middle of it. (x/255 − 0.5)·2."""
    x = _shorter_side(_frames(clips) / 255, SIDE)
    return _joined((center(x, SIDE) - 0.5) * 2, clips)


def cd_fvd(clips: Tensor, resolution: int) -> Tensor:
    """Content-debiased FVD, from files: what its loader does (the shorter side to `resolution`,
    antialiased, the middle of it, cut to whole levels), then as TATS."""
    x = center(_shorter_side(_frames(clips) / 255, resolution, antialias=True), resolution)
    x = (x * 255).to(torch.uint8).float()
    return _joined(2 * bilinear(x, SIDE, SIDE) / 255 - 1, clips)


def tgan2(clips: Tensor, offset: Tensor) -> Tensor:
    """TGAN2's, for C3D: straight to 112 × 112, bilinear with the corners aligned; blue first;
    `offset` (minus the mean of what it was trained on, `3 t h w` or `3 1 1 1`) added."""
    x = F.interpolate(_frames(clips), (112, 112), mode="bilinear", align_corners=True)
    return _joined(x.flip(1), clips) + offset


def tf1_bilinear(x: Tensor, height: int, width: int) -> Tensor:
    """`… h w` resized as TensorFlow 1 does by default, without half-pixel centers: place i of n is
    read at i·h/n, between ⌊i·h/n⌋ and the next, which ends at the last. Columns first, as there."""
    h, w = x.shape[-2:]
    low, high, share = (v.to(x.device) for v in _between(w, width))
    x = x[..., low] + (x[..., high] - x[..., low]) * share
    low, high, share = (v.to(x.device) for v in _between(h, height))
    return x[..., low, :] + (x[..., high, :] - x[..., low, :]) * share[:, None]


def _between(size: int, new: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each new place: the two old ones, and the share of the second."""
    at = torch.arange(new, dtype=torch.float32) * (torch.tensor(float(size)) / new)
    low = at.floor().long()
    return low, (low + 1).clamp(max=size - 1), at - low


def bilinear(x: Tensor, height: int, width: int, *, antialias: bool = False) -> Tensor:
    """`n c h w` resized with half-pixel centers."""
    return F.interpolate(
        x, (height, width), mode="bilinear", align_corners=False, antialias=antialias
    )


def center(x: Tensor, side: int) -> Tensor:
    """The square in the middle; an odd rest is at its bottom or right."""
    top, left = ((n - side) // 2 for n in x.shape[-2:])
    return x[..., top : top + side, left : left + side]


def _shorter_side(x: Tensor, side: int, *, antialias: bool = False) -> Tensor:
    h, w = x.shape[-2:]
    scale = side / min(h, w)
    height, width = (side, ceil(w * scale)) if h < w else (ceil(h * scale), side)
    return bilinear(x, height, width, antialias=antialias)


def _frames(clips: Tensor) -> Tensor:
    if clips.dtype != torch.uint8 or clips.ndim != 5 or clips.shape[-1] != 3:
        raise ValueError(f"{clips.dtype} {list(clips.shape)}, not uint8 [b, t, h, w, 3]")
    return rearrange(clips, "b t h w c -> (b t) c h w").float()


def _joined(frames: Tensor, clips: Tensor) -> Tensor:
    return rearrange(frames, "(b t) c h w -> b c t h w", b=len(clips)).contiguous()
