"""Scores with their uncertainty, the report they stand in (vidgen.report/1), and two of them
compared.

In JSON an infinity or a NaN, which JSON has no numbers for, is one of the strings "inf", "-inf" and
"nan"; `number` reads both. Scores are floats again when a report is read; items and details, whose
meaning only their tool knows, stay as JSON has them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from vidgen.errors import InputError
from vidgen.metrics.paired import mean_interval

SCHEMA = "vidgen.report/1"
NOT_FINITE = ("inf", "-inf", "nan")
# Inputs that fakes are measured against: reports of other ones are not compared.
REFERENCES = ("real", "reference", "truth")

Verdict = Literal["better", "worse", "within noise", "differs", "only in a", "only in b"]
Rule = Literal["equal", "pairs", "intervals", "tolerance", "values"]


@dataclass(frozen=True)
class Score:
    """A measured number.

    low, high   its interval of 95 %, both or neither
    better      which way is better; None: neither
    unit        "dB", "rad", …
    n           samples it is computed from
    """

    value: float
    low: float | None = None
    high: float | None = None
    better: Literal["lower", "higher"] | None = None
    unit: str = ""
    n: int = 0

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has two ends, `low` and `high`")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"the interval {self.low:g} … {self.high:g} runs backwards")
        if self.better not in (None, "lower", "higher"):
            raise ValueError(f"`better` is lower, higher or null, not {self.better!r}")

    @property
    def interval(self) -> tuple[float, float] | None:
        """None where there is none, or an end of it is NaN."""
        if self.low is None or self.high is None or math.isnan(self.low) or math.isnan(self.high):
            return None
        return self.low, self.high


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    tool       the command: "evaluate-fvd"
    settings   all that decides the numbers; reports of other settings are not compared
    inputs     {"role": "fake", "name": …, "clips": N, "sha256": …} each
    items      one object a clip: {"id": …, "psnr": …}
    details    what plots are made of: {"bias": {"n": […], "value": […]}}
    """

    tool: str
    settings: dict[str, Any]
    inputs: list[dict[str, Any]]
    scores: dict[str, Score]
    warnings: list[str] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As strict JSON has it: numpy's numbers and arrays, tuples and paths as plain values.
        TypeError for what has no place in JSON."""
        scores = {name: asdict(score) for name, score in self.scores.items()}
        whole = {f.name: getattr(self, f.name) for f in fields(self)} | {"scores": scores}
        return {"schema": SCHEMA, **plain(whole)}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, d: Any, source: str) -> Report:
        """InputError, which names `source` and the place, for what isn't a report."""
        if not isinstance(d, dict) or d.get("schema") != SCHEMA:
            found = d.get("schema") if isinstance(d, dict) else None
            raise InputError(
                f"{source}: is no {SCHEMA}",
                why=f"its schema is {found}" if found else "it has no such `schema`",
                next="--report FILE of the evaluate commands writes one",
            )
        _keys(d, {"schema", *(f.name for f in fields(cls))}, source)
        kinds = {"tool": str, "settings": dict, "inputs": list, "scores": dict, "warnings": list,
                 "items": list, "details": dict}  # fmt: skip
        for key, kind in kinds.items():
            _of(d[key], kind, f"{source}: `{key}`")
        for key, kind in {"inputs": dict, "items": dict, "warnings": str}.items():
            for i, one in enumerate(d[key]):
                _of(one, kind, f"{source}: `{key}[{i}]`")
        scores = {k: _score(v, f"{source}: score `{k}`") for k, v in d["scores"].items()}
        return cls(**{key: d[key] for key in kinds} | {"scores": scores})

    @classmethod
    def read(cls, path: str | Path) -> Report:
        """InputError for a file that can't be read, is no strict JSON, or is no report."""
        try:
            text = Path(path).read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{path}: cannot be read", why=why.lower()) from None
        try:
            found = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: is not JSON", why=str(error).lower()) from None
        return cls.from_dict(found, str(path))


def number(x: Any) -> float | None:
    """A number of a report, where "inf", "-inf" and "nan" are numbers too; else None."""
    if isinstance(x, str):
        return float(x) if x in NOT_FINITE else None
    return float(x) if isinstance(x, int | float) and not isinstance(x, bool) else None


def plain(x: Any, place: str = "report") -> Any:
    """The value as strict JSON can hold it. TypeError with the place of what can't be."""
    if x is None or isinstance(x, bool | int):
        return x
    if isinstance(x, float):
        return float(x) if math.isfinite(x) else str(float(x))
    if isinstance(x, str | Path):
        return str(x).encode("utf-8", "backslashreplace").decode()  # names of files may be anything
    if isinstance(x, Mapping):
        return {str(plain(k, place)): plain(v, f"{place}.{k}") for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [plain(v, f"{place}[{i}]") for i, v in enumerate(x)]
    if hasattr(x, "tolist"):
        return plain(x.tolist(), place)
    raise TypeError(f"{place}: JSON has no {type(x).__name__}")


def _no_constant(text: str) -> float:
    raise ValueError(f'{text} is no JSON; in reports it is a string, "nan", "inf" or "-inf"')


def _keys(d: dict[str, Any], known: set[str], place: str) -> None:
    for key in sorted(known - d.keys()):
        raise InputError(f"{place}: has no `{key}`")
    for key in d.keys() - known:
        raise InputError(f"{place}: has `{key}`, which {SCHEMA} doesn't know")


def _of(value: Any, kind: type, place: str) -> None:
    words: dict[type, str] = {str: "text", dict: "an object", list: "a list"}
    if not isinstance(value, kind):
        raise InputError(f"{place}: is not {words[kind]}: {str(value)[:60]}")


def _score(d: Any, place: str) -> Score:
    _of(d, dict, place)
    _keys(d, {f.name for f in fields(Score)}, place)
    numbers = {key: number(d[key]) for key in ("value", "low", "high")}
    for key, found in numbers.items():
        if found is None and (key == "value" or d[key] is not None):
            raise InputError(f"{place}: `{key}` is no number: {str(d[key])[:60]}")
    if not isinstance(d["n"], int) or isinstance(d["n"], bool) or d["n"] < 0:
        raise InputError(f"{place}: `n` is no count: {str(d['n'])[:60]}")
    _of(d["unit"], str, f"{place}: `unit`")
    try:
        return Score(**d | numbers)
    except ValueError as error:
        raise InputError(f"{place}: {error}") from None


# --- two reports ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """A score of report b beside that of report a.

    verdict   what b is; "differs" where nobody said which way is better
    rule      by what: "equal" values; "pairs", clip by clip, whether the interval of the mean
              difference holds 0; overlapping or separate "intervals" (a score without one is its
              value alone); a difference of at most, or more than, the "tolerance"; "values" that
              are not equal, where there is neither interval nor tolerance; None for a score that
              is only in one
    change    with "pairs", the mean over clips of b less a
    """

    name: str
    verdict: Verdict
    rule: Rule | None
    a: Score | None
    b: Score | None
    change: Score | None = None


def comparable(a: Report, b: Report, names: tuple[str, str] = ("A", "B")) -> None:
    """InputError, which names what differs and both values, if the numbers of the two don't mean
    the same: other tools, other settings, or other clips that fakes are measured against."""
    if a.tool != b.tool:
        raise _apart(names, [f"tool: {a.tool} and {b.tool}"])
    faults = setting_differences(a.settings, b.settings)
    for role in REFERENCES:
        x, y = (sorted(str(i.get("sha256")) for i in r.inputs if i.get("role") == role)
                for r in (a, b))  # fmt: skip
        if x != y:
            of = [", ".join(h[:12] for h in hashes) or "none" for hashes in (x, y)]
            faults.append(f"{role} clips: {of[0]} and {of[1]} (sha256)")
    if faults:
        raise _apart(names, faults)


def _apart(names: tuple[str, str], faults: list[str]) -> InputError:
    return InputError(
        f"{names[0]} and {names[1]}: reports of different settings are not compared",
        why="; ".join(faults),
        next="evaluate both with the same settings",
    )


def setting_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """`num_frames: 16 and 17` for each setting that differs, `sampling.fps` for one within
    another."""
    return list(_differences(plain(a), plain(b), ""))


def _differences(a: Any, b: Any, place: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            inside = f"{place}.{key}" if place else key
            if key not in a or key not in b:
                there = json.dumps((a if key in a else b)[key], ensure_ascii=False)
                yield f"{inside}: {there} and none" if key in a else f"{inside}: none and {there}"
            else:
                yield from _differences(a[key], b[key], inside)
    elif a != b or isinstance(a, bool) != isinstance(b, bool):
        x, y = (json.dumps(value, ensure_ascii=False) for value in (a, b))
        yield f"{place}: {x} and {y}"


def compare(
    a: Report, b: Report, tolerance: float = 0.0, names: tuple[str, str] = ("A", "B")
) -> list[Difference]:
    """Score by score, in the order of a: what b is, where a is the one before. A difference is
    noise if it is no larger than the tolerance; else where the score is the mean over the same
    clips on both sides, if the interval of the mean of their differences holds 0; else if the
    intervals of the two overlap. A NaN is worse than any number. InputError as `comparable`
    says."""
    comparable(a, b, names)
    both = [*a.scores, *(name for name in b.scores if name not in a.scores)]
    return [
        compare_scores(n, a.scores.get(n), b.scores.get(n), tolerance, paired_change(n, a, b))
        for n in both
    ]


def paired_change(name: str, a: Report, b: Report) -> Score | None:
    """The mean over clips of b less a. None unless the score is the mean of the items on both
    sides, of the same clips, at least six of which differ."""
    before, after = _by_clip(name, a), _by_clip(name, b)
    if not before or not after or before.keys() != after.keys():
        return None
    differences = [after[id] - before[id] for id in before]
    ends = mean_interval(differences)
    if ends is None:
        return None
    return Score(fmean(differences), *ends, unit=b.scores[name].unit, n=len(differences))


def _by_clip(name: str, report: Report) -> dict[str, float] | None:
    """What each clip has for a score, by its id; None where the score is not their mean."""
    found: dict[str, float] = {}
    for item in report.items:
        x, id = number(item.get(name)), item.get("id")
        if x is None:
            continue
        if not math.isfinite(x) or not isinstance(id, str) or id in found:
            return None
        found[id] = x
    score = report.scores.get(name)
    if score is None or not found or score.n != len(found):
        return None
    mean = fmean(found.values())
    return found if math.isclose(mean, score.value, rel_tol=1e-6, abs_tol=1e-9) else None


def compare_scores(
    name: str,
    a: Score | None,
    b: Score | None,
    tolerance: float = 0.0,
    change: Score | None = None,
) -> Difference:
    """One score. `change`: as `paired_change` finds it."""
    if a is None or b is None:
        return Difference(name, "only in b" if a is None else "only in a", None, a, b)
    x, y = a.value, b.value
    if x == y or (math.isnan(x) and math.isnan(y)):
        return Difference(name, "within noise", "equal", a, b)
    if tolerance and abs(x - y) <= tolerance:
        return Difference(name, "within noise", "tolerance", a, b)
    rule: Rule = "tolerance" if tolerance else "values"
    if change is not None and change.interval:
        rule, noise = "pairs", change.interval[0] <= 0 <= change.interval[1]
    elif (a.interval or b.interval) and not (math.isnan(x) or math.isnan(y)):
        (low, high), (start, end) = a.interval or (x, x), b.interval or (y, y)
        rule, noise = "intervals", low <= end and start <= high
    else:
        noise = False
    if noise:
        return Difference(name, "within noise", rule, a, b, change)
    better = b.better if b.better == a.better else None
    if better is None:
        return Difference(name, "differs", rule, a, b, change)
    improved = math.isnan(x) or (y < x if better == "lower" else y > x)
    verdict: Verdict = "better" if improved and not math.isnan(y) else "worse"
    return Difference(name, verdict, rule, a, b, change)
