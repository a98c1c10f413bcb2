"""Videos as output: which names mean a video, and writing them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from vidgen.cli.options import option
from vidgen.errors import UsageError

if TYPE_CHECKING:
    from vidgen.cli.console import Console
    from vidgen.cli.options import Given, RecordOutput
    from vidgen.io.record import Record

RawFormat = Annotated[
    Literal["rgb", "nut"] | None,
    option("--format", metavar="NAME", settable=False, default="by the name after -o",
           help="raw frames to standard output: rgb (rgb24) or nut"),
]  # fmt: skip


def check(out: RecordOutput, format: str | None = None) -> bool:
    """Whether the output is a video rather than a stream of records. UsageError now, rather than
    after the work, if it can't be written."""
    from vidgen.cli.media import VIDEO_SUFFIXES, check_clip_output
    from vidgen.cli.runner import check_output

    if format is not None and out.output != "-":
        raise UsageError(
            f"--format {format} writes to standard output, and -o names {out.output}",
            next="leave one of the two out",
        )
    if out.output.lower().endswith((*VIDEO_SUFFIXES, "/")):
        if out.npz:
            raise UsageError(
                f"--npz writes NPZ, and -o names a video, {out.output}",
                next="leave one of the two out",
            )
        check_clip_output(out.output, force=out.force)
        return True
    check_output(out)
    return format is not None


def refuse_unused(given: Given, out: RecordOutput, format: str | None, *, video: bool) -> None:
    """UsageError for what was typed about a video that the output won't be; `video`: what `check`
    said."""
    if not video:
        given.refuse("fps", "crf", why="records are written, and -o FILE.mp4 would be a video")
    elif "crf" in given:
        from vidgen.io.video import format_of

        refuse_crf(given, format or format_of(out.output))


def refuse_crf(given: Given, format: str) -> None:
    """UsageError for --crf where the video's format is exact, or has nothing to set."""
    from vidgen.io.video import FORMATS

    if FORMATS[format].highest_crf is None:
        given.refuse("crf", why=f"{format} has no quality to set")


def check_names(out: RecordOutput, ids: Iterable[str], *, video: bool) -> None:
    """The same for the file of each record, where their ids are known; `video`: what `check`
    said."""
    from vidgen.cli import runner

    runner.check_names(out, ids, check=check, single=video)


def write_videos(
    records: Iterable[Record],
    out: RecordOutput,
    console: Console,
    *,
    fps: float | None,
    crf: int,
    format: str | None = None,
) -> None:
    """Frames records as videos: one file each, or raw to standard output, one after the other."""
    from vidgen.cli.media import write_clip, write_raw
    from vidgen.cli.runner import stripped, write_files

    if format is not None:
        for record in stripped(records, out):
            write_raw(record, sys.stdout.buffer, format, fps=fps, crf=crf)
        return
    write_files(
        records,
        out,
        console,
        lambda record, path: write_clip(record, path, fps=fps, crf=crf, force=out.force),
    )
