"""Weights stored in eight bits: half of bfloat16's bytes, for 0.7 % of error.

A matrix (any tensor of two axes or more) is kept as int8, beside it a scale a row, that is one an
output channel: `name` and `name_scale`, as compressed-tensors names them. Symmetric rounding to
nearest (Jacob et al. 2018, arXiv 1712.05877, with the zero point at 0). This is how weights lie in
a file: they are multiplied out when it is read, to the dtype of their scales, and nothing is
computed in eight bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SCALE = "_scale"
LARGEST = 127


def packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point matrices `o …` as int8 and their scales `o 1 …`, in the dtype that they had;
    other tensors as they are. Rows of zeros stay so; rows that hold a NaN or an infinity read as
    NaN."""
    import torch

    out: dict[str, Tensor] = {}
    for name, x in state.items():
        if x.ndim < 2 or not x.is_floating_point():
            out[name] = x
            continue
        largest = x.float().abs().amax(dim=tuple(range(1, x.ndim)), keepdim=True)
        scale = (largest / LARGEST).to(x.dtype)  # rounded first: rows are divided by what is kept
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)  # NaN stays, and says so
        rounded = (x.float() / scale.float()).round().clamp(-LARGEST, LARGEST).nan_to_num()
        out[name], out[name + SCALE] = rounded.to(torch.int8), scale
    return out


def unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights without scales; what isn't packed stays as it is. KeyError, with its name,
    for a tensor of int8 that lacks its scale where others have theirs."""
    scales = scale_names({name: x.is_floating_point() for name, x in state.items()})
    out = {name: x for name, x in state.items() if name not in scales}
    for scale in scales:
        name = scale.removesuffix(SCALE)
        out[name] = (state[name].float() * state[scale].float()).to(state[scale].dtype)
    if lacking := [n for n, x in out.items() if scales and str(x.dtype) == "torch.int8"]:
        raise KeyError(lacking[0] + SCALE)
    return out


def scale_names(floating: Mapping[str, bool]) -> set[str]:
    """Which tensors of a file are scales: those of a tensor of whole numbers. `floating`: name →
    whether it holds fractions."""
    return {
        name for name, own in floating.items()
        if own and name.endswith(SCALE) and not floating.get(name.removesuffix(SCALE), True)
    }  # fmt: skip
