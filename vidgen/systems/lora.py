"""LoRA (Hu et al. 2021, arXiv 2106.09685) fused into a network: W + weight · alpha/r · B A.

Files name layers in one of several ways, with a prefix or none:

| who | prefix | layer | tensors |
|---|---|---|---|
| diffusers, peft | `transformer.`, `transformer_2.` | as in released folders | `lora_A`, `lora_B` |
| authors' code and its trainers | `diffusion_model.` | as the authors name them | the same, or \
`lora_down`, `lora_up` |
| kohya's trainers | `lora_unet_` | either, with `_` for `.` | `lora_down`, `lora_up` |

alpha is a tensor beside them or in the file's metadata, or r where neither says it. `diff` and
`diff_b` are whole differences, of weight and bias. Whatever of a file fits no layer is refused:
that is a LoRA of another network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidgen.errors import InputError
from vidgen.io import weights
from vidgen.nn.keys import first

PREFIXES = (
    "base_model.model.", "diffusion_model.", "lora_unet_", "transformer.", "transformer_2.",
)  # fmt: skip
DOWN = (".lora_A.weight", ".lora_A.default.weight", ".lora_down.weight", ".lora.down.weight")
UP = (".lora_B.weight", ".lora_B.default.weight", ".lora_up.weight", ".lora.up.weight")
WHOLE = {".diff": ".weight", ".diff_b": ".bias", ".lora_B.bias": ".bias"}


@dataclass(frozen=True)
class Lora:
    """A file, how much of it, and the network that it is for."""

    path: str
    weight: float = 1.0
    component: str = "transformer"

    @property
    def identity(self) -> dict[str, Any]:
        """What the log says of it."""
        found = {"name": Path(self.path).stem, "sha256": weights.sha256(self.path)}
        return {**found, "weight": self.weight, "component": self.component}


@dataclass
class _Change:
    """What a file does to one tensor."""

    down: Tensor | None = None  # r × in
    up: Tensor | None = None  # out × r
    alpha: float | None = None
    whole: Tensor | None = None

    def fits(self, like: Tensor) -> bool:
        """Whether it is of the tensor's shape."""
        if self.whole is not None and self.whole.shape != like.shape:
            return False
        if self.down is None or self.up is None:
            return self.down is None and self.up is None
        rank = len(self.down)
        sizes = (self.up.shape[0], self.up[0].numel()), self.down[0].numel()
        return like.ndim > 1 and sizes == ((len(like), rank), like[0].numel())

    def of(self, like: Tensor) -> Tensor:
        """The difference, float32, where it fits."""
        total = torch.zeros_like(like, dtype=torch.float32)
        if self.whole is not None:
            total = total + self.whole.float()
        if self.down is not None and self.up is not None:
            down, up = self.down.float().flatten(1), self.up.float().flatten(1)
            scale = 1.0 if self.alpha is None else self.alpha / len(down)
            total = total + scale * (up @ down).view_as(like)
        return total


@torch.no_grad()
def fuse(
    network: nn.Module, component: str, loras: Sequence[Lora], aliases: Mapping[str, str]
) -> None:
    """Add what the files for this component say to its weights, in float32, rounded once.

    aliases  names of layers in files → the network's own

    InputError for a file that has a layer which the network hasn't, or has of another shape.
    """
    own = dict(network.named_parameters())
    for name, changed in changes(network, component, loras, aliases).items():
        own[name].data = changed(own[name].data)


def changes(
    network: nn.Module, component: str, loras: Sequence[Lora], aliases: Mapping[str, str]
) -> dict[str, Callable[[Tensor], Tensor]]:
    """The same for weights that aren't here yet: own tensor's name → what makes the weight that is
    computed with, in its dtype."""
    files = [(lora, read(lora, aliases)) for lora in loras if lora.component == component]
    for lora, found in files:
        refuse_others(lora, found, network)

    def changed(name: str) -> Callable[[Tensor], Tensor]:
        parts = [(lora.weight, found[name]) for lora, found in files if name in found]

        def of(p: Tensor) -> Tensor:
            total = p.float()
            for weight, change in parts:
                total = total + weight * change.of(p)
            return total.to(p.dtype)

        return of

    return {name: changed(name) for name in sorted({name for _, f in files for name in f})}


def refuse_others(lora: Lora, found: Mapping[str, _Change], network: nn.Module) -> None:
    """InputError for changes that fit no tensor of the network, by name and shape."""
    own = dict(network.named_parameters())
    wrong = {
        name: tuple(_some(change).shape) for name, change in found.items()
        if name not in own or not change.fits(own[name])
    }  # fmt: skip
    if wrong:
        raise _another(lora.path, first(wrong))


def _some(change: _Change) -> Tensor:
    return next(
        (x for x in (change.whole, change.up, change.down) if x is not None), torch.empty(0)
    )


def read(lora: Lora, aliases: Mapping[str, str]) -> dict[str, _Change]:
    """Own tensor's name → how the file changes it. InputError for layers that nobody knows."""
    state, default = weights.load_safetensors(lora.path), _alpha(lora.path)
    known = dict(aliases) | {name.replace(".", "_"): own for name, own in aliases.items()}
    found: dict[str, _Change] = {}
    strange: dict[str, tuple[int, ...]] = {}
    for key, x in state.items():
        ending = next((e for e in (*DOWN, *UP, *WHOLE, ".alpha") if key.endswith(e)), None)
        layer = known.get(_layer(key.removesuffix(ending or "")))
        if ending is None or layer is None:
            strange[key] = tuple(x.shape)
            continue
        change = found.setdefault(layer + WHOLE.get(ending, ".weight"), _Change(alpha=default))
        if ending in DOWN:
            change.down = x
        elif ending in UP:
            change.up = x
        elif ending == ".alpha":
            change.alpha = float(x)
        else:
            change.whole = x
    if strange or not found:
        raise _another(lora.path, first(strange))
    return found


def _layer(name: str) -> str:
    """Without what files put in front."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _alpha(path: str) -> float | None:
    """alpha of the layers that don't say it, as peft writes it into the file's metadata."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("lora_adapter_metadata")
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        raise InputError(f"{path}: its lora_adapter_metadata isn't JSON") from None
    for key in ("alpha_pattern", "rank_pattern"):
        if any(value for name, value in found.items() if name.endswith(key)):
            raise InputError(f"{path}: its metadata has a {key}, which isn't read here")
    alphas = {float(v) for name, v in found.items() if name.endswith("lora_alpha")}
    if len(alphas) > 1:
        raise InputError(f"{path}: its metadata has several lora_alpha: {sorted(alphas)}")
    return alphas.pop() if alphas else None


def _another(path: str, what: str) -> InputError:
    return InputError(
        f"{path}: a LoRA of another network: no layer fits {what}",
        next="vidgen inspect FILE shows its tensors; --lora takes those of the model's own base",
    )
