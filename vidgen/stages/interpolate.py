"""Latents records → latents records with three latents more between any two neighbors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidgen.diffusion import groups, guidance
from vidgen.diffusion.noise import Noise
from vidgen.errors import InputError, UsageError
from vidgen.io.record import Record
from vidgen.stages import latents
from vidgen.stages.base import (
    FLOATS,
    Compute,
    Loading,
    Notify,
    Silent,
    require_kind,
    require_tensor,
)
from vidgen.stages.decode import require_space
from vidgen.stages.refine import COMPONENT, Refiner
from vidgen.stages.sample_keyframes import own_seed
from vidgen.systems import interpolation, load
from vidgen.systems.base import INTERPOLATIONS, ModelFolder
from vidgen.systems.interpolation import Interpolator

STAGE = "interpolate"
LINEAR = "linear"  # the method that needs no network
METHODS = (*INTERPOLATIONS, LINEAR)
PER_FRAME = ("camera.*",)  # known of keyframes alone, and no longer of every frame
UNEVEN = 1e-3  # how much of itself the spacing of keyframes may vary by


@dataclass(frozen=True)
class Choices(latents.Choices):
    """What the user may set; None means the model's own default."""

    passes: int = 1  # each makes 4T − 3 latents of T
    method: str = "grouped"  # one of METHODS
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    refine: float | None = None  # 0: frames stay as the interpolation made them

    METHODS = METHODS
    FORMULAS = dict.fromkeys((LINEAR,), "blends neighbors, without a network")

    def check(self) -> None:
        super().check()
        if self.passes < 1:
            raise UsageError(f"{self.passes} passes: there must be one or more")

    def shaping(self) -> dict[str, Any]:
        return {"--passes": None if self.passes == 1 else self.passes}

    def sampling(self) -> dict[str, Any]:
        own = {"--guidance-scale": self.guidance_scale, "--refine": self.refine}
        return own | super().sampling()


@dataclass(frozen=True)
class Method(latents.Method[Interpolator]):
    """How frames come between keyframes; without a network they are blends of their neighbors."""

    choices: Choices
    guidance_scale: float = 1.0
    refiner: Refiner | None = None

    def described(self) -> dict[str, Any]:
        guided = {} if self.network is None else {"guidance_scale": self.guidance_scale}
        return super().described() | guided


def interpolate(
    records: Iterable[Record],
    folder: ModelFolder | None,
    choices: Choices = Choices(),
    *,
    drawing: Loading | None = None,
    compute: Compute = Compute(),
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Latents records → the same with `latents` `C 4T−3 h w` (float32) and `times` `4T−3` after
    each pass. What came in stays in its place, to the bit: 0, 4, 8 … after one pass.

    `folder` may be None for the method `linear`. The noise of a sample depends on its seed, on
    the id of what it was sampled from, and on how many latents the pass begins with: two passes
    are the same as one after the other in a pipe.

    Where the model has a share of noise for it, or `choices.refine` names one, the frames between
    are drawn anew by the network of the keyframes, and what that changes much is taken from it
    (`stages.refine`); `drawing` is that network, where another stage has it too. Of what can't be,
    such as records without text, that is told, and they stay as they are.

    Raises InputError for latents of another autoencoder, a single latent, or latents that are not
    evenly spaced in time, before any weights are read; and for a record that can't be refined where
    `choices.refine` asks for it.
    """
    method = method_of(folder, choices, compute, notify, drawing)
    checked = (
        refinable(checked_record(record, folder if method.network else None), method)
        for record in records
    )
    for clips in latents.alike(checked, compute.batch_size):
        yield from _interpolate(clips, method, compute, notify)


def method_of(
    folder: ModelFolder | None,
    choices: Choices,
    compute: Compute = Compute(),
    notify: Notify = Silent(),
    drawing: Loading | None = None,
) -> Method:
    """UsageError and InputError for what can't be."""
    choices.check()
    if choices.method == LINEAR:
        return Method(choices)
    if folder is None:
        raise UsageError(f"--method {choices.method} needs a model")
    network = Interpolator.of(folder, choices.method)
    own, scale = network.settings, choices.guidance_scale
    return Method(
        choices,
        network,
        latents.loading(network, compute),
        choices.num_inference_steps or own.num_inference_steps,
        own.guidance_scale if scale is None else scale,
        _refiner(folder, own.refine, choices, compute, notify, drawing),
    )


def _refiner(
    folder: ModelFolder,
    own: float | None,
    choices: Choices,
    compute: Compute,
    notify: Notify,
    drawing: Loading | None,
) -> Refiner | None:
    """What draws frames anew; None where neither the model nor the user wants it. InputError where
    the user does, and the model has no network for it."""
    strength = own if choices.refine is None else choices.refine
    if not strength:
        return None
    if choices.refine is not None:
        folder.component(COMPONENT)
    elif not folder.has(COMPONENT):
        notify.warn(f"frames are not refined: {folder.path} has no {COMPONENT}")
        return None
    try:
        return Refiner.of(folder, strength, compute, drawing)
    except UsageError as error:
        if choices.refine is not None:
            raise
        notify.warn(f"frames are not refined: {error.what}")
        return None


def refinable(record: Record, method: Method) -> Record:
    """The record. InputError where the user asked for refined frames, and they can't be."""
    if method.refiner is None or method.choices.refine is None:
        return record
    for done in range(method.choices.passes):
        count = groups.frames_after(done + 1, record["latents"].shape[1])
        if why := method.refiner.lacking(record, count):
            raise InputError(f"record `{record.id}` can't be refined: {why}", next="--refine 0")
    return record


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
    made = torch.stack([r.torch("latents").float() for r in records])
    times = [r.torch("times") for r in records]
    used: list[set[str]] = [set() for _ in records]
    skips: list[list[int]] = [[] for _ in records]
    refined: set[int] = set()
    told_why: set[int] = set()
    for _ in range(method.choices.passes):
        times = [groups.finer(x) for x in times]
        if method.network is None:
            between = groups.linear(made)
        else:
            for record, seconds, told in zip(records, times, skips, strict=True):
                spacing = float(seconds[1] - seconds[0])
                told.append(latents.told_skip(record, spacing, method.network, notify))
            now = [told[-1] for told in skips]
            between, kernels = _sample(records, made, now, method, compute, notify)
            used = [own | kernels for own in used]
        made = groups.join(made, between)
        if method.refiner is not None:
            drawn = _refine(made, records, method.refiner, told_why, compute, notify)
            refined |= drawn.keys()
            used = [own | drawn.get(i, set()) for i, own in enumerate(used)]

    for i, (record, clip, seconds) in enumerate(zip(records, made, times, strict=True)):
        after = record.replace(
            tensors={"latents": clip, "times": seconds},
            drop=PER_FRAME,
            attrs={"num_frames": len(seconds), "fps": _fps(record, seconds)},
            entry=latents.entry(
                STAGE,
                record,
                method,
                used[i],
                compute,
                skips=skips[i],
                **(_told(method.refiner) if method.refiner and i in refined else {}),
            ),
        )
        after.check_values()  # here too: in one process nobody writes latents
        yield after


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
    assert system is not None
    network, packing = latents.placed(method, compute), groups.PACKINGS[system.method]
    skip = torch.tensor(skips)
    cond = interpolation.cond(
        system.config, system.method, keyframes.to(device), skip.to(device), system.settings.fps
    )
    plain = system.denoiser(network)
    guided = guidance.guided_by(plain, cond, "context", method.guidance_scale)
    denoise = load.within(guided, plain, system.settings)
    noise = Noise([latents.source(r) for r in records], stage=f"{STAGE} {keyframes.shape[2]}")
    shape = packing.shape(keyframes.shape[1:])
    z, used = latents.sampled(method, denoise, noise, shape, cond, compute, notify)
    return system.settings.unpacked(system.method, keyframes, z, skip), used


def _refine(
    made: Tensor,
    records: list[Record],
    refiner: Refiner,
    told_why: set[int],
    compute: Compute,
    notify: Notify,
) -> dict[int, set[str]]:
    """Draw anew, in place, those of the clips `b c t h w` that can be: which, and the attention
    kernels that were used. Of each other it is told why, once: `told_why` has those it was of."""
    able = []
    for i, record in enumerate(records):
        if not (why := refiner.lacking(record, made.shape[2])):
            able.append(i)
        elif i not in told_why:
            notify.warn(f"`{record.id}`: frames between are not refined: {why}")
            told_why.add(i)
    if not able:
        return {}
    some = [records[i] for i in able]
    sources = [latents.source(record) for record in some]
    made[able], used = refiner.refined(made[able], some, sources, compute, notify)
    return dict.fromkeys(able, used)


def _told(refiner: Refiner) -> dict[str, Any]:
    """The log's words for what drew frames anew."""
    return {
        "refined_by": refiner.folder.identity(COMPONENT),
        "refine": refiner.strength,
        "refine_steps": refiner.method.steps,
    }


def _fps(record: Record, times: Tensor) -> float:
    """The record's own rate, as many times faster as there are more latents now."""
    own, factor = record.attrs.get("fps"), (len(times) - 1) // (record["latents"].shape[1] - 1)
    if isinstance(own, int | float) and not isinstance(own, bool) and own > 0:
        return own * factor
    return (len(times) - 1) / float(times[-1] - times[0])
