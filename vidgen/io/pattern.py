"""Names with `{id}` in them: one file for each record."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vidgen.errors import UsageError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from vidgen.io.record import Record

FIELD = "{id}"


def is_pattern(path: str | Path) -> bool:
    """Whether the path names one file for each record, as 'out/{id}.mp4' does."""
    return FIELD in str(path)


def check_pattern(path: str | Path) -> None:
    """UsageError for a pattern with braces other than those of `{id}`."""
    if set("{}") & set(str(path).replace(FIELD, "")):
        raise UsageError(f"{path}: knows no field but {FIELD}")


def path_of(pattern: str | Path, id: str) -> str:
    """The file of the record with this id; of a path that is no pattern, the path."""
    return str(pattern).replace(FIELD, id)


def folder_of(pattern: str | Path) -> Path:
    """The folder that all files of a pattern are in, or are below."""
    return Path(str(pattern).split(FIELD)[0] + "x").parent


def write_each(
    records: Iterable[Record], pattern: str | Path, write: Callable[[Record, str], None]
) -> int:
    """Call write(record, path) for each record and return how many were written.

    A record is written on a thread of its own while the source makes the next one, and before that
    one's turn: an encoder of videos has one thread, and its core idles while a GPU computes. (2.3 s
    for 81 frames of 832x480; on a CPU less is to be had, of the world's clips 1 to 3 %.) What was
    given is written even when the source then fails or is interrupted.

    A name that can't be had, because it is taken or its folder isn't there, costs no other record
    its file: the rest are written, and then its UsageError is raised.
    """
    from concurrent.futures import ThreadPoolExecutor  # not for those who ask about names alone

    check_pattern(pattern)
    count, refused = 0, list[UsageError]()

    def finish(writing: Future[None] | None) -> None:
        try:
            if writing is not None:
                writing.result()
        except UsageError as error:
            refused.append(error)

    with ThreadPoolExecutor(1, thread_name_prefix="vidgen-write") as writer:
        last = None
        try:
            for record in records:
                finish(last)
                last = writer.submit(write, record, path_of(pattern, record.id))
                count += 1
        except Exception:
            finish(last)  # an error of its own came first
            raise
        finish(last)
    if refused:
        if count > 1:
            refused[0].why = f"{len(refused)} of {count} records have no file; the rest are written"
        raise refused[0]
    return count
