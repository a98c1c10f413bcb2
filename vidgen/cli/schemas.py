"""JSON Schemas (draft 2020-12) of what other programs may read: record metadata, errors, events.

A command whose `--json` prints a report of its own declares `SCHEMAS = {"vidgen.<thing>/1": …}`
in its module; `vidgen schema` prints those too. Built with `obj`, so that each says which keys
are always there.
"""

from __future__ import annotations

from typing import Any

from vidgen.errors import EXIT_MEANINGS
from vidgen.io.record import KINDS

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
SWITCH: Schema = {"type": "boolean"}
SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
ANY: Schema = {}


def obj(
    properties: dict[str, Schema], *, optional: tuple[str, ...] = (), more: Schema | bool = False
) -> Schema:
    """An object with these keys; all required but the optional ones; `more`: what others may be."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": more,
    }


def array(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def one_of(*values: Any) -> Schema:
    return {"enum": list(values)}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def report(name: str, title: str, properties: dict[str, Schema], **options: Any) -> Schema:
    """The schema of one kind of object; its `schema` key holds the name."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **obj({"schema": {"const": name}, **properties}, **options),
    }


LOG_ENTRY = obj(
    {
        "id": TEXT,
        "previous": TEXT,
        "tool": TEXT,
        "version": TEXT,
        "argv": array(TEXT),
        "model": obj({"name": TEXT, "sha256": SHA256}, more=ANY),
        "seed": WHOLE,
        "noise": TEXT,
        "dtype": TEXT,
        "attention": TEXT,
        "approximations": array(TEXT),
        "device": TEXT,
        "device_name": TEXT,
        "torch": TEXT,
        "inputs": array(TEXT),
    },
    optional=("previous", "argv", "model", "seed", "noise", "dtype", "attention",
              "approximations", "device", "device_name", "torch", "inputs"),
    more=ANY,
)  # fmt: skip

_ERROR: dict[str, Schema] = {
    "command": or_null(TEXT),
    "code": one_of(*sorted({int(code) for code in EXIT_MEANINGS} - {0} | {143})),
    "what": TEXT,
    "why": or_null(TEXT),
    "next": or_null(TEXT),
}

_EVENT = {"command": TEXT, "elapsed_s": NUMBER}

SCHEMAS: dict[str, Schema] = {
    "vidgen.record/1": report(
        "vidgen.record/1",
        "The metadata of a record: the JSON under the safetensors metadata key `vidgen`",
        {
            "kind": one_of(*KINDS),
            "id": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
            "attrs": {"type": "object"},
            "digest": TEXT,
            "last": SWITCH,
            "log": array(LOG_ENTRY),
        },
    ),
    "vidgen.error/1": report(
        "vidgen.error/1",
        "An error, one line on standard error with --json or --progress json",
        {"event": {"const": "error"}, **_ERROR},
        optional=("event",),
    ),
    "vidgen.progress/1": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line on standard error with --progress json",
        "oneOf": [
            obj({"event": {"const": "start"}, **_EVENT}),
            obj({"event": {"const": "step"}, **_EVENT, "unit": TEXT, "done": WHOLE,
                 "total": WHOLE, "left_s": or_null(NUMBER)}),
            obj({"event": one_of("warning", "note"), **_EVENT, "text": TEXT}),
            obj({"event": {"const": "error"}, "schema": {"const": "vidgen.error/1"}, **_ERROR}),
            obj({"event": {"const": "end"}, **_EVENT, "code": WHOLE}),
        ],
    },
    "vidgen.version/1": report(
        "vidgen.version/1",
        "What `vidgen --version --json` prints",
        {"vidgen": TEXT, "python": TEXT, "platform": TEXT},
        more=TEXT,
    ),
}  # fmt: skip
