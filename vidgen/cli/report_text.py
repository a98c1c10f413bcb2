"""A report in words: its table of scores, and what a comparison of two found."""

from __future__ import annotations

import math

from vidgen.cli.console import printable
from vidgen.metrics.report import Difference, Report, Score

ARROWS = {"lower": "↓", "higher": "↑", None: ""}
_RULES: dict[str, tuple[str, str]] = {  # within noise, and beyond it
    "intervals": ("the intervals overlap", "the intervals are apart"),
    "tolerance": ("within the tolerance", "beyond the tolerance"),
    "values": ("", "no interval and no tolerance"),
}


def shown(x: float) -> str:
    """Four digits, or all of those before the point: 0.1235, 31.71, 12346, 1.5e-07."""
    if x == 0 or not math.isfinite(x):
        return f"{x:g}"
    if not 1e-4 <= abs(x) < 1e7:
        return f"{x:.4g}"
    text = f"{x:.{max(0, 3 - math.floor(math.log10(abs(x))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def shown_interval(score: Score) -> str:
    """`31.2 … 32.2`, or nothing."""
    return f"{shown(score.interval[0])} … {shown(score.interval[1])}" if score.interval else ""


def shown_score(score: Score) -> str:
    """`31.71 dB (31.2 … 32.2)`"""
    unit = f" {printable(score.unit)}" if score.unit else ""
    interval = f" ({shown_interval(score)})" if score.interval else ""
    return f"{shown(score.value)}{unit}{interval}"


def score_table(report: Report) -> str:
    """A line a score: which way is better, value, unit, interval, samples."""
    rows = [
        (
            f"{printable(name)} {ARROWS[one.better]}".rstrip(),
            shown(one.value),
            printable(one.unit),
            shown_interval(one),
            str(one.n),
        )
        for name, one in report.scores.items()
    ]
    rows.insert(0, ("", "value", "", "95 % interval", "n"))
    wide = [max(len(row[column]) for row in rows) for column in range(5)]
    interval = wide[3] if any(one.interval for one in report.scores.values()) else 0
    lines = []
    for name, value, unit, ends, n in rows:
        line = f"{name:<{wide[0]}}  {value:>{wide[1]}}"
        line += f" {unit:<{wide[2]}}" if wide[2] else ""
        line += f"  {ends:>{interval}}" if interval else ""
        lines.append(f"{line}  {n:>{wide[4]}}")
    return "\n".join(lines) + "\n"


def difference_line(one: Difference) -> str:
    """`fvd: worse, 120.1 → 140.2, beyond the tolerance`; `fvd: equal, 120.1`"""
    if one.a is None or one.b is None:
        score, side = (one.a, "A") if one.b is None else (one.b, "B")
        return f"{one.name}: only in {side}, {shown_score(score)}" if score else one.name
    if one.rule == "equal":
        return f"{one.name}: equal, {shown_score(one.b)}{_counts(one.a, one.b)}"
    return f"{one.name}: {one.verdict}, {move(one)}"


def move(one: Difference) -> str:
    """`120.1 → 140.2, beyond the tolerance`; `0.94 → 0.91, clip by clip -0.03 (-0.05 … -0.01)`"""
    assert one.a is not None and one.b is not None and one.rule is not None
    why = _RULES[one.rule][one.verdict != "within noise"] if one.rule in _RULES else ""
    if one.change is not None:
        why = f"clip by clip {shown_score(one.change)}"
    return f"{shown_score(one.a)} → {shown_score(one.b)}{_counts(one.a, one.b)}, {why}"


def _counts(a: Score, b: Score) -> str:
    return f", n {a.n} and {b.n}" if a.n != b.n else ""
