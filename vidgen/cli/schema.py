"""`vidgen schema`: the JSON Schemas."""

from __future__ import annotations

import difflib
import importlib
from typing import Annotated

from vidgen.cli.app import COMMANDS
from vidgen.cli.options import Json, argument
from vidgen.cli.page import Page
from vidgen.cli.runner import print_json
from vidgen.cli.schemas import SCHEMAS as SHARED
from vidgen.cli.schemas import Schema
from vidgen.errors import UsageError

PAGE = Page(
    name="schema",
    summary="JSON Schemas of records, reports and events",
    description="""\
Prints the JSON Schema (draft 2020-12) of the named kind of object, or all of them in one object
by their names. Every JSON object that vidgen writes for other programs says which it follows in
its key `schema`: `vidgen.inspect/1` for what `vidgen inspect --json` prints, and so on. Lines of
`--progress json` follow `vidgen.progress/1`.

A number goes up when a key changes its meaning or goes away. Keys may be added without that.""",
    writes="JSON to standard output",
    examples=[
        ("vidgen schema vidgen.record/1", "the metadata of a record"),
        ("vidgen schema > schemas.json", "all of them"),
    ],
    see_also=["vidgen-stream(5)"],
)

Names = Annotated[list[str] | None, argument("NAME", "vidgen.record/1, vidgen.error/1, …")]


def schema(names: Names = None, json: Json = False) -> None:
    known = SHARED if names and set(names) <= SHARED.keys() else all_schemas()
    for name in names or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.4)
            raise UsageError(
                f"there is no schema {name}",
                why=f"there are {', '.join(known)}",
                next=f"vidgen schema {near[0]}" if near else None,
            )
    chosen = {name: known[name] for name in names or known}
    print_json(chosen[names[0]] if names and len(names) == 1 else chosen)


def all_schemas() -> dict[str, Schema]:
    """The shared ones, and those of the commands' own reports."""
    found = dict(SHARED)
    for module, _ in COMMANDS.values():
        found |= getattr(importlib.import_module(f"vidgen.cli.{module}"), "SCHEMAS", {})
    return dict(sorted(found.items()))
