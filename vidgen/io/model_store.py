"""The model store: names for models that lie elsewhere, and what their files were.

`$XDG_DATA_HOME/vidgen/models/NAME/` is a model folder of links: one for each file that vidgen
reads, to where it lies. Nothing is copied. Beside the links, `manifest.json` has the size and the
SHA-256 of every file as it was added, and where the model came from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from vidgen.errors import InputError, UsageError
from vidgen.io import weights
from vidgen.io.files import disk_full_is_an_error

SCHEMA = "vidgen.model-manifest/1"
MANIFEST = "manifest.json"
INDEX = "model_index.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")

Step = Callable[[int, int], None]  # bytes done, bytes in all


def home() -> Path:
    """`$XDG_DATA_HOME/vidgen/models`, whether it is there or not."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "vidgen" / "models"


@dataclass(frozen=True)
class Stored:
    """A model of the store."""

    path: Path  # its folder of links

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """InputError for one that is damaged, or that a later vidgen wrote."""
        path = self.path / MANIFEST
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            files = {(int(was["bytes"]), str(was["sha256"])) for was in found["files"].values()}
            if found["schema"] == SCHEMA and isinstance(found["source"]["folder"], str) and files:
                return found
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        raise InputError(
            f"{path}: is no manifest of a model",
            next=f"vidgen models remove {self.name}, and add it again",
        )

    @property
    def source(self) -> dict[str, str]:
        """Where it came from: `folder`; and `repo`, `revision` and `commit` if that is a hub's."""
        return self.manifest["source"]

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Its files, by their place in a model folder → `bytes` and `sha256`."""
        return self.manifest["files"]

    @property
    def size(self) -> int:
        return sum(file["bytes"] for file in self.files.values())

    @property
    def elsewhere(self) -> dict[str, str]:
        """Files that are those of another place than its source → where they lie."""
        own = Path(self.source["folder"])
        at = {file: os.readlink(self.path / file) for file in self.files
              if (self.path / file).is_symlink()}  # fmt: skip
        return {file: place for file, place in at.items() if Path(place) != own / file}

    def require_there(self) -> None:
        """InputError if none of its files is where it was."""
        if not any((self.path / file).exists() for file in self.files):
            raise InputError(
                f"the stored model `{self.name}`: {self.source['folder']} is gone",
                next=f"vidgen models add FOLDER --as {self.name} -f says where it is now",
            )

    def changes(self, step: Step = lambda done, total: None) -> dict[str, str]:
        """What is no longer as it was added: file → what is wrong. Every byte is read."""
        done, found = 0, {}
        for file, was in self.files.items():
            if wrong := _wrong(self.path / file, was):
                found[file] = wrong
            done += was["bytes"]
            step(done, self.size)
        return found


def _wrong(path: Path, was: Mapping[str, Any]) -> str | None:
    """How a file differs from what the manifest says; None where it doesn't."""
    try:
        size = path.stat().st_size
        if size < was["bytes"]:
            return f"truncated: {size} of {was['bytes']} bytes"
        if size > was["bytes"]:
            return f"changed: {size} bytes, was {was['bytes']}"
        with path.open("rb") as f:
            same = hashlib.file_digest(f, "sha256").hexdigest() == was["sha256"]
        return None if same else "changed: its SHA-256 is another"
    except FileNotFoundError:
        return "missing" + (f": {os.readlink(path)} is gone" if path.is_symlink() else "")
    except OSError as e:
        return f"can't be read: {(e.strerror or str(e)).lower()}"


# --- the store ------------------------------------------------------------------------------------


def stored() -> list[Stored]:
    """All models of the store, by name; not what an add or a remove that was killed left there."""
    found = (path.parent for path in sorted(home().glob(f"*/{MANIFEST}")))
    return [Stored(path) for path in found if NAME.fullmatch(path.name)]


def called(name: str) -> list[Stored]:
    """The model of that name; or those that come from the hub's OWNER/NAME, if it is of that
    form."""
    if "/" in name:
        return [model for model in stored() if _said(model, "repo") == name]
    there = NAME.fullmatch(name) and (home() / name / MANIFEST).is_file()
    return [Stored(home() / name)] if there else []


def of_folder(path: Path) -> Stored | None:
    """The stored model whose folder of links that is."""
    inside = path.parent.resolve() == home().resolve()
    return Stored(path) if inside and (path / MANIFEST).is_file() else None


def _said(model: Stored, key: str) -> str | None:
    """What its source says; None where that is damaged."""
    try:
        return model.source.get(key)
    except InputError:
        return None


def add(
    name: str,
    files: Mapping[str, Path],
    source: Mapping[str, str],
    *,
    expected: Mapping[str, str] | None = None,
    force: bool = False,
    step: Step = lambda done, total: None,
) -> Stored:
    """Name a model. The store shows it when all of its files are hashed, or not at all.

    files     place in a model folder → where that file lies
    source    as `Stored.source` has it
    expected  place → the SHA-256 that its source says
    force     in place of the model that has the name

    UsageError for a name that is none or is taken, InputError for a file of another SHA-256.
    """
    require_free(name, force)
    described = _hashed(files, expected or {}, step)
    manifest = {"schema": SCHEMA, "source": dict(source), "files": described}
    target = home() / name
    made = target.with_name(f".{name}.{secrets.token_hex(6)}.tmp")
    with disk_full_is_an_error(target):
        made.mkdir(parents=True)
        try:
            for file, path in files.items():
                (made / file).parent.mkdir(exist_ok=True)
                (made / file).symlink_to(os.path.abspath(path))
            text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False)
            (made / MANIFEST).write_text(text + "\n", encoding="utf-8")
            require_free(name, force)  # again: hashing takes long
            away = _out_of_the_way(target) if os.path.lexists(target) else None
            made.rename(target)
            if away is not None:
                shutil.rmtree(away)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    return Stored(target)


def _hashed(
    files: Mapping[str, Path], expected: Mapping[str, str], step: Step
) -> dict[str, dict[str, Any]]:
    """`Stored.files` of them."""
    sizes = {file: path.stat().st_size for file, path in files.items()}
    found: dict[str, dict[str, Any]] = {}
    for file, path in sorted(files.items()):
        digest = weights.sha256(path)
        if digest != expected.get(file, digest):
            raise InputError(
                f"{path}: its bytes are not those that its source says",
                why=f"their SHA-256 is {digest}, not {expected[file]}",
                next="delete it and fetch it again",
            )
        found[file] = {"bytes": sizes[file], "sha256": digest}
        step(sum(file["bytes"] for file in found.values()), sum(sizes.values()))
    return found


def require_free(name: str, force: bool = False) -> None:
    """UsageError for a name that is none or is taken; with `force`, by what is not the store's."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"`{name}` is no name of a model",
            why="it may have letters, digits, dots, hyphens and underscores",
            next="--as NAME",
        )
    if not force and os.path.lexists(home() / name):
        raise UsageError(
            f"there is a stored model `{name}` already",
            next="--as NAME for another name, -f to put this one in its place",
        )
    _require_links(home() / name)


def remove(name: str) -> None:
    """Forget a model; its files stay where they lie. UsageError if there is none of that name, or
    if files lie in the store itself."""
    target = home() / name
    if not NAME.fullmatch(name) or not os.path.lexists(target):
        raise UsageError(f"no stored model is called `{name}`", next="vidgen models")
    _require_links(target)
    shutil.rmtree(_out_of_the_way(target))


def _require_links(target: Path) -> None:
    """UsageError where somebody put anything else there: it would be lost."""
    strange = [target] if target.is_symlink() or target.is_file() else [
        path for path in target.rglob("*")
        if not path.is_symlink() and not path.is_dir() and path != target / MANIFEST
    ]  # fmt: skip
    if strange:
        raise UsageError(
            f"{strange[0]}: is not the store's, and is not deleted",
            next="move it away; a stored model is a folder of links",
        )


def _out_of_the_way(target: Path) -> Path:
    """Its new place, where the store doesn't see it."""
    away = target.with_name(f".{target.name}.{secrets.token_hex(6)}.old")
    target.rename(away)
    return away


def users(name: str) -> list[str]:
    """Other models that refer to files in the folder of this one."""
    folders = {Path(folder) for model in called(name) if (folder := _said(model, "folder"))}
    return [
        other.name for other in stored() if other.name != name and _said(other, "folder")
        and any(folders & {*Path(place).parents} for place in other.elsewhere.values())
    ]  # fmt: skip


# --- which files ----------------------------------------------------------------------------------


def read_by_vidgen(paths: Iterable[str], components: Iterable[str]) -> list[str]:
    """Of a model's files, those that vidgen reads: the index, and of each component its settings,
    tokenizer and safetensors. Of variants in other precision (`model.fp16.safetensors`) none, where
    there is one without a word in its name."""
    found, components = [], set(components)
    for path in map(PurePosixPath, sorted(paths)):
        if str(path) == INDEX or (len(path.parts) == 2 and path.parts[0] in components):
            found.append(path)
    plain = {p.parent for p in found if p.suffix == ".safetensors" and "." not in p.stem}
    return [str(p) for p in found if _kept(p, plain)]


def _kept(path: PurePosixPath, plain: set[PurePosixPath]) -> bool:
    if path.suffix == ".safetensors":
        return "." not in path.stem or path.parent not in plain
    return path.suffix == ".json" or path.name == "spiece.model"


def local_files(folder: Path, components: Iterable[str]) -> dict[str, Path]:
    """The same of a model folder on this disk: place in it → path."""
    there = (p.relative_to(folder).as_posix() for p in _two_deep(folder))
    return {file: folder / file for file in read_by_vidgen(there, components)}


def _two_deep(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        yield from path.iterdir() if path.is_dir() else (path,)


def known_weights() -> dict[str, Path]:
    """Where weight files of stored models lie, as far as they are still as large as they were; by
    SHA-256."""
    found: dict[str, Path] = {}
    for model in stored():
        try:
            files = model.files
        except InputError:
            continue
        for file, was in files.items():
            link = model.path / file
            if link.suffix != ".safetensors" or not (link.is_symlink() and link.is_file()):
                continue
            if link.stat().st_size == was["bytes"]:
                found.setdefault(was["sha256"], Path(os.readlink(link)))
    return found
