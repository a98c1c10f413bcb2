"""A whole model on the bench: captions of the world in, how many of its clips are right out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from vidgen.io.record import Record
from vidgen.metrics.judge import BATCH, WorldJudge, prepared
from vidgen.metrics.rendered import compressed
from vidgen.metrics.world_accuracy import Asked, Mark, mark
from vidgen.stages.base import Compute, Notify, Silent
from vidgen.stages.decode import Which, decode
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.sample_keyframes import Choices, sample_keyframes
from vidgen.systems.base import ModelFolder
from vidgen.world.captions import caption
from vidgen.world.scene import Scene


def samples(
    folder: ModelFolder,
    scenes: Sequence[Scene],
    choices: Choices = Choices(),
    *,
    which: Which | None = None,
    compute: Compute = Compute(batch_size=BATCH),
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Frames records of the scenes' full captions, one each, in their order. `which`: of the
    model's decoders."""
    prompts = [Prompt(caption(scene), id=f"world-{scene.seed}") for scene in scenes]
    texts = encode_text(prompts, folder, notify=notify)
    latents = sample_keyframes(texts, folder, choices, compute=compute, notify=notify)
    return decode(latents, folder, which=which, compute=compute)


def judge_model(
    folder: ModelFolder,
    judge: WorldJudge,
    scenes: Sequence[Scene],
    choices: Choices = Choices(),
    *,
    compress: bool = False,
    which: Which | None = None,
    compute: Compute = Compute(batch_size=BATCH),
    notify: Notify = Silent(),
) -> list[Mark]:
    """A mark for each scene: whether the clip sampled for its caption shows its factors.

    compress  judge what an mp4 file would hold, rather than the frames as they were decoded
    which     of the model's decoders
    """
    marks = []
    counted = judge.config.level == "full"
    made = samples(folder, scenes, choices, which=which, compute=compute, notify=notify)
    for scene, record in zip(scenes, made, strict=True):
        frames = prepared(record.torch("frames"))
        frames = compressed(frames) if compress else frames
        (verdict,) = judge.judge(torch.stack([frames]))
        marks.append(mark(verdict, Asked.of_scene(scene), counted=counted))
    return marks
