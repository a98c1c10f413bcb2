"""`vidgen inspect`: what is in a file or stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vidgen.cli.console import printable
from vidgen.cli.media import content_of, decode_all, parse_comment
from vidgen.cli.options import Json, argument, option
from vidgen.cli.page import Page
from vidgen.cli.report_compare import refuse_report
from vidgen.cli.runner import print_json, require_stdin
from vidgen.cli.schemas import (
    ANY,
    LOG_ENTRY,
    NUMBER,
    SWITCH,
    TEXT,
    WHOLE,
    array,
    obj,
    one_of,
    or_null,
    report,
)  # fmt: skip
from vidgen.errors import InputError
from vidgen.io.log import outline
from vidgen.io.record import KINDS, human_bytes

if TYPE_CHECKING:
    from vidgen.io.record import Record

PAGE = Page(
    name="inspect",
    summary="what is in a file or stream",
    description="""\
Prints for each record its id, kind and size, then a line for each tensor with its dtype, shape
and bytes, its attributes, and the steps that made it: of each its models by the beginning of their
hashes, its seed and sampler, and what isn't exact. `vidgen log` tells all. Only headers are read,
so that a file of any size is shown at once; damage to the data itself is for `vidgen check` to
find.

Streams, NPZ files and safetensors files of other makers are read. Of a video, or a folder of
pictures, it shows size, rate, length, codec, rotation and sound, and the history that vidgen left
in it. Headers of videos lie about frames and lengths, or are silent, so a video is decoded to its
end; --headers believes them, at once.""",
    reads="records, NPZ or video files from IN",
    writes="text, or JSON, to standard output",
    examples=[
        ("vidgen inspect clip.safetensors", "the records in a file"),
        ("vidgen inspect clip.mp4", "a video's size, rate, codec and sound"),
        ("vidgen inspect --json clip.safetensors clip.mp4", "for a program"),
    ],
    see_also=["vidgen-log(1)", "vidgen-check(1)", "vidgen-stream(5)"],
)

_TENSOR = obj({"name": TEXT, "dtype": TEXT, "shape": array(WHOLE), "bytes": WHOLE})
_RECORD = obj(
    {
        "id": TEXT,
        "kind": one_of(*KINDS),
        "bytes": WHOLE,
        "last": SWITCH,
        "tensors": array(_TENSOR),
        "attrs": {"type": "object"},
        "log": array(LOG_ENTRY),
    }
)
_MADE = obj({"id": TEXT, "attrs": {"type": "object"}, "log": array(ANY)})
_VIDEO = obj(
    {
        "width": WHOLE,
        "height": WHOLE,
        "num_frames": or_null(WHOLE),
        "fps": NUMBER,
        "duration_s": or_null(NUMBER),
        "container": TEXT,
        "codec": TEXT,
        "pix_fmt": TEXT,
        "matrix": TEXT,
        "full_range": SWITCH,
        "rotation": WHOLE,
        "pixel_aspect": NUMBER,
        "audio": or_null(obj({"sample_rate": WHOLE, "channels": WHOLE})),
        "made": or_null(_MADE),
    }
)
SCHEMAS = {
    "vidgen.inspect/1": report(
        "vidgen.inspect/1",
        "What `vidgen inspect --json` prints; an input has either records or a video",
        {
            "inputs": array(
                obj(
                    {"input": TEXT, "records": array(_RECORD), "video": _VIDEO},
                    optional=("records", "video"),
                )
            )
        },
    )
}

Inputs = Annotated[
    list[str] | None,
    argument("IN", "files of records, NPZ files, videos, folders of pictures; - is standard input"),
]


Headers = Annotated[bool, option("--headers", help="don't decode videos, believe their headers")]


def inspect(inputs: Inputs = None, *, headers: Headers = False, json: Json = False) -> None:
    paths = inputs or ["-"]
    if "-" in paths:
        require_stdin()
    for path in paths:
        refuse_report(path)
    if json:
        _print_json(paths, headers)
    else:
        _print_text(paths, headers)


def _print_text(paths: list[str], headers: bool) -> None:
    """Blocks with an empty line between them; what came before an error has been printed."""
    between = ""
    for path in paths:
        if len(paths) > 1:
            print(f"{between}== {printable(path)}", flush=True)
            between = ""
        for block in _blocks(path, headers):
            print(between + "\n".join(map(printable, block.split("\n"))), flush=True)
            between = "\n"


def _blocks(path: str, headers: bool) -> Iterator[str]:
    if content_of(path) == "video":
        video = Video(path, headers)
        yield video.text()
        if video.fault is not None:
            raise video.fault
        return
    from vidgen.io.stream import read_stream

    for record in read_stream(path, verify=False):
        yield repr(record)


def _print_json(paths: list[str], headers: bool) -> None:
    found: list[dict[str, Any]] = []
    fault: InputError | None = None
    try:
        for path in paths:
            if content_of(path) == "video":
                video = Video(path, headers)
                found.append({"input": path, "video": video.json()})
                if video.fault is not None:
                    raise video.fault
                continue
            from vidgen.io.stream import read_stream

            records: list[dict[str, Any]] = []
            found.append({"input": path, "records": records})
            records.extend(map(_record_json, read_stream(path, verify=False)))
    except InputError as error:
        fault = error  # after what could be read
    print_json({"schema": "vidgen.inspect/1", "inputs": found})
    if fault is not None:
        raise fault


def _record_json(record: Record) -> dict[str, Any]:
    tensors = [
        {"name": name, "dtype": blob.dtype, "shape": list(blob.shape), "bytes": blob.nbytes}
        for name, blob in sorted(record.tensors.items())
    ]
    return {
        "id": record.id,
        "kind": record.kind,
        "bytes": sum(blob.nbytes for blob in record.tensors.values()),
        "last": record.last,
        "tensors": tensors,
        "attrs": record.attrs,
        "log": record.log,
    }


# --- videos ---------------------------------------------------------------------------------------


class Video:
    """What a video says of itself, what vidgen left in it, and what decoding it shows."""

    def __init__(self, path: str, headers: bool) -> None:
        from vidgen.io.video import probe, read_video_metadata

        self.path = Path(path)
        self.info = probe(path)
        self.made = parse_comment(read_video_metadata(path).get("comment", ""))
        self.fault: InputError | None = None  # found behind the header
        if headers:
            return
        try:
            frames, duration_s = decode_all(path)
        except InputError as error:
            self.fault = error
        else:
            self.info = replace(self.info, num_frames=frames, duration_s=round(duration_s, 6))

    def json(self) -> dict[str, Any]:
        info = self.info
        names = ("width", "height", "num_frames", "fps", "duration_s", "container", "codec",
                 "pix_fmt", "matrix", "full_range", "rotation", "pixel_aspect")  # fmt: skip
        audio = {"sample_rate": info.sample_rate, "channels": info.channels}
        return {
            **{name: getattr(info, name) for name in names},
            "audio": audio if info.has_audio else None,
            "made": self.made,
        }

    def text(self) -> str:
        """The table, in the layout of a record's."""
        info, made = self.info, self.made
        is_file = self.path.is_file()
        size = human_bytes(self.path.stat().st_size) if is_file else "a folder of pictures"
        guess = "" if info.matrix_stated else " (a guess from the size)"
        stated = " stated" if self.fault else ""
        rows = {
            "size": f"{info.width} x {info.height}",
            "frames": f"{info.num_frames or 'not'}{stated if info.num_frames else ' stated'}",
            "fps": f"{info.fps:.5g}",
            "duration": "not stated" if info.duration_s is None else f"{info.duration_s:.3f} s",
            "codec": f"{info.codec} {info.pix_fmt}",
            "colors": f"{info.matrix}{guess}, {'full' if info.full_range else 'limited'} range",
            "rotation": f"{info.rotation} degrees clockwise, applied" if info.rotation else "none",
            "audio": "none",
        }
        if info.has_audio:
            channels = {1: "mono", 2: "stereo"}.get(info.channels or 0, f"{info.channels} channels")
            rows["audio"] = f"{info.sample_rate} Hz {channels}"
        if info.pixel_aspect != 1:
            rows["pixels"] = f"{info.pixel_aspect:.4g} times as wide as high"
        lines = [f"{self.path.name or self.path}  video  {size}"]
        lines += [f"  {name:<8}  {value}" for name, value in rows.items()]
        if made and "prompt" in made["attrs"]:
            lines.append(f"  prompt: {made['attrs']['prompt']}")
        if made and made["log"]:
            lines += [f"  {line}" for line in outline(made["log"])]
        return "\n".join(lines)
