"""The judge's ceiling: what it says of rendered clips, whose truth is known."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from vidgen.io.video import iter_frames, write_video
from vidgen.metrics.judge import BATCH, HEIGHT, TIMES, WIDTH, WorldJudge, prepared
from vidgen.metrics.world_accuracy import Asked, Mark, mark
from vidgen.world.render import render
from vidgen.world.scene import TEST_SEEDS, sample_scene


def judge_rendered(network: WorldJudge, num: int, *, compress: bool = True) -> list[Mark]:
    """Marks of the first `num` scenes of the test split, one motion an object, rendered now;
    `compress`: written as H.264 and read back, as clips that come as files were."""
    level, counted = network.config.level, network.config.level == "full"
    marks = []
    for first in range(0, num, BATCH):
        seeds = range(TEST_SEEDS.start + first, TEST_SEEDS.start + min(num, first + BATCH))
        scenes = [sample_scene(seed, level=level, num_events=1) for seed in seeds]
        frames = render(scenes, times=TIMES, height=HEIGHT, width=WIDTH).frames
        if compress:
            frames = torch.stack([compressed(clip) for clip in frames])
        verdicts = network.judge(frames)
        marks += [
            mark(verdict, Asked.of_scene(scene), counted=counted)
            for verdict, scene in zip(verdicts, scenes, strict=True)
        ]
    return marks


def compressed(clip: Tensor) -> Tensor:
    """A clip uint8 `t h w 3` written as mp4, as `vidgen decode` writes it, and read back."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "clip.mp4"
        write_video(path, clip.numpy(), fps=2.0, crf=18, format="mp4")
        read = [torch.from_numpy(frame.rgb) for frame in iter_frames(path)]
    return prepared(torch.stack(read))
