"""Models on disk: which there are, and all that is known of one without its weights."""

from __future__ import annotations

import json as jsonlib
import math
import os
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen.cli.console import Console
from vidgen.errors import InputError, UsageError

if TYPE_CHECKING:
    from vidgen.systems.base import ModelFolder, Sampler

# Component → commands that need it.
SERVES = {
    "text_encoder": ("encode-text",),
    "transformer": ("sample", "sample-keyframes"),
    "interpolation": ("interpolate",),
    "interpolation_masked": ("interpolate",),
    "upsampler": ("upsample",),
    "vae": ("encode-video", "decode"),
    "video_decoder": ("decode",),
}
# The same of folders of diffusers', where that is another.
RELEASED = {"transformer": ("sample",)}


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
            folder.require_known()
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
    has_network, has_latents = "transformer" in parts, "vae" in parts or folder.in_pixels
    return {
        "name": folder.name,
        "path": str(folder.path),
        "system": folder.system,
        "shipped": is_shipped(folder),
        "serves": _serves(folder, parts),
        "latent_space": _known(lambda: folder.latent_space) if has_latents else None,
        "text_encoder": _known(lambda: folder.text_encoder) if "text_encoder" in parts else None,
        "sampler": _known(lambda: _given(folder.sampler)) if "scheduler" in parts else None,
        "geometry": _known(lambda: asdict(folder.geometry)) if has_network else None,
        "components": [_component(folder, *part) for part in parts.items()],
    }


def _serves(folder: ModelFolder, parts: Container[str]) -> list[str]:
    """The commands that the model has the component for."""
    serves = SERVES | (RELEASED if folder.released else {})
    return list(dict.fromkeys(c for part, names in serves.items() if part in parts for c in names))


def _given(sampler: Sampler) -> dict[str, Any]:
    """Its settings, without those that are not used."""
    return {key: value for key, value in asdict(sampler).items() if value is not None}


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
