"""The clips that the commands of the family `evaluate-…` look at, one at a time.

An input is a video, a folder of pictures, a folder of either, a quoted glob, a file of frames
records, or standard input. Of a video only the frames that are asked for are kept.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vidgen.cli.media import (
    RECORD_SUFFIXES,
    VIDEO_SUFFIXES,
    content_of,
    decode_all,
    frames_at,
    history_of,
    own_rate,
)
from vidgen.cli.runner import require_stdin
from vidgen.cli.sources import free_id, records_of
from vidgen.errors import InputError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from vidgen.io.record import Record

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SKIP = "--skip-bad leaves out what can't be used, and counts it"


class Warns(Protocol):
    def warn(self, text: str) -> None: ...


@dataclass
class Kept:
    """A console whose warnings are kept, for the report."""

    console: Warns
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        self.console.warn(text)
        self.warnings.append(text)


@dataclass(frozen=True)
class Sampling:
    """Which frames are taken of a clip.

    num_frames  how many; None is all there are
    stride      every so manieth
    fps         bring the clip to this rate first, by repeating or leaving out frames; None: its own
    start       where the stretch lies
    seed        of a random start, which also depends on the clip's id
    least       frames that whoever asks can't do without: taking fewer is no way out then
    """

    num_frames: int | None
    stride: int = 1
    fps: float | None = None
    start: Literal["first", "middle", "random"] = "first"
    seed: int = 0
    least: int = 1

    @property
    def span(self) -> int | None:
        """Frames from the first to the last one taken."""
        return None if self.num_frames is None else (self.num_frames - 1) * self.stride + 1

    def first(self, there: int, id: str) -> int:
        """The frame to begin with in a clip of so many."""
        spare = there - (self.span or there)
        if spare <= 0 or self.start == "first":
            return 0
        if self.start == "middle":
            return spare // 2
        digest = hashlib.sha256(f"{self.seed} {id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % (spare + 1)

    def settings(self) -> dict[str, Any]:
        """What of it decides the numbers."""
        seed = {"seed": self.seed} if self.start == "random" else {}
        return {
            "num_frames": self.num_frames, "stride": self.stride, "fps": self.fps,
            "start": self.start, **seed,
        }  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """One clip, sampled."""

    id: str
    frames: np.ndarray  # uint8 `t h w 3`
    times: np.ndarray  # `t` seconds from the clip's first frame
    rate: float | None  # frames a second of these; None: not known, `times` are as at 25
    prompt: str | None
    record: Record  # what it was read from; of a video, the frames taken


def clips(
    paths: Sequence[str],
    sampling: Sampling | None,
    console: Warns,
    *,
    skip_bad: bool = False,
    bad: list[str] | None = None,
) -> Iterator[Clip]:
    """The clips of all inputs, in their order, folders in the order of their names.

    sampling  None: whole clips
    skip_bad  leave out what can't be read or is too short; `bad` gets a line for each

    Inputs that aren't there are a UsageError at once; what is wrong with a clip is an InputError
    that names it, when it is its turn. Where sizes or rates differ, a warning at the end says so.
    """
    sources = expand(paths, console)
    return _read(sources, sampling or Sampling(None), console, skip_bad, [] if bad is None else bad)


def expand(paths: Sequence[str], console: Warns) -> list[str]:
    """The files, folders of pictures and `-` that the inputs stand for. UsageError for what isn't
    there, InputError for a folder without clips."""
    if list(paths).count("-") > 1:
        raise UsageError("standard input (`-`) can be read only once")
    if not paths or "-" in paths:
        require_stdin()
    found: list[str] = []
    for path in paths or ["-"]:
        if path == "-" or (os.path.exists(path) and not os.path.isdir(path)):
            found.append(path)
        elif os.path.isdir(path):
            found += _in_folder(Path(path), console)
        elif not has_magic(path):
            raise UsageError(f"{path}: no such file or folder")
        elif not (matches := sorted(glob(path, recursive=True), key=_natural)):
            raise UsageError(f"{path}: matches no file")
        else:
            found += expand(matches, console)
    return found


def _in_folder(folder: Path, console: Warns) -> list[str]:
    """The clips in a folder and those below it; itself, where it holds pictures only."""
    if _is_clip(folder):
        return [str(folder)]
    found: list[str] = []
    other: list[str] = []
    for at, below, names in os.walk(folder):
        here = Path(at)
        pictures = [name for name in below if _is_clip(here / name)]
        below[:] = [n for n in below if n not in pictures and not n.startswith(".")]
        found += [str(here / name) for name in pictures]
        for name in names:
            if not name.startswith("."):
                kind = Path(name).suffix.lower()
                whole = kind in (*VIDEO_SUFFIXES, *RECORD_SUFFIXES)
                (found if whole else other).append(str(here / name))
    if not found:
        raise InputError(
            f"{folder}: no clips in it" if other else f"{folder}: is an empty folder",
            why=f"videos, folders of pictures and {', '.join(RECORD_SUFFIXES)} are looked for",
        )
    if other:
        console.warn(
            f"{folder}: no clips, left out: {len(other)} of its files: {_some(sorted(other))}"
        )
    return sorted(found, key=_natural)


def _is_clip(folder: Path) -> bool:
    """Whether a folder holds pictures and nothing else that could be a clip."""
    names = [e.name for e in os.scandir(folder) if e.is_file()] if folder.is_dir() else []
    suffixes = {Path(name).suffix.lower() for name in names if not name.startswith(".")}
    others = set(VIDEO_SUFFIXES) | set(RECORD_SUFFIXES)
    return bool(suffixes & set(PICTURE_SUFFIXES)) and not suffixes & others - set(PICTURE_SUFFIXES)


def _natural(name: str) -> list[tuple[int, str]]:
    """`clip-9` before `clip-10`."""
    parts = re.split(r"(\d+)", name)
    return [(int(p), "") if p.isascii() and p.isdigit() else (-1, p) for p in parts]


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _read(
    sources: list[str], sampling: Sampling, console: Warns, skip_bad: bool, bad: list[str]
) -> Iterator[Clip]:
    taken: set[str] = set()
    sizes: Counter[str] = Counter()
    rates: Counter[str] = Counter()
    failed = 0
    for source in sources:
        found = _of_video(source, sampling) if _is_video(source) else _of_records(source, sampling)
        while True:
            try:
                item = next(found, None)
                clip = item() if item is not None else None
            except InputError as error:
                if not skip_bad:
                    raise InputError(error.what, why=error.why, next=error.next or SKIP) from error
                bad.append(error.what)
                failed += 1
                continue  # a generator that raised is over; one whose item did has more
            if clip is None:
                break
            clip = replace(clip, id=free_id(clip.id, taken))
            taken.add(clip.id)
            height, width = clip.frames.shape[1:3]
            sizes[f"{width}x{height}"] += 1
            rates["unknown" if clip.rate is None else f"{clip.rate:.4g}"] += 1
            yield clip
    _summary(len(taken), failed, bad, sizes, rates, sources, console)


def _summary(
    count: int,
    failed: int,
    bad: list[str],
    sizes: Counter[str],
    rates: Counter[str],
    sources: list[str],
    console: Warns,
) -> None:
    """What is to be said of the clips as a whole, when all have been seen. Some of `bad` may be
    clips that could be read and that whoever asks had no use for."""
    if not count:
        raise InputError(f"{_some(sources)}: none of {failed} clips can be used", why=_some(bad, 1))
    if bad:
        console.warn(f"{len(bad)} of {count + failed} clips were left out: {_some(bad)}")
    if len(sizes) > 1:
        console.warn(f"clips of {len(sizes)} sizes: {_counted(sizes)}")
    if len(rates) > 1:
        console.warn(f"clips of {len(rates)} rates: {_counted(rates)} frames a second")


def _counted(counter: Counter[str]) -> str:
    return _some([f"{n} of {name}" for name, n in counter.most_common()])


# --- one clip -------------------------------------------------------------------------------------


# Makes the clip, or raises InputError: of a stream's clips one may be bad and the rest not.
_Item = Callable[[], Clip]


def _is_video(source: str) -> bool:
    return content_of(source) == "video"


def _of_video(path: str, sampling: Sampling) -> Iterator[_Item]:
    yield partial(_video, path, sampling)


def _of_records(path: str, sampling: Sampling) -> Iterator[_Item]:
    for record in records_of([path], "evaluate"):
        yield partial(_from_record, record, path, sampling)


def _video(path: str, sampling: Sampling) -> Clip:
    """The frames asked for of a video or a folder of pictures, the others never in memory.

    All of it is decoded once, also where only its first frames are taken: a file that is damaged
    further on is not what was meant to be compared, and nothing but decoding tells."""
    import numpy as np

    from vidgen.io.record import Record
    from vidgen.io.video import iter_frames, probe
    from vidgen.stages.encode_video import id_of_name

    made = history_of(path) or {"attrs": {}, "log": []}
    id = made.get("id") or id_of_name(path)
    info = probe(path)
    first = 0
    if sampling.span is not None:
        there, end = decode_all(path)
        if sampling.start != "first":
            if sampling.fps is not None:
                there = max(1, int(end * sampling.fps + 1e-6))
            _enough(path, there, sampling)
            first = sampling.first(there, id)
    frames, times, seen = [], [], 0
    for frame in iter_frames(
        path, start=first, num_frames=sampling.span, fps=sampling.fps, exact=False
    ):
        if seen % sampling.stride == 0:
            frames.append(frame.rgb)
            times.append(frame.time)
        seen += 1
    if not first or not frames:
        _enough(path, first + seen, sampling)
    if sampling.num_frames is not None and len(frames) < sampling.num_frames:
        raise InputError(f"{path}: ends at frame {first + seen}, its header promises more")
    stacked = np.stack(frames)
    rate = (sampling.fps or info.fps) / sampling.stride
    attrs = {
        **made["attrs"], "fps": rate,
        "num_frames": len(frames), "height": stacked.shape[1], "width": stacked.shape[2],
    }  # fmt: skip
    tensors = {"frames": stacked, "times": np.array(times)}
    record = Record.make("frames", id, tensors, attrs, made["log"])
    return Clip(id, stacked, np.array(times), rate, _prompt(record), record)


def _from_record(record: Record, path: str, sampling: Sampling) -> Clip:
    import numpy as np

    from vidgen.io.video_info import DEFAULT_FPS

    name = f"record `{record.id}`" if path == "-" else f"{path}: record `{record.id}`"
    own = own_rate(record)
    if sampling.fps and own is None:
        raise InputError(
            f"{name} doesn't say how many frames a second it has",
            next="leave --fps out, or make the record again with an attr fps",
        )
    frames, rate = frames_at(record, sampling.fps or own or DEFAULT_FPS)
    if "times" in record and rate == own:
        times = record.numpy("times").astype(float)
    else:
        times = np.arange(len(frames)) / rate
    if times.shape != frames.shape[:1]:
        raise InputError(f"{name} has {len(frames)} frames and times {list(times.shape)}")
    _enough(name, len(frames), sampling)
    first = sampling.first(len(frames), record.id)
    stretch = slice(first, None if sampling.span is None else first + sampling.span)
    taken = np.array(frames[stretch][:: sampling.stride])  # a copy: the record may be a mapped file
    shown = times[stretch][:: sampling.stride]
    known = None if own is None else rate / sampling.stride
    return Clip(record.id, taken, shown, known, _prompt(record), record)


def _enough(name: str, there: int, sampling: Sampling) -> None:
    """InputError if a clip is too short."""
    need = sampling.span or 1
    if there >= need:
        return
    at = f" at {sampling.fps:g} a second" if sampling.fps else ""
    every = f", every {sampling.stride}. of {need}" if sampling.stride > 1 else ""
    fewer = "--num-frames takes fewer" if there >= sampling.least else "make longer clips"
    raise InputError(
        f"{name}: has {there} frames{at}, {need} are needed",
        why=f"{sampling.num_frames} frames are taken of each clip{every}" if need > 1 else None,
        next=f"{fewer}; {SKIP}",
    )


def _prompt(record: Record) -> str | None:
    prompt = record.attrs.get("prompt")
    return prompt if isinstance(prompt, str) else None
