"""State dicts in the files that other people's weights come in. None of their code is run."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from vidgen.errors import InputError, VidgenError
from vidgen.io.weights import load_safetensors


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, of what `torch.save` wrote of a state dict, of a
    TorchScript archive, or of an npz, by name. InputError for anything else.

    Pickles are read as weights only. Of an archive only the parameters and buffers are taken.
    """
    try:
        with path.open("rb") as f:
            start = f.read(9)
        if start[8:9] == b"{":
            return load_safetensors(path)
        names = _members(path)
        if any(name.endswith("constants.pkl") for name in names):
            return _of_script(path)
        if names and all(name.endswith(".npy") for name in names):
            return _of_npz(path)
        return _of_pickle(torch.load(path, map_location="cpu", weights_only=True), path)
    except OSError as e:
        raise InputError(f"{path}: can't be read: {(e.strerror or str(e)).lower()}") from None
    except (VidgenError, MemoryError):
        raise
    except Exception as error:  # the readers of pickles and archives raise anything
        raise InputError(
            f"{path}: holds no weights that can be read",
            why=(str(error).strip() or type(error).__name__).splitlines()[0],
            next="if it is a whole pickled network, save its state_dict() instead",
        ) from None


def _members(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _of_script(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript itself
        return dict(torch.jit.load(str(path), map_location="cpu").state_dict())


def _of_npz(path: Path) -> dict[str, Tensor]:
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _of_pickle(found: object, path: Path) -> dict[str, Tensor]:
    """A state dict, or one under `state_dict`; names without DataParallel's `module.`."""
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not found:
        raise InputError(f"{path}: holds no state dict, but {type(found).__name__}")
    for name, x in found.items():
        if not isinstance(name, str) or not isinstance(x, Tensor):
            raise InputError(f"{path}: {name!r} is no tensor, but {type(x).__name__}")
    if all(name.startswith("module.") for name in found):
        return {name.removeprefix("module."): x for name, x in found.items()}
    return dict(found)
