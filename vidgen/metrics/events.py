"""Whether what happens in a clip happens when it should: spans of events against those asked for,
and cuts that nobody asked for.

An event of the reference is matched with one that was found if both have the same words; without
words, if they overlap. Of all ways to match, the one with the most overlap is taken (the most
matches first).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy import ndarray

MOST = 12  # events of one kind in a clip: every way to match them is looked at
BINS = 16  # of a channel's histogram
CUT = 0.3  # of how much two pictures' histograms can differ


@dataclass(frozen=True)
class Span:
    """start and end in seconds; text: a caption or label, empty where there is none."""

    start: float
    end: float
    text: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and self.start < self.end < math.inf):
            raise ValueError(f"an event from {self.start:g} to {self.end:g} s")

    @property
    def words(self) -> str:
        """What has to be equal: case and spaces don't count."""
        return " ".join(self.text.lower().split())


@dataclass(frozen=True)
class EventScores:
    """One clip's.

    matched   pairs of numbers, of the reference's event and the one found for it
    order     share of pairs of reference events, of those that begin one after the other, that
              were both found and begin so; None where no two do
    iou       mean over reference events of the overlap by the union; 0 for what wasn't found
    found     share of reference events that were matched
    right     share of found events that were matched; None where none was found
    start, end, boundary   mean error over matched events, s; boundary: of both ends
    """

    matched: tuple[tuple[int, int], ...]
    order: float | None
    iou: float
    found: float
    right: float | None
    start: float | None
    end: float | None
    boundary: float | None


def overlap(a: Span, b: Span) -> float:
    """Intersection over union of two spans, 0 … 1."""
    both = max(0.0, min(a.end, b.end) - max(a.start, b.start))
    return both / ((a.end - a.start) + (b.end - b.start) - both)


def event_scores(reference: Sequence[Span], found: Sequence[Span]) -> EventScores:
    """ValueError for no reference, or more than 12 events of one kind."""
    if not reference:
        raise ValueError("no events to look for")
    pairs = match(reference, found)
    partner = {i: found[j] for i, j in pairs}
    asked = [
        (i, k)
        for i, a in enumerate(reference)
        for k, b in enumerate(reference)
        if a.start < b.start
    ]
    kept = sum(i in partner and k in partner and partner[i].start < partner[k].start
               for i, k in asked)  # fmt: skip
    ious = [overlap(reference[i], found[j]) for i, j in pairs]
    starts = [abs(reference[i].start - found[j].start) for i, j in pairs]
    ends = [abs(reference[i].end - found[j].end) for i, j in pairs]
    return EventScores(
        pairs,
        kept / len(asked) if asked else None,
        sum(ious) / len(reference),
        len(pairs) / len(reference),
        len(pairs) / len(found) if found else None,
        _mean(starts), _mean(ends), _mean(starts + ends),
    )  # fmt: skip


def match(reference: Sequence[Span], found: Sequence[Span]) -> tuple[tuple[int, int], ...]:
    """Pairs of numbers, by the reference's. If no found event has words, words don't matter."""
    wordless = not any(span.words for span in found) or not any(s.words for s in reference)
    kinds: dict[str, tuple[list[int], list[int]]] = {}
    for which, spans in enumerate((reference, found)):
        for i, span in enumerate(spans):
            kinds.setdefault("" if wordless else span.words, ([], []))[which].append(i)
    pairs: list[tuple[int, int]] = []
    for rows, columns in kinds.values():
        if max(len(rows), len(columns)) > MOST:
            raise ValueError(f"more than {MOST} events of one kind in a clip")
        pairs += _best(reference, found, rows, columns, must_overlap=wordless)
    return tuple(sorted(pairs))


def _best(
    reference: Sequence[Span], found: Sequence[Span], rows: list[int], columns: list[int],
    *, must_overlap: bool,
) -> list[tuple[int, int]]:  # fmt: skip
    """The most matches, then the most overlap, then the nearest beginnings, then the first."""

    def worth(i: int, j: int) -> tuple[float, float, float]:
        a, b = reference[i], found[j]
        return 1.0, overlap(a, b), -abs(a.start - b.start)

    @cache
    def best(row: int, taken: int) -> tuple[tuple[float, float, float], tuple[int | None, ...]]:
        if row == len(rows):
            return (0.0, 0.0, 0.0), ()
        value, rest = best(row + 1, taken)
        choice: tuple[tuple[float, float, float], tuple[int | None, ...]] = value, (None, *rest)
        for k, j in enumerate(columns):
            if taken >> k & 1 or (must_overlap and not overlap(reference[rows[row]], found[j])):
                continue
            value, rest = best(row + 1, taken | 1 << k)
            own = worth(rows[row], j)
            total = (own[0] + value[0], own[1] + value[1], own[2] + value[2])
            if total > choice[0]:
                choice = total, (j, *rest)
        return choice

    _, chosen = best(0, 0)
    return [(i, j) for i, j in zip(rows, chosen, strict=True) if j is not None]


def cuts(frames: ndarray, threshold: float = CUT) -> list[int]:
    """Frames of a clip, uint8 `t h w 3`, that a new shot begins with: their colors are spread
    otherwise than those of the frame before, by more than `threshold` of what is possible."""
    return [i + 1 for i, apart in enumerate(histogram_steps(frames)) if apart > threshold]


def histogram_steps(frames: ndarray) -> ndarray:
    """How much the histograms of neighbors differ, `t−1`, 0 … 1: half of the sum of absolute
    differences of shares, the mean of red, green and blue. Each histogram is smeared over its
    neighbors first, so that a change of light by a level or two is small."""
    shares = np.stack([_histograms(frame) for frame in frames])
    return np.abs(np.diff(shares, axis=0)).sum(axis=2).mean(axis=1) / 2


def _histograms(frame: ndarray) -> ndarray:
    """Shares of pixels, `3 bins`, each pixel linearly between the two nearest bins."""
    place = frame.reshape(-1, 3).astype(np.float64) / 255 * (BINS - 1)
    low = np.minimum(place.astype(int), BINS - 2)
    high_share = place - low
    found = np.zeros((3, BINS))
    for channel in range(3):
        column, share = low[:, channel], high_share[:, channel]
        found[channel] += np.bincount(column, 1 - share, BINS)
        found[channel] += np.bincount(column + 1, share, BINS)
    return found / len(place)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
