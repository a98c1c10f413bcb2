"""Weights kept as fp8 (e4m3: one sign, four bits of exponent, three of mantissa).

A matrix is scaled row by row, that is by output channel, so that each row's largest number is the
largest there is, 448 (Micikevicius et al. 2022, arXiv 2209.05433). Nothing is computed in fp8: who
uses such a weight multiplies it out first. Of normal numbers 2.6 % is lost (root mean square).
"""

from __future__ import annotations

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max


def to_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight `o i` → the same in fp8, and the scale `o 1` (float32) that it is to be multiplied by.
    Rows of zeros stay so."""
    wide = weight.float()
    scale = wide.abs().amax(dim=1, keepdim=True) / LARGEST
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (wide / scale).to(FP8), scale
