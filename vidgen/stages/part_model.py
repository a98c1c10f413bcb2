"""A part of a model on the bench: rendered clips in, how near to them its own are out.

What a part is to make is known of rendered clips: the frames between keyframes, the same clip at
twice the size, the frames that latents were encoded from. The autoencoder's own decoder makes
frames of the latents, but for the video decoder, which is tried in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from vidgen.diffusion.groups import STRIDE
from vidgen.io.record import Record
from vidgen.metrics.fidelity import psnr
from vidgen.stages import interpolate, upsample
from vidgen.stages.base import Compute, Notify, Silent
from vidgen.stages.decode import Which, decode
from vidgen.stages.encode_video import encode_video
from vidgen.stages.rendered import records, rendered
from vidgen.systems.base import INTERPOLATIONS, Geometry, ModelFolder
from vidgen.systems.upsampling import FACTOR
from vidgen.world.scene import Scene

CHUNK = 8  # clips at once

Given = Callable[[Sequence[Scene]], Iterable[Record]]  # latents records of scenes
Stage = Callable[[Iterable[Record]], Iterator[Record]]


@dataclass(frozen=True)
class Trial:
    """How a part is tried: what it is compared with, and what it is given and has to make."""

    baseline: str  # what does the same without the part, in words
    keyframes: bool = False  # whether every fourth frame is given, and those between are judged
    factor: int = 1  # how many times larger what it makes is than what it is given
    shown: bool = False  # whether clips are as large as the model shows them, not as it begins


TRIALS = {
    "interpolation": Trial("blended neighbors", keyframes=True),
    "interpolation_masked": Trial("blended neighbors", keyframes=True),
    "upsampler": Trial("frames enlarged bicubically", factor=FACTOR),
    "video_decoder": Trial("the image decoder", shown=True),
}


def try_part(
    folder: ModelFolder,
    part: str,
    scenes: Sequence[Scene],
    geometry: Geometry,
    *,
    baseline: bool = False,
    given: Given | None = None,
    compute: Compute = Compute(),
    notify: Notify = Silent(),
) -> list[float]:
    """PSNR against what was rendered, dB, of each scene's clip.

    folder    holds the part and the autoencoder
    part      of TRIALS
    geometry  of the clips that are given to it, before keyframes are picked
    given     what it works on; None: what the encoder makes of clips
    baseline  try what the part is compared with, in its place
    """
    trial, scores = TRIALS[part], []
    larger = replace(
        geometry, height=trial.factor * geometry.height, width=trial.factor * geometry.width
    )
    for first in range(0, len(scenes), CHUNK):
        some = scenes[first : first + CHUNK]
        clips = encode_video(records(some, geometry), folder, compute=compute)
        if given is not None:
            clips = iter(given(some))
        if trial.keyframes:
            clips = map(keyframes, clips)
        which: Which = "video" if part == "video_decoder" and not baseline else "image"
        latents = _worked(part, clips, folder, baseline, compute)
        frames = decode(latents, folder, which=which, compute=compute)
        made = torch.stack([record.torch("frames") for record in frames])
        true = rendered(some, larger)
        if trial.keyframes:
            between = torch.arange(made.shape[1]) % STRIDE != 0
            made, true = made[:, between], true[:, between]
        scores += psnr(made, true).mean(dim=1).tolist()
        notify.step(len(scores), len(scenes), "clip")
    return scores


def _worked(
    part: str, given: Iterator[Record], folder: ModelFolder, baseline: bool, compute: Compute
) -> Iterator[Record]:
    """What the part, or its baseline, makes of these latents."""
    if part == "upsampler":
        larger = upsample.Choices(FACTOR, "bicubic" if baseline else "diffusion")
        return upsample.upsample(given, folder, larger, compute=compute)
    if part.startswith("interpolation"):
        named = {name: method for method, name in INTERPOLATIONS.items()}
        # Alone: without text nothing draws them anew, and it is not what is tried.
        choices = (
            interpolate.Choices(method=interpolate.LINEAR) if baseline
            else interpolate.Choices(method=named[part], refine=0.0)
        )  # fmt: skip
        return interpolate.interpolate(given, folder, choices, compute=compute)
    return given


def keyframes(record: Record) -> Record:
    """The latents record with every fourth latent alone, and its time."""
    latents, times = record.torch("latents")[:, ::STRIDE], record.torch("times")[::STRIDE]
    return record.replace(
        tensors={"latents": latents.contiguous(), "times": times.contiguous()},
        attrs={"num_frames": len(times), "fps": float(record.attrs["fps"]) / STRIDE},
    )
