"""For the tests of the file commands: small moving clips with a history."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vidgen.io.log import new_entry
from vidgen.io.record import Record
from vidgen.io.stream import write_stream

DATA = Path(__file__).parent.parent / "data"
HOSTILE = Path(__file__).parent.parent / "hostile"


def clip(
    id: str = "clip", *, fps: float | None = 8, num_frames: int = 9, seed: int = 7,
    sound: bool = False,
) -> Record:  # fmt: skip
    """A frames record of a smooth picture that moves, 32 x 24."""
    t, y, x = np.meshgrid(np.arange(num_frames), np.arange(24), np.arange(32), indexing="ij")
    frames = np.stack([8 * x % 256, 10 * y % 256, 20 * t + x], axis=-1).astype(np.uint8)
    tensors: dict = {"frames": frames}
    attrs: dict = {"prompt": f"a red ball, {id}"}
    if fps:
        attrs["fps"] = fps
        tensors["times"] = np.arange(num_frames) / fps
    if sound:
        seconds = np.arange(int(num_frames / (fps or 8) * 16000)) / 16000
        tensors["audio"] = np.sin(seconds * 2765).astype(np.float32)[None] * 0.5
        attrs["sample_rate"] = 16000
    log = [
        new_entry("encode-text", argv=["encode-text"]),
        new_entry("sample-keyframes", argv=["sample-keyframes", f"--seed={seed}"], seed=seed),
    ]
    return Record.make("frames", id, tensors, attrs, log)


def save(path: str, *records: Record) -> str:
    """The records as a stream in the folder of the test; returns the path."""
    write_stream(records or [clip()], path)
    return path
