"""What `vidgen evaluate-world` holds each clip to: its prompt, or a row of a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidgen.cli.rows import row_id, rows_by_id
from vidgen.errors import InputError

if TYPE_CHECKING:
    from vidgen.metrics.world_accuracy import Asked


@dataclass(frozen=True)
class Row:
    """What a clip is held to, and what its prompt says beside that no scene has."""

    prompt: str
    asked: Asked
    beyond: tuple[str, ...] = ()


def read_rows(path: str) -> dict[str, Row]:
    """id → row of a JSONL file. InputError for what is none, or has rows without an id."""
    return {
        id: row_of(row["prompt"], row.get("factors"), where)
        for id, (where, row) in rows_by_id(path).items()
    }


def row_of(prompt: str, factors: Any, where: str) -> Row:
    """What a prompt asks, or the factors beside it. InputError for factors that are none."""
    from vidgen.metrics.world_accuracy import Asked
    from vidgen.world.reading import read_prompt
    from vidgen.world.scene import FACTORS_FULL

    reading = read_prompt(prompt)
    beyond: tuple[str, ...] = ()
    if factors is None:
        asked = Asked.of_factors(reading.factors())
        beyond = tuple(
            f"{found.words} ground" if found.factor == "ground" else f"several {found.words}"
            for found in reading.beyond
        )
    else:
        if not isinstance(factors, dict) or any(
            v not in FACTORS_FULL.get(k, ()) for k, v in factors.items()
        ):
            raise InputError(f"{where}: `factors` are not factors of the world: {factors}")
        asked = Asked.of_factors(factors)
    # Objects of which nothing is said are left out, and then the numbers mean others.
    whole = len(asked.objects) == len(reading.objects)
    known = reading.relations if whole else ()
    return Row(prompt, Asked(asked.objects, asked.ground, asked.camera, known), beyond)


def row_for(record: Any, rows: dict[str, Row] | None, level: str) -> Row:
    """What the clip is held to. InputError if nothing says it, or the world doesn't have it."""
    if rows is not None:
        id = row_id(record.id, rows)
        if id is None:
            raise InputError(f"clip `{record.id}`: no row of --prompts has its id")
        found = rows[id]
    else:
        prompt = record.attrs.get("prompt")
        if not isinstance(prompt, str):
            raise InputError(
                f"clip `{record.id}` does not know its prompt",
                next="--prompts rows.jsonl says what each clip is to show",
            )
        found = row_of(prompt, record.attrs.get("factors"), f"clip `{record.id}`")
    if beyond := found.asked.beyond(level):
        raise InputError(
            f"clip `{record.id}` asks for {beyond[0]}, which the {level} world does not have",
            next="--level full" if level == "basic" else None,
        )
    if level == "basic" and len(found.asked.objects) > 1:
        raise InputError(
            f"clip `{record.id}` asks for {len(found.asked.objects)} objects",
            why="the basic world has one",
            next="--level full",
        )
    return found
