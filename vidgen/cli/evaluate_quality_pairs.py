"""Which clip `vidgen evaluate-quality` compares with which."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from glob import has_magic
from itertools import takewhile
from pathlib import Path
from typing import Literal

from vidgen.cli.eval_clips import Clip, Kept, clips, expand
from vidgen.cli.media import content_of, history_of
from vidgen.errors import InputError, UsageError

How = Literal["auto", "id", "name", "order"]


@dataclass
class Side:
    """One of the two inputs."""

    role: Literal["reference", "made"]
    given: str
    sources: list[str]  # files, folders of pictures, -
    bad: list[str] = field(default_factory=list)  # what was left out, and why
    alone: list[str] = field(default_factory=list)  # those without a counterpart
    unused: dict[str, str] = field(default_factory=dict)  # others, and why: nobody has warned yet

    @classmethod
    def of(cls, role: Literal["reference", "made"], given: str, kept: Kept) -> Side:
        return cls(role, given, expand([given], kept))

    @property
    def videos(self) -> bool:
        """Whether all clips are videos or folders of pictures, and so have file names."""
        return all(content_of(source) == "video" for source in self.sources)

    def names(self) -> list[str]:
        """Of each source its path without the ending, below the folder that was given or that a
        glob begins with."""
        if os.path.exists(self.given):
            folder = Path(self.given if os.path.isdir(self.given) else os.path.dirname(self.given))
        else:
            fixed = takewhile(lambda part: not has_magic(part), Path(self.given).parts)
            folder = Path(*fixed)
        named = []
        for source in map(Path, self.sources):
            whole = source if source.is_dir() else source.with_suffix("")
            named.append(whole.relative_to(folder).as_posix() if whole != folder else whole.name)
        return named

    def ids(self, *, skip_bad: bool) -> list[str] | None:
        """Of each clip, read from headers; None where a clip has to be read for it. InputError for
        what can't be read, unless it is to be skipped."""
        if any(source == "-" or _is_pipe(source) for source in self.sources):
            return None
        from vidgen.io.stream import read_stream
        from vidgen.stages.encode_video import id_of_name

        ids: list[str] = []
        for source in self.sources:
            with suppress(*([InputError] if skip_bad else [])):
                if content_of(source) == "video":
                    made = history_of(source) or {}
                    ids.append(made.get("id") or id_of_name(source))
                else:
                    ids += [record.id for record in read_stream(source, verify=False)]
        return ids

    def keyed(self, how: How, kept: Kept, *, skip_bad: bool) -> Iterator[tuple[str, Clip]]:
        """The clips, each with what it is paired by."""
        if how == "name":
            for name, source in zip(self.names(), self.sources, strict=True):
                try:
                    (clip,) = clips([source], None, kept)
                except InputError as error:
                    if not skip_bad:
                        raise
                    self.leave_out(name, error)
                    continue
                yield name, clip
            return
        unread: list[str] = []  # of which `clips` warns
        read = clips(self.sources, None, kept, skip_bad=skip_bad, bad=unread)
        for number, clip in enumerate(read, 1):
            yield clip.id if how == "id" else str(number), clip
        self.bad += unread

    def leave_out(self, key: str, error: InputError) -> None:
        self.bad.append(error.what)
        self.unused[key] = error.what

    def warn(self, kept: Kept) -> None:
        """Say what was left out, unless `clips` has."""
        if self.alone:
            kept.warn(f"{self.given}: left out {len(self.alone)} without a counterpart:"
                      f" {_some(self.alone)}")  # fmt: skip
        if self.unused:
            whys = _some(list(self.unused.values()), 3)
            kept.warn(f"{self.given}: left out {len(self.unused)}: {whys}")


def chosen(how: How, ref: Side, made: Side, *, skip_bad: bool) -> How:
    """How to pair these. UsageError for a way they can't be paired in."""
    for side in (ref, made):
        if how == "name" and not side.videos:
            raise UsageError(
                f"--pair name: {side.given} holds records, which have ids and no file names",
                next="--pair id",
            )
    if how == "order" and skip_bad:
        raise UsageError(
            "--pair order and --skip-bad exclude each other",
            why="after one that is left out, all others would be compared with the wrong clip",
        )
    if how != "auto":
        return how
    if len(ref.sources) == len(made.sources) == 1 and ref.videos and made.videos:
        return "order"
    if ref.videos and made.videos:
        by_id = [side.ids(skip_bad=skip_bad) or [] for side in (ref, made)]
        twice = any(len(set(ids)) < len(ids) for ids in by_id)
        if twice or (not {*by_id[0]} & {*by_id[1]} and {*ref.names()} & {*made.names()}):
            return "name"
    return "id"


def pairs(
    ref: Side, made: Side, how: How, kept: Kept, *, skip_bad: bool
) -> Iterator[tuple[str, Clip, Clip]]:
    """(name, reference, made) of all clips; InputError, before any is read where headers tell it,
    for clips without a counterpart, or with `skip_bad` one line in `bad` for each."""
    refs, mades = (_keys(side, how, skip_bad=skip_bad) for side in (ref, made))
    wanted = None if refs is None or mades is None else {*refs} & {*mades}
    if refs is not None and mades is not None and wanted is not None:
        alone = [[key for key in keys if key not in wanted] for keys in (refs, mades)]
        _unmatched(ref, made, alone[0], alone[1], how, skip_bad=skip_bad)
    waiting: list[dict[str, Clip]] = [{}, {}]
    readers = [side.keyed(how, kept, skip_bad=skip_bad) for side in (ref, made)]
    live = [0, 1]
    while live:
        for i in list(live):
            key, clip = next(readers[i], (None, None))
            if key is None or clip is None:
                live.remove(i)
            elif wanted is not None and key not in wanted:
                continue
            elif key in waiting[1 - i]:
                other = waiting[1 - i].pop(key)
                true, own = (clip, other) if i == 0 else (other, clip)
                yield own.id if how == "order" else key, true, own
            else:
                waiting[i][key] = clip
    _unmatched(ref, made, list(waiting[0]), list(waiting[1]), how, skip_bad=skip_bad)


def _keys(side: Side, how: How, *, skip_bad: bool) -> list[str] | None:
    """What each clip is paired by, where that is known before it is read. InputError for what two
    clips have: which of them is meant, nobody knows."""
    if how == "order":
        return [str(n + 1) for n in range(len(side.sources))] if side.videos else None
    keys = side.names() if how == "name" else side.ids(skip_bad=skip_bad)
    twice = [key for key, n in Counter(keys or ()).items() if n > 1]
    if twice:
        raise InputError(
            f"{side.given}: several clips have the {how} `{twice[0]}`"
            + (f", and {len(twice) - 1} more are not the only ones" if twice[1:] else ""),
            why="a clip without an id of its own has that of its file's name"
            if how == "id"
            else "names are compared without their endings",
            next=f"--pair {'name' if how == 'id' and side.videos else 'order'}",
        )
    return keys


def _is_pipe(source: str) -> bool:
    """Whether it can be read only once."""
    return os.path.exists(source) and not os.path.isfile(source) and not os.path.isdir(source)


def _unmatched(
    ref: Side, made: Side, refs: Sequence[str], mades: Sequence[str], how: How, *, skip_bad: bool
) -> None:
    if skip_bad:
        for side, other, keys in ((ref, made, refs), (made, ref, mades)):
            side.bad += [f"`{key}` has no counterpart in {other.given}" for key in keys]
            side.alone += keys
        return
    said = [
        f"{len(keys)} of {side.given} ({_some(keys)})"
        for side, keys in ((ref, refs), (made, mades))
        if keys
    ]
    if said:
        by = {"id": "ids", "name": "file names", "order": "order"}[how]
        instead = ""
        if how == "id" and ref.videos and made.videos and {*ref.names()} == {*made.names()}:
            instead = "--pair name; "
        elif how != "order" and len(refs) == len(mades):
            instead = "--pair order, if both are in one order; "
        raise InputError(
            f"clips without a counterpart: {' and '.join(said)}",
            why=f"they are paired by {by}",
            next=f"{instead}--skip-bad leaves them out, and counts them as failed",
        )


def _some(words: Sequence[str], most: int = 5) -> str:
    return ", ".join(words[:most]) + (", …" if len(words) > most else "")
