"""The clips that the commands of the family `evaluate-…` look at, one at a time.

An input is a video, a folder of pictures, a folder of either, a quoted glob, a file of frames
records, or standard input. Of a video only the frames that are asked for are kept.
"""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from glob import glob, has_magic
from pathlib import Path
from typing import Protocol

from vidgen.cli.eval_clip import SKIP, Clip, Sampling, of_record, of_video
from vidgen.cli.media import RECORD_SUFFIXES, VIDEO_SUFFIXES, content_of
from vidgen.cli.runner import require_stdin
from vidgen.cli.sources import free_id, records_of
from vidgen.errors import InputError, UsageError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


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


def clips(
    paths: Sequence[str],
    sampling: Sampling | None,
    console: Warns,
    *,
    skip_bad: bool = False,
    bad: list[str] | None = None,
    readers: int = 1,
) -> Iterator[Clip]:
    """The clips of all inputs, in their order, folders in the order of their names.

    sampling  None: whole clips
    skip_bad  leave out what can't be read or is too short; `bad` gets a line for each
    readers   clips that are read at a time, each in a thread, while the last one is used; as many
              more are in memory then

    Inputs that aren't there are a UsageError at once; what is wrong with a clip is an InputError
    that names it, when it is its turn. Where sizes or rates differ, a warning at the end says so.
    """
    sources = expand(paths, console)
    items = _items(sources, sampling or Sampling(None))
    if readers > 1:
        items = _side_by_side(items, readers)
    return _read(items, sources, console, skip_bad, [] if bad is None else bad)


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


# Makes the clip, or raises InputError: of a stream's clips one may be bad and the rest not.
_Item = Callable[[], Clip]


def _items(sources: list[str], sampling: Sampling) -> Generator[_Item]:
    for source in sources:
        try:
            if content_of(source) == "video":
                yield partial(of_video, source, sampling)
                continue
            for record in records_of([source], "evaluate"):
                yield partial(of_record, record, source, sampling)
        except Exception as error:  # where the next record would be
            yield partial(_fail, error)


def _fail(error: Exception) -> Clip:
    raise error


def _side_by_side(items: Generator[_Item], readers: int) -> Generator[_Item]:
    """The same in their order, of which so many are being made while one is used."""
    waiting: deque[Future[Clip]] = deque()
    pool = ThreadPoolExecutor(readers, thread_name_prefix="reader")
    try:
        for item in items:
            waiting.append(pool.submit(item))
            if len(waiting) > readers:
                yield waiting.popleft().result
        while waiting:
            yield waiting.popleft().result
    finally:
        pool.shutdown(cancel_futures=True)


def _read(
    items: Generator[_Item], sources: list[str], console: Warns, skip_bad: bool, bad: list[str]
) -> Iterator[Clip]:
    taken: set[str] = set()
    sizes: Counter[str] = Counter()
    rates: Counter[str] = Counter()
    failed = 0
    with closing(items):
        for item in items:
            try:
                clip = item()
            except InputError as error:
                if not skip_bad:
                    raise InputError(error.what, why=error.why, next=error.next or SKIP) from error
                bad.append(error.what)
                failed += 1
                continue
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
