"""Clips for a report's page, read again when the page is written: few, and one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from vidgen.cli.eval_clips import clips
from vidgen.cli.report_page import MOST_CLIPS
from vidgen.errors import InputError

if TYPE_CHECKING:
    import numpy as np


def media_of(
    made: str, ref: str | None = None, *, one_ref: bool = False
) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """The first clips of MADE, each with the clip of REF that has its id to its right, or with the
    only one (`one_ref`). What has no frames is left out, and standard input, which can't be read
    twice."""
    others = islice(_frames(ref), MOST_CLIPS + 1)
    only = next(others, None) if one_ref else None
    waiting: dict[str, np.ndarray] = {}
    for id, frames in islice(_frames(made), MOST_CLIPS + 1):
        while only is None and id not in waiting and (other := next(others, None)):
            waiting[other[0]] = other[1]
        yield id, frames, waiting.pop(id, None) if only is None else only[1]


def _frames(path: str | None) -> Iterator[tuple[str, np.ndarray]]:
    if path is None or path == "-":
        return
    try:
        for clip in clips([path], None, _Silent(), skip_bad=True):
            yield clip.id, clip.frames
    except InputError:  # none can be used
        return


class _Silent:
    """All of it was said when the clips were measured."""

    def warn(self, text: str) -> None:
        pass
