"""Clips → features: clips are read in a thread of their own while the network computes.

Where the network is so small that threads within it cost more than they save, several batches are
computed at a time instead, each by one thread.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from vidgen.metrics.feature_file import FeatureSet, pixel_digest

T = TypeVar("T")

AHEAD = 2  # batches read while one is computed


class Extractor(Protocol):
    """What is needed of one here; vidgen.metrics.extractors makes them."""

    @property
    def settings(self) -> dict[str, Any]: ...

    def __call__(self, clips: Tensor) -> Tensor: ...


def extract(
    clips: Iterable[tuple[str, np.ndarray]],
    extractor: Extractor,
    *,
    sampling: dict[str, Any],
    name: str,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda done: None,
) -> FeatureSet:
    """Features of all clips: (id, uint8 `t h w 3`) each.

    Of the clips themselves at most AHEAD + 2 batches are in memory, and one more for each thread
    that computes. Their features are kept: 10,000 of 400 numbers are 16 MB, and nothing but a
    Fréchet distance could do with moments.

    name      of the set, for messages
    on_batch  told how many clips are done
    """
    ids: list[str] = []
    digests: list[str] = []
    # One buffer that grows: small tensors that stay between large ones that go would keep the
    # allocator from using the large ones' places again, and memory would grow with the clips.
    features = bytearray()
    read = ahead(batches(clips, batch_size), AHEAD)
    with closing(read), closing(_computed(read, extractor)) as computed:
        for names, hashes, rows in computed:
            features += rows.numpy().tobytes()
            ids += names
            digests += hashes
            on_batch(len(ids))
    found = torch.frombuffer(features, dtype=torch.float32).reshape(len(ids), -1)
    return FeatureSet(found, tuple(ids), tuple(digests), extractor.settings, sampling, name)


Batch = tuple[list[str], list[str], Tensor]  # ids, digests, pixels `b t h w 3` or features `b d`


def _computed(read: Iterator[Batch], extractor: Extractor) -> Generator[Batch]:
    """Batches of pixels → batches of features, in their order."""

    def compute(batch: Batch) -> Batch:
        names, hashes, pixels = batch
        return names, hashes, extractor(pixels).detach().float().cpu()

    threads = torch.get_num_threads()
    if threads == 1 or not getattr(extractor, "by_threads", False):
        yield from map(compute, read)
        return
    waiting: deque[Future[Batch]] = deque()
    # A number of threads belongs to the thread that sets it, and to those that begin after.
    pool = ThreadPoolExecutor(threads, "extract", torch.set_num_threads, (1,))

    def begun() -> Iterator[Future[Batch]]:
        try:
            for batch in read:
                yield pool.submit(compute, batch)
        except Exception as error:  # in its turn: behind what may be wrong with earlier batches
            failed: Future[Batch] = Future()
            failed.set_exception(error)
            yield failed

    try:
        for future in begun():
            waiting.append(future)
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def batches(clips: Iterable[tuple[str, np.ndarray]], size: int) -> Generator[Batch]:
    """Clips of one shape, up to `size` together, in their order."""
    names: list[str] = []
    waiting: list[np.ndarray] = []
    for name, frames in clips:
        if waiting and (len(waiting) == size or frames.shape != waiting[0].shape):
            yield _batch(names, waiting)
            names, waiting = [], []
        names.append(name)
        waiting.append(frames)
    if waiting:
        yield _batch(names, waiting)


def _batch(names: list[str], waiting: list[np.ndarray]) -> Batch:
    return names, [pixel_digest(f) for f in waiting], torch.from_numpy(np.stack(waiting))


def ahead(items: Generator[T], depth: int) -> Generator[T]:
    """The same items, made up to `depth` ahead in a thread. What goes wrong there is raised here,
    in its turn; closing this generator ends the thread, and then the one it reads from."""
    done: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: T | None, error: BaseException | None = None) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                done.put((item, error), timeout=0.1)
                return

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    put(item)
                    if stop.is_set():
                        return
        except BaseException as error:  # handed to the thread that asks
            put(None, error)
        else:
            put(None, StopIteration())

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = done.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()
