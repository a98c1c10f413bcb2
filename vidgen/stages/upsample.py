"""Latents records → latents records of the same clips with sides twice as long, or more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidgen.diffusion.noise import Noise
from vidgen.errors import InputError, UsageError
from vidgen.io.record import Record, human_bytes
from vidgen.nn.autoencoder import AutoencoderConfig, VideoAutoencoder
from vidgen.stages import latents
from vidgen.stages.base import (
    FLOATS,
    Compute,
    Loading,
    Notify,
    Silent,
    require_kind,
    require_tensor,
    require_whole,
)
from vidgen.stages.decode import require_space
from vidgen.stages.memory import require_memory
from vidgen.stages.sample_keyframes import own_seed
from vidgen.stages.upsample_pixels import upsample_pixels
from vidgen.systems import upsampling, world
from vidgen.systems.base import DOUBLINGS, ModelFolder
from vidgen.systems.load import sizes
from vidgen.systems.upsampling import Upsampler

STAGE = "upsample"
BICUBIC = "bicubic"  # what the network is told, as it is
BILINEAR = "bilinear"  # the one method that needs no model
METHODS = ("diffusion", BICUBIC, BILINEAR)


@dataclass(frozen=True)
class Choices(latents.Choices):
    """What the user may set; None means the model's own default."""

    scale: float = 2  # of DOUBLINGS
    method: str = "diffusion"  # of METHODS
    num_inference_steps: int | None = None
    noise_level: float | None = None

    METHODS = METHODS
    FORMULAS = dict.fromkeys((BICUBIC, BILINEAR), "has no network to sample from")

    @property
    def passes(self) -> int:
        return DOUBLINGS[int(self.scale)]

    def check(self) -> None:
        if self.scale not in DOUBLINGS:
            raise UsageError(
                f"--scale {self.scale:g}: sides are doubled, once or several times",
                next=f"one of: {', '.join(map(str, DOUBLINGS))}",
            )
        super().check()

    def shaping(self) -> dict[str, Any]:
        return {"--scale": None if self.scale == 2 else f"{self.scale:g}"}

    def sampling(self) -> dict[str, Any]:
        return {"--noise-level": self.noise_level, **super().sampling()}


@dataclass(frozen=True)
class Method(latents.Method[Upsampler]):
    """How a clip becomes larger: its frames, or without a model its latents, are enlarged; a
    network then adds to that."""

    choices: Choices
    noise_level: float = 0.0
    folder: ModelFolder | None = None  # whose autoencoder frames go through
    vae: Loading | None = None

    @property
    def computes(self) -> bool:
        return self.folder is not None

    def described(self) -> dict[str, Any]:
        words = super().described()
        if self.network is not None:
            words["noise_level"] = self.noise_level
        elif self.folder is not None:
            words["model"] = self.folder.identity("vae")
        return words


def upsample(
    records: Iterable[Record],
    folder: ModelFolder | None,
    choices: Choices = Choices(),
    *,
    compute: Compute = Compute(),
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Latents records `C T h w` → the same with `latents` `C T 2h 2w` (float32) after each pass,
    and attributes `height` and `width` to match. All else stays.

    `folder` may be None for the method `bilinear`; `bicubic` needs its autoencoder alone. The noise
    of a sample depends on its seed, on the id of what it was sampled from, and on the size that the
    pass begins with: two passes are the same as one after the other in a pipe.

    Raises InputError for latents of another autoencoder and OutOfMemory for a clip too large,
    both before any weights are read. Pixels have a stage of their own (`upsample_pixels`).
    """
    if folder is not None and folder.in_pixels:
        choices.check()
        yield from upsample_pixels(records, folder, choices, compute=compute, notify=notify)
        return
    method = method_of(folder, choices, compute)
    checked = (checked_record(record, method) for record in records)
    told: set[int] = set()
    for clips in latents.alike(checked, compute.batch_size):
        _require_memory(clips, method, compute)
        _warn_beyond(clips[0], method, told, notify)
        yield from _upsample(clips, method, compute, notify)


def method_of(folder: ModelFolder | None, choices: Choices, compute: Compute = Compute()) -> Method:
    choices.check()
    if choices.method == BILINEAR:
        return Method(choices)
    if folder is None:
        raise UsageError(f"--method {choices.method} needs a model")
    vae = Loading(lambda: world.load_autoencoder(folder), now=compute.preload)
    if choices.method == BICUBIC:
        return Method(choices, folder=folder, vae=vae)
    network = Upsampler.of(folder)
    own, level = network.settings, choices.noise_level
    if level is not None and not 0 <= level <= own.max_noise_level:
        raise UsageError(
            f"--noise-level {level:g}: `{folder.name}` was trained on 0 to {own.max_noise_level:g}",
            next=f"leave it out for the model's own, {own.noise_level:g}",
        )
    return Method(
        choices,
        network,
        latents.loading(network, compute),
        choices.num_inference_steps or own.num_inference_steps,
        own.noise_level if level is None else level,
        folder,
        vae,
    )


def checked_record(record: Record, method: Method) -> Record:
    """The record, if its latents can be enlarged, and are those of the model's autoencoder."""
    require_kind(record, "latents", made_by="vidgen sample-keyframes")
    channels = None
    if method.folder is not None:
        require_space(record, method.folder, verb="upsamples")
        channels = method.folder.size("vae", "channels")
    require_tensor(record, "latents", FLOATS, channels, None, None, None)
    for side in ("height", "width"):
        require_whole(record, side)
    if method.network is not None:
        require_tensor(record, "times", ("F64",), record["latents"].shape[1])
        seconds = spacing(record)
        if seconds is not None and not 0 < seconds < math.inf:
            raise InputError(
                f"record `{record.id}`: its latents are {seconds:.4g} s apart",
                why="the network is told how far apart in time they are",
                next="vidgen inspect shows what each record holds",
            )
        own_seed(record)
    return record


def spacing(record: Record) -> float | None:
    """Seconds from one latent to the next, on average; None for a single one."""
    times = record.torch("times")
    return float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None


def memory_bytes(shape: tuple[int, ...], method: Method, compute: Compute, count: int = 1) -> int:
    """About what the last pass takes for `count` clips of this shape, `c t h w`."""
    c, t, h, w = shape
    scale = int(method.choices.scale)
    large, item = (count, c, t, h * scale, w * scale), compute.torch_dtype().itemsize
    if method.folder is None:
        return 3 * 4 * math.prod(large)  # what it is made of, a copy, the result
    config = sizes(VideoAutoencoder, AutoencoderConfig, method.folder, "vae")
    needed = upsampling.pixel_bytes(config, large, item)
    if method.network is not None:
        needed = max(needed, upsampling.memory_bytes(method.network.config, large, item))
    return needed + upsampling.weights(config) * item


def _require_memory(records: list[Record], method: Method, compute: Compute) -> None:
    """OutOfMemory, before any weights are read, where the last pass wouldn't fit."""
    shape, count, scale = records[0]["latents"].shape, len(records), f"{method.choices.scale:g}"
    clips = f"`{records[0].id}`" if count == 1 else f"{count} clips like `{records[0].id}`"
    alone = human_bytes(memory_bytes(shape, method, compute))
    require_memory(
        memory_bytes(shape, method, compute, count),
        compute.torch_device(),
        what=f"--scale {scale} of {clips}",
        next=f"--batch-size 1, which takes about {alone}" if count > 1 else "a smaller --scale",
    )


def _warn_beyond(record: Record, method: Method, told: set[int], notify: Notify) -> None:
    """Once for each height: what is larger than the network learned to make."""
    if (network := method.network) is None:
        return
    height, largest = record.attrs["height"] * int(method.choices.scale), network.settings.largest
    if largest is not None and height > largest and height not in told:
        told.add(height)
        notify.warn(
            f"`{record.id}`: pictures {height} pixels high are beyond what the upsampler of"
            f" `{network.folder.name}` learned, {largest}"
        )


@torch.no_grad()
def _upsample(
    records: list[Record], method: Method, compute: Compute, notify: Notify
) -> Iterator[Record]:
    """Records whose latents have one shape."""
    made = torch.stack([r.torch("latents").float() for r in records])
    skips = [_skip(r, method.network, notify) for r in records]
    used: set[str] = set()
    for _ in range(method.choices.passes):
        if method.vae is None:
            made = upsampling.stretched(made)
            continue
        vae = method.vae.get().to(device=compute.torch_device(), dtype=compute.torch_dtype())
        small, made = made, upsampling.enlarged(made, vae)
        if method.network is None:
            made = made.cpu()
        else:
            size = f"{small.shape[3]}x{small.shape[4]}"
            made, kernels = _sample(records, made, size, skips, method, compute, notify)
            used |= kernels

    for record, clip, skip in zip(records, made, skips, strict=True):
        scale = int(method.choices.scale)
        after = record.replace(
            tensors={"latents": clip},
            attrs={side: record.attrs[side] * scale for side in ("height", "width")},
            entry=latents.entry(STAGE, record, method, used, compute, skip=skip),
        )
        after.check_values()  # here too: in one process nobody writes latents
        yield after


def _skip(record: Record, network: Upsampler | None, notify: Notify) -> int | None:
    """The spacing that a network is told, in frames of its training rate; warns where it knows
    none like it. A single latent is told as one of keyframes far apart."""
    if network is None:
        return None
    seconds = spacing(record)
    if seconds is None:
        return network.settings.max_skip
    return latents.told_skip(record, seconds, network, notify)


def _sample(
    records: list[Record],
    large: Tensor,
    size: str,
    skips: list[int | None],
    method: Method,
    compute: Compute,
    notify: Notify,
) -> tuple[Tensor, set[str]]:
    """Enlarged latents `b c t h w` → the network's own, and the attention kernels that were used.
    `size`: what they were enlarged from, for the noise."""
    system, device = method.network, compute.torch_device()
    assert system is not None
    network = latents.placed(method, compute)
    sources = [latents.source(r) for r in records]
    noise, told = (Noise(sources, stage=f"{name} {size}") for name in (STAGE, f"{STAGE}-told"))
    shape = tuple(large.shape[1:])
    cond = upsampling.cond(
        system.config, large, told.initial(shape).to(device),
        torch.full((len(records),), method.noise_level, device=device),
        torch.tensor(skips, device=device), system.settings.fps,
    )  # fmt: skip
    denoise = system.denoiser(network)
    details, used = latents.sampled(method, denoise, noise, shape, cond, compute, notify)
    return system.settings.detailed(large.cpu(), details), used
