"""Spatial blocks of the FusionFrames U-Net: everything a single picture goes through.

The blocks of Kandinsky 3.0 (Arkhipkin et al. 2023): bottleneck residual blocks of four
norm-act-conv units, and attention with a feed-forward part, both under GroupNorms that a condition
shifts and scales. Frames lie in the batch: maps are `n c h w` with n = b·t, a clip's frames behind
each other. Temporal parts enter by two doors only, `time_conv` and `time_attn`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.nn.attention import attend

Parts = Callable[[int], nn.Module]  # channels → a temporal layer, called with (x, cond)


class Cond(NamedTuple):
    """What the blocks are told beside the map. Embeddings come through their SiLU already."""

    frames: int  # t: how many rows of the batch make a clip
    space: Tensor  # b d: noise level and text, for every spatial norm
    time_attn: Tensor  # b d or (b t) d: for the norm in front of temporal attention
    time: Tensor  # b d or (b t) d: for the other temporal norms
    text: Tensor | None = None  # b l c
    text_bias: Tensor | None = None  # b 1 1 l, true = a word
    on: Tensor | None = None  # b: 0 closes the gates of the temporal layers
    picture: bool = False  # temporal blocks have nothing to do


class StepEmbedding(nn.Module):
    """Scalar `b` → `b dim`: DDPM's sinusoid and two layers.

    Sines, then cosines, from frequency 1 to 1/10,000 inclusive, as in the code of Ho et al. 2020.
    `embed.sinusoid` leaves the last frequency out; published weights need it. `scale` brings the
    scalar to the unit of training timesteps or frame numbers.
    """

    def __init__(self, dim: int, frequencies: int, scale: float = 1.0) -> None:
        super().__init__()
        self.frequencies, self.scale = frequencies, scale
        self.layers = nn.Sequential(nn.Linear(frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        half = self.frequencies // 2
        steps = torch.arange(half, device=x.device, dtype=torch.float32)
        angles = self.scale * x.float()[:, None] * torch.exp(-math.log(1e4) / (half - 1) * steps)
        waves = torch.cat((angles.sin(), angles.cos()), dim=-1)
        return self.layers(waves.to(next(self.parameters()).dtype))


class AdaptiveGroupNorm(nn.Module):
    """GroupNorm(x)·(1 + scale) + shift, with scale and shift made from a condition; both start at
    zero."""

    def __init__(self, channels: int, cond_dim: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, affine=False)
        self.project = nn.Linear(cond_dim, 2 * channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x `n c h w`, cond `m d`: one row of it serves n/m rows of x that follow each other."""
        table = self.project(cond).repeat_interleave(x.shape[0] // cond.shape[0], dim=0)
        scale, shift = table[:, :, None, None].chunk(2, dim=1)  # n c 1 1 each
        return self.norm(x) * (1 + scale) + shift


class HeadAttention(nn.Module):
    """Multi-head attention as U-Nets have it: no bias, no norm of q and k, no positions."""

    def __init__(self, dim: int, head_dim: int, *, query: int = 0, context: int = 0) -> None:
        """`query` and `context`: widths of what comes in, where they aren't `dim`."""
        super().__init__()
        self.heads = dim // head_dim
        self.q = nn.Linear(query or dim, dim, bias=False)
        self.k = nn.Linear(context or dim, dim, bias=False)
        self.v = nn.Linear(context or dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, context: Tensor | None = None, bias: Tensor | None = None):
        """x `b n c`, context `b m c` (x itself if None), bias as in `attend` → `b n dim`."""
        context = x if context is None else context
        q, k, v = (
            rearrange(y, "b n (h d) -> b h n d", h=self.heads)
            for y in (self.q(x), self.k(context), self.v(context))
        )
        return self.out(rearrange(attend(q, k, v, bias=bias), "b h n d -> b n (h d)"))


def feed_forward(channels: int, ratio: int) -> nn.Sequential:
    """A two-layer perceptron at every pixel."""
    return nn.Sequential(
        nn.Conv2d(channels, ratio * channels, 1, bias=False),
        nn.SiLU(),
        nn.Conv2d(ratio * channels, channels, 1, bias=False),
    )


class Unit(nn.Module):
    """Norm, SiLU, (×2 up,) conv, (temporal layer,) (×2 down)."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        cond_dim: int,
        groups: int,
        *,
        resample: str = "",
        time_conv: Parts | None = None,
    ) -> None:
        super().__init__()
        self.norm = AdaptiveGroupNorm(channels, cond_dim, groups)
        self.up = nn.ConvTranspose2d(channels, channels, 2, 2) if resample == "up" else None
        self.conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2)
        self.time_conv = time_conv(out) if time_conv else None
        self.down = nn.Conv2d(out, out, 2, 2) if resample == "down" else None

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        x = F.silu(self.norm(x, cond.space))
        if self.up is not None:
            x = self.up(x)
        x = self.conv(x)
        if self.time_conv is not None:
            x = self.time_conv(x, cond)
        return x if self.down is None else self.down(x)


class ResBlock(nn.Module):
    """Four units with kernels 1, 3, 3, 1 around a bottleneck, beside a shortcut.

    A block that changes the resolution goes up in its second unit or down in its third, and its
    shortcut is resampled by a convolution of its own.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        cond_dim: int,
        groups: int,
        *,
        resample: str = "",
        time_conv: Parts | None = None,
    ) -> None:
        super().__init__()
        hidden = max(channels, out) // 2
        widths = (channels, hidden, hidden, hidden, out)
        where = {"up": 1, "down": 2}.get(resample)
        self.units = nn.ModuleList(
            Unit(
                widths[i], widths[i + 1], kernel, cond_dim, groups,
                resample=resample if i == where else "", time_conv=time_conv,
            )
            for i, kernel in enumerate((1, 3, 3, 1))
        )  # fmt: skip
        self.shortcut_up = (
            nn.ConvTranspose2d(channels, channels, 2, 2) if resample == "up" else None
        )
        self.shortcut = nn.Conv2d(channels, out, 1) if channels != out else None
        self.shortcut_down = nn.Conv2d(out, out, 2, 2) if resample == "down" else None

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        y = x
        for unit in self.units:
            y = unit(y, cond)
        for layer in (self.shortcut_up, self.shortcut, self.shortcut_down):
            if layer is not None:
                x = layer(x)
        return x + y


class AttentionBlock(nn.Module):
    """Attention and a feed-forward part, each added to the map. With `context`, the width of text
    tokens, pixels look at the text; without, at the pixels of their own frame."""

    def __init__(
        self,
        channels: int,
        cond_dim: int,
        groups: int,
        head_dim: int,
        ff_ratio: int,
        *,
        context: int = 0,
        time_attn: Parts | None = None,
    ) -> None:
        super().__init__()
        self.context = context
        self.norm1 = AdaptiveGroupNorm(channels, cond_dim, groups)
        self.attention = HeadAttention(channels, head_dim, context=context)
        self.time_attn = time_attn(channels) if time_attn else None
        self.norm2 = AdaptiveGroupNorm(channels, cond_dim, groups)
        self.ff = feed_forward(channels, ff_ratio)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        y, size = self.norm1(x, cond.space), {"h": x.shape[2], "w": x.shape[3]}
        if self.context:
            # All frames of a clip read the same text: they are one long row of queries.
            y = rearrange(y, "(b t) c h w -> b (t h w) c", t=cond.frames)
            y = self.attention(y, cond.text, cond.text_bias)
            y = rearrange(y, "b (t h w) c -> (b t) c h w", t=cond.frames, **size)
        else:
            y = self.attention(rearrange(y, "n c h w -> n (h w) c"))
            y = rearrange(y, "n (h w) c -> n c h w", **size)
        if self.time_attn is not None:
            y = self.time_attn(y, cond)
        x = x + y
        return x + self.ff(self.norm2(x, cond.space))


class Text(nn.Module):
    """Text as the blocks read it, and pooled for the embedding of the noise level.

    The null text is one learned token, followed by padding.
    """

    def __init__(
        self,
        text_dim: int,
        out: int,
        head_dim: int,
        *,
        project: int = 0,
        mean: str = "words",
        null_tokens: int = 1,
    ) -> None:
        """`project`: a linear layer and a norm bring text to this width first; 0: it stays.

        `mean`, of which tokens the query of the pooling is the mean: "words" alone;
        "padding_as_zeros", of all tokens, as Kandinsky Video does, where prompts of other lengths
        in a batch change the result; "padding_too", as diffusers' Kandinsky 3 does.
        """
        super().__init__()
        width = project or text_dim
        self.mean, self.null_tokens = mean, null_tokens
        self.project = (
            nn.Sequential(nn.Linear(text_dim, width, bias=False), nn.LayerNorm(width))
            if project
            else None
        )
        self.null = nn.Parameter(torch.zeros(width))
        self.pool = HeadAttention(out, head_dim, query=width, context=width)

    def forward(
        self, b: int, text: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """text `b l text_dim` or None, mask `b l` (true = a word) or None for all → tokens `b l c`,
        attention bias `b 1 1 l`, pooled `b out`. A row without a word becomes the null text."""
        if text is None:
            tokens = self.null.new_zeros(b, self.null_tokens, len(self.null))
            mask = torch.zeros(b, self.null_tokens, dtype=torch.bool, device=tokens.device)
        else:
            tokens = text.to(self.null.dtype)
            tokens = tokens if self.project is None else self.project(tokens)
            mask = tokens.new_ones(tokens.shape[:2]).bool() if mask is None else mask.bool()
        null = ~mask.any(dim=1, keepdim=True)  # b 1
        first = torch.arange(mask.shape[1], device=mask.device) == 0  # l
        tokens = torch.where((null & first).unsqueeze(-1), self.null, tokens)
        mask = mask | (null & first)

        words = mask.unsqueeze(-1).to(tokens.dtype)  # b l 1
        if self.mean == "words":
            mean = (tokens * words).sum(dim=1) / words.sum(dim=1)
        elif self.mean == "padding_as_zeros":
            mean = (tokens * words).mean(dim=1)
        else:
            mean = tokens.mean(dim=1)
        bias = rearrange(mask, "b l -> b 1 1 l")
        return tokens, bias, self.pool(mean.unsqueeze(1), tokens, bias).squeeze(1)
