"""Whether a model folder is whole: its hashes, and that every component is what its config says.

A component loads *strictly* when the network that its config builds has exactly the tensors of its
files, by name and shape. Our networks are built on the meta device, so that costs no memory;
transformers says the same of its own while it loads.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from vidgen.diffusion.prediction import PREDICTIONS
from vidgen.diffusion.schedules import SCHEDULES
from vidgen.diffusion.solvers import SOLVERS
from vidgen.errors import InputError
from vidgen.io import weights
from vidgen.nn.adm_unet import AdmUNet, AdmUNetConfig
from vidgen.nn.autoencoder import AutoencoderConfig, VideoAutoencoder
from vidgen.nn.dit import DiTConfig, VideoDiT
from vidgen.nn.fit import FIT, FITConfig
from vidgen.nn.meta import on_meta
from vidgen.nn.movq import MoVQConfig, MoVQDecoder
from vidgen.nn.text import Tokenizer
from vidgen.systems.base import ModelFolder
from vidgen.systems.load import CLIP_NETWORKS

# Our networks: the class that model_index.json names → its config's class, its module.
NETWORKS: dict[str, tuple[type, Callable[[Any], nn.Module]]] = {
    **{name: (config, build) for name, (build, config) in CLIP_NETWORKS.items()},
    "MoVQDecoder": (MoVQConfig, MoVQDecoder),
    "VideoDiT": (DiTConfig, VideoDiT),
    "FIT": (FITConfig, FIT),
    "AdmUNet": (AdmUNetConfig, AdmUNet),
    "VideoAutoencoder": (AutoencoderConfig, VideoAutoencoder),
}


def verify(
    folder: ModelFolder, components: Mapping[str, tuple[str, str]], *, hashes: bool = True
) -> Iterator[tuple[str, list[str]]]:
    """(component, what is wrong with it), an empty list where all is well, for each of
    `components`: name → (library, class), as in model_index.json. `hashes`: whether to hash weight
    files anew."""
    for name, (library, kind) in components.items():
        try:
            changed = _changed_files(folder, name) if hashes else []
            problems = [*changed, *_check(folder, name, library, kind)]
        except InputError as error:
            problems = [error.what]
        yield name, problems


def _check(folder: ModelFolder, name: str, library: str, kind: str) -> list[str]:
    if folder.released and name != "tokenizer":
        return _released(folder, name, library, kind)
    if kind in NETWORKS:
        return _network(folder, name, *NETWORKS[kind])
    if name == "tokenizer":
        return _tokenizer(folder)
    if name == "scheduler":
        return _scheduler(folder)
    if library == "transformers":
        return _transformers(folder, name, kind)
    return [f"nothing is known of its class {library}.{kind}"]


def _released(folder: ModelFolder, name: str, library: str, kind: str) -> list[str]:
    """Of a folder of diffusers': its system loads what is its own, or says what is wrong."""
    system = folder.released
    if kind in system.LOADERS:
        return _not_numbers(system.LOADERS[kind](folder, name).state_dict())
    if name == "scheduler":
        folder.sampler  # noqa: B018
        return []
    if name == "image_processor":
        folder._json("image_processor/preprocessor_config.json")
        return []
    if library == "transformers":
        return _transformers(folder, name, kind)
    return [f"nothing is known of its class {library}.{kind}"]


def _changed_files(folder: ModelFolder, name: str) -> list[str]:
    """Files whose bytes no longer are those that were hashed when they were last used: a disk
    that forgets, or a tool that sets times back."""
    changed = []
    for path in sorted(folder.place(name).glob("*.safetensors")):
        with path.open("rb") as f:
            now = hashlib.file_digest(f, "sha256").hexdigest()
        if now != weights.sha256(path):
            changed.append(f"{path.name}: its bytes have changed, its size and time have not")
    return changed


def _network(folder: ModelFolder, name: str, config: type, build: Callable) -> list[str]:
    settings = folder.config(name)
    fields = config.__dataclass_fields__  # type: ignore[attr-defined]
    try:
        with on_meta():
            module = build(config(**{k: v for k, v in settings.items() if k in fields}))
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        return [f"config.json builds no {build.__name__}: {error}"]
    state: dict[str, torch.Tensor] = {}
    for path in folder.weight_files(name):
        state |= weights.load_safetensors(path)
    expected = {key: tuple(x.shape) for key, x in module.state_dict().items()}
    found = {key: tuple(x.shape) for key, x in state.items()}
    return [*weights.mismatches(expected, found), *_not_numbers(state)]


def _not_numbers(state: Mapping[str, torch.Tensor]) -> list[str]:
    bad = [k for k, x in state.items() if x.is_floating_point() and not _finite(x)]
    return [f"{weights.some(bad)}: not all of it is finite"] if bad else []


def _finite(x: torch.Tensor) -> bool:
    """A NaN or an infinity makes the extremes of a tensor one."""
    low, high = x.aminmax() if x.numel() else (torch.zeros(()), torch.zeros(()))
    return math.isfinite(low) and math.isfinite(high)


def _transformers(folder: ModelFolder, name: str, kind: str) -> list[str]:
    """Let transformers load it and say what was missing, left over, or of another shape."""
    import transformers
    from transformers.utils import logging

    cls = getattr(transformers, kind, None)
    if cls is None:
        return [f"this transformers, {transformers.__version__}, has no {kind}"]
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        module, info = cls.from_pretrained(
            folder.component(name), local_files_only=True, dtype="auto",
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:
        return [f"transformers can't load it: {str(error).partition(chr(10))[0]}"]
    finally:
        logging.set_verbosity(level)
    lines = []
    if missing := sorted(info["missing_keys"]):
        lines.append(f"lacks {weights.some(missing)} of the network")
    if extra := sorted(info["unexpected_keys"]):
        lines.append(f"holds {weights.some(extra)} that the network hasn't")
    for key, *shapes in sorted(info["mismatched_keys"])[:1]:
        a, b = (weights.shown(tuple(shape)) for shape in shapes)
        lines.append(f"the shape of `{key}` is {a}, the network's is {b}")
    return [*lines, *_not_numbers(module.state_dict())]


def _tokenizer(folder: ModelFolder) -> list[str]:
    """It reads, and the encoder has a vector for each of its tokens."""
    path = folder.component("tokenizer") / "tokenizer.json"
    if folder.released:
        size = folder.released.load_tokenizer(folder).fast.get_vocab_size()
    elif not path.is_file():
        return ["tokenizer.json is missing"]
    else:
        try:
            size = Tokenizer(path, 512).fast.get_vocab_size()
        except Exception as error:  # tokenizers raises nothing narrower
            return [f"tokenizer.json can't be read: {error}"]
    if not (folder.place("text_encoder") / "config.json").is_file():
        return []  # which is the text encoder's problem
    vectors = folder.config("text_encoder").get("vocab_size", size)
    if size > vectors:
        return [f"it has {size} tokens, the text encoder has vectors for {vectors}"]
    return []


def _scheduler(folder: ModelFolder) -> list[str]:
    sampler = folder.sampler
    known = (("prediction", PREDICTIONS), ("schedule", SCHEDULES), ("solver", SOLVERS))
    return [
        f"its {key} is `{getattr(sampler, key)}`, there are {', '.join(table)}"
        for key, table in known
        if getattr(sampler, key) not in table
    ]
