"""What `--model WORDS` means: a folder, or a name.

Words with a slash or a lone dot in them are a folder's path first. A name is one of a shipped
model, of a stored one, of one in the folders of `VIDGEN_MODELS`, or of a folder here; where it is
several models at once, that is an error: none of them is taken in silence.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidgen.errors import InputError, UsageError
from vidgen.io import model_store
from vidgen.io.model_store import INDEX, Stored

VARIABLE = "VIDGEN_MODELS"
SHOWN = 10  # known names, before only the nearest are said


@dataclass(frozen=True)
class Found:
    """A model of the name, and in words where that is."""

    path: Path
    where: str
    of: Path | None = None  # a stored one: the folder that it refers to

    def is_same(self, other: Found) -> bool:
        """Whether both are one model: the same folder, or a name for it."""
        mine, others = ({x.path.resolve(), (x.of or x.path).resolve()} for x in (self, other))
        return bool(mine & others)


def find(name: str, shipped: Path) -> Path:
    """The model's folder. `shipped`: the folder of the shipped ones.

    UsageError for a name of no model, or of several; InputError for a folder that is none, or a
    stored model whose files are gone.
    """
    if is_path(name) and Path(name).is_dir():
        return _model(Path(name))
    found = list(_named(name, shipped))
    others = [model for model in found[1:] if not found[0].is_same(model)]
    if others:
        raise UsageError(
            f"several models are called `{name}`",
            why="; ".join(f"{model.where}: {model.path}" for model in (found[0], *others)),
            next=f"--model {_typed(others[-1].path)} or another of these paths",
        )
    if found:
        if stored := model_store.of_folder(found[0].path):
            stored.require_there()
        return found[0].path
    if Path(name).is_dir():
        return _model(Path(name))
    raise _unknown(name, shipped)


def is_path(words: str) -> bool:
    """Whether the words say a place, not a name."""
    return "/" in words or os.sep in words or words in (".", "..")


def _model(folder: Path) -> Path:
    if (folder / INDEX).is_file():
        return folder
    raise InputError(
        f"{folder}: a folder without model_index.json, so not a model", next="vidgen models"
    )


def _named(name: str, shipped: Path) -> Iterator[Found]:
    if not is_path(name) and (shipped / name / INDEX).is_file():
        yield Found(shipped / name, "shipped")
    yield from (Found(m.path, "stored", _source(m)) for m in model_store.called(name))
    if is_path(name):
        return
    yield from (Found(p, f"in {VARIABLE}") for p in in_folders() if p.name == name)
    if (Path(name) / INDEX).is_file():
        yield Found(Path(name), "a folder here")


def _source(stored: Stored) -> Path | None:
    try:
        return Path(stored.source["folder"])
    except InputError:
        return None


def in_folders(text: str | None = None) -> list[Path]:
    """The models in these folders, and those that are one of them; `text`: paths with `:` between,
    as --models has them, or None for those of the variable. UsageError for what is no folder."""
    said = VARIABLE if text is None else "--models"
    text = os.environ.get(VARIABLE) if text is None else text
    found: list[Path] = []
    for place in map(Path, filter(None, (text or "").split(os.pathsep))):
        if not place.is_dir():
            raise UsageError(f"{said} {place}: is no folder", next="vidgen models")
        inside = [place, *sorted(p for p in place.iterdir() if p.is_dir())]
        found += [p for p in inside if (p / INDEX).is_file()]
    return found


def names(shipped: Path) -> list[str]:
    """What `--model` knows by name, the shipped ones first."""
    own = sorted(p.parent.name for p in shipped.glob(f"*/{INDEX}"))
    more = [*(m.name for m in model_store.stored()), *(p.name for p in in_folders())]
    return list(dict.fromkeys([*own, *more]))


def _unknown(name: str, shipped: Path) -> UsageError:
    from vidgen.io.hub import cached, is_repo

    if is_repo(name):
        here = cached(name) is not None
        return UsageError(
            f"no model called `{name}`",
            why="it is in the hub's cache, and has no name yet" if here
            else "it is neither a folder, nor stored, nor in the hub's cache",
            next=f"vidgen models add {'' if here else '--download '}{name}",
        )  # fmt: skip
    known = names(shipped)
    if len(known) > SHOWN:
        near = difflib.get_close_matches(name, known, SHOWN)
        told = f"near are: {', '.join(near)}" if near else f"there are {len(known)}"
    else:
        told = f"one of: {', '.join(known) or 'none'}"
    return UsageError(
        f"no model called `{name}`", why=f"neither a folder nor {told}", next="vidgen models"
    )


def _typed(path: Path) -> str:
    """A path as it has to be typed to be one."""
    return str(path) if is_path(str(path)) else f"./{path}"
