"""The one place where attention happens.

Every network of the package calls `attend`, so that a kernel is chosen once (`--attention`) and a
method that looks into attention (a temporal bias, a reading of q and k) passes a port down by name
instead of patching modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention import (
    SDPBackend,
    activate_flash_attention_impl,
    current_flash_attention_impl,
    restore_flash_attention_impl,
    sdpa_kernel,
)

from vidgen.nn.norm import RMSNorm
from vidgen.nn.rope import rotate

Probe = Callable[[Tensor, Tensor], None]

KERNELS: dict[str, SDPBackend | None] = {
    "auto": None,
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "fa3": SDPBackend.FLASH_ATTENTION,  # by FlashAttention 3, which torch hands it to
}

_USED: ContextVar[set[str] | None] = ContextVar("used", default=None)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, probe: Probe | None = None
) -> Tensor:
    """Softmax attention: softmax(q kᵀ / √d + bias) v (Vaswani et al. 2017, equation 1).

    q `b h n d`; k, v `b h m d`; returns `b h n d`. `bias` is added to the scores, or, if boolean,
    says where attention is allowed; it broadcasts to `b h n m`. `probe` is called with (q, k)
    after any rotation: what a method reads there is what the scores are made of.
    """
    if probe is not None:
        probe(q, k)
    if not torch.compiler.is_compiling() and (used := _USED.get()) is not None:
        used.add(_chosen(q, k, v, bias))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def attend_wide(
    q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, probe: Probe | None = None
) -> Tensor:
    """`attend`; on a CPU in float32 where q is bfloat16. Of torch's fused attention for CPUs, the
    backward pass is two to five times slower in bfloat16 at the sizes of groups (torch 2.13)."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return attend(q, k, v, bias=bias, probe=probe)
    with torch.autocast("cpu", enabled=False):
        return attend(q.float(), k.float(), v.float(), bias=bias, probe=probe).to(q.dtype)


def attend_reference(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None) -> Tensor:
    """The same in plain tensor operations; the tests hold `attend` to it."""
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # b h n m
    if bias is not None:
        scores = (
            scores.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else scores + bias
        )
    return scores.softmax(dim=-1) @ v


@contextmanager
def kernel(name: str) -> Iterator[set[str]]:
    """A context in which `attend` uses the named kernel of `KERNELS` and no other. It gives a set
    that fills with the kernels that were used; compiled code leaves no trace in it."""
    backend, used = KERNELS[name], set[str]()
    token = _USED.set(used)
    try:
        if name == "fa3":
            activate_flash_attention_impl("FA3")
        with nullcontext() if backend is None else sdpa_kernel(backend):
            yield used
    finally:
        if current_flash_attention_impl() == "FA3":
            restore_flash_attention_impl()
        _USED.reset(token)


@contextmanager
def noted() -> Iterator[set[str]]:
    """A set that fills with the kernels that are used within; who asked before is told as well."""
    used, outer = set[str](), _USED.get()
    token = _USED.set(used)
    try:
        yield used
    finally:
        _USED.reset(token)
        if outer is not None:
            outer |= used


def note(kernels: Iterable[str]) -> None:
    """Count these as used: by work that was recorded and is done again."""
    if (used := _USED.get()) is not None:
        used.update(kernels)


def _chosen(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> str:
    """The kernel of `KERNELS` that torch takes for these tensors here."""
    backend = SDPBackend(torch._fused_sdp_choice(q, k, v, bias))
    if backend == SDPBackend.FLASH_ATTENTION:
        by_fa3 = q.is_cuda and current_flash_attention_impl() == "FA3"
        return "fa3" if by_fa3 else "flash"
    names = {b: name for name, b in KERNELS.items()}
    return names.get(backend, backend.name.lower())


class SelfAttention(nn.Module):
    """Multi-head self-attention with RMS-normalised q and k and rotary positions.

    Normalising q and k keeps the scores bounded, which is what lets a small model train at a high
    learning rate (Dehghani et al. 2023, ViT-22B).
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_norm = RMSNorm(dim // heads)
        self.k_norm = RMSNorm(dim // heads)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        x: Tensor,
        angles: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        probe: Probe | None = None,
    ) -> Tensor:
        """x `b n d`, angles `b n head_dim/2` (see `rope`) → `b n d`."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        y = attend_wide(q, k, v, bias=bias, probe=probe)
        return self.out(rearrange(y, "b h n d -> b n (h d)"))


class CrossAttention(nn.Module):
    """Queries from x, keys and values from a context such as text."""

    def __init__(self, dim: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(context_dim, 2 * dim, bias=False)
        self.q_norm = RMSNorm(dim // heads)
        self.k_norm = RMSNorm(dim // heads)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        mask: Tensor | None = None,
        *,
        probe: Probe | None = None,
    ) -> Tensor:
        """x `b n d`, context `b l c`, mask `b l` (true = attend) → `b n d`."""
        q = rearrange(self.q(x), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.kv(context), "b l (two h d) -> two b h l d", two=2, h=self.heads)
        bias = None if mask is None else rearrange(mask.bool(), "b l -> b 1 1 l")
        y = attend_wide(self.q_norm(q), self.k_norm(k), v, bias=bias, probe=probe)
        return self.out(rearrange(y, "b h n d -> b n (h d)"))
