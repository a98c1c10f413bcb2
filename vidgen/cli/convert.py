"""`vidgen convert`: between records, NPZ and video files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from vidgen.cli.console import Console
from vidgen.cli.media import (
    RECORD_SUFFIXES,
    VIDEO_SUFFIXES,
    check_clip_output,
    content_of,
    write_clip,
    write_raw,
)  # fmt: skip
from vidgen.cli.options import Crf, Fps, Given, RecordOutput, argument, option
from vidgen.cli.page import Page
from vidgen.cli.runner import (
    check_output,
    require_stdin,
    stripped,
    write_files,
    write_records,
)  # fmt: skip
from vidgen.cli.sources import records_of
from vidgen.cli.video_output import refuse_crf
from vidgen.errors import UsageError

if TYPE_CHECKING:
    from vidgen.io.record import Record

PAGE = Page(
    name="convert",
    summary="between records, NPZ and video files",
    description="""\
The ending of the output says what is made: .safetensors or .vgs (records), .npz (one record), .mp4,
.mkv, .webm, .gif, or a folder of PNG pictures for a name that ends in a slash. Several inputs give
one stream, or with '{id}' in the output one file each. To standard output go records, or what
--format says: rgb is raw rgb24 and nut a container for it, both for a pipe into ffmpeg.

A video becomes a record with `frames`, `times` and, where there is sound, `audio`. A rate that
varies is made constant. With --fps frames are repeated or left out, so that the duration stays.
Only records with frames become videos; `vidgen decode` makes them from latents. GIF and PNG hold
no sound, and raw rgb neither: it is left out.

Between records and NPZ nothing is lost, and back again gives the same bytes. A video that vidgen
wrote gives its record the id, the attributes and the log it was written with, and one more step in
the log: H.264 and its kin are not exact.""",
    reads="records, NPZ or video files from IN",
    writes="records, or video, to -o",
    examples=[
        ("vidgen convert clip.mp4 -o clip.npz", "a video as arrays for NumPy"),
        ("vidgen convert clip.safetensors -o frames.gif", "frames as a video"),
        ("vidgen convert clip.mp4 --fps 8 -o 'eight-{id}/'", "a folder of PNG at another rate"),
        ("vidgen convert clip.safetensors --format nut > clip.nut", "for a pipe into ffmpeg"),
    ],
    see_also=["vidgen-decode(1)", "vidgen-encode-video(1)", "ffmpeg(1)"],
)

Inputs = Annotated[
    list[str] | None,
    argument("IN", "files of records, NPZ files, videos, folders of pictures; - is standard input"),
]
Format = Annotated[
    Literal["records", "npz", "mp4", "mkv", "webm", "gif", "rgb", "nut"] | None,
    option("--format", metavar="NAME", default="by the ending", settable=False,
           help="what goes to standard output: records, npz, mp4, mkv, webm, gif, rgb or nut"),
]  # fmt: skip


def convert(
    out: RecordOutput,
    console: Console,
    given: Given,
    inputs: Inputs = None,
    *,
    fps: Fps = None,
    crf: Crf = 18,
    format: Format = None,
) -> None:
    paths = inputs or ["-"]
    if "-" in paths:
        require_stdin()
    out, form = _target(out, format)
    from_video = any(content_of(path) == "video" for path in paths)
    if form is None and fps is not None and not from_video:
        raise UsageError(
            "--fps says nothing where records become records", next="-o FILE.mp4 writes a video"
        )
    if form is None:
        given.refuse("crf", why="records are written, and -o FILE.mp4 would be a video")
    else:
        refuse_crf(given, form)
    if form is None or out.output == "-":
        check_output(out)
    else:
        check_clip_output(out.output, force=out.force)
    records = records_of(paths, "convert", fps=fps)
    if form is None:
        write_records(records, out, console)
    elif out.output == "-":
        _write_stdout(records, out, form, fps, crf)
    else:
        write_files(records, out, console, _clip_writer(out, fps, crf))


def _target(out: RecordOutput, format: str | None) -> tuple[RecordOutput, str | None]:
    """The output, and the format of its video; None: records or NPZ."""
    if format in ("records", "npz"):
        return replace(out, npz=out.npz or format == "npz"), None
    if out.output == "-":
        return out, format
    if format is not None:
        raise UsageError(
            f"--format {format} is for standard output",
            why="the ending of a file's name says what it holds",
            next=f"-o NAME.{format}",
        )
    from pathlib import Path

    from vidgen.io.video import format_of

    if out.npz or Path(out.output).suffix.lower() in RECORD_SUFFIXES:
        return out, None
    if not Path(out.output).suffix and not out.output.endswith("/"):
        if not Path(out.output).exists():  # a device or a pipe takes records
            raise UsageError(
                f"{out.output}: the name doesn't say what to make",
                why=f"endings are {', '.join((*RECORD_SUFFIXES, *_video_endings()))}",
                next=f"-o {out.output}/ makes a folder of PNG, -o {out.output}.mp4 a video",
            )
        if not Path(out.output).is_dir():
            return out, None
    return out, format_of(out.output)


def _video_endings() -> tuple[str, ...]:
    from vidgen.io.video import FORMATS

    return tuple(f".{name}" for name in FORMATS if f".{name}" in VIDEO_SUFFIXES)


def _clip_writer(out: RecordOutput, fps: float | None, crf: int) -> Callable[[Record, str], None]:
    def write(record: Record, path: str) -> None:
        write_clip(record, path, fps=fps, crf=crf, force=out.force)

    return write


def _write_stdout(
    records: Iterator[Record], out: RecordOutput, form: str, fps: float | None, crf: int
) -> None:
    for number, record in enumerate(stripped(records, out)):
        if number:
            raise UsageError(
                f"one {form} was written, and here is a second record, `{record.id}`",
                next=f"-o '{{id}}.{form}' writes one file a record",
            )
        write_raw(record, sys.stdout.buffer, form, fps=fps, crf=crf)
