"""How `vidgen models` tells people of models: a table, all of one, and verdicts."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator, Sequence
from typing import Any

from vidgen.cli.console import printable


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a model."""
    if not rows:
        return "there are no models here; `vidgen models add` names some, `vidgen train` makes some"
    lines = [("model", "system", "makes", "serves", "size", "--model")]
    for m in rows:
        size = _megabytes(sum(c["bytes"] for c in m["components"] if c["of"] is None))
        name = m["name"] if m["shipped"] or m["stored"] else m["path"]
        lines.append((m["name"], m["system"], _makes(m), ", ".join(m["serves"]), size, name))
    shared = list(_shared(rows))
    return "\n".join([*_columns(lines), *([""] if shared else []), *shared])


def _shared(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A line for each group of components that have the same weights."""
    told: set[str] = set()
    for m in rows:
        for c in m["components"]:
            if c["same_as"] and c["sha256"] not in told:
                told.add(c["sha256"])
                yield f"the same weights: {', '.join([_called(m, c), *c['same_as']])}"


def _called(m: dict[str, Any], c: dict[str, Any]) -> str:
    return f"{m['name']}/{c['name']}"


def as_detail(rows: Sequence[dict[str, Any]]) -> str:
    """All that is known of the models."""
    return "\n\n".join("\n".join(_detail(m)) for m in rows)


def _detail(m: dict[str, Any]) -> Iterator[str]:
    yield f"{m['name']}: {m['path']}"
    s = m["sampler"]
    facts = [
        *_source(m["stored"]),
        ("system", m["system"]),
        ("serves", ", ".join(m["serves"]) or "-"),
        ("makes", _makes(m)),
        ("latent space", m["latent_space"] or "-"),
        ("text encoder", m["text_encoder"] or "-"),
        ("sampler", ", ".join(f"{key} {value}" for key, value in s.items()) if s else "-"),
    ]
    yield from _columns([("  " + key, value) for key, value in facts])
    for c in m["components"]:
        count = f", {c['parameters']:,} parameters" if c["parameters"] is not None else ""
        kinds = f", {' and '.join(c['dtypes'])}" if c["dtypes"] else ""
        yield f"\n{c['name']}: {c['class']}{count}{kinds}, {_megabytes(c['bytes'])}"
        lines = [("  shared with", c["of"])] if c["of"] else []
        lines += [("  sha256", c["sha256"])] if c["sha256"] else []
        lines += [("  same weights as", ", ".join(c["same_as"]))] if c["same_as"] else []
        lines += [(f"  {key}", jsonlib.dumps(v)) for key, v in _shown(c["config"])]
        yield from _columns(lines)


def _source(stored: dict[str, str] | None) -> Iterator[tuple[str, str]]:
    """Where a stored model comes from."""
    if stored is None:
        return
    if "repo" in stored:
        yield "hub", f"{stored['repo']}@{stored['revision']}, commit {stored['commit']}"
    yield "folder", stored["folder"]


def _shown(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What of a config is worth a line: not who wrote it, nor long tables."""
    for key, value in sorted(config.items()):
        if not key.startswith("_") and len(jsonlib.dumps(value)) <= 100:
            yield key, value


def as_verdict(rows: Sequence[dict[str, Any]]) -> str:
    """A line a component: that it is whole, or what is wrong with it."""
    if not rows:
        return "there are no models here"
    lines = [
        *((m["name"], "", problem) for m in rows for problem in m["problems"]),
        *((m["name"], c["name"], "; ".join(c["problems"]) or f"whole{_hash(c)}")
          for m in rows for c in m["components"]),
    ]  # fmt: skip
    return "\n".join(_columns(lines))


def _hash(component: dict[str, Any]) -> str:
    return f", sha256 {component['sha256']}" if component["sha256"] else ""


def _makes(m: dict[str, Any]) -> str:
    if (g := m["geometry"]) is None:
        return "-"
    return f"{g['num_frames']} frames of {g['width']}x{g['height']} at {g['fps']:g} fps"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{printable(x):<{w}}" for x, w in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
