"""Muon for the matrices of the blocks, AdamW for the rest, seen as one optimizer.

Muon (Jordan et al., 2024; torch.optim.Muon) orthogonalizes the momentum of a matrix with five
Newton–Schulz steps in bfloat16; its rate is scaled by sqrt(max(1, rows / columns)), and weight
decay is decoupled. It suits hidden matrices only: embeddings, input and output projections,
norms and biases go to AdamW; so do convolution kernels, but for those that `optim.muon_kernels`
names, which are taken as matrices of one row for each output channel.
"""

from __future__ import annotations

import fnmatch
import math

import torch
from torch import Tensor, nn

from vidgen.errors import UsageError
from vidgen.train.distributed import full, like
from vidgen.train.lamb import Lamb
from vidgen.train.recipe import Optim, Schedule
from vidgen.train.task import Modules, trainable


def rate(schedule: Schedule, step: int, used: float) -> float:
    """Factor on the learning rates for step `step` (from 0) when `used` (0…1) of the budget is
    spent: warm-up × flat, then to `final` over the last `decay_fraction`, linearly or along half a
    cosine."""
    warm = min(1.0, (step + 1) / max(1, schedule.warmup_steps))
    left = 1.0 - min(1.0, max(0.0, used))
    if schedule.decay_fraction <= 0 or left >= schedule.decay_fraction:
        return warm
    share = left / schedule.decay_fraction
    if schedule.decay == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return warm * (schedule.final + (1 - schedule.final) * share)


def is_muon(name: str, owner: nn.Module, p: Tensor, config: Optim) -> bool:
    """Whether Muon takes the parameter `name` of `owner`: weights of linear layers in blocks."""
    if config.name != "muon" or p.ndim != 2 or not isinstance(owner, nn.Linear):
        return False
    wanted = any(fnmatch.fnmatchcase(name, pattern) for pattern in config.muon_match)
    return wanted and not any(fnmatch.fnmatchcase(name, pattern) for pattern in config.muon_exclude)


class KernelMuon(torch.optim.Optimizer):
    """Muon for convolution kernels `out in h w` or `out in t h w`, seen as matrices of `out` rows;
    torch's takes matrices only. Not for sharded parameters."""

    def __init__(self, params: list[nn.Parameter], lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                kept = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                kept.lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(kept, group["momentum"]).flatten(1)  # Nesterov
                scale = max(1.0, ahead.shape[0] / ahead.shape[1]) ** 0.5
                p.add_(orthogonal(ahead).view_as(p), alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are all about 1, by five Newton–Schulz steps in
    bfloat16 (Jordan et al. 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


def is_kernel(name: str, p: Tensor, config: Optim) -> bool:
    """Whether `KernelMuon` takes the parameter."""
    wanted = any(fnmatch.fnmatchcase(name, pattern) for pattern in config.muon_kernels)
    return config.name == "muon" and p.ndim >= 4 and wanted


class Optimizer:
    """The optimizers of all trained modules; parameters are named `module.parameter`."""

    def __init__(self, modules: Modules, config: Optim) -> None:
        muon: dict[str, nn.Parameter] = {}
        kernels: dict[str, nn.Parameter] = {}
        matrices: dict[str, nn.Parameter] = {}
        vectors: dict[str, nn.Parameter] = {}
        seen: set[int] = set()
        for module_name, module in trainable(modules).items():
            for path, owner in module.named_modules():
                for leaf, p in owner.named_parameters(recurse=False):
                    if not p.requires_grad or id(p) in seen:
                        continue
                    seen.add(id(p))
                    name = ".".join(part for part in (module_name, path, leaf) if part)
                    if is_muon(name, owner, p, config):
                        muon[name] = p
                    elif is_kernel(name, p, config):
                        kernels[name] = p
                    else:
                        (matrices if p.ndim >= 2 else vectors)[name] = p
        if not muon | kernels | matrices | vectors:
            raise UsageError("recipe: no parameter of the task's networks wants a gradient")
        if config.name == "muon" and not muon | kernels:
            raise UsageError(
                "recipe: optim.muon_match matches no linear layer: " + ", ".join(config.muon_match),
                why="names look like: " + ", ".join(list(matrices)[:4]),
                next="set optim.name=adamw or optim.muon_match",
            )
        self.muon_names = list(muon)
        self._named = muon | kernels | matrices | vectors
        self._parts: list[torch.optim.Optimizer] = []
        if muon:
            self._parts.append(
                torch.optim.Muon(
                    list(muon.values()), lr=config.muon_lr, momentum=config.muon_momentum,
                    weight_decay=config.muon_weight_decay, nesterov=True,
                )
            )  # fmt: skip
        if config.name == "lamb" and any(hasattr(p, "full_tensor") for p in matrices.values()):
            raise UsageError(
                "recipe: optim.name lamb with parallel fsdp",
                why="its norms are of whole tensors",
                next="set parallel=ddp",
            )
        if any(hasattr(p, "full_tensor") for p in kernels.values()):
            raise UsageError(
                "recipe: optim.muon_kernels with parallel fsdp",
                why="it is not written for sharded kernels",
                next="set parallel=ddp, or optim.muon_kernels=[]",
            )
        if kernels:
            self._parts.append(
                KernelMuon(list(kernels.values()), config.muon_lr, config.muon_momentum)
            )
        groups = [
            {"params": list(matrices.values()), "weight_decay": config.weight_decay},
            {"params": list(vectors.values()), "weight_decay": 0.0},
        ]
        groups = [g for g in groups if g["params"]]
        if groups and config.name == "lamb":
            every = [*matrices.values(), *vectors.values()]
            self._parts.append(
                Lamb(every, config.lr, config.betas, config.eps, config.weight_decay)
            )
        elif groups:
            self._parts.append(
                torch.optim.AdamW(
                    groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True
                )
            )
        owner_of = {
            id(p): part for part in self._parts for group in part.param_groups
            for p in group["params"]
        }  # fmt: skip
        self._part_of = {name: owner_of[id(p)] for name, p in self._named.items()}
        for part in self._parts:
            for group in part.param_groups:
                group["base_lr"] = group["lr"]

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self._named.values())

    def set_rate(self, factor: float) -> None:
        """Multiply every group's own learning rate by `factor`."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = group["base_lr"] * factor

    def step(self) -> None:
        for part in self._parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """State tensors as `parameter/key`. Under FSDP all processes must call this."""
        out: dict[str, Tensor] = {}
        for name, p in self._named.items():
            for key, value in self._part_of[name].state.get(p, {}).items():
                out[f"{name}/{key}"] = full(value)
        return out

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take the state that `state` gave, placed as each parameter is placed."""
        for entry, value in tensors.items():
            name, _, key = entry.rpartition("/")
            p = self._named[name]
            placed = like(value, p) if value.shape == p.shape else value.to(p.device, copy=True)
            self._part_of[name].state[p][key] = placed
