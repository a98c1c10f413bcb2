"""What every evaluation does with its report: print it, write it, and hold it to what was asked.

A command takes the bundle `Reporting`, calls `check` before it computes anything, and returns
what `finish` returns. Warnings are said by whoever finds them, with `console.warn`, and are in the
report too: `finish` doesn't say them again.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from vidgen.cli.console import Console
from vidgen.cli.options import IO, Json, _Force, option
from vidgen.cli.report_text import move, score_table, shown, shown_score
from vidgen.cli.runner import print_json, print_text
from vidgen.cli.schemas import (
    ANY,
    NUMBER,
    TEXT,
    WHOLE,
    Schema,
    array,
    obj,
    one_of,
    or_null,
    report,
)
from vidgen.errors import Exit, InputError, ThresholdError, UsageError
from vidgen.metrics.report import (
    NOT_FINITE,
    SCHEMA,
    Report,
    compare,
    setting_differences,
)

if TYPE_CHECKING:
    import numpy as np

    # (id, clip, what is shown to its right or None): uint8 arrays t h w 3. The first dozen are
    # taken, and none without --html, so a generator costs nothing.
    Media = Iterable[tuple[str, np.ndarray, np.ndarray | None]]

_NUMBER: Schema = {"anyOf": [NUMBER, one_of(*NOT_FINITE)]}
SCORE_SCHEMA = obj(
    {
        "value": _NUMBER,
        "low": or_null(_NUMBER),
        "high": or_null(_NUMBER),
        "better": one_of("lower", "higher", None),
        "unit": TEXT,
        "n": WHOLE,
    }
)
REPORT_SCHEMA = report(
    SCHEMA,
    "What the evaluate commands find; an infinity or a NaN is the string inf, -inf or nan",
    {
        "tool": TEXT,
        "settings": obj({}, more=ANY),
        "inputs": array(obj({}, more=ANY)),
        "scores": obj({}, more=SCORE_SCHEMA),
        "warnings": array(TEXT),
        "items": array(obj({}, more=ANY)),
        "details": obj({}, more=ANY),
    },
)

ReportFile = Annotated[
    str | None,
    option("--report", metavar="FILE", default="none", settable=False, group=IO,
           help="write the JSON report to a file, too"),
]  # fmt: skip
_Html = Annotated[
    str | None,
    option("--html", metavar="FILE", default="none", settable=False, group=IO,
           help="write the report as a page with plots and clips, too"),
]  # fmt: skip
_Min = Annotated[
    list[str] | None,
    option("--min", metavar="NAME=X", default="none", settable=False, group=IO,
           help="exit with 4 if a score is lower; may be repeated"),
]  # fmt: skip
_Max = Annotated[
    list[str] | None,
    option("--max", metavar="NAME=X", default="none", settable=False, group=IO,
           help="exit with 4 if a score is higher; may be repeated"),
]  # fmt: skip
_Baseline = Annotated[
    str | None,
    option("--baseline", metavar="FILE", default="none", settable=False, group=IO,
           help="a report; exit with 4 if a score is worse, beyond noise, than its"),
]  # fmt: skip
_Tolerance = Annotated[
    float | None,
    option("--tolerance", metavar="X", min=0, default="0", settable=False, group=IO,
           help="how much worse than --baseline a score may be"),
]  # fmt: skip


@dataclass(frozen=True)
class Reporting:
    """Where a report goes, and what it has to say for the command to succeed."""

    report: ReportFile = None
    html: _Html = None
    force: _Force = False
    json: Json = False
    min: _Min = None
    max: _Max = None
    baseline: _Baseline = None
    tolerance: _Tolerance = None

    def check(
        self,
        scores: Sequence[str],
        *,
        others: Mapping[str, str] | None = None,
        tool: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """UsageError or InputError before any work, for all that can be wrong with the options.

        scores    the names there can be
        others    names that there are with other inputs or options: why not with these
        tool      and
        settings  what is known of them already: a baseline of others is refused now rather than
                  by `finish`. `check` may be called again when more is known.
        """
        self._bounds(scores, others or {})
        check_files({"--report": self.report, "--html": self.html}, force=self.force)
        if self.baseline is None:
            if self.tolerance is not None:
                raise UsageError("--tolerance says how far from a --baseline scores may be",
                                 next="--baseline FILE")  # fmt: skip
            return
        baseline = Report.read(self.baseline)
        if tool is not None and baseline.tool != tool:
            raise InputError(f"{self.baseline}: is a report of {baseline.tool}, not of {tool}")
        known = {k: v for k, v in (settings or {}).items() if k in baseline.settings}
        if faults := setting_differences({k: baseline.settings[k] for k in known}, known):
            raise InputError(
                f"{self.baseline}: is a report of other settings than those here",
                why="; ".join(faults),
                next="evaluate with the settings of the baseline, or make a new one",
            )
        if not any(s.better for name, s in baseline.scores.items() if name in scores):
            raise InputError(
                f"{self.baseline}: has no score that could get worse here",
                why=f"it has {', '.join(baseline.scores) or 'none'}; here are {', '.join(scores)}",
            )

    def finish(self, report: Report, console: Console, media: Media | None = None) -> Exit:
        """Print the report, write the files, and then hold the scores to --min, --max and
        --baseline: ThresholdError says in one line what missed."""
        baseline = Report.read(self.baseline) if self.baseline is not None else None
        if self.json:
            print_json(report.to_dict())
        else:
            print_text(score_table(report))
        if self.report is not None:
            _write(self.report, report.to_json(), self.force)
            console.note(f"wrote {self.report}")
        if self.html is not None:
            from vidgen.cli.report_page import page

            _write(self.html, page(report, media or ()), self.force)
            console.note(f"wrote {self.html}")
        # Names that this report lacks were right when `check` saw them: they are missed, below.
        bounds = self._bounds([*report.scores, *self._bounded()])
        missed = list(_missed(report, bounds))
        if baseline is not None:
            missed += self._worse(baseline, report)
        if missed:
            raise ThresholdError(*missed)
        if held := self._held(report, bounds):
            console.say(held)
        return Exit.DONE

    def _held(self, report: Report, bounds: Mapping[str, Mapping[str, float]]) -> str:
        """That nothing was missed, where something was asked for."""
        held = [
            f"{name} is {shown_score(report.scores[name])}, {than} the {shown(bound)} of {flag}"
            for flag, than in (("--min", "at least"), ("--max", "at most"))
            for name, bound in bounds[flag].items()
        ]
        if self.baseline is not None:
            held.append(f"no score is worse than in {self.baseline}")
        return "; ".join(held)

    def _bounds(
        self, scores: Iterable[str], others: Mapping[str, str] = MappingProxyType({})
    ) -> dict[str, dict[str, float]]:
        """--min and --max, taken apart."""
        known = tuple(scores)
        for flag, words in (("--min", self.min), ("--max", self.max)):
            for word in words or ():
                name = word.partition("=")[0]
                if name in others and name not in known:
                    raise UsageError(
                        f"{flag} {word}: `{name}` is not measured here",
                        why=others[name],
                    )
        return {
            flag: named_numbers(flag, words or (), known, why=f"scores: {', '.join(known)}",
                                example=f"{flag} {known[0] if known else 'NAME'}=0.5", noun="score")
            for flag, words in (("--min", self.min), ("--max", self.max))
        }  # fmt: skip

    def _bounded(self) -> list[str]:
        """The names that --min and --max have."""
        return [word.partition("=")[0] for word in (*(self.min or ()), *(self.max or ()))]

    def _worse(self, baseline: Report, report: Report) -> Iterator[str]:
        """What of the baseline got worse, or lost, of all that can get worse."""
        names = (str(self.baseline), "this report")
        for one in compare(baseline, report, self.tolerance or 0.0, names):
            name = one.name
            if one.a is None or one.a.better is None:
                continue
            if one.b is None:
                yield f"{name} is in {self.baseline} and not in this report"
            elif math.isnan(one.b.value):
                yield f"{name} is nan"
            elif one.verdict in ("worse", "differs"):
                how = "worse" if one.verdict == "worse" else "other"
                yield f"{name} is {how} than in {self.baseline}: {move(one)}"


def _missed(report: Report, bounds: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    for flag, of in bounds.items():
        for name, bound in of.items():
            score = report.scores.get(name)
            least = flag == "--min"
            if score is None:
                yield f"{name} could not be measured, and {flag} asks for {shown(bound)}"
                continue
            if score.value >= bound if least else score.value <= bound:  # a NaN is neither
                continue
            than = "less than" if least else "more than"
            if math.isnan(score.value):
                than = "not at least" if least else "not at most"
            yield f"{name} is {shown_score(score)}, {than} the {shown(bound)} of {flag}"


def _write(path: str, text: str, force: bool) -> None:
    from vidgen.io.files import atomic_write

    with atomic_write(path, force=force) as f:
        f.write(text.encode())


def check_files(paths: Mapping[str, str | None], *, force: bool = False) -> None:
    """UsageError for what can't be written, before the work; `paths`: flag → file, if any."""
    from vidgen.io.files import check_writable
    from vidgen.io.pattern import is_pattern

    named: dict[str, str] = {}
    for flag, path in paths.items():
        if path is None:
            continue
        if path == "-" or is_pattern(path):
            raise UsageError(f"{path}: is not one file", next="--json prints the report")
        check_writable(path, force)
        place = os.path.realpath(path)
        if place in named:
            raise UsageError(f"{path}: is named twice, by {named[place]} and {flag}")
        named[place] = flag


def named_numbers(
    flag: str,
    words: Sequence[str],
    known: Sequence[str],
    *,
    why: str,
    example: str,
    noun: str = "factor",
    form: str = "NAME=X",
    low: float = -math.inf,
    high: float = math.inf,
) -> dict[str, float]:
    """`all=0.95` … → {"all": 0.95}. UsageError for a name that isn't known, or what is no number
    from `low` to `high`. `example` is what to type where the word itself gives nothing better."""
    found: dict[str, float] = {}
    for word in words:
        name, equals, text = word.partition("=")
        value = _number(text)
        if not equals:
            raise UsageError(f"{flag} {word}: is not {form}", why=why, next=example)
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            keep = text if low <= value <= high else example.partition("=")[2]
            raise UsageError(
                f"{flag} {word}: there is no {noun} `{name}` here",
                why=why, next=f"{flag} {near[0]}={keep}" if near else None,
            )  # fmt: skip
        if not low <= value <= high:  # a NaN is not
            fault = f"{text or 'nothing'} is no number" if math.isnan(value) else f"is not {form}"
            raise UsageError(
                f"{flag} {word}: {fault}", why=why if not math.isnan(value) else None,
                next=f"{flag} {name}={example.partition('=')[2]}",
            )  # fmt: skip
        found[name] = value
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
