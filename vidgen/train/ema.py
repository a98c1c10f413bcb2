"""The running average of the weights, in float32: what is evaluated, sampled and exported."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from vidgen.train.distributed import full
from vidgen.train.task import Modules, trainable


class Ema:
    """Averaged copies of the trained modules; frozen ones are shared, not copied.

    After step n the average moves by 1 − min(decay, (1 + n) / (10 + n)): early on it forgets
    quickly, so that the first weights don't linger.
    """

    def __init__(self, live: dict[str, nn.Module], decay: float) -> None:
        moving = trainable(live)
        frozen = {id(m): m for name, m in live.items() if name not in moving}
        self.decay = decay
        self._modules: dict[str, nn.Module] = copy.deepcopy(live, memo=frozen)
        for name in moving:
            self._modules[name].eval().requires_grad_(False)
        self._moving = list(moving)
        self._shards: dict[str, Tensor] | None = None
        self._device = torch.device("cpu")

    def shard(self, live: Modules, device: torch.device) -> None:
        """Under FSDP the average is kept in shards like the live weights; the full copy waits on
        the CPU until someone needs it. Call when `live` has just been sharded."""
        self._shards = {
            name: p.detach().clone() for name, p in named_parameters(live, self._moving).items()
        }
        self._device = device
        for name in self._moving:
            self._modules[name].cpu()

    @torch.no_grad()
    def update(self, live: Modules, step: int) -> None:
        """Move the average towards `live` after `step` steps."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        averages, weights = self.parameters(), named_parameters(live, self._moving)
        torch._foreach_lerp_(list(averages.values()), list(weights.values()), weight)
        if self._shards is None:
            source = named_buffers(live, self._moving)
            for name, buffer in named_buffers(self._modules, self._moving).items():
                buffer.copy_(source[name])

    def parameters(self) -> dict[str, Tensor]:
        """The averages by name (`module.parameter`), as they are stored: checkpoint these."""
        if self._shards is not None:
            return self._shards
        return named_parameters(self._modules, self._moving)

    def buffers(self) -> dict[str, Tensor]:
        """Persistent buffers of the averaged modules by name."""
        return named_buffers(self._modules, self._moving)

    @torch.no_grad()
    def modules(self) -> dict[str, nn.Module]:
        """All modules, whole and ready for use. Under FSDP all processes must call this."""
        if self._shards is not None:
            for name, p in named_parameters(self._modules, self._moving).items():
                p.copy_(full(self._shards[name]))
            for name in self._moving:
                self._modules[name].to(self._device)
        return self._modules

    def release(self) -> None:
        """Give device memory back after `modules`, where weights are sharded."""
        if self._shards is not None:
            for name in self._moving:
                self._modules[name].cpu()


def named_parameters(modules: Modules, names: list[str]) -> dict[str, Tensor]:
    """Parameters of the modules in `names`, as `module.parameter`; a shared one appears once."""
    return {f"{m}.{n}": p for m in names for n, p in modules[m].named_parameters()}


def named_buffers(modules: Modules, names: list[str]) -> dict[str, Tensor]:
    """Persistent buffers of the modules in `names`, as `module.buffer`."""
    out: dict[str, Tensor] = {}
    for m in names:
        kept = modules[m].state_dict().keys()
        out |= {f"{m}.{n}": b for n, b in modules[m].named_buffers() if n in kept}
    return out
