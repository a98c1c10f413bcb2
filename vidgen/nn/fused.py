"""Layers of transformers by kernels that do several things in one go, beside their plain form.

The plain form is what runs with gradients, in compiled code (which fuses for itself), and wherever
there is no such kernel; what the two compute differs by rounding.

On x86, oneDNN multiplies matrices with the bias and GELU of an MLP in the same pass. That it is
also faster than MKL, which torch takes for float32, was measured on AMD EPYC: by a sixth.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """torch's, by oneDNN where it can."""

    def forward(self, x: Tensor) -> Tensor:
        if by_onednn(x, self.weight):
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return super().forward(x)


class FeedForward(nn.Sequential):
    """Linear, GELU (its tanh form), Linear; the wide numbers between them exist once."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(Linear(dim, hidden), nn.GELU(approximate="tanh"), Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        parts: Any = self
        widen, gelu, narrow = parts[0], parts[1], parts[2]
        if by_onednn(x, widen.weight):
            y = torch.ops.mkldnn._linear_pointwise(x, widen.weight, widen.bias, "gelu", [], "tanh")
        elif plain():
            y = gelu(widen(x))
        else:
            y = torch.ops.aten.gelu_(widen(x), approximate="tanh")
        return narrow(y)


def plain() -> bool:
    """Whether the plain form is called for: gradients are wanted, or code is being compiled."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether x `… i` and weight `o i` are multiplied by oneDNN."""
    return (
        x.device.type == "cpu"
        and not plain()
        and x.dtype == weight.dtype
        and x.dtype in _onednn_dtypes()
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def _onednn_dtypes() -> set[torch.dtype]:
    """What oneDNN computes in here; nothing where torch has it not, or this is no x86."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return set()
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return set()
    known = {torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        known.add(torch.bfloat16)
    return known


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """LayerNorm over the last axis of x in float32, whatever its dtype, with weight and bias `d` in
    float32; rounded once, to the dtype of x."""
    if x.device.type == "cpu" and not plain():  # its kernel takes both dtypes as they are
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps).to(x.dtype)
