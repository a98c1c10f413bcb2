"""`vidgen log`: how a file came to be, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from vidgen.cli.console import printable
from vidgen.cli.media import content_of, history_of
from vidgen.cli.options import Json, argument
from vidgen.cli.page import Page
from vidgen.cli.report_compare import refuse_report
from vidgen.cli.runner import print_json, require_stdin
from vidgen.cli.schemas import LOG_ENTRY, TEXT, array, obj, report
from vidgen.errors import InputError

PAGE = Page(
    name="log",
    summary="how a file came to be, step by step",
    description="""\
Prints the chain of steps that made each record: the command and its options, the model with the
hash of its weights, the seed, the number type, whatever was approximated, and the digests of what
it read. Videos that vidgen wrote carry the log too.

Each step names the one before it by a hash of its content. The chain is verified: a log that was
edited by hand no longer fits together, which is told, with exit code 3. That the pixels of a
video are those which the log speaks of can't be known from the log.""",
    reads="records, NPZ or video files from IN",
    writes="text, or JSON, to standard output",
    examples=[
        ("vidgen log clip.safetensors", "of a record"),
        ("vidgen log ball.mp4", "of a video that vidgen made"),
        ("vidgen log --json clip.safetensors", "for a program"),
    ],
    see_also=["vidgen-inspect(1)", "vidgen-diff(1)"],
)

SCHEMAS = {
    "vidgen.log/1": report(
        "vidgen.log/1",
        "What `vidgen log --json` prints; `broken` says in words what doesn't fit",
        {
            "records": array(
                obj({"input": TEXT, "id": TEXT, "log": array(LOG_ENTRY), "broken": array(TEXT)})
            )
        },
    )
}

Inputs = Annotated[
    list[str] | None,
    argument("IN", "files of records, NPZ files, videos, folders of pictures; - is standard input"),
]


def log(inputs: Inputs = None, json: Json = False) -> None:
    from vidgen.io.log import broken_links

    paths = inputs or ["-"]
    if "-" in paths:
        require_stdin()
    for path in paths:
        refuse_report(path)
    broken: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    before: list[dict[str, Any]] | None = None
    for path in paths:
        for name, chain in _logs(path):
            row = {"input": path, "id": name, "log": chain, "broken": broken_links(chain)}
            broken += [row] if row["broken"] else []
            if json:
                rows.append(row)
            else:
                _print(row, first=before is None, same=chain == before)
                before = chain
    if json:
        print_json({"schema": "vidgen.log/1", "records": rows})
    if broken:
        first = broken[0]
        raise InputError(
            f"{first['input']}: the log of `{first['id']}` doesn't fit together:"
            f" {first['broken'][0]}",
            why="it was edited after it was made",
            next="trust the file without its log, or make it again",
        )


def _logs(path: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(id, log) of each record in a file, or of the video."""
    if content_of(path) == "video":
        made = history_of(path) or {"id": Path(path).stem, "log": []}
        yield made["id"], made["log"]
        return
    from vidgen.io.stream import read_stream

    for record in read_stream(path, verify=False):
        yield record.id, record.log


def _print(row: dict[str, Any], *, first: bool, same: bool) -> None:
    """One chain under the name of its record; the same one again in a word."""
    from vidgen.io.log import format_log

    title = f"{'' if first else chr(10)}{row['id']}"
    if same:
        print(printable(row["id"]) + ": the same steps", flush=True)
        return
    text = "\n".join(map(printable, format_log(row["log"]).rstrip("\n").split("\n")))
    print(f"{title}\n{text}")
    if row["broken"]:
        print("\n".join(["the chain is broken:", *map(printable, row["broken"])]), flush=True)
    elif row["log"]:
        steps = len(row["log"])
        print(f"the chain is whole: {steps} step{'s' if steps != 1 else ''}", flush=True)
