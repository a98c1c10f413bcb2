"""`vidgen check`: whether files are whole and undamaged."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from vidgen.cli.console import Console, printable
from vidgen.cli.media import content_of, history_of
from vidgen.cli.options import Json, argument
from vidgen.cli.page import Page
from vidgen.cli.runner import print_json, require_stdin
from vidgen.cli.schemas import SWITCH, TEXT, WHOLE, array, obj, or_null, report
from vidgen.errors import Exit, InputError, UsageError, VidgenError

if TYPE_CHECKING:
    from vidgen.io.record import Record

PAGE = Page(
    name="check",
    summary="whether files are whole and undamaged",
    description="""\
Reads every byte of every file and says nothing if all is well. Of records it checks the layout,
the digest, the values (NaN and infinity where none may be), the chain of the log, and that the
stream has its end; of a video that every frame and all sound can be decoded.

Each problem is one line on standard error that names the file, the record and the byte. All files
are checked, whatever is found in the first ones; then the exit code is 3, or 2 if the only
trouble was files that are not there. A file has one line: behind damage nothing can be trusted.""",
    reads="records, NPZ or video files from IN",
    writes="nothing, or JSON, to standard output",
    examples=[
        ("vidgen check clip.safetensors clip.mp4", "silent if they are whole"),
        ("vidgen check -v clip.safetensors", "says so, too"),
        ("vidgen check --json clip.safetensors", "for a program"),
    ],
    see_also=["vidgen-inspect(1)", "vidgen-stream(5)"],
)

_PROBLEM = obj({"what": TEXT, "why": or_null(TEXT), "next": or_null(TEXT)})
SCHEMAS = {
    "vidgen.check/1": report(
        "vidgen.check/1",
        "What `vidgen check --json` prints; records or frames count the whole ones",
        {
            "ok": SWITCH,
            "files": array(
                obj(
                    {
                        "input": TEXT,
                        "ok": SWITCH,
                        "records": WHOLE,
                        "frames": WHOLE,
                        "problem": or_null(_PROBLEM),
                    },
                    optional=("records", "frames"),
                )
            ),
        },
    )
}

Inputs = Annotated[
    list[str] | None,
    argument("IN", "files of records, NPZ files, videos, folders of pictures; - is standard input"),
]


def check(console: Console, inputs: Inputs = None, json: Json = False) -> Exit:
    paths = inputs or ["-"]
    if "-" in paths:
        require_stdin()
    rows, code = [], Exit.DONE
    for path in paths:
        row, error = _checked(path)
        rows.append(row)
        if error is None:
            unit = "frames" if "frames" in row else "records"
            console.note(f"{path}: ok, {row[unit]} {unit if row[unit] != 1 else unit[:-1]}")
            continue
        _tell(error, console)
        usage = isinstance(error, UsageError) and code != Exit.BAD_INPUT
        code = Exit.USAGE if usage else Exit.BAD_INPUT
    if json:
        print_json({"schema": "vidgen.check/1", "ok": code == Exit.DONE, "files": rows})
    return code


def _tell(error: VidgenError, console: Console) -> None:
    """One line on standard error, also with -q."""
    if console.json:
        console.warn(error.what)
    else:
        console.stop_bar()
        sys.stderr.write(f"vidgen check: {printable(error.what)}\n")


def _checked(path: str) -> tuple[dict[str, Any], VidgenError | None]:
    """The row of a file in the report, and what is wrong with it."""
    row: dict[str, Any] = {"input": path, "ok": True}
    error: VidgenError | None = None
    try:
        if content_of(path) == "video":
            row["frames"] = 0
            _check_video(path, row)
        else:
            row["records"] = 0
            _check_records(path, row)
    except (InputError, UsageError) as e:
        error = e
    except OSError as e:
        error = UsageError(f"{path}: {(e.strerror or str(e)).lower()}")
    row["ok"] = error is None
    row["problem"] = error and {"what": error.what, "why": error.why, "next": error.next}
    return row, error


def _check_records(path: str, row: dict[str, Any]) -> None:
    from vidgen.io.stream import read_stream

    for number, record in enumerate(read_stream(path), 1):
        _check_log(record, f"{path}: record {number}")
        row["records"] = number


def _check_log(record: Record, where: str) -> None:
    from vidgen.io.log import broken_links

    if broken := broken_links(record.log):
        raise InputError(
            f"{where}: the log of `{record.id}` doesn't fit together: {broken[0]}",
            why="it was edited after it was made",
            next="vidgen log shows it",
        )


def _check_video(path: str, row: dict[str, Any]) -> None:
    from vidgen.io.log import broken_links
    from vidgen.io.video import iter_frames, probe
    from vidgen.io.video_file import read_audio

    info = probe(path)
    for _ in iter_frames(path):
        row["frames"] += 1
    if not row["frames"]:
        raise InputError(f"{path}: has no frame that can be decoded")
    if info.has_audio:
        read_audio(path, info.start_s)
    if (made := history_of(path)) and (broken := broken_links(made["log"])):
        raise InputError(f"{path}: its log doesn't fit together: {broken[0]}")
