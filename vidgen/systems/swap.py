"""Putting a model in the place of another: whole, or not at all."""

from __future__ import annotations

import filecmp
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vidgen.errors import InputError
from vidgen.systems.base import LENT, ModelFolder
from vidgen.systems.save import write_json

CARD = "README.md"


def put_in_place(
    model: ModelFolder,
    place: Path,
    hashes: Mapping[str, str],
    others: Mapping[str, ModelFolder] = MappingProxyType({}),
    lender: ModelFolder | None = None,
) -> None:
    """Copy a model to `place`, under that name; a model that is there goes, but its card stays.

    hashes  component → SHA-256 of the weights that are meant, as `ModelFolder.sha256` has it
    others  component → the model that it is taken from instead
    lender  a model beside the place: components that are the same there are shared, not copied

    The copy is made in a folder beside, and the old model leaves its place only for the moment of
    two renames; if anything fails, it is there as before. InputError if the weights that were
    copied are not those of `hashes`.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    # Two folders deep, so that neither copy is ever listed as a model.
    beside = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    new, old = beside / "new", beside / "old"
    try:
        copy_model(model, new, others, name=place.name, lender=lender)
        for component, digest in hashes.items():
            if not (new / component).is_dir():
                continue  # shared
            if ModelFolder(new).sha256(component) != digest:
                source = others.get(component, model)
                raise InputError(f"{source.path / component}: has changed meanwhile")
        if (place / CARD).is_file():
            shutil.copy2(place / CARD, new / CARD)
        if place.exists():
            place.rename(old)
        new.rename(place)
    finally:
        if old.exists() and not place.exists():
            old.rename(place)
        shutil.rmtree(beside, ignore_errors=True)


def copy_model(
    model: ModelFolder,
    target: Path,
    others: Mapping[str, ModelFolder],
    *,
    name: str,
    lender: ModelFolder | None = None,
) -> None:
    """Its components, or those of `others`, without those that the lender has, too; its card; and
    last of all the index, in which it is called `name`."""
    target.mkdir()
    index: dict[str, Any] = model.index | {c: other.index[c] for c, other in others.items()}
    sources = {
        component: others.get(component, model).place(component)
        for component, pair in index.items()
        if isinstance(pair, list)
    }
    index.pop("shared", None)
    if lender is not None and all(_alike(sources[c], lender.place(c)) for c in LENT.values()):
        sources = {c: path for c, path in sources.items() if not _alike(path, lender.place(c))}
        names = {key: getattr(lender, key) for key in LENT}
        index["shared"] = {"model": lender.path.name, **names}
    for component, source in sources.items():
        if source.is_dir():
            shutil.copytree(source, target / component)
    if (model.path / CARD).is_file():
        shutil.copy2(model.path / CARD, target / CARD)
    write_json(target / "model_index.json", index | {"name": name})


def _alike(a: Path, b: Path) -> bool:
    """Whether two components are the same, file by file."""
    if not (a.is_dir() and b.is_dir()):
        return False
    names = [sorted(p.name for p in folder.iterdir()) for folder in (a, b)]
    return names[0] == names[1] and all(
        filecmp.cmp(a / name, b / name, shallow=False) for name in names[0]
    )
