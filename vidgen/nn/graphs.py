"""CUDA graphs: a network's kernels recorded once, and then launched all at once (`--cuda-graphs`).

Python takes some microseconds to launch a kernel. Where a kernel takes less to compute, as in small
networks and single samples, the device waits for Python; a graph has its kernels launch each other.
Results are the same: the kernels are.

A graph reads and writes memory at fixed places. Tensors among the arguments are copied into places
of its own before it runs, and what comes out is copied from there. All else that it reads, weights
and what the network keeps of a call before, must stay where it is; so a network that is recorded
must not be moved, and graphs are thrown away when latents of another shape come, for which a
network makes such things anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

from vidgen.nn import attention

KEPT = 8  # graphs of one network: its branches of guidance, and the same of the prompts before
VALUES = (bool, int, float, str, type(None))


class Graph(Protocol):
    """Kernels that were recorded."""

    def replay(self) -> None: ...


# Records what a call computes → the graph, and what the call returned.
Record: TypeAlias = Callable[[Callable[[], Any]], tuple[Graph, Any]]


def record(network: nn.Module) -> nn.Module:
    """The network, which records its calls from now on. It is on the device, and stays there."""
    # What a network hands on to its next call comes out of `carry`, which its `forward` calls.
    name = "carry" if hasattr(network, "carry") else "forward"
    if not isinstance(getattr(network, name), Recorded):
        setattr(network, name, Recorded(getattr(network, name), OnCuda()))
    return network


@dataclass
class _Call:
    """A call that was seen: `graph` is there from the second time on."""

    told: list[Any]  # its arguments that aren't tensors: kept, since it is known by them
    graph: Graph | None = None
    given: list[Tensor] | None = None  # where the graph reads
    made: Any = None  # what it writes
    kernels: frozenset[str] = frozenset()  # of attention, that it has


class Recorded:
    """A function of latents and more, which is recorded when it is called a second time with
    tensors of the same shapes, and replayed from then on. The first call is made as ever: kernels
    are chosen then, and things are made that last. With gradients nothing is recorded."""

    def __init__(self, call: Callable[..., Any], record: Record) -> None:
        self._call, self._record = call, record
        self._size: Any = None  # of the latents, the first of the arguments
        self._calls: OrderedDict[Any, _Call] = OrderedDict()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            return self._call(*args, **kwargs)
        leaves, spec = tree_flatten((args, kwargs))
        call = self._seen(leaves, spec)
        if call is None:
            return self._call(*args, **kwargs)
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        if call.graph is None:
            call.given = [x.clone() for x in tensors]
            places = iter(call.given)
            copied = [next(places) if isinstance(x, Tensor) else x for x in leaves]
            again_args, again_kwargs = tree_unflatten(copied, spec)
            with attention.noted() as kernels:
                call.graph, call.made = self._record(
                    lambda: self._call(*again_args, **again_kwargs)
                )
            call.kernels = frozenset(kernels)
        else:
            assert call.given is not None
            for place, x in zip(call.given, tensors, strict=True):
                place.copy_(x)
            attention.note(call.kernels)
        call.graph.replay()
        return tree_map_only(Tensor, Tensor.clone, call.made)

    def _seen(self, leaves: list[Any], spec: TreeSpec) -> _Call | None:
        """The call before that was like this one; None, if this is the first."""
        described = tuple(_described(x) for x in leaves)
        if described[0] != self._size:
            self._size = described[0]
            self._calls.clear()
        key = (spec, described)
        if key in self._calls:
            self._calls.move_to_end(key)
            return self._calls[key]
        self._calls[key] = _Call([x for x in leaves if not isinstance(x, Tensor)])
        if len(self._calls) > KEPT:
            self._calls.popitem(last=False)
        return None


def _described(x: Any) -> tuple[Any, ...]:
    """What makes an argument like another: a tensor's shape, a value; of other things, that they
    are the same."""
    if isinstance(x, Tensor):
        return (Tensor, x.shape, x.stride(), x.dtype, x.device)
    return (type(x), x) if isinstance(x, VALUES) else (object, id(x))


class OnCuda:
    """Records on CUDA. Its graphs share memory for what is between, since none of them is needed
    any more when another one runs."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, compute: Callable[[], Any]) -> tuple[Graph, Any]:
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        # Another thread may be decoding: what it does on the device is no matter of this graph.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            made = compute()
        return graph, made
