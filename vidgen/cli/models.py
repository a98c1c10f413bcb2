"""`vidgen models`: the models that are here, and what they can do."""

from __future__ import annotations

import json as jsonlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vidgen.cli.console import Console, printable
from vidgen.cli.options import Json, argument, option
from vidgen.cli.page import Page
from vidgen.cli.runner import print_json, print_text
from vidgen.cli.schemas import SHA256, SWITCH, TEXT, WHOLE, array, obj, or_null, report
from vidgen.errors import InputError, UsageError

if TYPE_CHECKING:
    from vidgen.systems.base import ModelFolder

PAGE = Page(
    name="models",
    summary="the models that are here, and what they can do",
    description="""\
`vidgen models` lists the models that come with vidgen, and those in the folders of --models: what
each makes, which commands it serves, its size, and what to give to --model to use it.

`vidgen models show MODEL` tells of one model: its components with their configs, numbers of
parameters and SHA-256, the names of its latent space and its text encoder, and how it is sampled
unless you say otherwise. Only the headers of weight files are read, and hashes that are remembered.

`vidgen models verify MODEL` hashes every weight file anew, builds every network, and compares both
with what is there, by name and shape of each tensor. Exit code 3 if anything is wrong.""",
    writes="a table to standard output",
    examples=[
        ("vidgen models", "all there are"),
        ("vidgen models show world", "one of them"),
        ("vidgen models verify world", "whether it is whole"),
        ("vidgen models --json", "for other programs"),
    ],
    notes={
        "FILES": """\
A model is a folder as diffusers has it: model_index.json, and a folder for each component with a
config and safetensors weights. Hashes are remembered in $XDG_CACHE_HOME/vidgen/weights.""",
    },
    see_also=["vidgen-systems(1)", "vidgen-train(1)"],
)

Action = Annotated[
    Literal["list", "show", "verify"], argument("ACTION", "list (the default), show or verify")
]
Model = Annotated[
    str | None, argument("MODEL", "a model's name or folder; all by default, for list and verify")
]
Folders = Annotated[
    str | None,
    option("--models", "--dir", metavar="PATH", default="none",
           help=f"more folders of models, or models, with `{os.pathsep}` between them"),
]  # fmt: skip

_COMPONENT = obj(
    {
        "name": TEXT,
        "class": TEXT,
        "parameters": or_null(WHOLE),
        "dtypes": array(TEXT),
        "bytes": WHOLE,
        "files": array(TEXT),
        "sha256": or_null(SHA256),
        "config": {"type": "object"},
        "problems": array(TEXT),
    },
    optional=("problems",),
)
SCHEMAS = {
    "vidgen.models/1": report(
        "vidgen.models/1",
        "What `vidgen models --json` prints; `problems` are there after `verify`",
        {
            "models": array(
                obj(
                    {
                        "name": TEXT,
                        "path": TEXT,
                        "system": TEXT,
                        "shipped": SWITCH,
                        "serves": array(TEXT),
                        "latent_space": or_null(TEXT),
                        "text_encoder": or_null(TEXT),
                        "sampler": or_null({"type": "object"}),
                        "geometry": or_null({"type": "object"}),
                        "components": array(_COMPONENT),
                    }
                )
            )
        },
    )
}

# Component → commands that need it.
SERVES = {
    "text_encoder": ("encode-text",),
    "transformer": ("sample-keyframes",),
    "vae": ("encode-video", "decode"),
}


def models(
    console: Console,
    action: Action = "list",
    model: Model = None,
    *,
    folders: Folders = None,
    json: Json = False,
) -> int | None:
    found = find(folders, console)
    if action == "show" and model is None:
        raise UsageError("which model is to be shown?", next="vidgen models show world")
    if model is not None:
        found = [pick(model, found)]
    described = [describe(folder) for folder in found]
    if action == "verify":
        _verify(found, described)
    if json:
        print_json({"schema": "vidgen.models/1", "models": described})
    else:
        show = {"list": as_table, "show": as_detail, "verify": as_verdict}[action]
        print_text(show(described))
    if any(c.get("problems") for m in described for c in m["components"]):
        bad = next(m for m in described if any(c["problems"] for c in m["components"]))
        raise InputError(f"{bad['path']}: the model is not whole", next="fetch or export it again")
    return None


# --- finding --------------------------------------------------------------------------------------


def find(folders: str | None, console: Console) -> list[ModelFolder]:
    """The shipped models, then those of the given folders; what can't be read is warned of."""
    from vidgen.systems.base import SHIPPED, ModelFolder, shipped_names

    places = [SHIPPED / name for name in shipped_names()]
    for text in filter(None, (folders or "").split(os.pathsep)):
        place = Path(text)
        if not place.is_dir():
            raise UsageError(f"--models {text}: is no folder", next="vidgen models")
        inside = [place, *sorted(p for p in place.iterdir() if p.is_dir())]
        places += [p for p in inside if (p / "model_index.json").is_file()]
    found = []
    for place in dict.fromkeys(p.resolve() for p in places):
        folder = ModelFolder(place)
        try:
            components(folder)
        except InputError as error:
            console.warn(f"left out {error.what}")
            continue
        found.append(folder)
    return found


def components(folder: ModelFolder) -> dict[str, tuple[str, str]]:
    """Component → (library, class), as model_index.json has them. InputError if that is damaged."""
    if not isinstance(folder.index, dict):
        raise InputError(f"{folder.path}/model_index.json: isn't an object")
    pairs = {k: v for k, v in folder.index.items() if isinstance(v, list) and len(v) == 2}
    return {k: (str(v[0]), str(v[1])) for k, v in pairs.items() if v[1] is not None}


def pick(name: str, found: Sequence[ModelFolder]) -> ModelFolder:
    """The model of that name, or in that folder."""
    from vidgen.systems.base import ModelFolder

    named = [f for f in found if name in (f.name, f.path.name)]
    if len(named) == 1 or (named and is_shipped(named[0])):
        return named[0]
    if named:
        raise UsageError(
            f"{len(named)} models are called {name}",
            why=", ".join(str(f.path) for f in named),
            next=f"vidgen models show {named[0].path}",
        )
    return ModelFolder.find(name)


def is_shipped(folder: ModelFolder) -> bool:
    from vidgen.systems.base import SHIPPED

    return folder.path.parent == SHIPPED.resolve()


# --- describing -----------------------------------------------------------------------------------


def describe(folder: ModelFolder) -> dict[str, Any]:
    """A model as `vidgen.models/1` has it."""
    parts = components(folder)
    has_network = "transformer" in parts
    return {
        "name": folder.name,
        "path": str(folder.path),
        "system": folder.system,
        "shipped": is_shipped(folder),
        "serves": [command for part in parts for command in SERVES.get(part, ())],
        "latent_space": _known(lambda: folder.latent_space) if "vae" in parts else None,
        "text_encoder": _known(lambda: folder.text_encoder) if "text_encoder" in parts else None,
        "sampler": _known(lambda: asdict(folder.sampler)) if "scheduler" in parts else None,
        "geometry": _known(lambda: asdict(folder.geometry)) if has_network else None,
        "components": [_component(folder, *part) for part in parts.items()],
    }


def _known(tell: Callable[[], Any]) -> Any:
    """None for what a damaged folder, or one of another maker, doesn't tell."""
    try:
        return tell()
    except (InputError, KeyError, TypeError):
        return None


def _component(folder: ModelFolder, name: str, kind: tuple[str, str]) -> dict[str, Any]:
    """Sizes from the headers of its files, hashes as they are remembered."""
    from vidgen.io.stream import read_stream

    files = sorted((folder.path / name).glob("*.safetensors"))
    blobs = [
        blob
        for path in files
        for record in read_stream(path, verify=False)
        for blob in record.tensors.values()
    ]
    size = sum(p.stat().st_size for p in (folder.path / name).glob("*") if p.is_file())
    return {
        "name": name,
        "class": ".".join(kind),
        "parameters": sum(math.prod(blob.shape) for blob in blobs) if blobs else None,
        "dtypes": sorted({blob.dtype for blob in blobs}),
        "bytes": size,
        "files": [p.name for p in files],
        "sha256": folder.sha256(name) if files else None,
        "config": _config(folder.path / name),
    }


def _config(place: Path) -> dict[str, Any]:
    for name in ("config.json", "scheduler_config.json", "tokenizer_config.json"):
        path = place / name
        if path.is_file():
            try:
                return dict(jsonlib.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                return {}
    return {}


def _verify(found: Sequence[ModelFolder], described: Sequence[dict[str, Any]]) -> None:
    """Add `problems` to each component."""
    from vidgen.systems.verify import verify

    for folder, row in zip(found, described, strict=True):
        problems = dict(verify(folder, components(folder)))
        for component in row["components"]:
            component["problems"] = problems[component["name"]]


# --- printing -------------------------------------------------------------------------------------


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """One line a model."""
    if not rows:
        return "there are no models here; `vidgen train` makes some"
    lines = [("model", "system", "makes", "serves", "size", "--model")]
    for m in rows:
        size = _megabytes(sum(c["bytes"] for c in m["components"]))
        name = m["name"] if m["shipped"] else m["path"]
        lines.append((m["name"], m["system"], _makes(m), ", ".join(m["serves"]), size, name))
    return "\n".join(_columns(lines))


def as_detail(rows: Sequence[dict[str, Any]]) -> str:
    """All that is known of the models."""
    return "\n\n".join("\n".join(_detail(m)) for m in rows)


def _detail(m: dict[str, Any]) -> Iterator[str]:
    yield f"{m['name']}: {m['path']}"
    s = m["sampler"]
    facts = [
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
        lines = [("  sha256", c["sha256"])] if c["sha256"] else []
        lines += [(f"  {key}", jsonlib.dumps(v)) for key, v in _shown(c["config"])]
        yield from _columns(lines)


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
        (m["name"], c["name"], "; ".join(c["problems"]) or f"whole{_hash(c)}")
        for m in rows
        for c in m["components"]
    ]
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
