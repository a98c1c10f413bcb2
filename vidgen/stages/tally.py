"""What a network computes, operation by operation, and how much memory that takes at its fullest.

The network runs on the meta device, where tensors have shapes and no numbers: every operation is
seen, none is computed (`Tally`). What it allocates is followed until it is let go, so that the peak
is that of this very code. `vidgen.stages.rates` times the operations.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.flop_counter import flop_registry

CONVOLUTION = torch.ops.aten.convolution


@dataclass(frozen=True)
class Shape:
    """A tensor without its numbers."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, x: Tensor) -> Shape:
        return cls(tuple(x.shape), x.stride(), x.dtype)

    @property
    def nbytes(self) -> int:
        return prod(self.sizes) * self.dtype.itemsize


@dataclass(frozen=True)
class Op:
    """A call of torch, with a `Shape` in each tensor's place. Two that are alike take equally long.

    told  the same as text, which is what makes them alike
    """

    call: Callable
    args: tuple
    kwargs: dict[str, Any]
    told: str
    flops: int
    nbytes: int  # read and written
    made: tuple[int, ...] = ()  # bytes of each block of memory that comes out

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Op) and self.told == other.told

    def __hash__(self) -> int:
        return hash(self.told)


class Tally:
    """What was seen so far.

    device where it is to be computed
    ops    each operation that computes, and how often
    live   bytes of what was allocated and is still there
    peak   the largest that this was, with what an operation needs for itself while it runs
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.ops: Counter[Op] = Counter()
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref] = {}

    @property
    def flops(self) -> int:
        return sum(op.flops * count for op, count in self.ops.items())

    def saw(self, call: Callable, args: tuple, kwargs: dict[str, Any], out: Any) -> None:
        """An operation and what came out."""
        given = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        theirs = {x.untyped_storage()._cdata for x in given}
        made = [x for x in tree_iter(out) if isinstance(x, Tensor)]
        fresh = [x for x in made if x.untyped_storage()._cdata not in theirs]
        for x in fresh:
            self._follow(x)
        changed = not isinstance(call, torch._ops.OpOverload) or call._schema.is_mutable
        if not (fresh or changed) or not given:
            return  # another view of what is there, or nothing to compute with
        blocks = tuple(x.untyped_storage().nbytes() for x in fresh)
        op = _op(call, args, kwargs, [*given, *made], blocks)
        self.ops[op] += 1
        self.peak = max(self.peak, self.live + workspace(op, self.device))

    def _follow(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone(_: weakref.ref) -> None:
            self.live -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, gone)
        self.live += size


def _op(
    call: Callable,
    args: tuple,
    kwargs: dict[str, Any],
    tensors: list[Tensor],
    made: tuple[int, ...],
) -> Op:
    shaped, named = tree_map_only(Tensor, Shape.of, (args, kwargs))
    if call is F.scaled_dot_product_attention:
        *_, n, d = args[0].shape
        flops = 2 * prod(args[0].shape[:-2]) * n * args[1].shape[-2] * (d + args[2].shape[-1])
    else:
        count = flop_registry.get(getattr(call, "overloadpacket", None))
        out = tensors[-1] if tensors else None
        flops = 0 if count is None else count(*args, **kwargs, out_val=out)
    nbytes = sum(x.numel() * x.itemsize for x in tensors)
    return Op(call, shaped, named, f"{call} {shaped} {named}", flops, nbytes, made)


def workspace(op: Op, device: str) -> int:
    """Bytes that a convolution has beside what goes in and comes out.

    On a CPU, torch's own kernels spread out the input, each place with all that its kernel covers.
    oneDNN's take the input in another order, and so, it is taken, do those of other devices. Other
    operations have next to nothing.
    """
    if getattr(op.call, "overloadpacket", None) is not CONVOLUTION:
        return 0
    x, weight, bias, *how = op.args
    if any(side > 1 for side in weight.sizes[2:]) or any(how[1]):
        backend = _backend(x, weight, bias, how) if device == "cpu" else ""
        if "Slow" in backend or "Thnn" in backend:
            return _places(x, weight, how) * prod(weight.sizes[1:]) * x.dtype.itemsize
        return x.nbytes
    return 0


def _places(x: Shape, weight: Shape, how: list[Any]) -> int:
    """Where in all pictures of a batch the kernel is laid."""
    stride, padding, dilation = how[:3]
    sides = zip(x.sizes[2:], weight.sizes[2:], stride, padding, dilation, strict=True)
    return x.sizes[0] * prod((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sides)


def _backend(x: Shape, weight: Shape, bias: Shape | None, how: list[Any]) -> str:
    """The kernel that torch takes on a CPU. It looks at the sizes of real tensors, whose memory
    nobody touches."""
    real = [None if s is None else torch.empty(s.sizes, dtype=s.dtype) for s in (x, weight, bias)]
    return str(torch._C._select_conv_backend(*real, *how))


class _Operations(TorchDispatchMode):
    """Tells a tally of every operation."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # what skips it imports it, for two seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.tally.saw(func, args, kwargs or {}, out)
        return out


class _Attention(TorchFunctionMode):
    """Attention as one operation. On the meta device torch would take it apart, into scores that
    the kernels of real devices never hold."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        q, _, v = args[:3]
        with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
            out = q.new_empty(*q.shape[:-1], v.shape[-1])
        self.tally.saw(func, args, kwargs, out)
        return out


@contextmanager
def tallied(device: str = "cpu") -> Iterator[Tally]:
    """A context in which everything on the meta device is tallied, as it would be on this one."""
    tally = Tally(device)
    with torch.no_grad(), _Attention(tally), _Operations(tally):
        yield tally
