"""One process or several (torchrun): who we are, and how the work is shared.

The whole loss of a step is one module (`vidgen.train.loop.Step`), so DDP and FSDP see every
trained parameter, whichever methods of a network a task calls.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vidgen.errors import UsageError


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def agree(self, *values: float) -> tuple[float, ...]:
        """The largest of each value over all processes, so that all take the same decision.

        Runs over gloo on the CPU: a GPU isn't made to wait.
        """
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tuple(tensor.tolist())

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
            tensor /= self.size
        return tensor

    def wait(self) -> None:
        """Return when every process got here."""
        self.agree(0.0)


@contextmanager
def join(device: str | torch.device) -> Iterator[World]:
    """Join the processes that torchrun started; alone, a world of one.

    `device`: auto, cpu, cuda, cuda:i, mps. Raises UsageError for a device that isn't there.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    place = pick_device(device, int(os.environ.get("LOCAL_RANK", 0)) if size > 1 else None)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if size == 1:
        yield World(0, 1, place)
        return
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=30))
    try:
        yield World(rank, size, place)
    finally:
        gc.collect()  # modules are in cycles, and those that live on hold the group's threads
        dist.destroy_process_group()


def pick_device(name: str | torch.device, local_rank: int | None = None) -> torch.device:
    """The torch device for `name`; under torchrun each process takes its own GPU."""
    name = str(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(
            f"--device {name}: no such device", next="one of: auto, cpu, cuda, cuda:1, mps"
        ) from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"--device {name}: this torch sees no GPU", next="--device cpu")
        index = local_rank if local_rank is not None else (device.index or 0)
        if index >= torch.cuda.device_count():
            raise UsageError(f"--device cuda:{index}: there are {torch.cuda.device_count()} GPUs")
        device = torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: this torch has no MPS", next="--device cpu")
    return device


def parallelize(step: nn.Module, blocks: list[nn.Module], world: World, kind: str) -> nn.Module:
    """Wrap the step for several processes: `ddp` copies the weights, `fsdp` shards them.

    FSDP2 gathers one of `blocks` at a time; frozen parameters stay whole.
    """
    if world.size == 1:
        return step
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(step)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    frozen = {p for p in step.parameters() if not p.requires_grad}
    for block in blocks:
        fully_shard(block, mesh=mesh, ignored_params=frozen)
    fully_shard(step, mesh=mesh, ignored_params=frozen)  # in place
    return step


def full(tensor: Tensor) -> Tensor:
    """The whole tensor, where `tensor` may be this process's shard (then a collective call)."""
    tensor = tensor.detach()
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(whole: Tensor, other: Tensor) -> Tensor:
    """A copy of `whole` on the device of `other`, sharded or strided as `other` is."""
    if not hasattr(other, "full_tensor"):
        # Fused optimizers walk a parameter and its state in memory order, which channels-last
        # makes another than the contiguous one of a file.
        return torch.empty_like(other, dtype=whole.dtype).copy_(whole)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(other, DTensor)
    return distribute_tensor(whole.to(other.device), other.device_mesh, other.placements)
