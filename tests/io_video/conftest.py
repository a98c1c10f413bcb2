"""The real videos of tests/data, and a small made one whose every pixel is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    return Path(__file__).parent.parent / "data"


@pytest.fixture(scope="session")
def patches() -> np.ndarray:
    """[17, 80, 128, 3]: ten color patches, and a square that moves 4 pixels a frame."""
    colors = np.array(
        [
            [255, 0, 0],
            [0, 255, 0],
            [0, 0, 255],
            [255, 255, 0],
            [0, 255, 255],
            [255, 0, 255],
            [255, 255, 255],
            [0, 0, 0],
            [128, 128, 128],
            [200, 100, 50],
        ],
        np.uint8,
    )
    y, x = np.mgrid[:80, :128]
    clip = np.repeat(colors[x * 5 // 128 + 5 * (y // 40)][None], 17, axis=0)
    for t, frame in enumerate(clip):
        frame[30:46, 4 * t : 4 * t + 16] = (90, 60, 30)
    return clip


@pytest.fixture(scope="session")
def tone() -> np.ndarray:
    """[1, 34000]: 17 frames at 8 fps of a rising tone at 16 kHz, loudest in the middle."""
    t = np.arange(34000) / 16000
    return (0.5 * np.sin(2 * np.pi * (200 + 100 * t) * t) * np.sin(np.pi * t / 2.125)).astype(
        np.float32
    )[None]
