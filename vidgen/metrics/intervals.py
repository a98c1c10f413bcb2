"""How sure one can be of a share that was counted, and of two that differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

Z = 1.959963984540054  # of a two-sided interval of 95 %


@dataclass(frozen=True)
class Share:
    """`right` of `of`, with its Wilson interval (Wilson 1927) of 95 %."""

    right: int
    of: int

    @property
    def share(self) -> float:
        """NaN of nothing."""
        return self.right / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high end; 0 … 1 of nothing."""
        if not self.of:
            return 0.0, 1.0
        n, p = self.of, self.share
        middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        return max(0.0, middle - half), min(1.0, middle + half)

    def to_dict(self) -> dict[str, float | int]:
        low, high = self.interval
        return {"right": self.right, "of": self.of, "share": self.share, "low": low, "high": high}


@dataclass(frozen=True)
class Paired:
    """Two on the same trials: how many both got right, only the first, only the second, none."""

    both: int
    first: int
    second: int
    neither: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> Paired:
        """What each got right, trial by trial."""
        counts = Counter(zip(first, second, strict=True))
        return cls(
            counts[True, True], counts[True, False], counts[False, True], counts[False, False]
        )

    @property
    def p(self) -> float:
        """How likely two equally good ones differ by so much or more: McNemar's test (1947), exact
        and two-sided. Only trials tell that one of them alone got right: a fair coin for each."""
        n = self.first + self.second
        term = total = 1  # ways to choose k of n, and their sum
        for k in range(min(self.first, self.second)):
            term = term * (n - k) // (k + 1)
            total += term
        return min(1.0, 2 * total / 2**n)
