"""Where prompts come from: arguments, lines of text, or JSONL rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen.cli.options import MAX_SEED
from vidgen.cli.rows import checked, numbered, parse_rows
from vidgen.cli.runner import NoInput
from vidgen.errors import InputError, UsageError
from vidgen.io.record import ID

if TYPE_CHECKING:
    from vidgen.stages.encode_text import Prompt

# Keys of a row that mean something here; any other key becomes an attribute of the record.
ROW_KEYS = ("id", "prompt", "negative_prompt", "seed")
# Attributes that stages write: a row that sets them would lie about what made the record.
RESERVED = frozenset(
    "text_encoder latent_space num_frames height width fps source digest kind last log".split()
)
# Room is left for what sampling adds to an id (-s and the seed).
MAX_ID = 100


def gather(
    arguments: Sequence[str], file: str | None, *, negative: str | None, seed: int | None = None
) -> list[dict[str, Any]]:
    """Rows `{prompt, id, negative_prompt, seed, attrs}` of everything the user named.

    With neither arguments nor a file, standard input is read, unless it is a terminal. `negative`
    is for rows that bring none of their own.
    """
    if arguments and file is not None:
        raise UsageError(
            "prompts are given both as arguments and as a file", next="choose one of the two"
        )
    if arguments:
        rows = [_plain(text, f"argument {i}") for i, text in enumerate(arguments, 1)]
    else:
        rows = list(_read(file or "-"))
    for row in rows:
        if row["negative_prompt"] is None:
            row["negative_prompt"] = negative or ""
        if row["seed"] is None:
            row["seed"] = seed
    return rows


def _read(file: str) -> Iterator[dict[str, Any]]:
    """Rows of a file (`-` is standard input): JSONL if its first character is `{`, else lines."""
    name = "standard input" if file == "-" else file
    text = _text(file, name)
    lines = numbered(text)
    if not lines:
        raise InputError(
            f"{name}: no prompt in it", next="a prompt a line, or prompts as arguments"
        )
    if lines[0][1].lstrip().startswith("{"):
        yield from (_completed(row, where) for where, row in parse_rows(text, name))
    else:
        yield from (_plain(line.strip(), f"{name}: line {n}") for n, line in lines)


def _text(file: str, name: str) -> str:
    if file == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise NoInput("no prompt, and standard input is a terminal")
        data = sys.stdin.buffer.read()
    else:
        path = Path(file)
        if path.is_dir():
            raise UsageError(f"{file}: a folder, not a file of prompts")
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise UsageError(f"{file}: no such file") from None
        except OSError as error:
            raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    if data[8:9] == b"{" and data[:8].count(0) >= 4:
        raise InputError(f"{name}: a record stream, not text", next=f"vidgen inspect {file}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 text at byte {error.start}") from None


def _plain(text: str, where: str) -> dict[str, Any]:
    return _completed(checked({"prompt": text}, where), where)


def _completed(row: dict[str, Any], where: str) -> dict[str, Any]:
    """A checked row with every key present, and what only these commands ask of it. InputError for
    an id, a seed or an attribute that can't be."""
    name, seed = row.get("id"), row.get("seed")
    if name is not None and (not ID.fullmatch(name) or len(name) > MAX_ID):
        raise InputError(
            f"{where}: id `{name}` can't name a record",
            why=f"an id is 1 to {MAX_ID} letters, digits, dots, hyphens and underscores",
        )
    whole = isinstance(seed, int) and not isinstance(seed, bool)
    if seed is not None and not (whole and 0 <= seed <= MAX_SEED):
        raise InputError(
            f"{where}: `seed` is {json.dumps(seed)}, must be a number from 0 to 2^63-1"
        )
    attrs = {key: value for key, value in row.items() if key not in ROW_KEYS}
    if taken := sorted(RESERVED & attrs.keys()):
        raise InputError(f"{where}: `{taken[0]}` is written by stages, a row can't set it")
    return {
        "prompt": row["prompt"],
        "negative_prompt": row.get("negative_prompt"),
        "id": name,
        "seed": seed,
        "attrs": attrs,
    }


def as_prompts(rows: Sequence[dict[str, Any]]) -> list[Prompt]:
    """The rows as the stage takes them."""
    from vidgen.stages.encode_text import Prompt

    return [
        Prompt(row["prompt"], row["id"], row["negative_prompt"], row["seed"], row["attrs"])
        for row in rows
    ]
