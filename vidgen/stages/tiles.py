"""Decoding a clip tile by tile, where one chunk of whole frames is too much.

Tiles overlap by a quarter and are blended there, with weights that rise and fall linearly. That is
an approximation: a decoder sees beyond a tile's edge, its attention and norms the whole frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vidgen.errors import UsageError

LEAST = 4  # latents of a side


@dataclass(frozen=True)
class Tiles:
    """Tiles of so many latents, each of `stride` × `stride` pixels."""

    rows: int
    columns: int
    stride: int

    @classmethod
    def of(cls, width: int, height: int, stride: int) -> Tiles:
        """Of so many pixels. UsageError for sides that aren't whole latents, or too few."""
        if width % stride or height % stride or min(width, height) < LEAST * stride:
            near = [max(round(side / stride), LEAST) * stride for side in (width, height)]
            raise UsageError(
                f"--tile {width}x{height}: sides of a tile are multiples of {stride} pixels, at"
                f" least {LEAST * stride}",
                next=f"--tile {near[0]}x{near[1]}",
            )
        return cls(height // stride, width // stride, stride)

    def count(self, h: int, w: int) -> int:
        """How many there are of latents `h w`."""
        return len(_starts(h, self.rows)) * len(_starts(w, self.columns))

    def in_words(self) -> str:
        """For warning and log."""
        s = self.stride
        overlap = (_overlap(self.columns) * s, _overlap(self.rows) * s)
        return (
            f"decoded in tiles of {self.columns * s}x{self.rows * s} pixels that overlap by"
            f" {overlap[0]}x{overlap[1]} and are blended: not what the whole frame would be"
        )

    def decoded(
        self,
        latents: Tensor,
        decode: Callable[[Tensor], Iterable[Tensor]],
        step: Callable[[int, int], None] = lambda done, total: None,
    ) -> Tensor:
        """latents `c t h w` → frames `3 t' H W`, float32, on the CPU.

        decode  latents → its chunks of frames `3 t H W`
        step    is told how many tiles are done, and of how many
        """
        _, _, h, w = latents.shape
        s, done, count = self.stride, 0, self.count(h, w)
        total, weights = None, torch.zeros(h * s, w * s)
        for top in _starts(h, self.rows):
            for left in _starts(w, self.columns):
                tile = latents[:, :, top : top + self.rows, left : left + self.columns]
                rows, columns = tile.shape[2:]
                ramp = _ramp(top, rows, h, self.rows, s)[:, None]
                ramp = ramp * _ramp(left, columns, w, self.columns, s)
                frames = torch.cat([chunk.float().cpu() for chunk in decode(tile)], dim=1)
                if total is None:
                    total = torch.zeros(*frames.shape[:2], h * s, w * s)
                at = (..., slice(top * s, (top + rows) * s), slice(left * s, (left + columns) * s))
                total[at] += frames.mul_(ramp)
                weights[at] += ramp
                done += 1
                step(done, count)
        assert total is not None
        return total.div_(weights)


def _overlap(tile: int) -> int:
    return max(tile // 4, 1)


def _starts(total: int, tile: int) -> list[int]:
    """Where tiles begin, evenly; the last ends with the whole."""
    if tile >= total:
        return [0]
    least = _overlap(tile)
    gaps = -((least - total) // (tile - least)) - 1
    return [i * (total - tile) // gaps for i in range(gaps + 1)]


def _ramp(start: int, size: int, total: int, tile: int, stride: int) -> Tensor:
    """What a tile's rows (or columns) of pixels count: less towards an edge that has a neighbor."""
    n = _overlap(tile) * stride
    rise = (torch.arange(size * stride) + 0.5) / n
    ramp = torch.ones(size * stride)
    if start > 0:
        ramp = torch.minimum(ramp, rise)
    if start + size < total:
        ramp = torch.minimum(ramp, rise.flip(0))
    return ramp
