"""Latents records → latents records of the same clips with sides twice as long, or more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from vidgen.diffusion.noise import Noise
from vidgen.errors import InputError, UsageError
from vidgen.io import log
from vidgen.io.record import Record, human_bytes
from vidgen.nn import attention
from vidgen.nn.unet import UNet
from vidgen.stages.base import (
    FLOATS,
    Compute,
    Loading,
    Notify,
    Silent,
    batched,
    require_kind,
    require_tensor,
    require_whole,
)
from vidgen.stages.decode import require_space
from vidgen.stages.memory import require_memory
from vidgen.stages.sample_keyframes import own_seed
from vidgen.systems import upsampling
from vidgen.systems.base import ModelFolder
from vidgen.systems.upsampling import Upsampler

STAGE = "upsample"
BILINEAR = "bilinear"  # the method that needs no network
METHODS = ("diffusion", BILINEAR)
PASSES = {2: 1, 4: 2, 8: 3}  # scale → how often the sides are doubled


@dataclass(frozen=True)
class Choices:
    """What the user may set; None means the model's own default."""

    scale: float = 2  # of PASSES
    method: str = "diffusion"  # of METHODS
    num_inference_steps: int | None = None
    noise_level: float | None = None

    @property
    def passes(self) -> int:
        return PASSES[int(self.scale)]

    def check(self) -> None:
        """UsageError for what can't be, and for settings that the method has no use for."""
        if self.scale not in PASSES:
            raise UsageError(
                f"--scale {self.scale:g}: sides are doubled, once or several times",
                next=f"one of: {', '.join(map(str, PASSES))}",
            )
        if self.method not in METHODS:
            raise UsageError(f"no method `{self.method}`", next=f"one of: {', '.join(METHODS)}")
        for flag, value in self._sampling().items():
            if self.method == BILINEAR and value is not None:
                raise UsageError(
                    f"{flag} {value:g}: --method {BILINEAR} has no network to sample from",
                    next=f"leave {flag} out",
                )

    def argv(self) -> list[str]:
        """These choices as canonical flags, for the log."""
        default = Choices()
        flags: dict[str, Any] = {
            "--method": None if self.method == default.method else self.method,
            "--scale": None if self.scale == default.scale else f"{self.scale:g}",
            **self._sampling(),
        }
        return [x for k, v in sorted(flags.items()) if v is not None for x in (k, str(v))]

    def _sampling(self) -> dict[str, float | None]:
        return {"--noise-level": self.noise_level, "--steps": self.num_inference_steps}


@dataclass(frozen=True)
class Method:
    """How a clip becomes larger; without a network each frame is enlarged bilinearly."""

    choices: Choices
    network: Upsampler | None
    loading: Loading | None
    steps: int = 0
    noise_level: float = 0.0

    def described(self) -> dict[str, Any]:
        """The log's words for it."""
        words: dict[str, Any] = {"method": self.choices.method}
        if self.network is not None:
            words |= {"model": self.network.identity, "steps": self.steps,
                      "noise_level": self.noise_level}  # fmt: skip
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

    `folder` may be None for the method `bilinear`. The noise of a sample depends on its seed, on
    the id of what it was sampled from, and on the size that the pass begins with: two passes are
    the same as one after the other in a pipe.

    Raises InputError for latents of another autoencoder and OutOfMemory for a clip too large,
    both before any weights are read.
    """
    method = method_of(folder, choices, compute)
    checked = (checked_record(record, folder if method.network else None) for record in records)
    for batch in batched(checked, compute.batch_size):
        for _, alike in groupby(batch, key=lambda record: record["latents"].shape):
            clips = list(alike)
            _require_memory(clips, method, compute)
            yield from _upsample(clips, method, compute, notify)


def method_of(folder: ModelFolder | None, choices: Choices, compute: Compute = Compute()) -> Method:
    choices.check()
    if choices.method == BILINEAR:
        return Method(choices, None, None)
    if folder is None:
        raise UsageError(f"--method {choices.method} needs a model")
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
        Loading(lambda: _load(network, compute), now=compute.preload),
        choices.num_inference_steps or own.num_inference_steps,
        own.noise_level if level is None else level,
    )


def _load(network: Upsampler, compute: Compute) -> UNet:
    loaded = network.load()
    if compute.compile:
        for block in loaded.blocks:
            block.compile()
    return loaded


def checked_record(record: Record, folder: ModelFolder | None) -> Record:
    """The record, if its latents can be enlarged, and are those of the folder's autoencoder."""
    require_kind(record, "latents", made_by="vidgen sample-keyframes")
    channels = None
    if folder is not None:
        require_space(record, folder, verb="upsamples")
        channels = folder.size("vae", "channels")
    require_tensor(record, "latents", FLOATS, channels, None, None, None)
    for side in ("height", "width"):
        require_whole(record, side)
    if folder is not None:
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
    if method.network is None:
        return 3 * 4 * count * c * t * h * w * scale**2  # what it is made of, a copy, the result
    return upsampling.memory_bytes(
        method.network.config,
        (count, c, t, h * scale, w * scale),
        compute.torch_dtype().itemsize,
    )


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


def _upsample(
    records: list[Record], method: Method, compute: Compute, notify: Notify
) -> Iterator[Record]:
    """Records whose latents have one shape."""
    latents = torch.stack([r.torch("latents").float() for r in records])
    skips = [_skip(r, method.network, notify) for r in records]
    used: set[str] = set()
    for _ in range(method.choices.passes):
        if method.network is None:
            latents = upsampling.enlarged(latents)
        else:
            latents, kernels = _sample(records, latents, skips, method, compute, notify)
            used |= kernels

    for record, clip, skip in zip(records, latents, skips, strict=True):
        scale = int(method.choices.scale)
        made = record.replace(
            tensors={"latents": clip},
            attrs={side: record.attrs[side] * scale for side in ("height", "width")},
            entry=_entry(record, method, skip, used, compute),
        )
        made.check_values()  # here too: in one process nobody writes latents
        yield made


def _skip(record: Record, network: Upsampler | None, notify: Notify) -> int | None:
    """The spacing that a network is told, in frames of its training rate; warns where it knows
    none like it. A single latent is told as one of keyframes far apart."""
    if network is None:
        return None
    settings, seconds = network.settings, spacing(record)
    if seconds is None:
        return settings.max_skip
    skip = settings.skip(seconds)
    if abs(skip - seconds * settings.fps) > 0.5:
        notify.warn(
            f"`{record.id}`: {seconds:.4g} s from frame to frame is outside of what"
            f" `{network.folder.name}` was trained on,"
            f" {1 / settings.fps:.4g} to {settings.max_skip / settings.fps:.4g} s;"
            f" it is told {skip / settings.fps:.4g} s"
        )
    return skip


@torch.no_grad()
def _sample(
    records: list[Record],
    latents: Tensor,
    skips: list[int | None],
    method: Method,
    compute: Compute,
    notify: Notify,
) -> tuple[Tensor, set[str]]:
    """latents `b c t h w` → `b c t 2h 2w`, and the attention kernels that were used."""
    system, device = method.network, compute.torch_device()
    assert system is not None and method.loading is not None
    network: UNet = method.loading.get().to(device=device, dtype=compute.torch_dtype())
    levels, large = system.levels(method.steps), upsampling.enlarged(latents)
    size = f"{latents.shape[3]}x{latents.shape[4]}"
    samples = [_source(r) for r in records]
    noise = Noise(samples, stage=f"{STAGE} {size}")
    told = Noise(samples, stage=f"{STAGE}-told {size}")
    cond = upsampling.cond(
        network.config, large.to(device), told.initial(large.shape[1:]).to(device),
        torch.full((len(records),), method.noise_level, device=device),
        torch.tensor(skips, device=device), system.settings.fps,
    )  # fmt: skip
    z = noise.initial(large.shape[1:]).to(device) * levels[0].sigma
    with attention.kernel(compute.attention) as used:
        for step in system.solver()(system.denoiser(network), z, levels, cond, noise):
            z = step.z
            notify.step(step.i + 1, len(levels) - 1, "step")
    return z.float().cpu(), set(used)


def _source(record: Record) -> tuple[int, str]:
    """The seed, and the id of what it was sampled from: with several seeds that has no -s."""
    source = record.attrs.get("source")
    return own_seed(record) or 0, source if isinstance(source, str) else record.id


def _entry(
    record: Record, method: Method, skip: int | None, used: set[str], compute: Compute
) -> dict[str, Any]:
    """What this stage says of itself in the log."""
    sampled = method.network is not None
    return log.new_entry(
        STAGE,
        argv=[STAGE, *method.choices.argv()],
        seed=_source(record)[0] if sampled else None,
        attention="+".join(sorted(used)) or None,
        compiled=True if compute.compile and sampled else None,
        skip=skip,
        inputs=[record.digest],
        **method.described(),
        **(compute.described() if sampled else {}),
    )
