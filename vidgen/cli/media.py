"""Frames records as video files, and the history that a video file carries.

What `decode`, `generate` and `convert` write as video they write here: whole or not at all, with
the record's id, attrs and log as JSON in the container's `comment` tag, from which `vidgen log`
and `convert` read them back. And one answer to the question what kind of file a path is.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from vidgen.errors import InputError, UsageError
from vidgen.io.layout import canonical_json

if TYPE_CHECKING:
    import numpy as np

    from vidgen.io.record import Record

COMMENT_SCHEMA = "vidgen.record/1"
RECORD_SUFFIXES = (".safetensors", ".vgs", ".npz")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".gif", ".avi", ".mpg", ".mpeg", ".nut",
                  ".ts", ".wmv", ".flv", ".ogv", ".y4m", ".webp", ".apng")  # fmt: skip
NO_AUDIO = ("gif", "png", "rgb")

# --- what a file is -------------------------------------------------------------------------------

Content = Literal["records", "video"]


def content_of(path: str) -> Content:
    """Whether a path holds records (streams, NPZ, stock safetensors) or is a video: by its ending,
    else by its first bytes. `-` is records. What looks like neither counts as records, whose
    reader says best what is wrong with it."""
    if path == "-":
        return "records"
    suffix = Path(path).suffix.lower()
    if suffix in RECORD_SUFFIXES:
        return "records"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if Path(path).is_dir():
        return "video"  # a folder of pictures
    if not Path(path).is_file():
        return "records"
    with open(path, "rb") as f:
        head = f.read(16)
    return "video" if _is_video(head) else "records"


def _is_video(head: bytes) -> bool:
    """Signatures of ISO media, Matroska, GIF, AVI, NUT, MPEG-PS and Ogg."""
    known = (b"\x1aE\xdf\xa3", b"GIF8", b"RIFF", b"nut/multimedia", b"\0\0\x01\xba", b"OggS")
    return head[4:8] == b"ftyp" or head.startswith(known)


# --- the history in a comment ---------------------------------------------------------------------


def comment_of(record: Record) -> str:
    """The record without its tensors, as the text of a container's `comment` tag."""
    value = {
        "schema": COMMENT_SCHEMA, "id": record.id, "attrs": record.attrs, "log": record.log,
    }  # fmt: skip
    return canonical_json(value).decode("utf-8")


def parse_comment(text: str) -> dict[str, Any] | None:
    """{"id", "attrs", "log"} of a comment that `comment_of` made; None for anybody else's."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("schema") != COMMENT_SCHEMA:
        return None
    log, attrs = value.get("log"), value.get("attrs")
    if not isinstance(log, list) or not all(isinstance(entry, dict) for entry in log):
        return None
    if not isinstance(attrs, dict) or not isinstance(value.get("id"), str):
        return None
    return {"id": value["id"], "attrs": attrs, "log": log}


def history_of(path: str | Path) -> dict[str, Any] | None:
    """{"id", "attrs", "log"} of a video file or folder that vidgen wrote; None for others.

    Raises InputError where the file can't be read as a video.
    """
    from vidgen.io.video import read_video_metadata

    return parse_comment(read_video_metadata(path).get("comment", ""))


def decode_all(path: str | Path) -> tuple[int, float]:
    """How many frames a video has and how long it lasts, in seconds, found by decoding all of it.

    Raises InputError, which says how many frames come before it, at damage.
    """
    from vidgen.io.video import open_video

    with open_video(path) as video:
        video.to_end()
    return video.num_frames, video.end_s


# --- writing --------------------------------------------------------------------------------------


def check_clip_output(path: str, *, force: bool = False) -> str:
    """The format (a key of `io.video.FORMATS`) that a path asks for. UsageError now, rather than
    after the work, for an unknown ending or a place that can't be written to."""
    from vidgen.io.files import check_writable
    from vidgen.io.pattern import is_pattern
    from vidgen.io.video import format_of

    form = format_of(path)
    if form != "png" or is_pattern(path):
        check_writable(path, force)
    else:
        _check_folder(Path(path), force)
    return form


def write_clip(
    record: Record,
    path: str | Path,
    *,
    fps: float | None = None,
    crf: int = 18,
    force: bool = False,
) -> None:
    """Write `frames` of a record (and `audio`, where the format can hold it) as .mp4, .mkv, .webm,
    .gif, .nut, .rgb, or a folder of PNG (`frames/`): whole or not at all.

    fps  of the file; the duration stays, so frames are repeated or left out. A record that
         doesn't know its own rate is shown at this one.

    Raises UsageError for a path that is taken (without `force`), an unknown ending or a missing
    rate, InputError for a record without frames, VidgenError when the disk is full.
    """
    from vidgen.io.files import AtomicFile, disk_full_is_an_error, is_special
    from vidgen.io.video import write_video

    form = check_clip_output(str(path), force=force)
    arguments = _video_arguments(record, form, fps, crf)
    if form == "png":
        _write_folder(Path(path), arguments, force)
    elif is_special(Path(path)):
        with open(path, "wb") as f:
            write_video(f, **arguments)
    else:
        out = AtomicFile(path, force=force)
        try:
            with disk_full_is_an_error(path):
                write_video(out.temporary, **arguments)  # the file that `out` has open, and syncs
                out.commit()
        except BaseException:
            out.discard()
            raise


def write_raw(
    record: Record, file: BinaryIO, format: str, *, fps: float | None = None, crf: int = 18
) -> None:
    """Write a record's frames to an open file or a pipe: `rgb` (rgb24 without a header), `nut`
    (rgb24 and float32 audio, for `ffmpeg -i -`), or any other format but a folder."""
    from vidgen.io.video import write_video

    write_video(file, **_video_arguments(record, format, fps, crf))


def _video_arguments(record: Record, form: str, fps: float | None, crf: int) -> dict[str, Any]:
    """What `write_video` is to be called with."""
    frames, rate = frames_at(record, fps)
    audio = record.numpy("audio") if "audio" in record and form not in NO_AUDIO else None
    sample_rate = record.attrs.get("sample_rate") if audio is not None else None
    if audio is not None and not sample_rate:
        raise InputError(
            f"record `{record.id}` has audio, but no attr `sample_rate`",
            why="how long it lasts can't be known",
            next="make the record again with a sample_rate",
        )
    return {
        "frames": frames, "fps": rate, "audio": audio, "sample_rate": sample_rate, "crf": crf,
        "metadata": {"comment": comment_of(record)}, "format": form,
    }  # fmt: skip


def frames_at(record: Record, fps: float | None) -> tuple[np.ndarray, float]:
    """The frames [T, H, W, 3] uint8 of a record at a rate, and that rate; its own for None."""
    import numpy as np

    if "frames" not in record:
        made_by = {"latents": "vidgen decode", "text": "vidgen sample-keyframes | vidgen decode"}
        raise InputError(
            f"record `{record.id}` holds {record.kind}, and no tensor `frames`",
            next=f"put `{made_by[record.kind]}` in front of it" if record.kind in made_by else
            "vidgen inspect shows what each record holds",
        )  # fmt: skip
    frames = record.numpy("frames")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise InputError(
            f"record `{record.id}`: frames are {frames.dtype} {list(frames.shape)}, not"
            " uint8 [T, H, W, 3]",
        )
    own = own_rate(record)
    rate = fps or own
    if rate is None:
        raise UsageError(
            f"record `{record.id}` doesn't say how many frames a second it has", next="--fps 8"
        )
    if own is None or math.isclose(rate, own, rel_tol=1e-6):
        return frames, rate
    count = max(1, math.ceil(len(frames) / own * rate - 1e-6))
    shown = np.floor(np.arange(count) / rate * own + 1e-6).astype(int)
    return frames[np.minimum(shown, len(frames) - 1)], rate


def own_rate(record: Record) -> float | None:
    """Frames a second as the record states them, or as its times do."""
    fps = record.attrs.get("fps")
    if isinstance(fps, int | float) and fps > 0:
        return float(fps)
    if "times" in record and record["times"].shape[:1] > (1,):
        times = record.numpy("times").astype(float)
        if times[-1] > times[0]:
            return float((len(times) - 1) / (times[-1] - times[0]))
    return None


def _check_folder(path: Path, force: bool) -> None:
    """UsageError unless the folder can be made, or is empty, or (with `force`) one of ours."""
    from vidgen.io.files import check_writable
    from vidgen.io.picture_folder import SIDECAR

    if not path.is_dir():
        check_writable(path, force)
        if path.exists():
            raise UsageError(f"{path}: is a file, not a folder")
        return
    if not any(path.iterdir()):
        return
    if not (path / SIDECAR).is_file():
        raise UsageError(
            f"{path}: is a folder with other files in it", next=f"-o {path}/NAME/ makes a new one"
        )
    if not force:
        raise UsageError(f"{path}: is there already", next="-f overwrites it")


def _write_folder(path: Path, arguments: dict[str, Any], force: bool) -> None:
    """A folder of pictures under a temporary name beside its place, then its name at once."""
    from vidgen.io.files import disk_full_is_an_error
    from vidgen.io.video import write_video

    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.new")
    old = temporary.with_suffix(".old")
    try:
        with disk_full_is_an_error(path):
            write_video(temporary, **arguments)
            for file in [*temporary.iterdir(), temporary]:
                _sync(file)
        _check_folder(path, force)  # again: it may have been taken meanwhile
        if path.is_dir():
            path.rename(old)
        temporary.rename(path)
        _sync(path.parent)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    with suppress(OSError):  # some file systems can't
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
