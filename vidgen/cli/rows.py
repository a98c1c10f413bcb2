"""Prompts as JSON Lines: an object a line, with `prompt`, if wanted an `id`, and anything else, as
`vidgen world --rows` writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vidgen.errors import InputError

TEXTS = ("prompt", "negative_prompt", "id")


def numbered(text: str) -> list[tuple[int, str]]:
    """Lines that are not blank, counted from 1. Line feeds alone part them: JSON may hold any other
    mark of a line's end."""
    lines = text.replace("\r\n", "\n").split("\n")
    return [(n, line) for n, line in enumerate(lines, 1) if line.strip()]


def parse_rows(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row stands, for messages, and the row. InputError for what is no row, and for an
    id that comes twice."""
    seen: dict[str, int] = {}
    for n, line in numbered(text):
        where = f"{name}: line {n}"
        row = checked(_object(line, where), where)
        id = row.get("id")
        if id in seen:
            raise InputError(f"{where}: id `{id}` is that of line {seen[id]} already")
        if id is not None:
            seen[id] = n
        yield where, row


def rows_by_id(path: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """id → where it stands, and the row, of a file. InputError for what is none, or has rows
    without an id."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read", why=str(error)) from None
    rows: dict[str, tuple[str, dict[str, Any]]] = {}
    for where, row in parse_rows(text, path):
        if row.get("id") is None:
            raise InputError(f"{where}: has no `id`, so no clip is known to be its own")
        rows[row["id"]] = where, row
    return rows


def row_id(clip: str, rows: Mapping[str, Any]) -> str | None:
    """Which row is a clip's own: sampling adds `-s` and the seed to the id of the prompt."""
    return next((id for id in (clip, re.sub(r"-s\d+$", "", clip)) if id in rows), None)


def checked(row: dict[str, Any], where: str) -> dict[str, Any]:
    """The row itself. InputError unless its `prompt` is text, and the others of `TEXTS` where they
    are not null."""
    if "prompt" not in row:
        raise InputError(f"{where}: no `prompt` in the row", why=f"it has: {', '.join(row)}")
    for key in TEXTS:
        value = row.get(key)
        if value is None and key != "prompt":
            continue
        if not isinstance(value, str):
            raise InputError(f"{where}: `{key}` is {json.dumps(value)}, must be text")
        if "\0" in value:
            raise InputError(f"{where}: `{key}` has a NUL byte at character {value.index(chr(0))}")
        if any("\ud800" <= c <= "\udfff" for c in value):
            raise InputError(f"{where}: `{key}` is not text: it holds bytes that are not UTF-8")
    return row


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON that can be read: {error}") from None
    if not isinstance(row, dict):
        raise InputError(f'{where}: a row is an object like {{"prompt": "…"}}')
    return row
