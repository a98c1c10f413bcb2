"""Temporal parts of the FusionFrames U-Net: blocks of their own, or layers inside spatial blocks.

Maps are `(b t) c h w`. Everything here mixes the t axis of one clip: frames for the keyframes,
groups of frames for the interpolation. Blocks start as the identity but for the feed-forward part
of temporal attention, which the authors initialise like any other layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.nn.unet_blocks import AdaptiveGroupNorm, Cond, HeadAttention, feed_forward


class TimeConv(nn.Conv3d):
    """A convolution over k frames, and over k × k pixels too if `spatial`; `(b t) c h w` in and
    out."""

    def __init__(self, channels: int, out: int, k: int, *, spatial: bool = False) -> None:
        size = (k, k, k) if spatial else (k, 1, 1)
        super().__init__(channels, out, size, padding=(k // 2, size[1] // 2, size[2] // 2))

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        k, rows, _ = self.kernel_size
        if rows > 1:
            y = super().forward(rearrange(x, "(b t) c h w -> b c t h w", t=frames))
            return rearrange(y, "b c t h w -> (b t) c h w")
        weight = self.weight[..., 0]  # o i k 1: a flat convolution, half the time on a CPU
        if k == 1:
            return F.conv2d(x, weight, self.bias)
        y = rearrange(x, "(b t) c h w -> b c t (h w)", t=frames)
        y = F.conv2d(y, weight, self.bias, padding=(k // 2, 0))
        return rearrange(y, "b c t (h w) -> (b t) c h w", h=x.shape[2])

    def start_at_zero(self) -> TimeConv:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]
        return self


class TimeResBlock(nn.Module):
    """The four-unit bottleneck with its kernels along time, zero at the end: Temporal-Conv1D block.

    `spatial`: kernels k × k × k (the paper's Conv3d blocks). Two linear layers squeeze the hidden
    width around the two large convolutions, so that the block keeps its number of parameters.
    """

    def __init__(self, channels: int, cond_dim: int, groups: int, *, spatial: bool = False) -> None:
        super().__init__()
        hidden = channels // 2
        inner = squeezed(hidden, groups) if spatial else hidden
        widths = (
            (channels, hidden, 1),
            (inner, inner, 3),
            (inner, inner, 3),
            (hidden, channels, 1),
        )
        self.norms = nn.ModuleList(AdaptiveGroupNorm(i, cond_dim, groups) for i, _, _ in widths)
        self.convs = nn.ModuleList(
            TimeConv(i, o, k, spatial=spatial and k > 1) for i, o, k in widths
        )
        self.squeeze = nn.Conv2d(hidden, inner, 1) if spatial else None
        self.restore = nn.Conv2d(inner, hidden, 1) if spatial else None
        self.convs[-1].start_at_zero()  # type: ignore[operator]

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        if cond.picture:
            return x
        y = x
        for i, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            if i == 1 and self.squeeze is not None:
                y = self.squeeze(y)
            if i == 3 and self.restore is not None:
                y = self.restore(y)
            y = conv(F.silu(norm(y, cond.time)), cond.frames)
        return x + y


def squeezed(hidden: int, groups: int) -> int:
    """The width s at which two s → s convolutions of 3×3×3 and the layers hidden → s → hidden cost
    what two hidden → hidden convolutions of 3×1×1 do: 54 s² + 2 hidden s = 6 hidden², to the
    nearest multiple of `groups`. The paper gives no number."""
    s = hidden * ((1 + 324) ** 0.5 - 1) / 54
    return groups * max(1, round(s / groups))


class TimeAttentionBlock(nn.Module):
    """Attention over the frames of a clip, then a feed-forward part: Temporal-Attn1D block.

    `window`: pixels of window × window are in one row with all their frames, cut as in MaxViT's
    block attention (Tu et al. 2022); 1 is a row for every pixel. h and w must be multiples of it.
    """

    def __init__(
        self,
        channels: int,
        cond_dim: int,
        groups: int,
        head_dim: int,
        ff_ratio: int,
        *,
        window: int = 1,
    ) -> None:
        super().__init__()
        self.window = window
        self.norm1 = AdaptiveGroupNorm(channels, cond_dim, groups)
        self.attention = HeadAttention(channels, head_dim)
        self.norm2 = AdaptiveGroupNorm(channels, cond_dim, groups)
        self.ff = feed_forward(channels, ff_ratio)
        self.start()

    def start(self) -> None:
        # The attention adds nothing at the start. `ff` isn't zero, as in the authors' code: a new
        # block is not the identity.
        nn.init.zeros_(self.attention.out.weight)

    def merge(self, x: Tensor, y: Tensor, part: int, cond: Cond) -> Tensor:
        return x + y

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        if cond.picture:
            return x
        y = over_time(self.attention, self.norm1(x, cond.time_attn), cond.frames, self.window)
        x = self.merge(x, y, 1, cond)
        return self.merge(x, self.ff(self.norm2(x, cond.time)), 2, cond)


class LerpAttentionBlock(TimeAttentionBlock):
    """The same for the interpolation of Kandinsky Video 1.1: both parts are mixed in by gates."""

    def start(self) -> None:
        self.gate1 = nn.Parameter(torch.zeros(1))
        self.gate2 = nn.Parameter(torch.zeros(1))

    def merge(self, x: Tensor, y: Tensor, part: int, cond: Cond) -> Tensor:
        return lerp(x, y, self.gate1 if part == 1 else self.gate2, cond)


def over_time(attention: HeadAttention, x: Tensor, frames: int, window: int = 1) -> Tensor:
    """x `(b t) c h w` → the same; every window of pixels attends to itself in all frames."""
    size = {"t": frames, "h": x.shape[2] // window, "p": window, "q": window}
    b = x.shape[0] // frames
    y = rearrange(x, "(b t) c (h p) (w q) -> (b h w) (t p q) c", **size)
    return rearrange(attention(y), "(b h w) (t p q) c -> (b t) c (h p) (w q)", b=b, **size)


def lerp(x: Tensor, y: Tensor, gate: Tensor, cond: Cond) -> Tensor:
    """(1 − gate)·x + gate·y; no further than x where `cond.on` is 0."""
    if cond.on is not None:
        gate = (gate * cond.on.to(gate.dtype)).repeat_interleave(cond.frames)[:, None, None, None]
    return x + gate * (y - x)


class LerpConv(nn.Module):
    """A convolution over three groups, behind a spatial one: (1 − α)·x + α·conv(x).

    α and the convolution start at zero. Written as the paper's Eq. 3, x + α·conv(x), that start
    has no gradient at all: α's is conv(x) = 0 and the convolution's is α = 0, so nothing would ever
    train. Here α's is conv(x) − x, so α moves first and the convolution follows.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))
        self.conv = TimeConv(channels, channels, 3).start_at_zero()

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        return lerp(x, self.conv(x, cond.frames), self.gate, cond)


class AddedConv(nn.Module):
    """The layer form: x + conv(x) behind a spatial convolution, zero at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = TimeConv(channels, channels, 3).start_at_zero()

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        return x + self.conv(x, cond.frames)


class AddedAttention(nn.Module):
    """The layer form: attention over frames on what spatial attention gave, zero at the start.

    The frame's embedding is added to what it sees, since a layer has no norm of its own to put it
    in. The paper doesn't say how its mixed variant does this; the choice is ours.
    """

    def __init__(self, channels: int, cond_dim: int, head_dim: int) -> None:
        super().__init__()
        self.position = nn.Linear(cond_dim, channels)
        self.attention = HeadAttention(channels, head_dim)
        nn.init.zeros_(self.attention.out.weight)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        where = self.position(cond.time_attn)
        where = where.repeat_interleave(x.shape[0] // where.shape[0], dim=0)
        return x + over_time(self.attention, x + where[:, :, None, None], cond.frames)
