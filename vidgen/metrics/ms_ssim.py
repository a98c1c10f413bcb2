"""Structural similarity at five scales (Wang, Simoncelli, Bovik 2003, Asilomar, Eq. 7).

As TensorFlow's `ssim_multiscale` computes it: each scale is the one before with every 2 × 2 pixels
averaged (an odd last row or column counts twice), contrast times structure is averaged over the
places of a scale, luminance counts at the coarsest scale alone, each channel is taken by itself,
and what is negative counts as 0, since it has no real power.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vidgen.metrics.fidelity import WINDOW, check_pair, similarity

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first; their sum is 1
SMALLEST = (WINDOW - 1) * 2 ** (len(WEIGHTS) - 1) + 1  # pixels: the window fits the last scale


def ms_ssim(made: Tensor, true: Tensor) -> Tensor:
    """Of each frame of two clips, uint8 `b t h w 3`: `b t`, 0 … 1, higher is better. ValueError for
    frames with a side below `SMALLEST`."""
    check_pair(made, true)
    if min(made.shape[2:4]) < SMALLEST:
        raise ValueError(
            f"frames of {made.shape[2]} × {made.shape[3]}, sides are {SMALLEST} or more"
        )
    x, y = (rearrange(v.double(), "b t h w c -> (b t c) h w") for v in (made, true))
    product = torch.ones(len(x), dtype=x.dtype, device=x.device)
    for scale, weight in enumerate(WEIGHTS):
        if scale:
            x, y = _halved(x), _halved(y)
        whole, structure = similarity(x, y)
        mean = whole if scale == len(WEIGHTS) - 1 else structure
        product = product * mean.clamp(min=0) ** weight
    b, t = made.shape[:2]
    return rearrange(product, "(b t c) -> b t c", b=b, t=t).mean(dim=-1)


def _halved(x: Tensor) -> Tensor:
    """`n h w` → half as high and wide, rounded up."""
    odd_h, odd_w = x.shape[1] % 2, x.shape[2] % 2
    return F.avg_pool2d(F.pad(x, (0, odd_w, 0, odd_h), mode="replicate"), 2)
