"""Names with `{id}` in them: one file for each record."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vidgen.errors import UsageError

if TYPE_CHECKING:
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

    A name that can't be had, because it is taken or its folder isn't there, costs no other record
    its file: the rest are written, and then its UsageError is raised.
    """
    check_pattern(pattern)
    count, refused = 0, []
    for record in records:
        try:
            write(record, path_of(pattern, record.id))
            count += 1
        except UsageError as error:
            refused.append(error)
    if refused:
        total = count + len(refused)
        if total > 1:
            refused[0].why = f"{len(refused)} of {total} records have no file; the rest are written"
        raise refused[0]
    return count
