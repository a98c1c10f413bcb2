"""The parts of CogVideoX's autoencoder, on x `b c t h w`: convolutions that see the past only, and
norms whose statistics are of all frames that are given at once.

An odd number of frames begins with one that stands for itself: halving time leaves it alone, and
so does doubling. That is how 1 + 4n frames become 1 + n latents.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.nn.movq_blocks import GroupNorm

# Convolution → the last two frames that it was given: what it needs to go on in the next chunk.
Past = dict[nn.Module, Tensor]


class CausalConv(nn.Conv3d):
    """A convolution 3 × 3 × 3 over a frame and the two before it. In front of the first frame
    stand two copies of it."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__(width_in, width, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor, past: Past) -> Tensor:  # type: ignore[override]
        before = past[self] if self in past else x[:, :, :1].expand(-1, -1, 2, -1, -1)
        x = torch.cat((before, x), dim=2)
        past[self] = x[:, :, -2:].clone()  # a window would keep all of x alive
        return super().forward(x)


class LatentNorm(nn.Module):
    """GroupNorm(x) · scale(z) + shift(z), with z the latents, enlarged by repetition.

    The norm of MoVQ (`movq_blocks.SpatialNorm`), over time as well. Released code enlarges first
    and convolves then; the two commute, and this way the convolutions run at the size of z.
    """

    def __init__(self, width: int, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(width, groups)
        self.scale = nn.Conv3d(channels, width, 1)
        self.shift = nn.Conv3d(channels, width, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x `b w t h w`, z `b c t' h' w'` → the shape of x."""
        frames, alone = x.shape[2], x.shape[2] % 2
        times = max(frames - alone, 1) // max(z.shape[2] - alone, 1)
        scale, shift = (
            F.interpolate(stretched(part(z), times), size=x.shape[2:])
            for part in (self.scale, self.shift)
        )
        return torch.addcmul(shift, self.norm(x), scale)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))))))"""

    def __init__(self, width_in: int, width: int, groups: int, channels: int | None) -> None:
        super().__init__()
        self.norm1 = norm(width_in, groups, channels)
        self.conv1 = CausalConv(width_in, width)
        self.norm2 = norm(width, groups, channels)
        self.conv2 = CausalConv(width, width)
        self.skip = nn.Conv3d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, z: tuple[Tensor, ...], past: Past) -> Tensor:
        """z: the latents in a tuple, or an empty one."""
        y = self.conv1(F.silu(self.norm1(x, *z)), past)
        y = self.conv2(F.silu(self.norm2(y, *z)), past)
        return self.skip(x) + y


def norm(width: int, groups: int, channels: int | None) -> nn.Module:
    """A norm that looks at latents of `channels`, or a plain one."""
    return GroupNorm(width, groups) if channels is None else LatentNorm(width, channels, groups)


class Down(nn.Conv2d):
    """Half the rows and columns, by a convolution of each frame; half the frames, if `over_time`,
    by the mean of every two."""

    def __init__(self, width: int, over_time: bool) -> None:
        super().__init__(width, width, 3, stride=2)
        self.over_time = over_time

    def forward(self, x: Tensor) -> Tensor:
        if self.over_time:
            alone = x.shape[2] % 2
            pairs = (x[:, :, alone::2] + x[:, :, alone + 1 :: 2]) / 2
            x = torch.cat((x[:, :, :alone], pairs), dim=2)
        y = rearrange(x, "b c t h w -> (b t) c h w")
        y = super().forward(F.pad(y, (0, 1, 0, 1)))
        return rearrange(y, "(b t) c h w -> b c t h w", t=x.shape[2])


class Up(nn.Conv2d):
    """Twice the rows and columns, and frames if `over_time`, by repetition; then a convolution of
    each frame."""

    def __init__(self, width: int, over_time: bool) -> None:
        super().__init__(width, width, 3, padding=1)
        self.over_time = over_time

    def forward(self, x: Tensor) -> Tensor:
        if self.over_time:
            x = stretched(x, 2)
        y = rearrange(x, "b c t h w -> (b t) c h w")
        y = super().forward(F.interpolate(y, scale_factor=2.0))
        return rearrange(y, "(b t) c h w -> b c t h w", t=x.shape[2])


def stretched(x: Tensor, times: int) -> Tensor:
    """Every frame of x `b c t h w` that many times, but for the first of an odd number of them."""
    alone = x.shape[2] % 2
    return torch.cat((x[:, :, :alone], x[:, :, alone:].repeat_interleave(times, dim=2)), dim=2)
