"""Records of whatever a command is given: record files, NPZ, videos, folders of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen.cli.media import content_of, history_of
from vidgen.cli.runner import headers_of, open_inputs
from vidgen.errors import InputError, UsageError

if TYPE_CHECKING:
    from vidgen.io.record import Record
    from vidgen.stages.encode_video import Reading


def records_of(
    paths: Sequence[str],
    tool: str,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    readings: dict[str, Reading] | None = None,
) -> Iterator[Record]:
    """The records of all inputs in their order; a video becomes a frames record, now.

    tool        the command that reads: the log of a record made from a video names it
    fps         rate of the frames of videos; None: their own
    num_frames  of videos, at most
    readings    where a command adds an entry of its own to the log: gets, by record id, what that
                is to say of the reading
    """
    for path in paths:
        if path != "-" and not Path(path).exists():
            raise UsageError(f"{path}: no such file")
    kinds = [content_of(path) for path in paths]
    if "video" not in kinds:
        return open_inputs(paths)
    return _mixed(list(zip(paths, kinds, strict=True)), tool, fps, num_frames, readings)


def _mixed(
    inputs: list[tuple[str, str]],
    tool: str,
    fps: float | None,
    num_frames: int | None,
    readings: dict[str, Reading] | None,
) -> Iterator[Record]:
    from vidgen.io.log import new_entry
    from vidgen.io.stream import read_stream

    taken: set[str] = set()
    for path, kind in inputs:
        if kind != "video":
            for record in read_stream(path):
                taken.add(record.id)
                yield record
            continue
        record, reading = _video(path, fps, num_frames)
        record.id = free_id(record.id, taken)
        taken.add(record.id)
        if readings is not None:
            readings[record.id] = reading
            yield record
        else:
            argv = [tool, *reading.argv]
            yield record.replace(entry=new_entry(tool, argv=argv, inputs=reading.inputs))


def ids_of(paths: Sequence[str]) -> list[str]:
    """The ids that the records of those inputs will have which are files, and whole."""
    ids: list[str] = []
    for path in paths:
        if path == "-" or content_of(path) != "video":
            ids += [record.id for record in headers_of([path])]
            continue
        with suppress(InputError):
            ids.append(free_id(_video_id(path, history_of(path)), ids))
    return ids


def free_id(id: str, taken: Container[str]) -> str:
    """The id, with a number where it is taken."""
    numbered = (f"{id[:120]}-{n}" for n in count(2))
    return next(name for name in chain([id], numbered) if name not in taken)


def _video(path: str, fps: float | None, num_frames: int | None) -> tuple[Record, Reading]:
    """The frames record of a video, with the history that vidgen left in it, and what the log is
    to say of the reading."""
    from vidgen.stages.encode_video import Reading, read_videos

    made: dict[str, Any] = history_of(path) or {"attrs": {}, "log": []}
    argv = ["--fps", f"{fps:g}"] if fps else []
    argv += ["--frames", str(num_frames)] if num_frames else []
    (record,) = read_videos([path], fps=fps, num_frames=num_frames)
    record.log = made["log"]
    attrs = {**made["attrs"], **record.attrs}
    made_id = _video_id(path, made)
    return record.replace(id=made_id, attrs=attrs), Reading(argv, _sha256(path))


def _video_id(path: str, made: dict[str, Any] | None) -> str:
    """The id that vidgen wrote into a video, else one made from the file's name."""
    from vidgen.stages.encode_video import id_of_name

    return (made or {}).get("id") or id_of_name(path)


def _sha256(path: str) -> list[str]:
    """What names the file in the log; nothing for a folder."""
    if not Path(path).is_file():
        return []
    with open(path, "rb") as f:
        return ["sha256:" + hashlib.file_digest(f, "sha256").hexdigest()]
