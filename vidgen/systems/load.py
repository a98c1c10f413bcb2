"""Networks and sampler settings out of a model folder: how every system loads its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from vidgen.errors import InputError
from vidgen.io import weights
from vidgen.systems.base import ModelFolder, Sampler

T = TypeVar("T")


def filled(network: type, config: type, folder: ModelFolder, component: str):
    """Build on the meta device and let the weights be the memory map of the file. InputError for a
    config that builds no network, or another one than that of the weights."""
    path = folder.path / component
    settings = {
        k: v for k, v in folder.config(component).items()
        if k in config.__dataclass_fields__  # type: ignore[attr-defined]
    }  # fmt: skip
    try:
        with torch.device("meta"):
            module = network(config(**settings))
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise InputError(
            f"{path}/config.json: builds no {network.__name__}: {first_line(error)}"
        ) from None
    state: dict[str, Tensor] = {}
    for file in folder.weight_files(component):
        state.update(weights.load_safetensors(file))
    expected = {name: tuple(x.shape) for name, x in module.state_dict().items()}
    found = {name: tuple(x.shape) for name, x in state.items()}
    if wrong := weights.mismatches(expected, found):
        raise InputError(
            f"{path}: the weights are not those of its config.json: {wrong[0]}",
            next=f"vidgen models verify {folder.name}",
        )
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def named(key: str, table: Mapping[str, T], sampler: Sampler, path: Path) -> T:
    """What the sampler of the file `path` names with a key; InputError for a name that isn't in
    the table."""
    name = getattr(sampler, key)
    if name not in table:
        raise InputError(f"{path}: no {key} is called `{name}`", next=f"one of: {', '.join(table)}")
    return table[name]


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
