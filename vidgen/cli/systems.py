"""`vidgen systems`: the research systems, and how far each is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from vidgen.cli.options import Json, argument, option
from vidgen.cli.page import Page
from vidgen.cli.runner import print_json, print_text
from vidgen.cli.schemas import SWITCH, TEXT, array, obj, or_null, report
from vidgen.errors import UsageError
from vidgen.systems import MARKS, SYSTEMS, Entry

PAGE = Page(
    name="systems",
    summary="the research systems, and how far each is",
    description="""\
Lists the systems that vidgen is to hold, one a line: its name, its paper, the file it lives in ("-"
where there is none yet), five marks, and the commands it plays a part in. A letter stands for a
mark that is earned, a hyphen for one that isn't. With NAME, tells the same of one system, and which
test or report stands behind each mark, and all reports on claims of its paper with their verdicts
and plots.

Nobody types a mark by hand: each is the name of a test or a report that is in the repository, and
was written down when that test passed or that report was made.""",
    writes="a table to standard output",
    examples=[
        ("vidgen systems", "all of them"),
        ("vidgen systems world", "one, with the evidence for each mark"),
        ("vidgen systems --markdown", "the table of the README"),
        ("vidgen systems --json", "for other programs"),
    ],
    notes={
        "MARKS": "\n".join(f"{mark[0]}  {mark}: {meaning}" for mark, meaning in MARKS.items()),
        "FILES": "vidgen/systems/evidence/NAME.json holds what stands behind the marks of NAME.",
    },
    see_also=["vidgen-models(1)"],
)

Name = Annotated[str | None, argument("NAME", "one system; default: all")]
Markdown = Annotated[bool, option("--markdown", settable=False, help="print a Markdown table")]

_SYSTEM = obj(
    {
        "name": TEXT,
        "title": TEXT,
        "arxiv": or_null(TEXT),
        "summary": TEXT,
        "roles": array(TEXT),
        "built": SWITCH,
        "file": or_null(TEXT),
        "marks": obj({mark: or_null(TEXT) for mark in MARKS}),
        "reports": array(obj({"file": TEXT, "verdict": TEXT})),
        "plots": array(TEXT),
    }
)
SCHEMAS = {
    "vidgen.systems/1": report(
        "vidgen.systems/1",
        "What `vidgen systems --json` prints; a mark is the evidence for it, or null",
        {"systems": array(_SYSTEM)},
    )
}

NONE = "-"


def systems(name: Name = None, *, markdown: Markdown = False, json: Json = False) -> None:
    chosen = list(SYSTEMS.values()) if name is None else [_find(name)]
    if markdown and json:
        raise UsageError("--markdown and --json: one of them", next="vidgen systems --json")
    if json:
        print_json({"schema": "vidgen.systems/1", "systems": [describe(e) for e in chosen]})
    elif markdown:
        print_text(as_markdown(chosen))
    elif name is None:
        print_text(as_table(chosen))
    else:
        print_text(as_detail(chosen[0]))


def _find(name: str) -> Entry:
    """The system of that name; its paper's title or arXiv number will do."""
    for entry in SYSTEMS.values():
        if name.lower().replace("_", "-") in (entry.name, entry.title.lower(), entry.arxiv):
            return entry
    near = difflib.get_close_matches(name.lower(), SYSTEMS, 1)
    raise UsageError(
        f"there is no system {name}",
        next=f"vidgen systems {near[0]}" if near else "vidgen systems",
    )


def _file(entry: Entry) -> str | None:
    """Where it lives, as the repository names it; None if it isn't built."""
    return f"vidgen/systems/{entry.file.name}" if entry.built else None


def describe(entry: Entry) -> dict[str, Any]:
    """The entry as `vidgen.systems/1` has it."""
    return {
        "name": entry.name,
        "title": entry.title,
        "arxiv": entry.arxiv,
        "summary": entry.summary,
        "roles": list(entry.roles),
        "built": entry.built,
        "file": _file(entry),
        "marks": entry.marks(),
        "reports": [{"file": f, "verdict": said} for f, said in entry.reports().items()],
        "plots": entry.plots(),
    }


def letters(entry: Entry) -> str:
    """`bfpcl` for all five marks; a hyphen for each that is missing."""
    return "".join(mark[0] if proof else NONE for mark, proof in entry.marks().items())


def as_table(entries: Sequence[Entry]) -> str:
    """One line a system, and what the letters mean."""
    rows = [("system", "paper", "arXiv", "file", "marks", "roles")]
    for e in entries:
        file = e.file.name if e.built else NONE
        rows.append((e.name, e.title, e.arxiv or NONE, file, letters(e), ", ".join(e.roles)))
    marks = [f"  {mark[0]}  {mark}: {meaning}" for mark, meaning in MARKS.items()]
    return "\n".join([*_columns(rows), "", "marks:", *marks])


def _columns(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{x:<{w}}" for x, w in zip(row, widths, strict=True)).rstrip()


def as_detail(entry: Entry) -> str:
    """Everything that is known of one system."""
    paper = f"{entry.title}, arXiv {entry.arxiv}" if entry.arxiv else entry.title
    proofs = [(m, MARKS[m], proof or NONE) for m, proof in entry.marks().items()]
    facts = [
        ("paper", paper),
        ("what", entry.summary),
        ("roles", ", ".join(entry.roles)),
        ("file", _file(entry) or "not built yet"),
    ]
    lines = [entry.name, *_columns([("  " + key, value) for key, value in facts]), "", "marks:"]
    lines += _columns([("  " + m, what, proof) for m, what, proof in proofs])
    if reports := entry.reports():
        lines += ["", "reports:", *_columns([(f"  {f}", said) for f, said in reports.items()])]
    if plots := entry.plots():
        lines += ["", "plots:", *(f"  {plot}" for plot in plots)]
    return "\n".join(lines)


def as_markdown(entries: Sequence[Entry]) -> str:
    """The README's table: systems link to their files, papers to arXiv, marks to their proof."""
    rows = [["system", "paper", "roles", *MARKS], ["---"] * 3 + [":-:"] * len(MARKS)]
    for e in entries:
        file = _file(e)
        name = f"[`{e.name}`]({file})" if file else f"`{e.name}`"
        paper = f"[{e.title}](https://arxiv.org/abs/{e.arxiv})" if e.arxiv else e.title
        roles = ", ".join(f"`{role}`" for role in e.roles)
        rows.append([name, paper, roles, *map(_tick, e.marks().values())])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _tick(proof: str | None) -> str:
    return f"[✓]({proof.partition('::')[0]})" if proof else ""
