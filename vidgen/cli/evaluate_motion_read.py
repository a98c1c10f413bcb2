"""What `vidgen evaluate-motion` reads: clips with their tracks, carried or followed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vidgen.cli.eval_clips import Kept, clips, expand
from vidgen.cli.media import content_of, own_rate
from vidgen.cli.sources import free_id
from vidgen.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from vidgen.io.record import Record
    from vidgen.metrics.motion import Tracks

NAMES = ("motion.", "truth.", "")  # of what records carry, the first there is
RATE = 8  # frames a second that the dynamic degree looks at


@dataclass(frozen=True)
class Moving:
    """One clip: its tracks, where wanted, and its frames, if there are any.

    size    width and height of the frames that were looked at; None where there were none
    rate    frames a second, if it is known; the dynamic degree takes every `stride`-th
    """

    id: str
    tracks: Tracks | None
    origin: str
    frames: Tensor | None
    size: tuple[int, int] | None
    rate: float | None
    stride: int
    digest: str


def read(
    path: str, tracks: str | None, kept: Kept, failed: dict[str, str] | None, *, with_frames: bool
) -> Iterator[Moving]:
    """The clips of an input, one at a time. With `failed`, which gets why, what can't be used is
    left out."""
    from vidgen.io.stream import read_stream

    taken: set[str] = set()
    for source in expand([path], kept):
        try:
            if content_of(source) == "video":
                records: Iterator[Record] = (clip.record for clip in clips([source], None, kept))
            else:
                records = read_stream(source)
            for record in records:
                clip = _usable(record, tracks, with_frames, taken, failed)
                if clip is not None:
                    yield clip
        except InputError as error:
            if failed is None:
                raise
            failed[source] = error.what


def _usable(
    record: Record, tracks: str | None, with_frames: bool, taken: set[str],
    failed: dict[str, str] | None,
) -> Moving | None:  # fmt: skip
    """A record as a clip. Of those with one id each is numbered where clips are judged alone;
    where they are paired, InputError, or None with `failed`."""
    id = record.id
    try:
        if tracks is None:
            id = free_id(id, taken)
        elif id in taken:
            raise InputError(f"`{id}`: is there twice", why="clips are paired by their ids")
        taken.add(id)
        return _moving(record, id, tracks, with_frames)
    except InputError as error:
        if failed is None:
            raise
        failed[free_id(id, failed)] = error.what
        return None


def _moving(record: Record, id: str, wanted: str | None, with_frames: bool) -> Moving:
    import torch

    from vidgen.cli.media import frames_at
    from vidgen.metrics.tracks import follow, grid_points

    carried = _carried(record) if wanted == "auto" else None
    rate, frames = own_rate(record), None
    if carried is None or (with_frames and "frames" in record):
        frames = torch.tensor(frames_at(record, rate or RATE)[0])
    found, origin = carried if carried is not None else (None, "")
    if wanted is not None and found is None:
        from vidgen.metrics.motion import Tracks

        assert frames is not None
        found, origin = Tracks(*follow(frames, grid_points(*frames.shape[1:3]))), "followed"
    stride = max(1, round((rate or RATE) / RATE))
    size = None if frames is None else (frames.shape[2], frames.shape[1])
    return Moving(
        id, found, origin, frames if with_frames else None, size, rate, stride, record.digest
    )


def rendered(record: Record) -> bool:
    """Whether what a record says is true is so of its frames: no stage has made them anew since."""
    return not record.log or record.log[-1].get("tool") == "world"


def _carried(record: Record) -> tuple[Tracks, str] | None:
    """Tracks that came with a record, and their name there. InputError for what is none."""
    import torch

    from vidgen.metrics.motion import Tracks

    for prefix in NAMES:
        name, seen = f"{prefix}tracks", f"{prefix}visibility"
        if name not in record or (prefix == "truth." and not rendered(record)):
            continue
        at = record.torch(name).double()
        known = record.torch(seen) > 0.5 if seen in record else torch.ones(at.shape[:2]) > 0
        if at.ndim != 3 or at.shape[2] != 2 or known.shape != at.shape[:2]:
            raise InputError(
                f"record `{record.id}`: {name} are {list(at.shape)}, visibility"
                f" {list(known.shape)}, not [N, T, 2] and [N, T]"
            )
        finite = at.isfinite().all(dim=2)
        return Tracks(torch.where(finite[..., None], at, 0.0), known & finite), name
    return None
