"""As much of JSON Schema as our schemas use, so that the tests need no package for it."""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float),
    "boolean": bool, "null": type(None),
}  # fmt: skip
KNOWN = {
    "$schema", "title", "description", "type", "properties", "required", "additionalProperties",
    "items", "enum", "const", "anyOf", "oneOf", "pattern",
}  # fmt: skip


def faults(value: Any, schema: Any, place: str = "$") -> list[str]:
    """What of the value doesn't follow the schema, in words; empty if all does."""
    if schema is True or schema == {}:
        return []
    if schema is False:
        return [f"{place}: must not be there"]
    assert schema.keys() <= KNOWN, f"{place}: json_schema.py doesn't know {schema.keys() - KNOWN}"
    out = []
    if "type" in schema and not _is(value, schema["type"]):
        return [f"{place}: {value!r} is no {schema['type']}"]
    if "const" in schema and value != schema["const"]:
        out.append(f"{place}: {value!r} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        out.append(f"{place}: {value!r} is none of {schema['enum']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        out.append(f"{place}: {value!r} doesn't match {schema['pattern']}")
    for key, wanted in (("anyOf", None), ("oneOf", 1)):
        if key in schema:
            fitting = sum(not faults(value, s, place) for s in schema[key])
            if fitting < 1 or (wanted and fitting != wanted):
                out.append(f"{place}: follows {fitting} of {key}: {value!r}")
    if isinstance(value, dict):
        out += _object_faults(value, schema, place)
    if isinstance(value, list):
        for i, item in enumerate(value):
            out += faults(item, schema.get("items", {}), f"{place}[{i}]")
    return out


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool) and name in ("integer", "number"):
        return False
    return isinstance(value, TYPES[name])


def _object_faults(value: dict, schema: dict, place: str) -> list[str]:
    properties = schema.get("properties", {})
    out = [f"{place}: has no `{name}`" for name in schema.get("required", ()) if name not in value]
    for name, item in value.items():
        more = schema.get("additionalProperties", True)
        out += faults(item, properties.get(name, more), f"{place}.{name}")
    return out
