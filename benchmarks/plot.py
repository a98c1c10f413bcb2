"""Lines with intervals as PNG, drawn with Pillow: what the studies in docs/ are shown with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vidgen.train.plot import linear_ticks

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 130, 28, 44  # margins, pixels
COLORS = (
    "#1f5fa8", "#c8552b", "#3c8d40", "#8a4fa3", "#a3842b", "#2b9a9a", "#777777", "#d6336c",
    "#94b31a",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A measure at `x`, and its interval where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


def plot_lines(
    lines: Mapping[str, Sequence[Point]],
    path: Path,
    *,
    title: str,
    x_label: str,
    y_range: tuple[float, float] | None = None,
    percent: bool = False,
    x_ticks: Sequence[float] = (),
) -> None:
    """One line a name, in the order given; `percent`: y is a share. The axes are linear and hold
    every point; `y_range` widens the second one."""
    points = [p for line in lines.values() for p in line]
    xs = [p.x for p in points]
    ys = [y for p in points for y in (p.y, p.low, p.high) if y is not None and math.isfinite(y)]
    low, high = y_range or (min(ys), max(ys))
    low, high = min(low, *ys), max(high, *ys)
    left, right = min(0.0, *xs), max(xs)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default()

    def place(x: float, y: float) -> tuple[float, float]:
        u = (x - left) / max(right - left, 1e-9)
        v = (y - low) / max(high - low, 1e-9)
        return LEFT + u * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - v * (HEIGHT - TOP - BOTTOM)

    for y in linear_ticks(low, high):
        _, py = place(left, y)
        draw.line([(LEFT, py), (WIDTH - RIGHT, py)], fill="#e4e4e4")
        said = f"{100 * y:.0f} %" if percent else f"{y:.3g}"
        draw.text((LEFT - 8, py), said, fill="#222222", font=font, anchor="rm")
    for x in x_ticks or linear_ticks(left, right):
        px, _ = place(x, low)
        draw.text((px, HEIGHT - BOTTOM + 6), f"{x:g}", fill="#222222", font=font, anchor="mt")
    for n, (name, line) in enumerate(lines.items()):
        color = COLORS[n % len(COLORS)]
        ordered = sorted(line, key=lambda p: p.x)
        for p in ordered:
            if p.low is not None and p.high is not None:
                # A little beside each other, so that none hides another.
                (px, y0), (_, y1) = place(p.x, p.low), place(p.x, p.high)
                draw.line([(px + n - 1, y0), (px + n - 1, y1)], fill=color)
        places = [place(p.x, p.y) for p in ordered]
        draw.line(places, fill=color, width=2)
        for px, py in places:
            draw.ellipse([px - 3, py - 3, px + 3, py + 3], fill=color)
        draw.text((WIDTH - RIGHT + 12, TOP + 16 * n), name, fill=color, font=font)
    draw.rectangle([LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM], outline="#222222")
    draw.text((LEFT, TOP - 8), title, fill="#222222", font=font, anchor="lb")
    draw.text((WIDTH - RIGHT, HEIGHT - 8), x_label, fill="#222222", font=font, anchor="rb")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
