"""A long clip in chunks of frames that overlap: bounded memory, no visible border."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chunks:
    """How clips are cut.

    size   frames of a chunk
    reach  how many frames away one frame changes another; None: any number

    A chunk longer than twice the reach is right in its middle, and middles are put side by side:
    nothing tells that there were chunks. Otherwise half of each chunk overlaps the next, and the
    two are blended, linearly.
    """

    size: int
    reach: int | None

    def exact(self, total: int) -> bool:
        """Whether `total` frames come out as they would in one piece."""
        return total <= self.size or self._side_by_side

    @property
    def _side_by_side(self) -> bool:
        return self.reach is not None and self.size > 2 * self.reach

    @property
    def overlap(self) -> int:
        """Frames that a chunk shares with the next."""
        if self.reach is not None and self._side_by_side:
            return 2 * self.reach
        return self.size // 2

    def spans(self, total: int) -> list[tuple[int, int]]:
        """First frame of each chunk, and the one after its last."""
        step = self.size - self.overlap
        firsts = range(0, max(1, total - self.overlap), step)
        return [(first, min(total, first + self.size)) for first in firsts]

    def weights(self) -> Tensor:
        """Of the later chunk, frame by frame, where two overlap."""
        place = torch.arange(self.overlap) + 1
        if self._side_by_side:
            return (place > self.overlap // 2).float()
        return place / (self.overlap + 1)

    def smaller(self) -> Chunks:
        """Half as large, but exact for as long as that can be."""
        half = self.size // 2
        least = 1 if self.reach is None else 2 * self.reach + 1
        return Chunks(max(half, least) if self.size > least else half, self.reach)

    def in_words(self) -> str:
        """What a log says of a clip that was blended."""
        return f"blended chunks of {self.size} frames"


def in_chunks(x: Tensor, call: Callable[[Tensor], Tensor], chunks: Chunks) -> Iterator[Tensor]:
    """x `c t …` → parts of call(x) `c' t …`, in their order, where `call` keeps the frames."""
    total, overlap = x.shape[1], chunks.overlap
    tail: Tensor | None = None
    for first, end in chunks.spans(total):
        made = call(x[:, first:end])
        if tail is not None and overlap:
            weights = chunks.weights().to(made)[:, None, None]
            made[:, :overlap] = tail.lerp(made[:, :overlap], weights)
        kept = made.shape[1] - (overlap if end < total else 0)
        yield made[:, :kept]
        tail = made[:, kept:].clone()
