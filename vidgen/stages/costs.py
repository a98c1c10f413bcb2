"""What work takes, as `--dry-run` tells it: FLOPs counted on the meta device, memory, time.

The time is those FLOPs at the speed that a large matrix product reaches here and now: small
networks stay below it, so it is a lower bound and says so. Of released models it is that of their
operations instead, each timed here and now (`vidgen.stages.rates`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vidgen.diffusion.level import Levels
from vidgen.diffusion.solvers import EVALUATIONS
from vidgen.io.record import human_bytes
from vidgen.stages.base import Compute
from vidgen.systems.base import Sampler


def evaluations(solver: str, levels: Levels) -> Levels:
    """The level of each estimate of x0 that a run of sampling takes: those where steps begin, and
    of a solver that looks ahead then those where they arrive, which the end is not one of."""
    begun, reached = levels[:-1], levels[1:]
    if EVALUATIONS.get(solver, 1) == 1:
        return begun
    return [*begun, *(level for level in reached if level.sigma > 0)]


def calls(sampler: Sampler, levels: Levels, scale: float, solver: str | None = None) -> int:
    """Of a network in a run of sampling over these levels; an estimate that is guided takes two."""
    least = sampler.guidance_min_sigma or 0.0
    told = evaluations(solver or sampler.solver, levels)
    # In float32, as guidance sees them: a level may be the least sigma itself.
    return sum(1 + (scale != 1 and bool(level.sigma.float() > least)) for level in told)


def number(count: int, word: str = "record") -> str:
    """`1 record`, `2 records`"""
    return f"{count} {word}{'s' * (count != 1)}"


def live_bytes(pixels: int, widest: int, shrink: int, compute: Compute) -> float:
    """Bytes of the widest layers alive at once, four of them, each a `shrink`th as high and wide as
    the pixels; and of the pixels."""
    return pixels * (4 * widest / shrink**2 * compute.torch_dtype().itemsize + 3 * 4)


def on_meta(load: Callable[[], nn.Module]) -> Any:
    """The network without its weights' memory: shapes are enough to count."""
    return load().to("meta", torch.float32)


def flops_of(call: Callable, *args: Any, **kwargs: Any) -> int:
    """Of one call, on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(*args, **kwargs)
    return counter.get_total_flops()


def count_of(network: nn.Module) -> str:
    """How many there are, in millions."""
    return f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f} M"


def costs(
    network: nn.Module, flops: float, live: float, compute: Compute, of: str
) -> dict[str, str]:
    """`flops` of the whole stream, and in words `of` how much that is."""
    weights = sum(p.numel() for p in network.parameters()) * compute.torch_dtype().itemsize
    rate = _matmul_rate(compute)
    device = compute.torch_device()
    return {
        "device": f"{device}, {str(compute.torch_dtype()).removeprefix('torch.')}",
        "FLOPs": f"{flops:.3g} for {of}",
        "memory": f"about {human_bytes(int(weights + live))}, weights {human_bytes(weights)} of it",
        "time": f"at least {flops / rate:.2g} s at {rate / 1e9:.0f} GFLOP/s, measured now",
    }


def _matmul_rate(compute: Compute) -> float:
    """FLOP/s of a large matrix product on the device, in the dtype."""
    device, n = compute.torch_device(), 1024
    a = torch.randn(n, n, device=device).to(compute.torch_dtype())
    best = 0.0
    for _ in range(4):
        began = time.perf_counter()
        (a @ a).sum().item()  # which waits for the device
        best = max(best, 2 * n**3 / (time.perf_counter() - began))
    return best


def table(stage: str, rows: dict[str, str]) -> str:
    """The stage, and a line for each row."""
    width = max(map(len, rows))
    return "\n".join([stage, *(f"  {name:<{width}}  {value}" for name, value in rows.items())])
