"""A clip as groups: two neighboring keyframes, and the three frames between them.

    clip       b c 4g+1 h w
    keyframes  b c g+1 h w    every fourth frame of the clip, from the first to the last
    between    b c 3g h w     the others, in their order

A packing is how a network sees groups: what is denoised (z), what it is told of the keyframes (the
context), and how the two make its input. It knows neither levels nor networks' sizes.

    grouped   FusionFrames (Arkhipkin et al. 2023): the frames of a group are channels, the time
              axis counts groups. Input [left c, z 3c, right c], output 3c: one pass, three frames
    masked    VideoLDM (Blattmann et al. 2023), the paper's baseline: a group is a clip of five
              frames. Input [z c, keyframes with zeros between c, mask 1], output c: one pass, one
              frame

A context of zeros means that the keyframes are not told, in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor

STRIDE = 4  # frames from one keyframe to the next

Network = Callable[..., Tensor]  # (input, t (b,), **told (b, ...)) -> output


def split(clip: Tensor) -> tuple[Tensor, Tensor]:
    """clip -> keyframes, between."""
    groups = rearrange(clip[:, :, :-1], "b c (g f) h w -> b c g f h w", f=STRIDE)
    between = rearrange(groups[:, :, :, 1:], "b c g f h w -> b c (g f) h w")
    return clip[:, :, ::STRIDE], between


def join(keyframes: Tensor, between: Tensor) -> Tensor:
    """keyframes, between -> clip; no value is changed."""
    groups = rearrange(between, "b c (g f) h w -> b c g f h w", f=STRIDE - 1)
    filled = torch.cat([keyframes[:, :, :-1, None], groups], dim=3)
    filled = rearrange(filled, "b c g f h w -> b c (g f) h w")
    return torch.cat([filled, keyframes[:, :, -1:]], dim=2)


def linear(keyframes: Tensor) -> Tensor:
    """keyframes -> between, by blending neighbors: 3/4 and 1/4, halves, 1/4 and 3/4."""
    left, right = keyframes[:, :, :-1, None], keyframes[:, :, 1:, None]
    share = torch.arange(1, STRIDE, dtype=keyframes.dtype, device=keyframes.device) / STRIDE
    blended = left + share[:, None, None] * (right - left)
    return rearrange(blended, "b c g f h w -> b c (g f) h w")


def finer(times: Tensor) -> Tensor:
    """times (t,) of keyframes -> (4t - 3,) of the clip; those of keyframes stay, to the bit."""
    left, right = times[:-1, None], times[1:, None]
    share = torch.arange(STRIDE, dtype=times.dtype) / STRIDE
    return torch.cat([(left + share * (right - left)).flatten(), times[-1:]])


def frames_after(passes: int, keyframes: int) -> int:
    """How many frames so many keyframes are after some passes: 4T − 3 of T after each."""
    return STRIDE**passes * (keyframes - 1) + 1


class Packing(Protocol):
    """How a network sees groups."""

    def channels(self, c: int) -> tuple[int, int]:
        """Of the network's input and output, for latents of c channels."""

    def shape(self, keyframes: Sequence[int]) -> tuple[int, ...]:
        """Of one sample's z, for keyframes (c, t, h, w)."""

    def pack(self, keyframes: Tensor, between: Tensor) -> Tensor:
        """The z of a clip."""

    def unpack(self, z: Tensor) -> Tensor:
        """The frames between that a z holds."""

    def context(self, keyframes: Tensor) -> Tensor:
        """What the network is told of the keyframes: (b, ...)."""

    def times(self, groups: int, spacing: Tensor) -> Tensor:
        """Seconds of what lies on the network's time axis, (b, n); spacing: (b,) of the frames."""

    def ask(self, network: Network, z: Tensor, t: Tensor, context: Tensor, **told: Any) -> Tensor:
        """The network's output, in z's shape; t: (b,), what else it is told: (b, ...)."""


class Grouped:
    """z: b 3c g h w; context: b 2c g h w, left and right."""

    def channels(self, c: int) -> tuple[int, int]:
        return 5 * c, 3 * c

    def shape(self, keyframes: Sequence[int]) -> tuple[int, ...]:
        c, t, h, w = keyframes
        return (STRIDE - 1) * c, t - 1, h, w

    def pack(self, keyframes: Tensor, between: Tensor) -> Tensor:
        return rearrange(between, "b c (g f) h w -> b (f c) g h w", f=STRIDE - 1)

    def unpack(self, z: Tensor) -> Tensor:
        return rearrange(z, "b (f c) g h w -> b c (g f) h w", f=STRIDE - 1)

    def context(self, keyframes: Tensor) -> Tensor:
        return torch.cat([keyframes[:, :, :-1], keyframes[:, :, 1:]], dim=1)

    def times(self, groups: int, spacing: Tensor) -> Tensor:
        return spacing[:, None] * STRIDE * torch.arange(groups, device=spacing.device)

    def ask(self, network: Network, z: Tensor, t: Tensor, context: Tensor, **told: Any) -> Tensor:
        left, right = context.chunk(2, dim=1)
        return network(torch.cat([left, z, right], dim=1), t, **told)


class Masked:
    """z: b c 5g h w, each group with both of its keyframes; context: b c+1 5g h w."""

    frames = STRIDE + 1

    def channels(self, c: int) -> tuple[int, int]:
        return 2 * c + 1, c

    def shape(self, keyframes: Sequence[int]) -> tuple[int, ...]:
        c, t, h, w = keyframes
        return c, self.frames * (t - 1), h, w

    def pack(self, keyframes: Tensor, between: Tensor) -> Tensor:
        groups = rearrange(between, "b c (g f) h w -> b c g f h w", f=STRIDE - 1)
        left, right = keyframes[:, :, :-1, None], keyframes[:, :, 1:, None]
        groups = torch.cat([left, groups, right], dim=3)
        return rearrange(groups, "b c g f h w -> b c (g f) h w")

    def unpack(self, z: Tensor) -> Tensor:
        groups = rearrange(z, "b c (g f) h w -> b c g f h w", f=self.frames)
        return rearrange(groups[:, :, :, 1:-1], "b c g f h w -> b c (g f) h w")

    def context(self, keyframes: Tensor) -> Tensor:
        b, c, t, h, w = keyframes.shape
        told = torch.cat([keyframes, torch.ones_like(keyframes[:, :1])], dim=1)
        nothing = keyframes.new_zeros(b, c + 1, (STRIDE - 1) * (t - 1), h, w)
        return self.pack(told, nothing)

    def times(self, groups: int, spacing: Tensor) -> Tensor:
        return spacing[:, None] * torch.arange(self.frames, device=spacing.device)

    def ask(self, network: Network, z: Tensor, t: Tensor, context: Tensor, **told: Any) -> Tensor:
        x = rearrange(torch.cat([z, context], 1), "b c (g f) h w -> (b g) c f h w", f=self.frames)
        g = len(x) // len(z)
        told = {name: value.repeat_interleave(g, dim=0) for name, value in told.items()}
        out = network(x, t.repeat_interleave(g), **told)
        return rearrange(out, "(b g) c f h w -> b c (g f) h w", g=g)


PACKINGS: dict[str, Packing] = {"grouped": Grouped(), "masked": Masked()}
