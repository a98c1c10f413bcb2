"""Latents records → latents records with three latents more between any two neighbors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from vidgen.diffusion import groups, guidance
from vidgen.diffusion.noise import Noise
from vidgen.errors import InputError, UsageError
from vidgen.io import log
from vidgen.io.record import Record
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
)
from vidgen.stages.decode import require_space
from vidgen.stages.sample_keyframes import own_seed
from vidgen.systems import interpolation
from vidgen.systems.base import ModelFolder
from vidgen.systems.interpolation import COMPONENTS, Interpolator

STAGE = "interpolate"
LINEAR = "linear"  # the method that needs no network
METHODS = (*COMPONENTS, LINEAR)
UNEVEN = 1e-3  # how much of itself the spacing of keyframes may vary by


@dataclass(frozen=True)
class Choices:
    """What the user may set; None means the model's own default."""

    passes: int = 1  # each makes 4T − 3 latents of T
    method: str = "grouped"  # one of METHODS
    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    def check(self) -> None:
        """UsageError for what can't be, and for settings that the method has no use for."""
        if self.method not in METHODS:
            raise UsageError(f"no method `{self.method}`", next=f"one of: {', '.join(METHODS)}")
        if self.passes < 1:
            raise UsageError(f"{self.passes} passes: there must be one or more")
        for flag, value in self._sampling().items():
            if self.method == LINEAR and value is not None:
                raise UsageError(
                    f"{flag} {value:g}: --method {LINEAR} blends neighbors, without a network",
                    next=f"leave {flag} out",
                )

    def argv(self) -> list[str]:
        """These choices as canonical flags, for the log."""
        default = Choices()
        flags: dict[str, Any] = {
            "--method": None if self.method == default.method else self.method,
            "--passes": None if self.passes == default.passes else self.passes,
            **self._sampling(),
        }
        return [x for k, v in sorted(flags.items()) if v is not None for x in (k, str(v))]

    def _sampling(self) -> dict[str, float | None]:
        return {"--guidance-scale": self.guidance_scale, "--steps": self.num_inference_steps}


@dataclass(frozen=True)
class Method:
    """How frames come between keyframes; without a network they are blends of their neighbors."""

    choices: Choices
    network: Interpolator | None
    loading: Loading | None
    steps: int = 0
    guidance_scale: float = 1.0

    def described(self) -> dict[str, Any]:
        """The log's words for it."""
        words: dict[str, Any] = {"method": self.choices.method}
        if self.network is not None:
            words |= {"model": self.network.identity, "steps": self.steps,
                      "guidance_scale": self.guidance_scale}  # fmt: skip
        return words


def interpolate(
    records: Iterable[Record],
    folder: ModelFolder | None,
    choices: Choices = Choices(),
    *,
    compute: Compute = Compute(),
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Latents records → the same with `latents` `C 4T−3 h w` (float32) and `times` `4T−3` after
    each pass. What came in stays in its place, to the bit: 0, 4, 8 … after one pass.

    `folder` may be None for the method `linear`. The noise of a sample depends on its seed, on
    the id of what it was sampled from, and on how many latents the pass begins with: two passes
    are the same as one after the other in a pipe.

    Raises InputError for latents of another autoencoder, a single latent, or latents that are not
    evenly spaced in time, before any weights are read.
    """
    method = method_of(folder, choices, compute)
    checked = (checked_record(record, folder if method.network else None) for record in records)
    for batch in batched(checked, compute.batch_size):
        for _, alike in groupby(batch, key=lambda record: record["latents"].shape):
            yield from _interpolate(list(alike), method, compute, notify)


def method_of(folder: ModelFolder | None, choices: Choices, compute: Compute = Compute()) -> Method:
    choices.check()
    if choices.method == LINEAR:
        return Method(choices, None, None)
    if folder is None:
        raise UsageError(f"--method {choices.method} needs a model")
    network = Interpolator.of(folder, choices.method)
    own, scale = network.settings, choices.guidance_scale
    return Method(
        choices,
        network,
        Loading(lambda: _load(network, compute), now=compute.preload),
        choices.num_inference_steps or own.num_inference_steps,
        own.guidance_scale if scale is None else scale,
    )


def _load(network: Interpolator, compute: Compute) -> UNet:
    loaded = network.load()
    if compute.compile:
        for block in loaded.blocks:
            block.compile()
    return loaded


def checked_record(record: Record, folder: ModelFolder | None) -> Record:
    """The record, if its latents can be interpolated, and are those of the folder's autoencoder."""
    require_kind(record, "latents", made_by="vidgen sample-keyframes")
    channels = None
    if folder is not None:
        require_space(record, folder, verb="interpolates")
        channels = folder.size("vae", "channels")
    require_tensor(record, "latents", FLOATS, channels, None, None, None)
    count = record["latents"].shape[1]
    if count < 2:
        raise InputError(
            f"record `{record.id}` holds one latent, and frames are made between two",
            next="vidgen inspect shows what each record holds",
        )
    require_tensor(record, "times", ("F64",), count)
    spacing = record.torch("times").diff()
    least, most = float(spacing.min()), float(spacing.max())
    if not 0 < least <= most <= least * (1 + UNEVEN):
        raise InputError(
            f"record `{record.id}`: its latents are {least:.4g} to {most:.4g} s apart",
            why="frames are made at equal distances, so keyframes must be at equal distances too",
            next="vidgen encode-video --fps N makes latents at a constant rate",
        )
    own_seed(record)
    return record


def _interpolate(
    records: list[Record], method: Method, compute: Compute, notify: Notify
) -> Iterator[Record]:
    """Records whose latents have one shape."""
    latents = torch.stack([r.torch("latents").float() for r in records])
    times = [r.torch("times") for r in records]
    used: set[str] = set()
    skips: list[list[int]] = [[] for _ in records]
    for _ in range(method.choices.passes):
        times = [groups.finer(x) for x in times]
        if method.network is None:
            between = groups.linear(latents)
        else:
            now = [_skip(r, x, method.network, notify) for r, x in zip(records, times, strict=True)]
            for told, skip in zip(skips, now, strict=True):
                told.append(skip)
            between, kernels = _sample(records, latents, now, method, compute, notify)
            used |= kernels
        latents = groups.join(latents, between)

    for record, clip, seconds, told in zip(records, latents, times, skips, strict=True):
        made = record.replace(
            tensors={"latents": clip, "times": seconds},
            attrs={"num_frames": len(seconds), "fps": _fps(record, seconds)},
            entry=_entry(record, method, told, used, compute),
        )
        made.check_values()  # here too: in one process nobody writes latents
        yield made


def _skip(record: Record, times: Tensor, network: Interpolator, notify: Notify) -> int:
    """The skip-frame number for frames at these times; warns where the network knows none."""
    settings, spacing = network.settings, float(times[1] - times[0])
    skip = settings.skip(spacing)
    if abs(skip - spacing * settings.fps) > 0.5:
        notify.warn(
            f"`{record.id}`: {spacing:.4g} s from frame to frame is outside of what"
            f" `{network.folder.name}` was trained on,"
            f" {1 / settings.fps:.4g} to {settings.max_skip / settings.fps:.4g} s;"
            f" it is told {skip / settings.fps:.4g} s"
        )
    return skip


@torch.no_grad()
def _sample(
    records: list[Record],
    keyframes: Tensor,
    skips: list[int],
    method: Method,
    compute: Compute,
    notify: Notify,
) -> tuple[Tensor, set[str]]:
    """keyframes `b c t h w` → the frames between `b c 3(t−1) h w`, and the attention kernels that
    were used."""
    system, device = method.network, compute.torch_device()
    assert system is not None and method.loading is not None
    network: UNet = method.loading.get().to(device=device, dtype=compute.torch_dtype())
    packing, levels = groups.PACKINGS[system.method], system.levels(method.steps)
    cond = interpolation.cond(
        network.config, system.method, keyframes.to(device),
        torch.tensor(skips, device=device), system.settings.fps,
    )  # fmt: skip
    denoise = guidance.guided_by(system.denoiser(network), cond, "context", method.guidance_scale)

    shape = packing.shape(keyframes.shape[1:])
    noise = Noise([_source(r) for r in records], stage=f"{STAGE} {keyframes.shape[2]}")
    z = noise.initial(shape).to(device) * levels[0].sigma
    with attention.kernel(compute.attention) as used:
        for step in system.solver()(denoise, z, levels, cond, noise):
            z = step.z
            notify.step(step.i + 1, len(levels) - 1, "step")
    return packing.unpack(z.float().cpu()), set(used)


def _source(record: Record) -> tuple[int, str]:
    """The seed, and the id of what it was sampled from: with several seeds that has no -s."""
    source = record.attrs.get("source")
    return own_seed(record) or 0, source if isinstance(source, str) else record.id


def _fps(record: Record, times: Tensor) -> float:
    """The record's own rate, as many times faster as there are more latents now."""
    own, factor = record.attrs.get("fps"), (len(times) - 1) // (record["latents"].shape[1] - 1)
    if isinstance(own, int | float) and not isinstance(own, bool) and own > 0:
        return own * factor
    return (len(times) - 1) / float(times[-1] - times[0])


def _entry(
    record: Record, method: Method, skips: list[int], used: set[str], compute: Compute
) -> dict[str, Any]:
    """What this stage says of itself in the log."""
    sampled = method.network is not None
    return log.new_entry(
        STAGE,
        argv=[STAGE, *method.choices.argv()],
        seed=_source(record)[0] if sampled else None,
        attention=("+".join(sorted(used)) or compute.attention) if sampled else None,
        compiled=True if compute.compile and sampled else None,
        skips=skips,
        inputs=[record.digest],
        **method.described(),
        **(compute.described() if sampled else {}),
    )
