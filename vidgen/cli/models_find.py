"""Models on disk: which there are, and all that is known of one without its weights."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen.cli.console import Console
from vidgen.errors import InputError, UsageError
from vidgen.io import model_store, weights
from vidgen.io.model_names import in_folders

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
    """The shipped models, the stored ones, then those of the given folders that are none of them;
    what can't be read is warned of."""
    from vidgen.systems.base import SHIPPED, ModelFolder, shipped_names

    known, sources = model_store.stored(), set()
    for stored in known:
        with suppress(InputError):
            sources.add(Path(stored.source["folder"]).resolve())
    others = [p for p in in_folders(folders or "") if p.resolve() not in sources]
    places = [*(SHIPPED / n for n in shipped_names()), *(m.path for m in known), *others]
    found = []
    for place in dict.fromkeys(p.resolve() for p in places):
        folder = ModelFolder(place)
        try:
            if model := stored_as(folder):
                model.require_there()
            folder.require_known()
            components(folder)
            folder.lender  # noqa: B018
        except InputError as error:
            console.warn(f"left out {error.what}")
            continue
        found.append(folder)
    return found


def stored_as(folder: ModelFolder) -> model_store.Stored | None:
    """The same in the store, if that is where it is."""
    return model_store.of_folder(folder.path)


def components(folder: ModelFolder) -> dict[str, tuple[str, str]]:
    """Component → (library, class), as model_index.json has them. InputError if that is damaged."""
    if not isinstance(folder.index, dict):
        raise InputError(f"{folder.path}/model_index.json: isn't an object")
    pairs = {k: v for k, v in folder.index.items() if isinstance(v, list) and len(v) == 2}
    return {k: (str(v[0]), str(v[1])) for k, v in pairs.items() if v[1] is not None}


def pick(name: str, found: Sequence[ModelFolder]) -> ModelFolder:
    """The model of that name, or in that folder."""
    from vidgen.systems.base import ModelFolder

    named = [f for f in found if f.path.name == name] or [f for f in found if f.name == name]
    if len(named) > 1:
        raise UsageError(
            f"{len(named)} models are called {name}",
            why=", ".join(str(f.path) for f in named),
            next=f"vidgen models show {named[0].path}",
        )
    return named[0] if named else ModelFolder.find(name)


def is_shipped(folder: ModelFolder) -> bool:
    from vidgen.systems.base import SHIPPED

    return folder.path.parent == SHIPPED.resolve()


# --- describing -----------------------------------------------------------------------------------


def describe(folder: ModelFolder) -> dict[str, Any]:
    """A model as `vidgen.models/1` has it."""
    parts, stored = components(folder), stored_as(folder)
    has_network, has_latents = "transformer" in parts, "vae" in parts or folder.in_pixels
    return {
        "name": name_of(folder),
        "path": str(folder.path),
        "system": folder.system,
        "shipped": is_shipped(folder),
        "stored": _known(lambda: stored.source) if stored else None,
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
    except (InputError, UsageError, KeyError, TypeError):
        return None


def _component(folder: ModelFolder, name: str, kind: tuple[str, str]) -> dict[str, Any]:
    """Sizes from the headers of its files, hashes as they are remembered; null for what a damaged
    component doesn't tell."""
    owner = folder.owner(name)
    files = sorted(folder.place(name).glob("*.safetensors"))
    blobs = _known(lambda: [x for path in files for x in weights.blobs(path).values()]) or []
    size = sum(p.stat().st_size for p in folder.place(name).glob("*") if p.is_file())
    return {
        "name": name,
        "class": ".".join(kind),
        "of": None if owner is folder else owner.name,
        "parameters": sum(map(weights.parameters, files)) if blobs else None,
        "dtypes": sorted({blob.dtype for blob in blobs}),
        "bytes": size,
        "files": [p.name for p in files],
        "sha256": _known(lambda: folder.sha256(name)) if files else None,
        "same_as": [],
        "config": _config(folder.place(name)),
    }


def compare(rows: Sequence[dict[str, Any]], found: Sequence[ModelFolder]) -> None:
    """Into `same_as` of the models' components: those of other models, of all that were `found`,
    that have the same bytes in their weight files."""
    from vidgen.systems.base import ModelFolder

    parts = [(folder, part) for folder in found for part in components(folder)]
    for row in rows:
        own = ModelFolder(Path(row["path"]))
        for mine in row["components"]:
            size, digest = _size(own.place(mine["name"])), mine["sha256"]
            mine["same_as"] = [
                f"{name_of(folder)}/{part}" for folder, part in parts
                if digest and str(folder.path) != row["path"]
                and _size(folder.place(part)) == size  # so that only few are hashed
                and _known(partial(folder.sha256, part)) == digest
            ]  # fmt: skip


def name_of(folder: ModelFolder) -> str:
    """What lists call it."""
    return folder.path.name if stored_as(folder) else folder.name


def _size(component: Path) -> int:
    """Bytes of its weight files."""
    return sum(p.stat().st_size for p in component.glob("*.safetensors") if p.is_file())


def _config(place: Path) -> dict[str, Any]:
    for name in ("config.json", "scheduler_config.json", "tokenizer_config.json"):
        path = place / name
        if path.is_file():
            try:
                return dict(jsonlib.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                return {}
    return {}
