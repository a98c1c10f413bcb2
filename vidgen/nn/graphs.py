"""CUDA graphs: a network's kernels captured once, and then launched all at once (`--cuda-graphs`).

Python takes some microseconds to launch a kernel. Where a kernel takes less to compute, as in small
networks and single samples, the device waits for Python; a graph has its kernels launch each other.
They are the same kernels.

A graph reads and writes memory at fixed places. Tensors among the arguments are copied into places
of its own before it runs, and what comes out is copied from there; weights must stay where they
are, and a network must keep no tensors from one call to the next. The memory between is a graph's
own: a network takes about twice as much of it as without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

from vidgen.nn import attention

MOST = 8  # graphs of one network: calls of further shapes are made as ever
VALUES = (bool, int, float, str, type(None))


class Graph(Protocol):
    """Kernels that were captured."""

    def replay(self) -> None: ...


# Captures what a call computes → the graph, and what the call returned.
Capture: TypeAlias = Callable[[Callable[[], Any], torch.device], tuple[Graph, Any]]


def graphed(network: nn.Module) -> nn.Module:
    """The network, whose calls are captured from now on. Its weights must not be moved after the
    first one."""
    # What a network hands on to its next call comes out of `carry`, which its `forward` calls.
    name = "carry" if hasattr(network, "carry") else "forward"
    if not isinstance(getattr(network, name), Graphed):
        setattr(network, name, Graphed(getattr(network, name), OnCuda()))
    return network


@dataclass
class _Captured:
    graph: Graph
    given: list[Tensor]  # where it reads
    made: Any  # what it writes
    kernels: frozenset[str]  # of attention, that it has


class Graphed:
    """A function of tensors, which is captured when it is called a second time with tensors of the
    same shapes, and replayed from then on. The first call is made as ever, since kernels are chosen
    then; and so are calls with gradients, and with arguments that are neither tensors nor values.

    Graphs are never thrown away: to destroy one clears the workspace of cuBLAS on its stream, which
    others still use (pytorch #193402)."""

    def __init__(self, call: Callable[..., Any], capture: Capture) -> None:
        self._call, self._capture = call, capture
        self._known: dict[Any, _Captured | None] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        plain = all(isinstance(x, (Tensor, *VALUES)) for x in leaves)
        if torch.is_grad_enabled() or not plain:
            return self._call(*args, **kwargs)
        leaves = [_dense(x) for x in leaves]
        key = (spec, tuple(map(_described, leaves)))
        if key not in self._known:
            if len(self._known) < MOST:
                self._known[key] = None
            return self._called(leaves, spec)
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        found = self._known[key]
        if found is None:
            found = self._known[key] = self._captured(leaves, tensors, spec)
        for place, x in zip(found.given, tensors, strict=True):
            place.copy_(x)
        found.graph.replay()
        attention.note(found.kernels)
        return tree_map_only(Tensor, Tensor.clone, found.made)

    def _captured(self, leaves: list[Any], tensors: list[Tensor], spec: TreeSpec) -> _Captured:
        given = [x.clone() for x in tensors]
        places = iter(given)
        places_or_values = [next(places) if isinstance(x, Tensor) else x for x in leaves]
        with attention.noted() as kernels:
            graph, made = self._capture(
                lambda: self._called(places_or_values, spec), tensors[0].device
            )
        return _Captured(graph, given, made, frozenset(kernels))

    def _called(self, leaves: list[Any], spec: TreeSpec) -> Any:
        args, kwargs = tree_unflatten(leaves, spec)
        return self._call(*args, **kwargs)


def _dense(x: Any) -> Any:
    """What has a place of its own for each number, as a copy of it will have."""
    expanded = isinstance(x, Tensor) and any(
        step == 0 and n > 1 for n, step in zip(x.shape, x.stride(), strict=True)
    )
    return x.contiguous() if expanded else x


def _described(x: Any) -> tuple[Any, ...]:
    """What makes an argument like another: a tensor's shape, or a value."""
    if isinstance(x, Tensor):
        return (Tensor, x.shape, x.stride(), x.dtype, x.device)
    return (type(x), x)


class OnCuda:
    """Captures on CUDA, on a stream of its own. Its graphs share the memory of what is between,
    since they run one after the other."""

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None

    def __call__(self, compute: Callable[[], Any], device: torch.device) -> tuple[Graph, Any]:
        with torch.cuda.device(device):
            if self._stream is None:
                self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                made = compute()
        return graph, made
