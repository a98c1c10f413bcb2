"""Features of clips in mp4 files: read ahead and in batches, against one clip after the other as
reference ports do it; and what the distances of many features take."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch

from benchmarks.common import Row, interleaved
from vidgen.cli.eval_clips import Sampling, clips
from vidgen.cli.evaluate_fvd_features import READERS
from vidgen.cli.evaluate_fvd_scores import measure
from vidgen.cli.media import write_clip
from vidgen.io.record import Record
from vidgen.io.video import read_video
from vidgen.metrics.extraction import extract
from vidgen.metrics.feature_file import FeatureSet
from vidgen.metrics.frechet import frechet_distance
from vidgen.metrics.world_features import load
from vidgen.world.render import render
from vidgen.world.scene import sample_scene

CLIPS, FRAMES, HEIGHT, WIDTH = 48, 33, 80, 128
TAKEN = 16
MANY, DIM = 10_000, 400


class Nobody:
    def warn(self, text: str) -> None:
        pass


def av_frames(path: str) -> np.ndarray:
    """All frames, as PyAV's documentation shows it and ports have it."""
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def own_frames(path: str) -> np.ndarray:
    return read_video(path)[0]


def extracting() -> list[Row]:
    """Decode, preprocess, network: clips a second."""
    extractor = load("cpu")
    with tempfile.TemporaryDirectory() as scratch:
        paths = [made(Path(scratch), seed) for seed in range(CLIPS)]

        def ours() -> torch.Tensor:
            readers = min(torch.get_num_threads(), READERS)
            read = clips([scratch], Sampling(TAKEN), Nobody(), readers=readers)
            pixels = ((clip.id, clip.frames) for clip in read)
            return extract(pixels, extractor, sampling={}, name="clips", batch_size=8).features

        def one_by_one(frames_of: Callable[[str], np.ndarray]) -> torch.Tensor:
            found = []
            for path in paths:
                clip = torch.from_numpy(frames_of(path)[:TAKEN].copy())
                found += extractor(clip[None]).tolist()
            return torch.tensor(found)

        apart = float((ours() - one_by_one(own_frames)).abs().max())
        rows = []
        for what, frames_of, note in (
            ("PyAV's to_ndarray", av_frames, ""),
            ("vidgen's reader", own_frames, f"; features differ by {apart:.1g}"),
        ):
            fast, slow = interleaved(ours, lambda f=frames_of: one_by_one(f), repeat=3)
            rows.append(
                Row(
                    f"features of {CLIPS} mp4, {TAKEN} of {FRAMES} frames of {HEIGHT} x {WIDTH}",
                    f"{CLIPS / fast:.1f} clips/s", f"{CLIPS / slow:.1f} clips/s", fast / slow,
                    f"against one clip at a time, read whole by {what}{note}",
                )
            )  # fmt: skip
    return rows


def made(folder: Path, seed: int) -> str:
    """A rendered clip as mp4."""
    times = tuple(i / 16 for i in range(FRAMES))
    frames = render([sample_scene(seed)], times=times, height=HEIGHT, width=WIDTH).frames
    record = Record.make("frames", f"c{seed}", {"frames": frames[0]}, {"fps": 16})
    path = str(folder / f"c{seed}.mp4")
    write_clip(record, path)
    return path


def distances() -> list[Row]:
    """10,000 features of 400 numbers a side: FVD, and all scores with their intervals."""
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(MANY, DIM, generator=draw) + shift for shift in (0.0, 0.1))
    ids = tuple(map(str, range(MANY)))
    sides = [FeatureSet(f, ids, ids, {"extractor": "none"}, {}, "x") for f in (x, y)]
    rows = []
    for what, run in (
        ("FVD", lambda: frechet_distance(x, y)),
        ("all scores", lambda: measure(*sides, "n-1", 0, Nobody())),
    ):
        began = time.perf_counter()
        run()
        taken = time.perf_counter() - began
        rows.append(Row(f"{what} of {MANY} x {DIM} features", f"{taken:.1f} s", "", None))
    return rows
