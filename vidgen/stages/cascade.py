"""Text records → latents of a whole clip: keyframes, the frames between, and larger pictures.

Each stage is the one that its own command runs, one behind the other, so that a pipe of the
commands makes the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from vidgen.diffusion.groups import STRIDE, frames_after
from vidgen.errors import UsageError
from vidgen.io.image import read_image
from vidgen.io.record import Record
from vidgen.stages import interpolate, sample_clips, sample_keyframes, text_network, upsample
from vidgen.stages.base import Compute, Notify, Silent
from vidgen.stages.checkpoints import Checkpoints
from vidgen.stages.memory import require_memory
from vidgen.stages.upsample_pixels import SecondStage
from vidgen.systems.base import ModelFolder


def sample(
    records: Iterable[Record],
    folder: ModelFolder,
    choices: sample_keyframes.Choices = sample_keyframes.Choices(),
    *,
    passes: int = 0,
    checkpoints: Checkpoints | None = None,
    compute: Compute = Compute(),
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Text records → latents records of whole clips: T keyframes each, and three frames more
    between any two neighbors after each of the `passes`; 0: keyframes alone, or the clips of a
    released model, which `checkpoints` are for."""
    if folder.released:
        return sample_clips.sample_clips(
            records, folder, choices, checkpoints=checkpoints, compute=compute, notify=notify
        )
    network = text_network.loading(folder, compute)  # one for both
    latents = sample_keyframes.sample_keyframes(
        records, folder, choices, network=network, compute=compute, notify=notify
    )
    if not passes:
        return latents
    return interpolate.interpolate(
        latents,
        folder,
        interpolate.Choices(passes),
        drawing=network,
        compute=compute,
        notify=notify,
    )


def check_choices(folder: ModelFolder, choices: sample_keyframes.Choices) -> None:
    """UsageError, before anything is computed, for what the model can't make."""
    if folder.released:
        sample_clips.check_loras(folder, sample_clips.run_of(folder, choices), choices)
        if choices.image is not None:
            read_image(choices.image)
    elif choices.loras:
        raise UsageError(
            f"--lora: into `{folder.name}` nothing is fused, only into released models",
            next="leave --lora out",
        )
    elif choices.image is not None:
        raise UsageError(
            f"--image: `{folder.name}` makes clips of text alone", next="leave --image out"
        )
    elif choices.num_frames is not None or choices.size is not None:
        made = folder.geometry
        raise UsageError(
            f"`{folder.name}` makes {made.num_frames} frames of {made.width}x{made.height}, and no"
            " others",
            next="leave --num-frames and --size out",
        )


def enlarge(
    records: Iterable[Record],
    folder: ModelFolder,
    scale: int,
    *,
    compute: Compute = Compute(),
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Latents records → the same with sides `scale` times as long; 1: as they are."""
    if scale == 1:
        return iter(records)
    return upsample.upsample(
        records, folder, upsample.Choices(scale), compute=compute, notify=notify
    )


def check(folder: ModelFolder, count: int, passes: int, scale: int, compute: Compute) -> None:
    """Before anything is computed: InputError for parts that don't fit the model, OutOfMemory for a
    scale that doesn't fit into memory, of so many samples."""
    if passes:
        interpolate.method_of(folder, interpolate.Choices(passes))
    if scale == 1 or not count:
        return
    if folder.in_pixels:
        stage = SecondStage.of(folder, upsample.Choices(scale))
        stage.require_memory(compute, min(count, compute.batch_size))
        return
    method = upsample.method_of(folder, upsample.Choices(scale))
    clips = min(count, compute.batch_size)
    (clip,) = yet_to_come(folder, 1, passes)
    require_memory(
        upsample.memory_bytes(clip["latents"].shape, method, compute, clips),
        compute.torch_device(),
        what=f"--scale {scale} of {clips} clip{'s' * (clips > 1)}",
        next="a smaller --scale" + ", or a smaller --batch-size" * (clips > 1),
    )


def yet_to_come(folder: ModelFolder, count: int, passes: int = 0, scale: int = 1) -> list[Record]:
    """Latents records of samples that aren't there yet, to tell what later
    stages would do with them: of the right shape, rate and space, and all zeros."""
    geometry, (channels, stride) = folder.geometry, folder.latent_sizes
    t, fps = frames_after(passes, geometry.num_frames), STRIDE**passes * geometry.fps
    height, width = (scale * side for side in (geometry.height, geometry.width))
    tensors = {
        "latents": torch.zeros(channels, t, height // stride, width // stride),
        "times": torch.arange(t, dtype=torch.float64) / fps,
    }
    attrs = {"latent_space": folder.latent_space, "num_frames": t, "height": height, "width": width,
             "fps": fps}  # fmt: skip
    return [Record.make("latents", "sample", tensors, attrs)] * count
