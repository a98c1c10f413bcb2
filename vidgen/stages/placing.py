"""Where the weights of a released model are while it is sampled (`--offload`, `--weight-dtype`).

| offload | on the device |
|---|---|
| none | all networks, from the first batch on |
| model | the network that computes, and none between batches |
| layer | two blocks of each network, and what isn't blocks |

What is elsewhere is in the files, and read from them when its turn comes, so that a CPU's memory
is spared as a device's is. Blocks that go to a device again and again are kept in pinned memory.

With fp8 the matrices of blocks are kept as that, wherever blocks are kept, and multiplied out block
by block when their turn comes (`vidgen.nn.by_turn`): that is an approximation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from vidgen.nn.by_turn import ByTurn, Origin, put, tensors
from vidgen.nn.fp8 import to_fp8
from vidgen.stages.base import Compute, compiled
from vidgen.stages.sample_keyframes import Choices
from vidgen.systems.base import ModelFolder
from vidgen.systems.lora import changes, fuse
from vidgen.systems.released import Run

BLOCKS = "blocks."
# Parts of blocks whose matrices may be kept as fp8. Others modulate, and are small.
MATRICES = {"self_attn", "cross_attn", "mlp"}


class Networks(Protocol):
    """The networks of a run."""

    def here(self) -> list[nn.Module]:
        """Them, ready to be called on the device."""
        ...

    def rest(self) -> None:
        """No network is called until they are asked for again."""
        ...


def networks(folder: ModelFolder, run: Run, choices: Choices, compute: Compute) -> Networks:
    """Those of a run with what is fused into them. Nothing is on the device yet."""
    if (compute.offload, compute.weight_dtype) == ("none", "auto"):
        return _Staying(folder, run, choices, compute)
    return _Coming(folder, run, choices, compute)


def approximations(compute: Compute) -> list[str]:
    """What is not exact about the weights, in the words of the log."""
    if compute.weight_dtype != "fp8":
        return []
    return ["matrices of blocks are kept as fp8 (e4m3), scaled by output channel"]


def is_fp8(name: str, shape: torch.Size, compute: Compute) -> bool:
    """Whether the network's tensor of this name is kept as fp8."""
    parts = set(name.removeprefix(BLOCKS).split("."))
    matrix = name.startswith(BLOCKS) and len(shape) == 2 and bool(parts & MATRICES)
    return compute.weight_dtype == "fp8" and matrix


class _Staying:
    """On the device from the first batch on."""

    def __init__(self, folder: ModelFolder, run: Run, choices: Choices, compute: Compute) -> None:
        self._device, self._networks = compute.torch_device(), []
        for component in run.components:
            network = run.load(component, compute.torch_dtype())
            fuse(network, component, choices.loras, folder.released.layer_names(network))
            self._networks.append(compiled(network, compute))

    def here(self) -> list[nn.Module]:
        return [network.to(self._device) for network in self._networks]

    def rest(self) -> None:
        pass


class _Coming:
    """On the device when they are needed, in whole or block by block."""

    def __init__(self, folder: ModelFolder, run: Run, choices: Choices, compute: Compute) -> None:
        self._guests = [_Guest(folder, run, c, choices, compute) for c in run.components]
        self._one_by_one = compute.offload == "model"
        if self._one_by_one:
            for guest in self._guests:
                guest.network.register_forward_pre_hook(partial(self._called, guest))

    def here(self) -> list[nn.Module]:
        if not self._one_by_one:
            for guest in self._guests:
                guest.come()
        return [guest.network for guest in self._guests]

    def rest(self) -> None:
        for guest in self._guests:
            guest.go(wholly=self._one_by_one)

    def _called(self, guest: _Guest, *_: object) -> None:
        """A network's turn begins with its call, and lasts until another one is called."""
        for other in self._guests:
            if other is not guest:
                other.go(wholly=True)
        guest.come()


class _Guest:
    """A network whose weights are read when it comes to the device, and given back when it goes."""

    def __init__(
        self, folder: ModelFolder, run: Run, component: str, choices: Choices, compute: Compute
    ) -> None:
        self.network: Any = run.load(component, None)
        self._device = compute.torch_device()
        self._compute, self._present = compute, False
        self._away = {name: x.data for name, x in tensors(self.network).items()}
        self._kept: dict[str, Tensor] = {}  # of blocks, where they are neither here nor in files
        self._scales: dict[str, Tensor] = {}
        origins = self._origins(folder, run, component, choices)
        compiled(self.network, compute)
        self._staying, self._stored = origins, dict[str, Origin]()
        if compute.offload == "layer" or compute.weight_dtype == "fp8":
            blocks = {name: o for name, o in origins.items() if name.startswith(BLOCKS)}
            self._staying = {name: o for name, o in origins.items() if name not in blocks}
            if compute.weight_dtype == "fp8" or self._device.type != "cpu":
                self._stored, blocks = blocks, {n: self._origin_kept(n, blocks[n]) for n in blocks}
            self.network.blocks = self._by_turn(blocks)

    def come(self) -> None:
        """Be on the device."""
        if self._present:
            return
        here = {name: o.ready(None, self._device) for name, o in self._staying.items()}
        put(self.network, here)
        for name, origin in self._stored.items():
            self._keep(name, origin)
        self._present = True

    def go(self, *, wholly: bool) -> None:
        """Give back what needn't be here until the next call, or all."""
        if isinstance(self.network.blocks, ByTurn):
            self.network.blocks.rest()
        if wholly and self._present:
            put(self.network, {name: self._away[name] for name in self._staying})
            self._kept.clear()
            self._scales.clear()
            self._present = False

    def _origins(
        self, folder: ModelFolder, run: Run, component: str, choices: Choices
    ) -> dict[str, Origin]:
        """Of each tensor of the network, as it is computed with, on the CPU or the device."""
        aliases = folder.released.layer_names(self.network)
        changed = changes(self.network, component, choices.loras, aliases)
        found, dtype = run.windows(component, self.network), self._compute.torch_dtype()
        origins = {}
        for name in self._away:
            wanted = run.dtype_of(name, dtype)
            as_is = (
                self._device.type == "cpu"
                and found[name].torch_dtype == wanted
                and name not in changed
            )
            origins[name] = Origin(found[name].read, as_is, wanted, changed.get(name))
        return origins

    def _keep(self, name: str, origin: Origin) -> None:
        """Make the block's weight ready and keep it: on the device, or beside it in pinned memory
        where it will be offloaded."""
        offloaded = self._compute.offload == "layer"
        made = origin.ready(None, torch.device("cpu") if offloaded else self._device)
        if is_fp8(name, made.shape, self._compute):
            made, scale = to_fp8(made)
            self._scales[name] = scale.pin_memory() if offloaded else scale
        self._kept[name] = made.pin_memory() if offloaded else made

    def _origin_kept(self, name: str, origin: Origin) -> Origin:
        """The same of a weight that `_keep` has kept."""
        fp8 = is_fp8(name, self._away[name].shape, self._compute)
        return Origin(
            partial(self._kept.__getitem__, name),
            as_is=not fp8 and self._compute.offload != "layer",
            dtype=origin.dtype,
            scale=partial(self._scales.__getitem__, name) if fp8 else None,
        )

    def _by_turn(self, origins: Mapping[str, Origin]) -> ByTurn:
        """The network's blocks, with origins by their own tensors' names."""
        blocks: list[nn.Module] = list(self.network.blocks.children())
        by_block: list[dict[str, Origin]] = [{} for _ in blocks]
        for name, origin in origins.items():
            index, _, own = name.removeprefix(BLOCKS).partition(".")
            by_block[int(index)][own] = origin
        return ByTurn(blocks, by_block, self._device)
