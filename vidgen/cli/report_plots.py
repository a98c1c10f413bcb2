"""Plots of a report's page, as SVG without a library: a histogram, and curves over one x."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vidgen.cli.console import printable
from vidgen.cli.report_text import shown

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 58, 20, 12, 38
COLORS = ("#3b76c4", "#d1622b", "#3c9150", "#9457b0", "#b58a1b", "#b9475d")
MOST_BINS = 30
_AXIS = 'fill="none" stroke="currentColor"'


def text(x: object) -> str:
    """Anything as text of HTML or SVG, and as the value of an attribute in quotes."""
    return html.escape(printable(str(x)))


@dataclass(frozen=True)
class Axis:
    """Values from low to high, along pixels from start to end (which may run backwards)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return round(self.start + part * (self.end - self.start), 2)

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> Axis:
        """Of values that are all the same, a little more to either side."""
        low, high = min(values), max(values)
        size = max(abs(low), abs(high))
        if high - low <= max(1e-9 * size, 1e-300):
            room = size / 10 if size > 1e-290 else 1.0
            low, high = low - room, high + room
        return cls(low, high, start, end)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values within: 1, 2 or 5 times a power of ten apart."""
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def drawable(x: float) -> bool:
    """Whether a plot can show it: neither infinite nor NaN, nor so large that sums of it are."""
    return abs(x) < 1e300


def bins(values: Sequence[float]) -> tuple[list[float], list[int]]:
    """Edges and counts of as many bins of one width as the root of the number of values, at most
    30; the last holds its right edge too."""
    low, high = min(values), max(values)
    count = min(MOST_BINS, math.ceil(math.sqrt(len(values)))) if high > low else 1
    counts = [0] * count
    for value in values:
        share = (value - low) / (high - low) if high > low else 0.0
        counts[min(count - 1, int(share * count))] += 1
    return [low + (high - low) * i / count for i in range(count + 1)], counts


def histogram(values: Sequence[float], name: str, mark: float | None = None) -> str:
    """How often which value: at least one of them, all drawable. `mark`: a line, where the score of
    all is."""
    edges, counts = bins(values)
    inside = mark is not None and drawable(mark)
    x = Axis.over([*edges, mark] if inside and mark is not None else edges, LEFT, WIDTH - RIGHT)
    y = Axis(0, max(counts), HEIGHT - BOTTOM, TOP)
    least = 6.0 if len(counts) == 1 else 1.0  # pixels of a bar
    bars = [
        f'<rect x="{x(a):g}" y="{y(n):g}" width="{max(least, x(b) - x(a) - 1):g}"'
        f' height="{y(0) - y(n):g}" fill="{COLORS[0]}"><title>{text(shown(a))} … {text(shown(b))}:'
        f" {n}</title></rect>"
        for a, b, n in zip(edges, edges[1:], counts, strict=False)
        if n
    ]
    if inside and mark is not None:
        bars.append(
            f'<line stroke="{COLORS[1]}" stroke-width="2" x1="{x(mark):g}" x2="{x(mark):g}"'
            f' y1="{TOP}" y2="{HEIGHT - BOTTOM}"><title>score {text(shown(mark))}</title></line>'
        )
    whole = [tick for tick in y.ticks() if tick == int(tick)]
    return _figure(x, y, name, f"histogram of {name}, {len(values)} clips", bars, y_ticks=whole)


def curves(x_name: str, xs: Sequence[float], lines: Mapping[str, Sequence[float]]) -> str:
    """Lines over the same x. Where a value can't be drawn the line has a gap."""
    heights = [v for ys in lines.values() for v in ys if drawable(v)]
    x = Axis.over([v for v in xs if drawable(v)] or [0.0], LEFT, WIDTH - RIGHT)
    y = Axis.over(heights or [0.0], HEIGHT - BOTTOM, TOP)
    drawn = []
    for i, (name, ys) in enumerate(lines.items()):
        color = COLORS[i % len(COLORS)]
        for part in _unbroken(xs, ys):
            points = " ".join(f"{x(a):g},{y(b):g}" for a, b in part)
            drawn.append(f'<polyline points="{points}" fill="none" stroke="{color}"/>')
            drawn += [
                f'<circle cx="{x(a):g}" cy="{y(b):g}" r="2.5" fill="{color}">'
                f"<title>{text(name)}: {text(shown(a))}, {text(shown(b))}</title></circle>"
                for a, b in part
            ]
        drawn.append(
            f'<text x="{WIDTH - RIGHT - 4}" y="{TOP + 10 + 13 * i}" text-anchor="end"'
            f' fill="{color}">{text(name)}</text>'
        )
    return _figure(x, y, x_name, f"{', '.join(lines)} over {x_name}", drawn)


def _unbroken(xs: Sequence[float], ys: Sequence[float]) -> list[list[tuple[float, float]]]:
    """Runs of points that can be drawn."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in zip(xs, ys, strict=True):
        if all(map(drawable, point)):
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _figure(
    x: Axis,
    y: Axis,
    x_name: str,
    title: str,
    drawn: Sequence[str],
    y_ticks: Sequence[float] | None = None,
) -> str:
    """Axes with ticks, and what is drawn between them."""
    floor, middle = HEIGHT - BOTTOM, (LEFT + WIDTH - RIGHT) / 2
    axes = [f'<path {_AXIS} d="M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}"/>']
    axes += [
        f'<path {_AXIS} d="M{x(v):g} {floor}v4"/>'
        f'<text x="{x(v):g}" y="{floor + 16}" text-anchor="middle">{shown(v)}</text>'
        for v in x.ticks()
    ]
    axes += [
        f'<path {_AXIS} stroke-opacity=".2" d="M{LEFT} {y(v):g}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{y(v) + 4:g}" text-anchor="end">{shown(v)}</text>'
        for v in (y.ticks() if y_ticks is None else y_ticks)
    ]
    axes.append(f'<text x="{middle:g}" y="{HEIGHT - 5}" text-anchor="middle">{text(x_name)}</text>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img"'
        f' font-size="11" fill="currentColor"'
        f' aria-label="{text(title)}">' + "".join([*axes, *drawn]) + "</svg>"
    )
