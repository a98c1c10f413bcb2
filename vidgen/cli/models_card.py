"""`vidgen models card`: what a model's card is written from."""

from __future__ import annotations

import json as jsonlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from vidgen.cli.evaluate_world import SCHEMAS as EVALUATED
from vidgen.cli.options import FileOutput, option
from vidgen.cli.runner import check_output, print_text
from vidgen.errors import InputError, UsageError

Report = Annotated[
    str | None,
    option("--report", metavar="FILE", default="none", settable=False,
           help="card: what `vidgen evaluate-world --json` printed of its clips"),
]  # fmt: skip
Also = Annotated[
    list[str] | None,
    option("--also", metavar="FILE", default="none", settable=False,
           help="card: such a report of other clips, told in short; may be repeated"),
]  # fmt: skip
Runs = Annotated[
    list[str] | None,
    option("--run", metavar="DIR", default="none", settable=False,
           help="card: the folder of a run that trained a part; may be repeated"),
]  # fmt: skip
Failures = Annotated[
    str | None,
    option("--failures", metavar="FILE", default="none", settable=False,
           help="card: a picture of clips that are wrong, to be shown"),
]  # fmt: skip
Curves = Annotated[
    list[str] | None,
    option("--curve", metavar="FILE", default="none", settable=False,
           help="card: a plot to be shown, such as a run's loss.png; may be repeated"),
]  # fmt: skip

SCHEMA = "vidgen.evaluate-world/1"


@dataclass(frozen=True)
class Run:
    """A training run as its folder tells it."""

    name: str
    recipe: Mapping[str, Any]
    steps: list[dict[str, Any]] = field(default_factory=list)  # rows that have a loss
    evals: list[dict[str, Any]] = field(default_factory=list)  # step, samples, and each measure

    @property
    def samples(self) -> int:
        return max((int(row["samples"]) for row in self.steps + self.evals), default=0)

    @property
    def seconds(self) -> float:
        told: Iterator[Any] = (row.get("seconds") for row in self.steps)
        return max((float(x) for x in told if _is_number(x)), default=0.0)

    @property
    def device(self) -> str | None:
        """Where it ran, if the run wrote that down."""
        return next((str(row["device"]) for row in self.steps if "device" in row), None)


@dataclass(frozen=True)
class Pictures:
    """Paths as the card links them."""

    failures: str | None
    curves: list[str]


def card(
    model: Mapping[str, Any],
    out: FileOutput,
    *,
    report: str | None,
    also: Sequence[str],
    runs: Sequence[str],
    failures: str | None,
    curves: Sequence[str],
) -> None:
    """Write the card of a model, described as `vidgen models show --json` does."""
    from vidgen.cli.models_card_text import markdown
    from vidgen.io.files import atomic_write
    from vidgen.io.pattern import is_pattern

    if is_pattern(out.output):
        raise UsageError(f"{out.output}: a card is one file", next="-o README.md")
    check_output(out, binary=False)
    if report is None:
        raise UsageError(
            "a card is written from a report",
            next="vidgen evaluate-world CLIPS --json > report.json, and --report report.json",
        )
    beside = Path(".") if out.output == "-" else Path(out.output).parent
    pictures = Pictures(
        linked(failures, beside) if failures else None, [linked(c, beside) for c in curves]
    )
    read = [(Path(path).stem, read_report(path)) for path in (report, *also)]
    text = markdown(model, read, [read_run(Path(r)) for r in runs], pictures)
    if out.output == "-":
        print_text(text)
        return
    with atomic_write(out.output, force=out.force) as f:
        f.write(text.encode("utf-8"))


def linked(picture: str, beside: Path) -> str:
    """The picture's path from the card's folder, with slashes. UsageError if it is not there."""
    if not Path(picture).is_file():
        raise UsageError(f"{picture}: there is no such picture")
    return Path(os.path.relpath(Path(picture).resolve(), beside.resolve())).as_posix()


def read_report(path: str) -> dict[str, Any]:
    """InputError for what `vidgen evaluate-world --json` would not have printed."""
    found = _json(path)
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise InputError(
            f"{path}: is no report of evaluate-world",
            why=f"its `schema` should be {SCHEMA}",
            next="vidgen evaluate-world CLIPS --json > report.json",
        )
    place = wrong_at(found, EVALUATED[SCHEMA]) or _wrong_in_confusion(found["confusion"])
    if place is not None or "all" not in found["scores"]:
        raise InputError(f"{path}: `{place or 'scores.all'}` is not as {SCHEMA} has it")
    return found


def wrong_at(value: Any, schema: Any, place: str = "") -> str | None:
    """The first place where a value isn't what a schema of evaluate-world says; None if it is."""
    if "anyOf" in schema:
        wrong = [wrong_at(value, one, place) for one in schema["anyOf"]]
        return None if None in wrong else wrong[0]
    if "type" in schema and not _is_a(schema["type"], value):
        return place or "report"
    inside: list[tuple[str, Any, Any]] = []
    if isinstance(value, dict):
        known, more = schema.get("properties", {}), schema.get("additionalProperties")
        if missing := [key for key in schema.get("required", ()) if key not in value]:
            return f"{place}.{missing[0]}".lstrip(".")
        inside = [(k, v, known.get(k, more)) for k, v in value.items()]
    elif isinstance(value, list):
        inside = [(str(i), v, schema.get("items")) for i, v in enumerate(value)]
    found = (
        wrong_at(v, one, f"{place}.{key}".lstrip("."))
        for key, v, one in inside
        if isinstance(one, dict)
    )
    return next((wrong for wrong in found if wrong), None)


def _is_a(kind: str, value: Any) -> bool:
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return _is_number(value)
    kinds: dict[str, type] = {"object": dict, "array": list, "string": str, "null": type(None)}
    return isinstance(value, kinds[kind])


def _wrong_in_confusion(table: dict[str, Any]) -> str | None:
    """Its schema says nothing of the inside: factor → asked → seen → how often."""
    counts = {"type": "object", "additionalProperties": {"type": "integer"}}
    by_asked = {"type": "object", "additionalProperties": counts}
    return wrong_at(table, {"type": "object", "additionalProperties": by_asked}, "confusion")


def _is_number(x: Any) -> bool:
    number = isinstance(x, int | float) and not isinstance(x, bool)
    return number and abs(x) <= sys.float_info.max


def read_run(folder: Path) -> Run:
    """A run from its `recipe.yaml` and `metrics.jsonl`. InputError if it has none, or no loss."""
    import yaml

    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(
            f"{folder}: is no folder of a run", why=str(error).splitlines()[0]
        ) from None
    if not isinstance(recipe, dict) or "task" not in recipe:
        raise InputError(f"{folder}/recipe.yaml: is no recipe")
    rows = [row for row in map(_row, lines) if row is not None]
    steps = [row for row in rows if _is_number(row.get("loss"))]
    evals = [row for row in rows if any(key.startswith("eval.") for key in row)]
    if not steps:
        raise InputError(f"{folder}/metrics.jsonl: has no line with a loss")
    return Run(folder.resolve().name, recipe, steps, evals)


def _row(line: str) -> dict[str, Any] | None:
    """A line of metrics; None for one that a crash cut."""
    try:
        row = jsonlib.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(row, dict) and _is_number(row.get("samples"))
    return row if whole else None


def _json(path: str) -> Any:
    try:
        return jsonlib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read", why=str(error).splitlines()[0]) from None
