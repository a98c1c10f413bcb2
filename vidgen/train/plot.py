"""A loss curve as PNG, drawn with Pillow: log scale, labeled axes, nothing else to install."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 28, 40  # margins, pixels
INK, GRID, FAINT, LINE, DOT = "#222222", "#e4e4e4", "#b9cfe8", "#1f5fa8", "#c8552b"


def plot_loss(rows: Sequence[dict[str, Any]], path: Path, *, title: str = "loss") -> None:
    """Draw `loss` over `step` from metrics rows, with a running mean; the held-out loss as dots.

    Writes nothing if there are fewer than two points. The file is replaced in one go.
    """
    points = _points(rows, "loss")
    if len(points) < 2:
        return
    dots = _points(rows, "eval.loss") or _points(rows, "eval.val_loss")
    xs = [x for x, _ in points + dots]
    ys = [y for _, y in points + dots]
    x_range = (min(xs), max(xs))
    low, high = math.log10(min(ys)), math.log10(max(ys))
    pad = max(0.05 * (high - low), 0.02)
    y_range = (low - pad, high + pad)

    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default()

    def place(x: float, y: float) -> tuple[float, float]:
        u = (x - x_range[0]) / max(1e-9, x_range[1] - x_range[0])
        v = (math.log10(y) - y_range[0]) / (y_range[1] - y_range[0])
        return LEFT + u * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - v * (HEIGHT - TOP - BOTTOM)

    for y in log_ticks(10 ** y_range[0], 10 ** y_range[1]):
        _, py = place(x_range[0], y)
        draw.line([(LEFT, py), (WIDTH - RIGHT, py)], fill=GRID)
        draw.text((LEFT - 8, py), f"{y:.3g}", fill=INK, font=font, anchor="rm")
    for x in linear_ticks(*x_range):
        px, _ = place(x, ys[0])
        draw.line([(px, TOP), (px, HEIGHT - BOTTOM)], fill=GRID)
        draw.text((px, HEIGHT - BOTTOM + 6), _count(x), fill=INK, font=font, anchor="mt")
    draw.line([place(*p) for p in points], fill=FAINT, width=1)
    draw.line([place(*p) for p in smooth(points)], fill=LINE, width=2)
    for dot in dots:
        px, py = place(*dot)
        draw.ellipse([px - 3, py - 3, px + 3, py + 3], fill=DOT)
    draw.rectangle([LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM], outline=INK)
    draw.text((LEFT, TOP - 8), title, fill=INK, font=font, anchor="lb")
    draw.text((WIDTH - RIGHT, HEIGHT - 8), "step", fill=INK, font=font, anchor="rb")
    if dots:
        draw.text((WIDTH - RIGHT, TOP - 8), "dots: held out", fill=DOT, font=font, anchor="rb")

    temporary = path.with_name(path.name + ".tmp")
    image.save(temporary, format="PNG")
    os.replace(temporary, path)


def smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Centered running geometric mean over about 5 % of the points."""
    half = max(1, len(points) // 40)
    logs = [math.log(y) for _, y in points]
    out = []
    for i, (x, _) in enumerate(points):
        near = logs[max(0, i - half) : i + half + 1]
        out.append((x, math.exp(sum(near) / len(near))))
    return out


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between two positive numbers: 1, 2, 5 of each decade, or finer if that is
    fewer than three."""
    if high / low < 5:
        return linear_ticks(low, high, count=5)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1e4 else (1,)
    ticks = [s * 10.0**d for d in decades for s in steps]
    return [t for t in ticks if low <= t <= high]


def linear_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """About `count` round values from `low` to `high`."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(m * scale for m in (1, 2, 5, 10) if m * scale >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _points(rows: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) where the value is there and has a logarithm."""
    found = [(float(r["step"]), r.get(key)) for r in rows]
    return [(x, float(y)) for x, y in found if y is not None and 0 < y < math.inf]


def _count(x: float) -> str:
    """12000 → 12k."""
    if x >= 1e6:
        return f"{x / 1e6:g}M"
    return f"{x / 1e3:g}k" if x >= 1e3 else f"{x:g}"
