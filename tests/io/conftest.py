"""Records to read and write."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from vidgen.io.record import Record
from vidgen.io.stream import write_stream


def latents_record(id: str = "a", seed: int = 7) -> Record:
    """A small record with wide, narrow, 0-d and empty tensors."""
    rng = np.random.default_rng(seed)
    tensors = {
        "latents": rng.standard_normal((4, 3, 2, 2)).astype(np.float32),
        "times": np.arange(3) / 2,
        "text.mask": np.array([True, True, False]),
        "truth.depth": np.array([[1.0, np.inf]], np.float16),
        "truth.count": np.array(3, np.int64),
        "events.spans": np.zeros((0, 2), np.float32),
    }
    attrs = {"prompt": "a red ball “bounces”", "seed": seed, "fps": 8.0, "size": [40, 64]}
    return Record.make("latents", id, tensors, attrs, [{"tool": "sample-keyframes"}])


def stream_bytes(records: Iterable[Record]) -> bytes:
    """A whole stream, as it would be in a pipe."""
    f = io.BytesIO()
    write_stream(records, f)
    return f.getvalue()


@pytest.fixture
def make() -> Callable[..., Record]:
    return latents_record


@pytest.fixture
def pack() -> Callable[[Iterable[Record]], bytes]:
    return stream_bytes
