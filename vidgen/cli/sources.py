"""Records of whatever a command is given: record files, NPZ, videos, folders of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen.cli.media import content_of, history_of
from vidgen.cli.runner import open_inputs

if TYPE_CHECKING:
    from vidgen.io.record import Record


def records_of(
    paths: Sequence[str], tool: str, *, fps: float | None = None, num_frames: int | None = None
) -> Iterator[Record]:
    """The records of all inputs in their order; a video becomes a frames record, now.

    tool        the command that reads: what the log of a record made from a video begins with
    fps         rate of the frames of videos; None: their own
    num_frames  of videos, at most
    """
    kinds = [content_of(path) for path in paths]
    if "video" not in kinds:
        return open_inputs(paths)
    return _mixed(list(zip(paths, kinds, strict=True)), tool, fps, num_frames)


def _mixed(
    inputs: list[tuple[str, str]], tool: str, fps: float | None, num_frames: int | None
) -> Iterator[Record]:
    from vidgen.io.stream import read_stream

    taken: set[str] = set()
    for path, kind in inputs:
        video = kind == "video"
        for record in _video(path, tool, fps, num_frames) if video else read_stream(path):
            if video and record.id in taken:
                numbers = (f"{record.id[:120]}-{n}" for n in range(2, 10**6))
                record = record.replace(id=next(name for name in numbers if name not in taken))
            taken.add(record.id)
            yield record


def _video(path: str, tool: str, fps: float | None, num_frames: int | None) -> Iterator[Record]:
    """The frames record of a video, with the history that vidgen left in it."""
    from vidgen.io.log import new_entry
    from vidgen.stages.encode_video import read_videos

    made: dict[str, Any] = history_of(path) or {"id": None, "attrs": {}, "log": []}
    argv = [tool, *([f"--fps={fps:g}"] if fps else [])]
    argv += [f"--frames={num_frames}"] if num_frames else []
    for record in read_videos([path], fps=fps, num_frames=num_frames):
        entry = new_entry(tool, argv=argv, inputs=_sha256(path))
        record.log = made["log"]
        attrs = {**made["attrs"], **record.attrs}
        yield record.replace(id=made["id"] or record.id, attrs=attrs, entry=entry)


def _sha256(path: str) -> list[str]:
    """What names the file in the log; nothing for a folder."""
    if not Path(path).is_file():
        return []
    with open(path, "rb") as f:
        return ["sha256:" + hashlib.file_digest(f, "sha256").hexdigest()]
