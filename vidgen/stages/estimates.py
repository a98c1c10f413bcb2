"""How much memory and time sampling and decoding of a released model take, before they are done.

Time is that of every operation (`vidgen.stages.needs`), timed on the device here and now
(`vidgen.stages.rates`): of computing alone, with weights in place and nothing else to do. Memory is
what is allocated at the fullest moment beside the weights; on a CPU that of the process, which has
some already. Of decoding there, free blocks that its allocator keeps are in it (`needs.kept`): how
much they come to differs between runs of the same work, by up to a third of all. Of sampling they
are next to nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from vidgen.io.record import human_bytes
from vidgen.stages import needs
from vidgen.stages.base import Compute
from vidgen.stages.fitting import weight_bytes
from vidgen.stages.memory import resident_bytes
from vidgen.stages.needs import Needs
from vidgen.stages.rates import Clock
from vidgen.stages.tiles import Tiles
from vidgen.systems.base import ModelFolder
from vidgen.systems.released import Run


@dataclass(frozen=True)
class Estimate:
    """Seconds, and bytes of weights, of what is computed with them, and of the program itself."""

    flops: int
    seconds: float
    timed: int  # kinds of operations that were timed
    weights: int
    work: int
    program: int
    loading: int = 0  # bytes of weights while they are read, with those of their files

    @property
    def memory(self) -> int:
        return max(self.weights + self.work, self.loading) + self.program

    def told(self, compute: Compute, of: str) -> dict[str, str]:
        """For a plan; `of`: in words, how much work it is."""
        dtype = str(compute.torch_dtype()).removeprefix("torch.")
        parts = [f"weights {human_bytes(self.weights)}", f"work {human_bytes(self.work)}"]
        if self.loading > self.weights + self.work:
            parts[0] += f" ({human_bytes(self.loading)} while they are read)"
        if self.program:
            parts.append(f"the program {human_bytes(self.program)}")
        return {
            "device": f"{compute.torch_device()}, {dtype}",
            "FLOPs": f"{self.flops:.3g} for {of}",
            "memory": f"about {human_bytes(self.memory)}: {', '.join(parts)}",
            "time": f"about {self.seconds:.2g} s of computing, by {self.timed} kinds of operations"
            " timed now",
        }


def sampling(run: Run, compute: Compute, count: int, clock: Clock | None = None) -> Estimate:
    """Of `count` samples, in batches."""
    for component in run.components:
        run.build(component)  # a program that has built them is as large as one that loads them
    clock = clock or Clock(compute.torch_device())
    program = _program(clock, compute)
    as_they_lie = (compute.offload, compute.weight_dtype) == ("none", "auto")
    loading = 0
    if clock.device.type == "cpu" and as_they_lie:
        weights = 0
        for component in run.components:
            stays, most = _mapped(run, component, compute)
            weights, loading = weights + stays, max(loading, weights + most)
    else:
        weights = weight_bytes(run, compute)
    return _estimate(needs.sampling(run, compute, count), clock, weights, program, loading)


def decoding(
    folder: ModelFolder,
    compute: Compute,
    shapes: Counter[tuple[int, ...]],
    tiles: Tiles | None,
    clock: Clock | None = None,
) -> Estimate:
    """Of so many latents of these shapes."""
    vae = folder.released.build_autoencoder(folder)
    clock = clock or Clock(compute.torch_device())
    program = _program(clock, compute)
    weights = sum(p.numel() for p in vae.parameters()) * compute.torch_dtype().itemsize
    work = needs.decoding(folder, compute, shapes, tiles)
    if clock.device.type == "cpu":  # frames as they come, and then all in one
        stride = folder.latent_sizes[1]
        pixels = max((1 + 4 * (t - 1)) * h * w * stride**2 for _, t, h, w in shapes)
        work.peak += 3 * pixels * (2 if tiles is None else 2 + torch.float32.itemsize)
    return _estimate(work, clock, weights, program)


def _estimate(work: Needs, clock: Clock, weights: int, program: int, loading: int = 0) -> Estimate:
    seconds = clock.seconds(work.ops)
    return Estimate(work.flops, seconds, clock.timed, weights, work.peak, program, loading)


def _program(clock: Clock, compute: Compute) -> int:
    """What this process has already, once it has computed something, where its memory is what is
    asked about."""
    clock.rate(compute.torch_dtype())
    return (resident_bytes() or 0) if clock.device.type == "cpu" else 0


def _mapped(run: Run, component: str, compute: Compute) -> tuple[int, int]:
    """Bytes of a network's weights in memory, that are computed with as they lie in their files or
    converted; and while they are read. Where some are the one and some the other, what was read to
    convert them stays."""
    network = run.build(component)
    found, taken, read, kept = run.windows(component, network), 0, 0, False
    for name, p in network.named_parameters():
        wanted: torch.dtype = run.dtype_of(name, compute.torch_dtype())
        taken += p.numel() * wanted.itemsize
        if found[name].torch_dtype == wanted:
            kept = True
        else:
            read += p.numel() * found[name].torch_dtype.itemsize
    return taken + (read if kept else 0), taken + read
