"""Features of clips in batches, read in a thread: the same as one by one."""

from __future__ import annotations

import resource
import threading
from typing import ClassVar

import numpy as np
import pytest
import torch

from vidgen.errors import InputError
from vidgen.metrics.extraction import AHEAD, ahead, batches, extract


class Mean:
    """Mean color of a clip; keeps the sizes of its batches."""

    settings: ClassVar = {"extractor": "mean"}

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(clips))
        return clips.double().mean(dim=(1, 2, 3)).float()


def some(n: int, side: int = 4) -> list[tuple[str, np.ndarray]]:
    r = np.random.default_rng(n)
    return [(f"c{i}", r.integers(0, 256, (3, side, side, 3), np.uint8)) for i in range(n)]


def run(clips, size: int, extractor=None):
    return extract(clips, extractor or Mean(), sampling={}, name="x", batch_size=size)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_batches_change_nothing(size) -> None:
    clips = some(7)
    found = run(clips, size)
    assert found.ids == tuple(id for id, _ in clips)
    expected = [frames.reshape(-1, 3).mean(axis=0) for _, frames in clips]
    np.testing.assert_allclose(found.features.numpy(), expected, rtol=1e-6)
    assert found.sha256 == run(clips, 2).sha256


def test_clips_of_other_sizes_are_batches_of_their_own() -> None:
    mean = Mean()
    found = run([*some(3), *some(2, side=6), *some(1)], 2, mean)
    assert mean.sizes == [2, 1, 2, 1]
    assert len(found) == 6


def test_the_batches_are_full() -> None:
    assert [len(names) for names, _, _ in batches(some(10), 4)] == [4, 4, 2]


def test_an_error_in_reading_comes_out_and_the_thread_ends() -> None:
    def broken():
        yield from some(5)
        raise InputError("clip 6 is broken")

    before = threading.active_count()
    with pytest.raises(InputError, match="clip 6"):
        run(broken(), 2)
    assert threading.active_count() == before


def test_an_error_in_the_network_ends_the_thread_and_the_reader() -> None:
    closed = []

    def endless():
        try:
            while True:
                yield from some(1)
        finally:
            closed.append(True)

    def fails(clips: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of order")

    fails.settings = {}  # type: ignore[attr-defined]
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="out of order"):
        run(endless(), 2, fails)
    assert threading.active_count() == before
    assert closed


class Sum(Mean):
    """Large enough that threads within it could be used; `by_threads` keeps them out."""

    by_threads = True

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.meet = threading.Barrier(threads, timeout=20)  # so many batches are there at once
        self.threads: set[int] = set()

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        self.threads.add(torch.get_num_threads())
        self.meet.wait()
        return super().__call__(clips)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_batches_are_computed_side_by_side_and_come_in_order(two_threads) -> None:
    extractor = Sum(2)
    found = run(some(12), 2, extractor)
    alone = run(some(12), 2)
    assert torch.equal(found.features, alone.features)
    assert found.ids == alone.ids
    assert extractor.threads == {1}
    assert torch.get_num_threads() == 2


def test_an_error_in_a_network_of_many_threads_ends_them(two_threads) -> None:
    def fails(clips: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of order")

    fails.settings, fails.by_threads = {}, True  # type: ignore[attr-defined]
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="out of order"):
        run(some(40), 2, fails)
    assert threading.active_count() == before
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("by_threads", [False, True])
def test_of_two_errors_the_first_one_is_told(two_threads, by_threads) -> None:
    """That of a batch before that of a clip behind it, however many are computed at a time."""

    def broken():
        yield from some(5)
        raise InputError("clip 6 is broken")

    def fails(clips: torch.Tensor) -> torch.Tensor:
        raise InputError("clip 1 is too short")

    fails.settings, fails.by_threads = {}, by_threads  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="clip 1"):
        run(broken(), 2, fails)


def test_no_more_is_read_than_is_needed_soon() -> None:
    read = []

    def source():
        for i in range(100):
            read.append(i)
            yield i

    items = ahead(source(), AHEAD)
    for _ in range(10):
        next(items)
    items.close()
    assert len(read) <= 10 + AHEAD + 2  # those in the queue, one in hand, one being put


def test_memory_does_not_grow_with_the_clips() -> None:
    """The pixels of these, as floats, take 2 GB."""
    frames = np.zeros((16, 96, 96, 3), np.uint8)
    peaks = []
    for n in (40, 1200):
        run(((str(i), frames) for i in range(n)), 8)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    assert peaks[1] - peaks[0] < 200
