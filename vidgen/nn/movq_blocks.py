"""The parts of a MoVQ decoder: over pictures (arXiv 2209.09002) and over time (arXiv 2311.13073).

Frames lie along the batch axis, `n = b·t`, and every part is called alike: `part(x, z, frames)`
with x `n c h w`, the latents z `n c' h' w'` and the number of frames t of one clip. A part over
time changes nothing before it is trained, so that a new video decoder equals its image decoder.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.nn.attention import attend
from vidgen.nn.autoencoder import PixelNorm

EPS = 1e-6

Layer = TypeVar("Layer", bound=nn.Module)
Conv = Literal["conv1d", "conv3d"]  # 3 × 1 × 1, 3 × 3 × 3


class GroupNorm(nn.GroupNorm):
    """torch's, whose gradient in channels-last on a CPU ends in a segmentation fault where x wants
    none itself (2.13): so x always wants one."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__(groups, width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and self.weight.requires_grad and not x.requires_grad:
            x = x.detach().requires_grad_()
        return super().forward(x)


class SpatialNorm(nn.Module):
    """norm(x) · scale(z) + shift(z), with z the latents, enlarged to the size of x by repetition
    (MoVQ §3.2; there is no 1 + in front of the scale). The norm is over `groups` of channels, as
    published, or, where there are None, over the channels of each pixel.

    A 1 × 1 convolution and a repetition commute: the convolutions run at the size of z. A new norm
    has scale near one and shift near zero, which is our choice.
    """

    def __init__(self, width: int, channels: int, groups: int | None) -> None:
        super().__init__()
        self.norm = GroupNorm(width, groups) if groups else PixelNorm(width)
        self.scale = nn.Conv2d(channels, width, 1)
        self.shift = nn.Conv2d(channels, width, 1)
        nn.init.ones_(self.scale.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.shift.bias)  # type: ignore[arg-type]

    def look_away(self) -> None:
        """Begin as the norm alone, whatever the latents."""
        for part in (self.scale, self.shift):
            nn.init.zeros_(part.weight)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x `n w h w`, z `n c h' w'` → the shape of x."""
        size = x.shape[-2:]
        scale, shift = (F.interpolate(part(z), size=size) for part in (self.scale, self.shift))
        return torch.addcmul(shift, self.norm(x), scale)


class FrameConv(nn.Conv2d):
    """A convolution 3 × 3 on x `(b t) c h w`, a frame at a time."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(width_in, width, 3, padding=1)

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class TimeConv(nn.Conv2d):
    """A convolution 3 × 1 × 1 on x `(b t) c h w`: as a 2-D one over frames and pixels, which takes
    a third of the time of the 3-D one on a CPU."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        x_time = rearrange(x, "(b t) c h w -> b c t (h w)", t=frames)
        y = F.conv2d(x_time, weight, self.bias, padding=self.padding)
        return rearrange(y, "b c t (h w) -> (b t) c h w", h=x.shape[2])


class SpaceTimeConv(nn.Conv3d):
    """A convolution 3 × 3 × 3 on x `(b t) c h w`."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(width_in, width, 3, padding=1)

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        y = super().forward(rearrange(x, "(b t) c h w -> b c t h w", t=frames))
        return rearrange(y, "b c t h w -> (b t) c h w")


class Gated(nn.Module):
    """x + gate · (conv(x) − x), with gate and kernel zero at first.

    As equation 3 is written, x + gate · conv(x), both would be without a gradient for ever; here
    that of the gate is conv(x) − x.
    """

    def __init__(self, width: int, kind: Conv) -> None:
        super().__init__()
        self.conv = _zeroed(TimeConv(width) if kind == "conv1d" else SpaceTimeConv(width, width))
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        return torch.lerp(x, self.conv(x, frames).to(x.dtype), self.gate.to(x.dtype))


def _zeroed(layer: Layer) -> Layer:
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


class ResBlock(nn.Module):
    """skip(x) + time2(conv2(silu(norm2(time1(conv1(silu(norm1(x)))))))); skip is 1 × 1 where the
    width changes.

    groups    of the norms; None: norms pixel by pixel, and no norm2
    time      the convolutions over time, None for none
    inflated  the block's own convolutions are 3 × 3 × 3
    """

    def __init__(
        self, width_in: int, width: int, channels: int, groups: int | None,
        *, time: Conv | None = None, inflated: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1 = SpatialNorm(width_in, channels, groups)
        self.norm2 = SpatialNorm(width, channels, groups) if groups else None
        conv = SpaceTimeConv if inflated else FrameConv
        self.conv1 = conv(width_in, width)
        self.conv2 = _zeroed(conv(width, width))  # a new block is its skip
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        self.time1, self.time2 = (Gated(width, time) if time else None for _ in range(2))

    def forward(self, x: Tensor, z: Tensor, frames: int) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x, z)), frames)
        if self.time1 is not None:
            h = self.time1(h, frames)
        if self.norm2 is not None:
            h = self.norm2(h, z)
        h = self.conv2(F.silu(h), frames)
        if self.time2 is not None:
            h = self.time2(h, frames)
        return self.skip(x) + h


class TimeBlock(nn.Module):
    """x + conv2(silu(norm2(conv1(silu(norm1(x)))))) with convolutions 3 × 1 × 1 over time."""

    def __init__(self, width: int, channels: int, groups: int | None) -> None:
        super().__init__()
        self.norm1 = SpatialNorm(width, channels, groups)
        self.norm2 = SpatialNorm(width, channels, groups)
        self.conv1 = TimeConv(width)
        self.conv2 = _zeroed(TimeConv(width))

    def forward(self, x: Tensor, z: Tensor, frames: int) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x, z)), frames)
        return x + self.conv2(F.silu(self.norm2(h, z)), frames)


class _Heads(nn.Module):
    """The four projections of attention with one head, as 1 × 1 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def mixed(self, h: Tensor, frames: int, apart: str) -> Tensor:
        """h `(b t) c h w` → the same; `apart` is the einops pattern in which the last but one axis
        attends to itself."""
        sizes = {"t": frames, "h": h.shape[2], "w": h.shape[3]}
        q, k, v = (
            rearrange(part(h), f"(b t) c h w -> {apart}", **sizes)
            for part in (self.q, self.k, self.v)
        )
        return self.out(rearrange(attend(q, k, v), f"{apart} -> (b t) c h w", **sizes))


class Attention(_Heads):
    """Pixels of a frame attend to each other: x + out(attention(norm(x)))."""

    def __init__(self, width: int, channels: int, groups: int | None) -> None:
        super().__init__(width)
        self.norm = SpatialNorm(width, channels, groups)

    def forward(self, x: Tensor, z: Tensor, frames: int) -> Tensor:
        return x + self.mixed(self.norm(x, z), frames, "b t (h w) c")


class TimeAttention(_Heads):
    """A pixel attends to the same pixel of all frames. Frames have no positions, and the norm does
    not look at the latents: so it is in the authors' code."""

    def __init__(self, width: int, groups: int | None) -> None:
        super().__init__(width)
        self.norm = GroupNorm(width, groups) if groups else PixelNorm(width)
        _zeroed(self.out)

    def forward(self, x: Tensor, z: Tensor, frames: int) -> Tensor:
        return x + self.mixed(self.norm(x), frames, "b (h w) t c")


class Upsample(nn.Module):
    """Twice as high and wide by repetition, then a 3 × 3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, z: Tensor, frames: int) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0))


class ShuffleUp(nn.Module):
    """A 3 × 3 convolution to four times the channels, which become 2 × 2 pixels."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, 4 * width, 3, padding=1)

    def forward(self, x: Tensor, z: Tensor, frames: int) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)
