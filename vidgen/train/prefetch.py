"""Batches made ahead in a background thread, in the order of the steps."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import torch
from torch import Tensor

Batch = dict[str, Tensor]


class Prefetch:
    """Iterate over `make(step)` for step = start, start + 1, …, up to `depth` ahead.

    With depth 0 there is no thread. An exception in `make` is raised where its batch is asked
    for. Use as a context manager: leaving it ends the thread.
    """

    def __init__(
        self, make: Callable[[int], Batch], start: int, device: torch.device, depth: int
    ) -> None:
        self._make, self._next, self._device = make, start, device
        self._closed = threading.Event()
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(max(1, depth))
        self._thread: threading.Thread | None = None
        if depth:
            self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
            self._thread.start()

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def next(self) -> Batch:
        """The next batch, on the device."""
        if self._thread is None:
            made: Batch | BaseException = self._one()
        else:
            made = self._queue.get()
        if isinstance(made, BaseException):
            raise made
        return {k: t.to(self._device, non_blocking=True) for k, t in made.items()}

    def _one(self) -> Batch:
        batch = self._make(self._next)
        self._next += 1
        if self._device.type == "cuda":  # page-locked memory: the copy runs beside the compute
            batch = {k: t if t.is_cuda else t.pin_memory() for k, t in batch.items()}
        return batch

    def _work(self) -> None:
        while not self._closed.is_set():
            try:
                made: Batch | BaseException = self._one()
            except BaseException as error:  # handed to the thread that asks
                made = error
            while not self._closed.is_set():
                try:
                    self._queue.put(made, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if isinstance(made, BaseException):
                return
