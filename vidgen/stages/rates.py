"""How long operations take on a device, by doing each of them there once.

A network is few operations, done often: of a transformer's blocks all are alike. So each kind is
timed here and now, on tensors of its own sizes, or, where that would take long, on a slice of them:
fewer tokens, or narrower pictures, from which its time follows by the work in it.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map_only

from vidgen.stages.tally import CONVOLUTION, Op, Shape, tallied, workspace

aten = torch.ops.aten

SLICE_S = 0.05  # about what one run of a slice may take
SHARE = 0.98  # of the work, by a first guess, is timed; the rest is taken to be like it
LEAST_ROWS = 512  # of a product that is halved: with fewer it would lose speed
LEAST = 16  # of other sides
COPIED = 2**26  # bytes of what is copied to find the device's bandwidth
KEPT = 2**25  # bytes: a larger block of a CPU's memory is given back when it is free (glibc)
SETTLED = 3  # runs at least; the first doesn't count


class Clock:
    """Times operations on a device, and remembers what it timed.

    now  what tells the time; another is that of the processor, of one thread beside other work
    """

    def __init__(self, device: torch.device, now: Callable[[], float] = time.perf_counter) -> None:
        self.device, self._now = device, now
        self._known: dict[Op, float] = {}
        x = torch.ones(COPIED // 4, device=device)
        y = x.clone()
        copying, cloning = self._timed(lambda: y.copy_(x)), self._timed(x.clone)
        self._byte_s = copying / (2 * COPIED)
        self._new_byte_s = max(cloning - copying, 0.0) / COPIED if device.type == "cpu" else 0.0
        self._flop_s: dict[torch.dtype, float] = {}

    def seconds(self, ops: Counter[Op]) -> float:
        """Of operations, each so often."""
        guessed = Counter({op: n * self._guess(op) for op, n in ops.items()})
        timed = timed_guess = 0.0
        for op, guess in guessed.most_common():
            if timed_guess >= SHARE * guessed.total():
                break
            timed += ops[op] * self.of(op)
            timed_guess += guess
        return timed * guessed.total() / timed_guess if timed_guess else 0.0

    def of(self, op: Op) -> float:
        """Of one operation, in seconds."""
        if op not in self._known:
            self._known[op] = self._measured(op)
        return self._known[op]

    @property
    def timed(self) -> int:
        """How many kinds of operations were."""
        return len(self._known)

    def rate(self, dtype: torch.dtype) -> float:
        """FLOP/s of a large matrix product in the dtype."""
        if dtype not in self._flop_s:
            a = torch.ones(1024, 1024, device=self.device, dtype=dtype)
            self._flop_s[dtype] = self._timed(lambda: a @ a) / (2 * 1024**3)
        return 1 / self._flop_s[dtype]

    def _guess(self, op: Op) -> float:
        """Before it was timed: by its FLOPs and bytes."""
        dtype = next(x.dtype for x in tree_iter((op.args, op.kwargs)) if isinstance(x, Shape))
        flop_s = 1 / self.rate(dtype) if op.flops else 0.0
        return op.flops * flop_s + op.nbytes * self._byte_s

    def _measured(self, op: Op) -> float:
        part = self._slice(op)
        args, kwargs = tree_map_only(Shape, self._filled, (part.args, part.kwargs))
        with torch.no_grad():
            taken = self._timed(lambda: op.call(*args, **kwargs))
        if part is op:
            return taken
        computing = max(taken - self._pages(part), 0.0)
        return computing * self._guess(op) / self._guess(part) + self._pages(op)

    def _pages(self, op: Op) -> float:
        """Of the system, which gives new pages for large blocks each time: a slice may be of
        small ones."""
        blocks = (*op.made, workspace(op, self.device.type))
        return self._new_byte_s * sum(size for size in blocks if size > KEPT)

    def _slice(self, op: Op) -> Op:
        """The same, halved until it takes about `SLICE_S`."""
        while self._guess(op) > SLICE_S and (part := _halved(op)) is not op:
            op = part
        return op

    def _filled(self, shape: Shape) -> Tensor:
        """A tensor of that shape. Of numbers drawn at random: the power that a GPU draws, and with
        it its speed, depends on them."""
        span = 1 + sum((n - 1) * s for n, s in zip(shape.sizes, shape.strides, strict=True))
        if not shape.dtype.is_floating_point:
            flat = torch.zeros(span, dtype=shape.dtype, device=self.device)
        else:
            flat = torch.empty(span, dtype=shape.dtype, device=self.device)
            flat = flat.uniform_() if self.device.type == "cuda" else flat.fill_(0.5)
        return flat.as_strided(shape.sizes, shape.strides)

    def _timed(self, run: Callable[[], object]) -> float:
        """Seconds of a run: the median of a few, not the fastest, for that is how fast the work
        will go on this machine, with all else that it does."""
        taken, began = list[float](), self._now()
        for _ in range(10):
            self._wait()
            start = self._now()
            run()
            self._wait()
            end = self._now()
            taken.append(end - start)
            if len(taken) >= SETTLED and end - began > SLICE_S:
                break
        return statistics.median(taken[1:])

    def _wait(self) -> None:
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()


def _halved(op: Op) -> Op:
    """The operation with half as many rows of a product, half as wide pictures of a convolution
    (which kernel it takes depends on all other sides) or a group norm, or half of all sides that
    are the longest. Itself, where that is no operation or next to none."""
    name = getattr(op.call, "overloadpacket", None)
    alone, axis = None, 0
    if name in (CONVOLUTION, aten.native_group_norm):
        alone, axis = op.args[0], len(op.args[0].sizes) - 1
    elif name in (aten.addmm, aten.mm):
        alone = op.args[-2]
    shapes = [x for x in tree_iter((op.args, op.kwargs)) if isinstance(x, Shape)]
    longest = max(n for x in shapes for n in x.sizes) if alone is None else alone.sizes[axis]
    if longest < (LEAST_ROWS if name in (aten.addmm, aten.mm) else LEAST):
        return op

    def halved(shape: Shape) -> Tensor:
        sizes = list(shape.sizes)
        if alone is None:
            sizes = [longest // 2 if n == longest else n for n in sizes]
        elif shape is alone:
            sizes[axis] = longest // 2
        strides, step = [0] * len(sizes), 1
        for i in sorted(range(len(sizes)), key=lambda i: shape.strides[i]):
            if shape.strides[i]:  # an expanded side has none
                strides[i] = step
                step *= sizes[i]
        return torch.empty_strided(sizes, strides, dtype=shape.dtype, device="meta")

    args, kwargs = tree_map_only(Shape, halved, (op.args, op.kwargs))
    if name is aten.native_group_norm:
        args = (*args[:5], prod(args[0].shape[2:]), *args[6:])  # places of a channel
    try:
        with tallied() as tally:
            op.call(*args, **kwargs)
    except RuntimeError:  # sides that must stay as they are
        return op
    return max(tally.ops, key=lambda found: found.nbytes)
