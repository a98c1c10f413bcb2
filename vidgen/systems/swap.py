"""Putting a model in the place of another: whole, or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from vidgen.errors import InputError
from vidgen.systems.base import ModelFolder
from vidgen.systems.save import write_json

CARD = "README.md"


def put_in_place(model: ModelFolder, place: Path, hashes: Mapping[str, str]) -> None:
    """Copy a model to `place`, under that name; a model that is there goes, but its card stays.

    hashes  component → SHA-256 of the weights that are meant, as `ModelFolder.sha256` has it

    The copy is made in a folder beside, and the old model leaves its place only for the moment of
    two renames; if anything fails, it is there as before. InputError if the weights that were
    copied are not those of `hashes`.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    # Two folders deep, so that neither copy is ever listed as a model.
    beside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    new, old = beside / "new", beside / "old"
    try:
        copy_model(model, new, name=place.name)
        for component, digest in hashes.items():
            if ModelFolder(new).sha256(component) != digest:
                raise InputError(f"{model.path / component}: has changed meanwhile")
        if (place / CARD).is_file():
            shutil.copy2(place / CARD, new / CARD)
        if place.exists():
            place.rename(old)
        new.rename(place)
    finally:
        if old.exists() and not place.exists():
            old.rename(place)
        shutil.rmtree(beside, ignore_errors=True)


def copy_model(model: ModelFolder, target: Path, *, name: str) -> None:
    """Its components and its card, and last of all the index, in which it is called `name`."""
    target.mkdir()
    for component, pair in model.index.items():
        if isinstance(pair, list) and (model.path / component).is_dir():
            shutil.copytree(model.path / component, target / component)
    if (model.path / CARD).is_file():
        shutil.copy2(model.path / CARD, target / CARD)
    index = json.loads((model.path / "model_index.json").read_text(encoding="utf-8"))
    write_json(target / "model_index.json", index | {"name": name})
