"""What commands on records have in common: open inputs, check outputs, run a stage, write.

A stage command is its options and one call of `run_stage`. The order is always the same: first
whatever can be wrong with the command line and the files it names, then torch and weights, then
the first record. So a mistake is told at once, and in a pipe the weights are read while upstream
still computes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen.errors import InputError, UsageError

if TYPE_CHECKING:
    from vidgen.cli.console import Console
    from vidgen.cli.options import FileOutput, RecordOutput
    from vidgen.io.record import Record

    Stage = Callable[[Iterator[Record]], Iterator[Record]]


class NoInput(UsageError):
    """Nothing was given to work on; the command's usage is printed with it."""


@dataclass(frozen=True)
class Kind:
    """What a stage takes, and the command that makes it: `Kind("latents", "vidgen sample")`."""

    name: str
    made_by: str


def run_stage(
    make: Callable[[], Stage],
    inputs: Sequence[str] | None,
    out: RecordOutput,
    console: Console,
    *,
    takes: Kind | None = None,
) -> None:
    """Records from the inputs, through a stage, to the output.

    make   builds the stage: the place to import torch and to find the model. It is called when
           inputs and output have been checked, before the first record is awaited.
    takes  the kind of record that the stage takes; a file of another kind is refused at once
    """
    check_output(out)
    records = open_inputs(inputs, takes=takes)
    write_records(make()(records), out, console)


def open_inputs(inputs: Sequence[str] | None, *, takes: Kind | None = None) -> Iterator[Record]:
    """The records of all inputs, or of standard input. NoInput if that is a terminal."""
    from vidgen.cli.media import content_of
    from vidgen.io.stream import read_inputs

    paths = list(inputs or ())
    if not paths or "-" in paths:
        require_stdin()
    records = read_inputs(paths)
    for path in paths:
        if Path(path).is_file() and content_of(path) == "video":
            raise InputError(
                f"{path}: is a video, and records are read here",
                next=f"vidgen encode-video {path} makes latents of it, vidgen convert frames",
            )
    if takes is not None:
        for path in paths:
            _check_kind(path, takes)
    return records


def require_stdin() -> None:
    """NoInput if standard input is a terminal, or closed."""
    if sys.stdin is None:
        raise NoInput("no input: standard input is closed")
    if sys.stdin.isatty():
        raise NoInput("no input, and standard input is a terminal")


def _check_kind(path: str, takes: Kind) -> None:
    """InputError if the file's first record is not of the kind; pipes are looked at later."""
    from vidgen.io.stream import read_stream

    if path == "-" or not Path(path).is_file():
        return
    record = next(read_stream(path, verify=False), None)
    if record is not None and record.kind != takes.name:
        raise InputError(
            f"{path}: record `{record.id}` holds {record.kind}, this command takes {takes.name}",
            next=f"put `{takes.made_by}` in front of it",
        )


def check_output(out: RecordOutput | FileOutput, *, binary: bool = True) -> None:
    """UsageError now rather than after the work: a terminal for binary data, a file that is there
    already, a folder that isn't or can't be written to."""
    from vidgen.io.stream import check_writable, refuse_terminal

    if out.output == "-":
        if binary:
            refuse_terminal(sys.stdout)
    else:
        check_writable(out.output, out.force)


def check_names(
    out: RecordOutput,
    ids: Iterable[str],
    *,
    check: Callable[[RecordOutput], object] | None = None,
    single: bool = False,
) -> None:
    """UsageError now rather than after the work, where the records' ids are known: the name that
    one of them would get is taken, or one name has to do for several.

    check   what is asked of each name; default: `check_output`
    single  as `check_count` takes it
    """
    from vidgen.io.log import redacted_id
    from vidgen.io.pattern import is_pattern, path_of

    ids = list(ids)
    check_count(out, len(ids), single=single)
    if is_pattern(out.output):
        for id in ids:
            name = redacted_id(id) if out.redact_prompt else id
            (check or check_output)(replace(out, output=path_of(out.output, name)))


def check_count(
    out: RecordOutput, count: int, *, single: bool = False, why: str | None = None
) -> None:
    """UsageError if one name has to do for several records that need a file each.

    single  whether a file holds one record only, as videos do; of NPZ this is known
    why     how there may be several where one was meant
    """
    from vidgen.io.pattern import is_pattern
    from vidgen.io.stream import several_in_npz

    if count < 2 or is_pattern(out.output):
        return
    if single and out.output != "-":
        raise UsageError(
            f"{count} videos are asked for, and -o names one file, {out.output}",
            why=why,
            next=f"{_with_id(out.output)} writes one file a record",
        )
    if out.npz or out.output.endswith(".npz"):
        raise several_in_npz()


def _with_id(path: str) -> str:
    """-o for the same place, but a file a record."""
    stem, suffix = os.path.splitext(path.rstrip("/"))
    return f"-o '{stem}-{{id}}{suffix}{'/' * path.endswith('/')}'"


def headers_of(paths: Sequence[str] | None) -> list[Record]:
    """The records of those inputs that are files, without looking at their values. What is wrong
    with a file is told when it is read."""
    from vidgen.io.stream import read_stream

    found: list[Record] = []
    for path in paths or ():
        if path != "-" and Path(path).is_file():
            with suppress(InputError):
                found.extend(read_stream(path, verify=False))
    return found


def write_records(records: Iterable[Record], out: RecordOutput, console: Console) -> int:
    """Write the stream as the options say and return how many records that were."""
    from vidgen.io.stream import write_stream

    count = write_stream(stripped(records, out), out.output, force=out.force, npz=out.npz)
    where = "standard output" if out.output == "-" else out.output
    console.note(f"{count} record{'s' if count != 1 else ''} to {where}")
    return count


def stripped(records: Iterable[Record], out: RecordOutput) -> Iterator[Record]:
    """The records without log or prompts, where the options ask for that."""
    from vidgen.io.log import redact, strip_log

    for record in records:
        if out.redact_prompt:
            record = redact(record)
        yield strip_log(record) if out.no_provenance else record


def write_files(
    records: Iterable[Record],
    out: RecordOutput,
    console: Console,
    write: Callable[[Record, str], None],
) -> int:
    """Write each record to a file of its own with `write(record, path)`, which is to appear whole
    or not at all. UsageError if one path is given for several records."""
    from vidgen.io.pattern import is_pattern, write_each

    def noted(record: Record, path: str) -> None:
        write(record, path)
        console.note(f"wrote {path}")

    if is_pattern(out.output):
        return write_each(stripped(records, out), out.output, noted)
    count = 0
    for record in stripped(records, out):
        if count:
            raise UsageError(
                f"{out.output} was written, and here is a second record, `{record.id}`",
                why="one file holds one video",
                next=f"{_with_id(out.output)} writes one file a record",
            )
        noted(record, out.output)
        count += 1
    return count


def print_json(report: Any) -> None:
    """A report on standard output, for machines: keys in the order given."""
    sys.stdout.write(json.dumps(report, ensure_ascii=False, indent=2) + "\n")


def print_text(text: str) -> None:
    """A report on standard output, for people."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
