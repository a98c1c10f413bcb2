"""The U-Net that Snap Video compares itself with: ADM, with attention over time in between.

Dhariwal & Nichol 2021 (arXiv 2105.05233): residual blocks whose norm is scaled and shifted by what
the network is told, two a level, attention at the smaller sizes. After each spatial attention
comes one over time, place by place (Snap Video, Menapace et al. 2024, table 7). Text is read by
attention, too: its tokens stand behind those of the picture. Sizes change inside residual blocks.

Counted, the two of the paper have 83.5 and 272.5 million parameters, where it says 85 and 284: what
it doesn't tell is ours (how text and frame rate are read, where temporal attention stands).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from vidgen.nn.attention import attend
from vidgen.nn.embed import sinusoid

GROUPS = 32  # of the group norms, or as many as divide the channels


@dataclass(frozen=True, kw_only=True)
class AdmUNetConfig:
    """Sizes of an `AdmUNet`; the defaults are Snap Video's U-Net of 85 million."""

    in_channels: int = 3
    out_channels: int = 3
    base: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 3)
    blocks: int = 2  # residual blocks of a level
    attention: tuple[bool, ...] = (False, True, True, True)  # of a level: at widths of 32, 16, 8
    head_dim: int = 64
    cond_dim: int = 768
    text_dim: int = 1024
    dropout: float = 0.1
    levels: ClassVar[int] = 1  # scalars of the noise, as a `FITConfig` has them

    def __post_init__(self) -> None:
        for name in ("multipliers", "attention"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.attention) != len(self.multipliers):
            raise ValueError("attention and multipliers need one entry a level")
        if min(self.multipliers, default=0) < 1:
            raise ValueError(f"multipliers are {list(self.multipliers)}: one at least, all above 0")
        if self.base < 2 or self.base % 2:  # half of it sines, half of it cosines
            raise ValueError(f"base is {self.base}, must be even and above 0")

    @property
    def halvings(self) -> int:
        """How often sides become half as long on the way down."""
        return len(self.multipliers) - 1

    @property
    def live(self) -> float:
        """Numbers alive at the widest moment, for each pixel of a video: what goes past, and on the
        largest level's way up a block's input, which has the channels of two levels, and all that
        comes of it."""
        first, second = self.multipliers[0], self.multipliers[min(1, self.halvings)]
        past = sum((self.blocks + 1) * n / 4**i for i, n in enumerate(self.multipliers))
        return self.base * (past + 2 * (first + second) + 3 * first)

    def unfit(self, num_frames: int, height: int, width: int) -> str:
        """Why it makes no videos of this size, in words; empty: it does."""
        factor = 2**self.halvings
        if height % factor or width % factor:
            times = {1: "once", 2: "twice"}.get(self.halvings, f"{self.halvings} times")
            return f"the network halves sides {times}: they must be multiples of {factor}"
        return ""

    def to_dict(self) -> dict:
        return asdict(self)


def norm(channels: int) -> nn.GroupNorm:
    groups = next(g for g in range(min(GROUPS, channels), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def smaller(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


def larger(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class ResBlock(nn.Module):
    """x + conv(dropout(silu(norm(conv(silu(norm x))) · (1 + scale) + shift))); with `resize`, of x
    at another size."""

    def __init__(
        self,
        channels: int,
        out: int,
        config: AdmUNetConfig,
        resize: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.resize = resize
        self.norm1, self.conv1 = norm(channels), nn.Conv2d(channels, out, 3, padding=1)
        self.told = nn.Linear(config.cond_dim, 2 * out)
        self.norm2, self.conv2 = norm(out), nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)
        self.dropout = config.dropout
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """x `(b t) c h w`, told `(b t) d`."""
        y = F.silu(self.norm1(x))
        if self.resize is not None:
            x, y = self.resize(x), self.resize(y)
        y = self.conv1(y)
        scale, shift = self.told(F.silu(told))[:, :, None, None].chunk(2, dim=1)
        y = F.silu(self.norm2(y) * (1 + scale) + shift)
        return self.skip(x) + self.conv2(F.dropout(y, self.dropout, self.training))


class Attention(nn.Module):
    """x + self-attention of tokens, with text behind them if there is any."""

    def __init__(self, channels: int, head_dim: int, text_dim: int | None = None) -> None:
        super().__init__()
        if head_dim < 1 or channels % head_dim:
            raise ValueError(f"heads of {head_dim} don't divide a width of {channels}")
        self.heads = channels // head_dim
        self.norm = norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.text = None if text_dim is None else nn.Linear(text_dim, 2 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, text: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """x `n l c`, text `n k d`, mask `n k` (true = a word) → `n l c`."""
        y = self.norm(x.mT).mT
        q, k, v = rearrange(self.qkv(y), "n l (three h d) -> three n h l d", three=3, h=self.heads)
        bias = None
        if self.text is not None and text is not None:
            told = rearrange(self.text(text), "n k (two h d) -> two n h k d", two=2, h=self.heads)
            k, v = torch.cat([k, told[0]], dim=2), torch.cat([v, told[1]], dim=2)
            if mask is not None:
                bias = F.pad(mask.bool(), (x.shape[1], 0), value=True)[:, None, None]
        y = rearrange(attend(q, k, v, bias=bias), "n h l d -> n l (h d)")
        return x + self.out(y)


class Layer(nn.Module):
    """A residual block, and attention over space, then time."""

    def __init__(self, channels: int, out: int, attends: bool, config: AdmUNetConfig) -> None:
        super().__init__()
        self.block = ResBlock(channels, out, config)
        self.space = Attention(out, config.head_dim, config.text_dim) if attends else None
        self.time = Attention(out, config.head_dim) if attends else None

    def forward(self, x: Tensor, told: Tensor, text: Tensor, mask: Tensor | None, t: int) -> Tensor:
        """x `(b t) c h w`."""
        x = self.block(x, told)
        if self.space is None or self.time is None:
            return x
        h, w = x.shape[-2:]
        x = self.space(rearrange(x, "n c h w -> n (h w) c"), text, mask)
        x = self.time(rearrange(x, "(b t) l c -> (b l) t c", t=t))
        return rearrange(x, "(b h w) t c -> (b t) c h w", h=h, w=w)


class AdmUNet(nn.Module):
    """Noisy video, a noise level and text → the network's raw output, shaped as the video."""

    def __init__(self, config: AdmUNetConfig) -> None:
        super().__init__()
        self.config = c = config
        self.level = nn.Sequential(
            nn.Linear(c.base, c.cond_dim), nn.SiLU(), nn.Linear(c.cond_dim, c.cond_dim)
        )
        self.period = nn.Sequential(
            nn.Linear(c.base, c.cond_dim), nn.SiLU(), nn.Linear(c.cond_dim, c.cond_dim)
        )
        self.stem = nn.Conv2d(c.in_channels, c.base, 3, padding=1)
        width, skips = c.base, [c.base]
        down, shrink = nn.ModuleList(), nn.ModuleList()
        for i, (times, attends) in enumerate(zip(c.multipliers, c.attention, strict=True)):
            layers = nn.ModuleList()
            for _ in range(c.blocks):
                layers.append(Layer(width, c.base * times, attends, c))
                width = c.base * times
                skips.append(width)
            down.append(layers)
            if i + 1 < len(c.multipliers):
                shrink.append(ResBlock(width, width, c, smaller))
                skips.append(width)
        self.down, self.shrink = down, shrink
        self.middle = nn.ModuleList([Layer(width, width, True, c), Layer(width, width, False, c)])
        up, grow = nn.ModuleList(), nn.ModuleList()
        levels = list(zip(c.multipliers, c.attention, strict=True))
        for i, (times, attends) in enumerate(reversed(levels)):
            layers = nn.ModuleList()
            for _ in range(c.blocks + 1):
                layers.append(Layer(width + skips.pop(), c.base * times, attends, c))
                width = c.base * times
            up.append(layers)
            if i + 1 < len(levels):
                grow.append(ResBlock(width, width, c, larger))
        self.up, self.grow = up, grow
        self.norm = norm(width)
        self.out = nn.Conv2d(width, c.out_channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    @property
    def blocks(self) -> list[nn.Module]:
        """Its repeating parts: what is compiled one by one."""
        parts = (*self.down, self.shrink, self.middle, *self.up, self.grow)
        return [part for some in parts for part in some]

    def forward(
        self,
        z: Tensor,
        t: Tensor,
        *,
        text: Tensor,
        text_mask: Tensor | None = None,
        period: Tensor | None = None,
    ) -> Tensor:
        """z `b c t h w`, height and width multiples of 2 for each level but the last, t `b`, text
        `b l d` with text_mask `b l` (true = a word), period `b` seconds from frame to frame →
        `b c t h w`. ValueError for other sizes."""
        c, frames = self.config, z.shape[2]
        rows, columns = z.shape[-2:]
        if why := c.unfit(frames, rows, columns):
            raise ValueError(f"{rows} × {columns} pixels, and {why}")
        dtype = self.stem.weight.dtype
        period = torch.zeros_like(t) if period is None else period
        told = self.level(sinusoid(t, c.base).to(dtype))
        told = told + self.period(sinusoid(period, c.base).to(dtype))
        text = text.to(dtype)

        def each_frame(x: Tensor) -> Tensor:
            return repeat(x, "b ... -> (b t) ...", t=frames)

        told, text = each_frame(told), each_frame(text)
        mask = None if text_mask is None else each_frame(text_mask)
        x = self.stem(rearrange(z, "b c t h w -> (b t) c h w").to(dtype))
        skips = [x]
        for i, layers in enumerate(self.down):
            for layer in layers:  # type: ignore[attr-defined]
                x = layer(x, told, text, mask, frames)
                skips.append(x)
            if i < len(self.shrink):
                x = self.shrink[i](x, told)
                skips.append(x)
        for layer in self.middle:
            x = layer(x, told, text, mask, frames)
        for i, layers in enumerate(self.up):
            for layer in layers:  # type: ignore[attr-defined]
                x = layer(torch.cat([x, skips.pop()], dim=1), told, text, mask, frames)
            if i < len(self.grow):
                x = self.grow[i](x, told)
        x = self.out(F.silu(self.norm(x)))
        return rearrange(x, "(b t) c h w -> b c t h w", t=frames)
