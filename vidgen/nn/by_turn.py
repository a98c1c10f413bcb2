"""Blocks of a network that have their weights only while it is their turn.

A loop over `ByTurn` gives one block after the other, each ready to compute, and meanwhile a thread
makes the next one's weights ready: from a file, from memory in another precision, or across to a
device, there on a stream of its own. So memory holds two blocks, however many there are. Results
are the same to the bit as if all of them were there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

PAGE = 4096  # bytes, or a part of those


@dataclass(frozen=True)
class Origin:
    """Where a weight's numbers are kept, and what makes them ready to compute with.

    read    the numbers as they are kept
    as_is   whether that is what the network computes with, where it does
    dtype   in which it computes
    change  what is done to the weight, in `dtype`; returns it anew
    scale   `o 1`: what the rows are multiplied by, where they are kept as fp8
    """

    read: Callable[[], Tensor]
    as_is: bool
    dtype: torch.dtype
    change: Callable[[Tensor], Tensor] | None = None
    scale: Callable[[], Tensor] | None = None

    def ready(self, room: Tensor | None, device: torch.device) -> Tensor:
        """The weight, in `room` if one is given, or where it is kept."""
        kept = self.read()
        if self.as_is:
            return seen(kept)
        if self.change is not None:
            kept = self.change(kept.to(self.dtype))
        if room is None:
            room = torch.empty(kept.shape, dtype=self.dtype, device=device)
        if kept.dtype != room.dtype:  # converted there, having crossed in the smaller form
            kept = kept.to(device, non_blocking=True)
        room.copy_(kept, non_blocking=True)
        return room if self.scale is None else room.mul_(self.scale().to(device, non_blocking=True))


def seen(x: Tensor) -> Tensor:
    """The tensor, whose pages are read from the file now, if it is a window of one."""
    if x.device.type == "cpu":
        x.view(-1).view(torch.uint8)[::PAGE].sum()
    return x


class ByTurn(nn.ModuleList):
    """The blocks, all of the same sizes; and for each the origins of its weights by name."""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        origins: Sequence[Mapping[str, Origin]],
        device: torch.device,
    ) -> None:
        super().__init__(blocks)
        self._origins, self._device = origins, device
        self._away = [{name: x.data for name, x in tensors(b).items()} for b in blocks]
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="vidgen-block")
        self._coming: tuple[int, Future] | None = None
        self._rooms: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __iter__(self) -> Iterator[nn.Module]:
        for i, block in enumerate(self._modules.values()):
            assert block is not None
            weights = self._arrived(i)
            self._begin((i + 1) % len(self))  # of the last one: the first of the next loop
            put(block, weights)
            try:
                yield block
            finally:
                put(block, self._away[i])

    def rest(self) -> None:
        """Give the memory back, until the next loop."""
        if self._coming is not None:
            self._arrived(self._coming[0])
        for room in self._rooms:
            room.clear()

    def _begin(self, i: int) -> None:
        """Have the block's weights made ready in the room of the block before the present one."""
        here, there = self._rooms
        self._rooms = there, here
        if not there:
            for name, origin in self._origins[i].items():
                if not origin.as_is:
                    shape = self._away[i][name].shape
                    there[name] = torch.empty(shape, dtype=origin.dtype, device=self._device)
        free = None
        if self._stream is not None:  # the room is free when all is done that was asked for so far
            free = torch.cuda.current_stream(self._device).record_event()
        self._coming = i, self._pool.submit(self._fetch, i, there, free)

    def _fetch(
        self, i: int, room: Mapping[str, Tensor], free: torch.cuda.Event | None
    ) -> tuple[dict[str, Tensor], torch.cuda.Event | None]:
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            if self._stream is not None and free is not None:
                self._stream.wait_event(free)
            origins = self._origins[i].items()
            made = {name: o.ready(room.get(name), self._device) for name, o in origins}
            return made, None if self._stream is None else self._stream.record_event()

    def _arrived(self, i: int) -> dict[str, Tensor]:
        """The block's weights; waits for them. What is on its way of another, after a loop that was
        left early, is thrown away."""
        if self._coming is None:
            self._begin(i)
        assert self._coming is not None
        (at, future), self._coming = self._coming, None
        made, ready = future.result()
        if ready is not None:
            torch.cuda.current_stream(self._device).wait_event(ready)
        return made if at == i else self._arrived(i)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Its parameters and buffers, by name."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def put(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Let these be the numbers of its parameters and buffers."""
    own = tensors(module)
    for name, x in weights.items():
        own[name].data = x
