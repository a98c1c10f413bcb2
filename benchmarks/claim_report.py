"""A claim's report: its settings, what was measured, and whether the paper's finding is there.

A finding is checked by the mean difference of paired measures and its interval of 95 %: found
where the interval lies on the side that the paper says, not found where it lies on the other,
undecided where it holds zero.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import machine

SCHEMA = "vidgen.claim/1"
RESULTS = Path(__file__).parent / "results"

YES, NO, OPEN = "reproduced", "not reproduced", "undecided"
COST = "measured"  # what holds figures, and no finding to hold them against


@dataclass(frozen=True)
class Figure:
    """A mean with its standard deviation over `n` measures."""

    mean: float
    sd: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Figure:
        """Of the values that are numbers; NaN of none."""
        found = [v for v in values if math.isfinite(v)]
        if not found:
            return cls(math.nan, math.nan, 0)
        sd = statistics.stdev(found) if len(found) > 1 else math.nan
        return cls(statistics.fmean(found), sd, len(found))

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean, 95 %, by Student's t; NaN of fewer than two values."""
        half = student(self.n - 1) * self.sd / math.sqrt(self.n) if self.n > 1 else math.nan
        return self.mean - half, self.mean + half

    def to_dict(self) -> dict[str, Any]:
        low, high = self.interval
        return {k: plain(v) for k, v in {**asdict(self), "low": low, "high": high}.items()}


def student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t: exact for few degrees, where it matters, and by the
    expansion of Cornish and Fisher for more."""
    exact = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}
    if degrees in exact:
        return exact[degrees]
    z = 1.959963984540054
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


@dataclass(frozen=True)
class Check:
    """One finding: `value` should lie above `than`, or below it."""

    what: str
    side: str  # above | below
    value: Figure
    than: float = 0.0

    @property
    def verdict(self) -> str:
        low, high = self.value.interval
        if math.isnan(low):
            return OPEN
        if low > self.than or high < self.than:
            return YES if (low > self.than) == (self.side == "above") else NO
        return OPEN

    def to_dict(self) -> dict[str, Any]:
        return {
            "what": self.what, "expected": f"{self.side} {self.than:g}",
            "found": self.value.to_dict(), "verdict": self.verdict,
        }  # fmt: skip


def difference(what: str, a: Sequence[float], b: Sequence[float], *, side: str) -> Check:
    """That a − b, measure by measure, is on a side of zero."""
    return Check(what, side, Figure.of(x - y for x, y in zip(a, b, strict=True)))


def overall(checks: Sequence[Check]) -> str:
    """Reproduced if every check is; not if one is not; without checks, measured."""
    found = {check.verdict for check in checks}
    if not found:
        return COST
    if NO in found:
        return NO
    return YES if found == {YES} else OPEN


def plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def report_path(out: Path, system: str, claim: str) -> Path:
    return out / f"{system}-{claim}.json"


def once(path: Path, settings: dict[str, Any], make: Callable[[], dict[str, Any]]) -> Any:
    """What `make` returns, kept in a JSON file beside the settings; made anew only where the file
    lacks or tells of other settings."""
    wanted = plain(json.loads(json.dumps(settings)))
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.get("settings") == wanted:
            return kept
    made = plain({"settings": wanted, **make()})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    return made


def place(runs: Path, name: str, recipe: dict[str, Any]) -> Path:
    """Where a training lies: another recipe, another folder."""
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
    return runs / f"{''.join(c if c.isalnum() else '-' for c in name)}-{digest}"


def write(
    out: Path,
    system: str,
    claim: str,
    settings: dict[str, Any],
    measure: Callable[[], tuple[dict[str, Any], list[Check]]],
) -> dict[str, Any]:
    """The report of a claim: what there is for the same settings, or what is measured now."""

    def make() -> dict[str, Any]:
        figures, checks = measure()
        return {
            "schema": SCHEMA,
            "system": system,
            "claim": claim,
            "verdict": overall(checks),
            "checks": [check.to_dict() for check in checks],
            "figures": figures,
            "machine": machine(),
            "torch": torch.__version__,
        }

    return once(report_path(out, system, claim), settings, make)


def as_text(report: dict[str, Any]) -> str:
    """A claim's verdict and its checks, for a terminal."""
    lines = [f"{report['claim']}: {report['verdict']}"]
    for check in report["checks"]:
        found = check["found"]
        if found["mean"] is None:
            said = "not measured"
        elif found["low"] is None:
            said = f"{found['mean']:.4g}, once"
        else:
            said = f"{found['mean']:.4g} [{found['low']:.4g}, {found['high']:.4g}]"
        lines.append(f"  {check['verdict']:<14} {check['what']}: {said} ({check['expected']})")
    return "\n".join(lines)
