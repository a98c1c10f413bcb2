"""Parts of the causal autoencoder: nothing here looks at a later frame.

What a chunk needs of the chunks before it is in `Past`. A clip in one piece is a clip of one chunk,
so that both take the same path.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from vidgen.nn.attention import attend


class Past:
    """The last frames that each convolution over time has seen, and whether any were."""

    def __init__(self) -> None:
        self.first = True  # the chunk begins with the clip's first frame
        self.frames: dict[nn.Module, Tensor] = {}


class CausalConv(nn.Conv3d):
    """A convolution whose kernel ends at the frame it makes; before the clip there are zeros.

    Its kernel's size is odd in space, where it is padded to keep the size.
    """

    def __init__(self, width_in: int, width: int, kernel: tuple[int, int, int]) -> None:
        _, rows, columns = kernel
        super().__init__(width_in, width, kernel, padding=(0, rows // 2, columns // 2))

    def continued(self, x: Tensor, past: Past) -> Tensor:
        """x `b c t h w`, of the same t."""
        reach = self.kernel_size[0] - 1
        before = past.frames.get(self)
        if before is None:
            before = x.new_zeros(*x.shape[:2], reach, *x.shape[3:])
        x = torch.cat((before, x), dim=2)
        past.frames[self] = x[:, :, -reach:].clone()
        return self(x)


class ChannelNorm(nn.Module):
    """Root-mean-square normalisation over the channels of each place, float32, and a gain."""

    def __init__(self, width: int, axes: int) -> None:
        """`axes`: how many there are behind the channels."""
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width, *(1,) * axes))

    def forward(self, x: Tensor) -> Tensor:
        y = F.normalize(x.float(), dim=1).to(x.dtype)
        return y * x.shape[1] ** 0.5 * self.gain


class ResBlock(nn.Module):
    """Twice norm, SiLU and convolution, around which x goes by."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(width_in, 3), ChannelNorm(width, 3)
        self.conv1 = CausalConv(width_in, width, (3, 3, 3))
        self.conv2 = CausalConv(width, width, (3, 3, 3))
        self.skip = nn.Identity() if width_in == width else nn.Conv3d(width_in, width, 1)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        y = self.conv1.continued(F.silu(self.norm1(x)), past)
        y = self.conv2.continued(F.silu(self.norm2(y)), past)
        return self.skip(x) + y


class FrameAttention(nn.Module):
    """One head, over the places of each frame for itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width, 2)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, _, h, _ = x.shape
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        qkv = self.qkv(self.norm(frames))
        q, k, v = rearrange(qkv, "n (three c) h w -> three n 1 (h w) c", three=3)
        y = rearrange(attend(q, k, v), "n 1 (h w) c -> n c h w", h=h)
        return x + rearrange(self.out(y), "(b t) c h w -> b c t h w", b=b)


class Middle(nn.Module):
    """Between the levels and the latents, in the encoder as in the decoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block1, self.block2 = ResBlock(width, width), ResBlock(width, width)
        self.attention = FrameAttention(width)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        return self.block2(self.attention(self.block1(x, past)), past)


class Down(nn.Module):
    """Half the rows and columns, and, if `time`, every other frame, counted from the first, which
    stays for itself: 1 + 2k → 1 + k."""

    def __init__(self, width: int, *, time: bool) -> None:
        super().__init__()
        self.space = nn.Conv2d(width, width, 3, stride=2)
        self.time = nn.Conv3d(width, width, (3, 1, 1), stride=(2, 1, 1)) if time else None

    def forward(self, x: Tensor, past: Past) -> Tensor:
        b = len(x)
        frames = F.pad(rearrange(x, "b c t h w -> (b t) c h w"), (0, 1, 0, 1))
        x = rearrange(self.space(frames), "(b t) c h w -> b c t h w", b=b)
        if self.time is None:
            return x
        if past.first:
            whole, parts = x, [x[:, :, :1]]
        else:
            whole, parts = torch.cat((past.frames[self], x), dim=2), []
        past.frames[self] = x[:, :, -1:].clone()
        if whole.shape[2] > 1:
            parts.append(self.time(whole))
        return torch.cat(parts, dim=2)


class Up(nn.Module):
    """Twice the rows and columns, and, if `time`, two frames of each but the first: 1 + k → 1 + 2k.

    To what doubles the others the first frame is not known: it takes zeros for it (as released).
    """

    def __init__(self, width_in: int, width: int, *, time: bool) -> None:
        super().__init__()
        self.time = CausalConv(width_in, 2 * width_in, (3, 1, 1)) if time else None
        self.space = nn.Conv2d(width_in, width, 3, padding=1)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        if self.time is not None:
            kept = x[:, :, :1] if past.first else x[:, :, :0]
            x = x[:, :, kept.shape[2] :]
            if x.shape[2]:
                x = self.time.continued(x, past)
                x = rearrange(x, "b (two c) t h w -> b c (t two) h w", two=2)
            x = torch.cat((kept, x), dim=2)
        b = len(x)
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        frames = F.interpolate(frames, scale_factor=2, mode="nearest-exact")
        return rearrange(self.space(frames), "(b t) c h w -> b c t h w", b=b)


def folded(x: Tensor, width: int, time: int, space: int) -> Tensor:
    """The shortcut beside a level of the 2.2 encoder: each `time`×`space`×`space` cell onto the
    channels, and means of these down to `width`. Zeros come before the first frame."""
    x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % time, 0))
    x = rearrange(
        x, "b c (t ft) (h fh) (w fw) -> b (c ft fh fw) t h w", ft=time, fh=space, fw=space
    )
    return reduce(x, "b (c g) t h w -> b c t h w", "mean", c=width)


def unfolded(x: Tensor, width: int, time: int, *, first: bool) -> Tensor:
    """The shortcut beside a level of the 2.2 decoder: channels repeated, then spread over a cell of
    `time` frames, two rows and two columns. `first`: x begins the clip, and its first frame makes
    one frame."""
    x = repeat(x, "b c t h w -> b (c g) t h w", g=4 * time * width // x.shape[1])
    x = rearrange(x, "b (c ft fh fw) t h w -> b c (t ft) (h fh) (w fw)", ft=time, fh=2, fw=2)
    return x[:, :, time - 1 :] if first else x
