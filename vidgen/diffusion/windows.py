"""Clips longer, or at a higher rate, than a network makes them: which frames it makes next, and
which ones it is given (Ho et al. 2022, Video Diffusion Models, §3.1 and Fig. 2; Snap Video,
Menapace et al. 2024, app. C.5).

First the clip grows at its own rate, a window after the other, each beginning with the last frames
of what is there. Then its rate is multiplied, a prime factor after the other: windows hold frames
that are known, and those between are made. So everything is conditioned on all that it touches.
"""

from __future__ import annotations

from typing import NamedTuple


class Window(NamedTuple):
    """Frames that a network makes in one run of sampling."""

    first: int  # its place in the clip
    known: tuple[bool, ...]  # whether each of its frames is there already
    kept: int  # so many of them stay; what lies behind the last known frame is made anew later

    @property
    def new(self) -> int:
        """Frames that the clip gains."""
        return self.kept - sum(self.known[: self.kept])


def onwards(have: int, wanted: int, size: int, overlap: int) -> list[Window]:
    """The windows of `size` frames that make a clip of `have` frames `wanted` long. Each begins
    with `overlap` frames that are known; the last one with more, if it would reach too far.
    ValueError for a clip shorter than a window, or an overlap that leaves nothing to be made."""
    if wanted < size or not 0 < overlap < size:
        raise ValueError(f"windows of {size} that overlap by {overlap}, in a clip of {wanted}")
    windows = []
    while have < wanted:
        first = min(max(have - overlap, 0), wanted - size)
        windows.append(Window(first, tuple(first + i < have for i in range(size)), size))
        have = first + size
    return windows


def between(count: int, factor: int, size: int) -> list[Window]:
    """The windows of `size` frames that make factor·(count − 1) + 1 frames of `count`, which have
    the places 0, factor, 2·factor, … of the new clip. A window ends with a frame that was known, or
    what lies behind that is not kept: nothing is made that doesn't know what follows it.
    ValueError for a clip shorter than a window, or windows that don't reach the next known frame.
    """
    total = factor * (count - 1) + 1
    if total < size or not 1 < factor < size:
        raise ValueError(f"{factor} times {count} frames, in windows of {size}")
    stride = (size - 1) // factor * factor
    known = [i % factor == 0 for i in range(total)]
    windows = []
    for begin in range(0, total - 1, stride):
        end = min(begin + stride, total - 1) + 1
        first = min(begin, total - size)
        windows.append(Window(first, tuple(known[first : first + size]), end - first))
        known[begin:end] = [True] * (end - begin)
    return windows


def prime_factors(n: int) -> list[int]:
    """In order, the smallest first."""
    found, p = [], 2
    while n > 1:
        while n % p == 0:
            found.append(p)
            n //= p
        p += 1
    return found
