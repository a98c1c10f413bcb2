"""Checkpoints: a folder each, safetensors for tensors and JSON for the rest, no pickles.

    OUT/checkpoints/step-00001000/tensors.safetensors   model/…  ema/…  buffers/…  optim/…
    OUT/checkpoints/step-00001000/state.json            step, elapsed_s, recipe, digest, …

A checkpoint appears whole or not at all: written beside its place, synced, renamed. The last two
are kept, so that a damaged disk block costs one interval and not the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vidgen.errors import InputError, UsageError
from vidgen.train.distributed import full, like
from vidgen.train.ema import Ema, named_buffers, named_parameters
from vidgen.train.optim import Optimizer
from vidgen.train.recipe import BUDGET_KEYS, Recipe, differences, section
from vidgen.train.task import Modules, trainable

SCHEMA = "vidgen.checkpoint/1"
KEEP = 2
TENSORS, STATE = "tensors.safetensors", "state.json"


@dataclass
class Training:
    """Everything that a step changes."""

    modules: dict[str, nn.Module]
    ema: Ema
    optimizer: Optimizer
    step: int = 0
    elapsed_s: float = 0.0
    samples: int = 0


def save(out: Path, training: Training, recipe: Recipe, frozen: str, *, write: bool) -> Path:
    """Save `training` under `out` and drop the third-last checkpoint.

    All processes call this, since gathering shards takes all of them; `write` is true in one.
    """
    tensors = _collect(training)
    final = out / "checkpoints" / f"step-{training.step:08d}"
    if not write or final.exists():
        return final
    digest = _digest(tensors)
    state = {
        "schema": SCHEMA,
        "step": training.step,
        "elapsed_s": training.elapsed_s,
        "samples": training.samples,
        "recipe": recipe.to_dict(),
        "frozen": frozen,
        "digest": digest,
        "torch": torch.__version__,
    }
    for left in final.parent.glob(".step-*.tmp"):  # by a process that was killed while saving
        shutil.rmtree(left, ignore_errors=True)
    temporary = final.with_name(f".{final.name}.tmp")
    temporary.mkdir(parents=True)
    try:
        save_file(tensors, temporary / TENSORS)
        (temporary / STATE).write_text(json.dumps(state, indent=1, sort_keys=True) + "\n")
        for path in (temporary / TENSORS, temporary / STATE, temporary):
            _sync(path)
        temporary.rename(final)
        _sync(final.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in checkpoints(out)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints under `out`, oldest first."""
    return sorted(p for p in (out / "checkpoints").glob("step-*") if (p / STATE).is_file())


def read_state(path: Path) -> dict[str, Any]:
    """The JSON part of the checkpoint `path`; InputError if it isn't one."""
    try:
        state = json.loads((path / STATE).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a checkpoint", why=str(error)) from None
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise InputError(f"{path}: not a checkpoint of this version", why=f"schema isn't {SCHEMA}")
    return state


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of the checkpoint `path` on the CPU, checked against its digest."""
    try:
        tensors = load_file(path / TENSORS)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, str(error)) from None
    if _digest(tensors) != read_state(path)["digest"]:
        raise _damaged(path, "the tensors don't match their digest")
    return tensors


def resume_from(out: Path, resume: str, recipe: Recipe) -> Path | None:
    """The checkpoint under `out` to go on from, if any; decided before anything heavy is built.

    resume: `auto` takes the newest if there is one, `yes` insists on one, `no` refuses one.
    """
    if resume not in ("auto", "yes", "no"):
        raise UsageError(f"--resume {resume}: unknown", next="one of: auto, yes, no")
    saved = checkpoints(out)
    if not saved:
        if resume == "yes":
            raise UsageError(f"{out}: no checkpoint to resume from", next=f"ls {out}")
        return None
    if resume == "no":
        raise UsageError(
            f"{out}: holds a run already, at {saved[-1].name}",
            next="choose another --out, or resume it",
        )
    check_recipe(out, read_state(saved[-1]), recipe)
    return saved[-1]


def check_recipe(out: Path, state: Mapping[str, Any], recipe: Recipe) -> None:
    """Refuse to go on from a checkpoint of another recipe; budget keys may differ."""
    old = section(Recipe, state["recipe"], where="").to_dict()  # with defaults that came later
    changed = differences(old, recipe.to_dict(), ignore=BUDGET_KEYS)
    if not changed:
        return
    listed = "; ".join(
        f"{k} is {_shown(a)} there, {_shown(b)} here" for k, (a, b) in changed.items()
    )
    raise UsageError(
        f"{out}: holds a run of a different recipe: {listed}",
        why="going on would mix the two; only budgets, intervals and export_dtype may change",
        next="choose another --out, or give the recipe the values of that run",
    )


def restore(path: Path, training: Training) -> None:
    """Put the checkpoint `path` into `training`, in place."""
    state, tensors = read_state(path), read_tensors(path)
    names = list(trainable(training.modules))
    places = _tagged("model", named_parameters(training.modules, names))
    places |= _tagged("buffers", named_buffers(training.modules, names))
    places |= _tagged("ema", training.ema.parameters())
    missing = sorted(places.keys() - tensors.keys())
    if missing:
        raise InputError(
            f"{path}: the tensor `{missing[0]}` isn't there",
            why="the code of the network has changed since this checkpoint was written",
            next="choose another --out and start anew",
        )
    with torch.no_grad():
        for name, place in places.items():
            if tensors[name].shape != place.shape:
                shapes = f"{list(tensors[name].shape)} there, {list(place.shape)} here"
                raise InputError(f"{path}: `{name}` is {shapes}", next="choose another --out")
            place.copy_(like(tensors[name], place))
    prefix = "optim/"
    training.optimizer.load(
        {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    )
    training.step = state["step"]
    training.elapsed_s = state["elapsed_s"]
    training.samples = state["samples"]


def load_ema(path: Path, modules: Modules) -> None:
    """Put the averaged weights of the checkpoint `path` into freshly built modules."""
    tensors = read_tensors(path)
    names = list(trainable(modules))
    places = _tagged("ema", named_parameters(modules, names))
    places |= _tagged("buffers", named_buffers(modules, names))
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(tensors[name])


def frozen_digest(modules: Modules, more: Sequence[str] = ()) -> str:
    """Hash of the weights that aren't trained, and of these strings: a resumed run must see the
    same ones."""
    moving = trainable(modules)
    tensors = {
        f"{m}.{n}": t
        for m, module in modules.items()
        if m not in moving
        for n, t in module.state_dict().items()
    }
    digest = _digest(tensors)
    if not more:  # as in checkpoints from before there were such strings
        return digest
    return hashlib.blake2b(json.dumps([digest, *more]).encode(), digest_size=16).hexdigest()


def _collect(training: Training) -> dict[str, Tensor]:
    """All tensors of a checkpoint, whole, on the CPU."""
    names = list(trainable(training.modules))
    tensors = _tagged("model", named_parameters(training.modules, names))
    tensors |= _tagged("buffers", named_buffers(training.modules, names))
    tensors |= _tagged("ema", training.ema.parameters())
    tensors |= _tagged("optim", training.optimizer.state())
    return {name: full(t).cpu().contiguous() for name, t in sorted(tensors.items())}


def _tagged(tag: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{tag}/{name}": t for name, t in tensors.items()}


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, dtypes, shapes and bytes, in the order of the names."""
    h = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        t = tensors[name].detach().cpu().contiguous()
        h.update(f"{name} {t.dtype} {list(t.shape)}\n".encode())
        h.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return h.hexdigest()


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        f"{path}: damaged checkpoint", why=why,
        next=f"rm -r {path}  (the run then goes on from the checkpoint before it)",
    )  # fmt: skip


def _sync(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)
