"""Latents records → latents records of longer clips, or of more frames a second, by the network
that made them: it is given the frames that are known, and makes the others (reconstruction
guidance; Ho et al. 2022, Video Diffusion Models, Eq. 7; Snap Video, Menapace et al. 2024, C.5).

Any model that makes whole clips can do this, and needs no training for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from vidgen.diffusion import guidance, windows
from vidgen.diffusion.level import Levels
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import denoiser
from vidgen.diffusion.solvers import Solver
from vidgen.diffusion.windows import Window
from vidgen.errors import InputError, UsageError
from vidgen.io import log
from vidgen.io.record import Record
from vidgen.nn import attention
from vidgen.nn.fit import FIT
from vidgen.stages.base import (
    FLOATS,
    Compute,
    Loading,
    Notify,
    Silent,
    batched,
    compiled,
    require_kind,
    require_tensor,
)
from vidgen.stages.decode import require_space
from vidgen.stages.interpolate import PER_FRAME, UNEVEN
from vidgen.stages.latents import source
from vidgen.stages.sample_keyframes import own_seed, require_text, text_cond
from vidgen.stages.text_network import system_of
from vidgen.systems import load
from vidgen.systems.base import ModelFolder

STAGE = "extend"


@dataclass(frozen=True)
class Choices:
    """What the user may set; None means the record's own, or the model's."""

    num_frames: int | None = None  # of the result
    fps: float | None = None  # of the result
    overlap: int = 1  # known frames that a window begins with, where the clip grows
    weight: float = 2.0  # of the reconstruction error, times `guidance.certain`
    num_inference_steps: int | None = None
    guidance_scale: float | None = None

    def check(self) -> None:
        """UsageError for what no model can do."""
        if self.num_frames is None and self.fps is None:
            raise UsageError(
                "neither a length nor a rate is asked for", next="--num-frames N, --fps N, or both"
            )

    def check_for(self, folder: ModelFolder) -> None:
        """UsageError for what this model can't do with any record."""
        self.check()
        if folder.released:
            raise UsageError(
                f"`{folder.name}`: a model of {folder.system}, whose latents stand for several"
                " frames each",
                why="frames that are known must be latents of their own",
                next="vidgen extend --model world …",
            )
        size = folder.geometry.num_frames
        if not 0 < self.overlap < size:
            raise UsageError(
                f"--overlap {self.overlap}: `{folder.name}` makes {size} frames at once, and some"
                " of them must be new",
                next=f"--overlap 1 to {size - 1}" if size > 1 else "another model",
            )

    def argv(self) -> list[str]:
        """These choices as canonical flags, for the log."""
        flags = {
            "--fps": None if self.fps is None else f"{self.fps:g}",
            "--guidance-scale": self.guidance_scale,
            "--num-frames": self.num_frames,
            "--overlap": None if self.overlap == 1 else self.overlap,
            "--steps": self.num_inference_steps,
            "--weight": None if self.weight == 2 else f"{self.weight:g}",
        }
        return [x for k, v in flags.items() if v is not None for x in (k, str(v))]


@dataclass(frozen=True)
class Plan:
    """What becomes of a clip: its own rate in frames a second, how long it grows at that rate, and
    by what that rate is multiplied then, one factor after the other."""

    have: int
    fps: float
    length: int
    factors: tuple[int, ...]

    @property
    def num_frames(self) -> int:
        return math.prod(self.factors) * (self.length - 1) + 1

    def passes(self, size: int, overlap: int) -> Iterator[tuple[float, list[Window], int]]:
        """The rate that windows of a pass are told, the windows, and the factor of the rate (1
        where the clip grows)."""
        if self.length > self.have:
            yield self.fps, windows.onwards(self.have, self.length, size, overlap), 1
        count, fps = self.length, self.fps
        for factor in self.factors:
            fps *= factor
            yield fps, windows.between(count, factor, size), factor
            count = factor * (count - 1) + 1


def extend(
    records: Iterable[Record],
    folder: ModelFolder,
    choices: Choices,
    *,
    compute: Compute = Compute(),
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Latents records `C T h w` → the same with `choices.num_frames` latents at `choices.fps`, and
    `times` to match. What came in stays in its place, to the bit; all else stays, too, but cameras,
    which are known of the old frames alone.

    Noise depends on a sample's seed, on the id of what it was sampled from, and on a window's place
    and rate. Before any weights are read InputError for latents of another autoencoder or size,
    that are unevenly spaced or have no text, and UsageError for a length or rate that can't be had.
    """
    choices.check_for(folder)
    method = Method.of(folder, choices)
    network = Loading(
        lambda: compiled(system_of(folder).load_transformer(folder), compute), now=compute.preload
    )
    told: set[float] = set()
    planned = ((record, plan_of(record, folder, choices)) for record in records)
    for batch in batched(planned, compute.batch_size):
        for (_, plan), some in groupby(batch, key=lambda x: (x[0]["latents"].shape, x[1])):
            clips = [record for record, _ in some]
            for fps, _, _ in plan.passes(folder.geometry.num_frames, choices.overlap):
                _warn_of_rate(fps, folder, told, notify)
            yield from _extend(clips, plan, network, folder, method, choices, compute, notify)


def plan_of(record: Record, folder: ModelFolder, choices: Choices) -> Plan:
    """What is to become of this record."""
    require_kind(record, "latents", made_by="vidgen sample")
    require_space(record, folder, verb="extends")
    (channels, stride), made = folder.latent_sizes, folder.geometry
    rows, columns = made.height // stride, made.width // stride
    require_tensor(record, "latents", FLOATS, channels, None, rows, columns)
    have = record["latents"].shape[1]
    require_tensor(record, "times", ("F64",), have)
    if "text.embeds" not in record.tensors:
        raise InputError(
            f"record `{record.id}` has no text, and the network is told what to show",
            next="latents that `vidgen sample` makes keep their text",
        )
    require_text(record, folder)
    own_seed(record)
    fps = _rate(record, folder)
    wanted = fps if choices.fps is None else choices.fps
    factor = round(wanted / fps)
    if factor < 1 or abs(wanted / fps - factor) > UNEVEN * factor:
        raise UsageError(
            f"--fps {wanted:g}: record `{record.id}` has {fps:g} frames a second, and a rate can"
            " only be multiplied by a whole number",
            next=f"--fps {fps * max(factor, 2):g}",
        )
    length, rest = have, 0
    if choices.num_frames is not None:
        length, rest = divmod(choices.num_frames - 1, factor)
        length += 1
    if rest:
        near = factor * max(length, have) + 1
        raise UsageError(
            f"--num-frames {choices.num_frames}: {factor} times as many frames a second begin and"
            f" end with one that is there at {fps:g}",
            next=f"--num-frames {near}",
        )
    if length < have:
        raise UsageError(
            f"--num-frames {choices.num_frames}: record `{record.id}` has {have}, which become"
            f" {factor * (have - 1) + 1} at this rate",
            next="vidgen decode, and cut the video",
        )
    if length == have and factor == 1:
        raise UsageError(
            f"record `{record.id}` has {have} frames at {fps:g} a second already",
            next=f"--num-frames {have + made.num_frames - choices.overlap}, or --fps {2 * fps:g}",
        )
    return _possible(record, folder, Plan(have, fps, length, tuple(windows.prime_factors(factor))))


def _possible(record: Record, folder: ModelFolder, plan: Plan) -> Plan:
    """The plan, if windows of the model's length can do it."""
    size = folder.geometry.num_frames
    if large := [p for p in plan.factors if p >= size]:
        raise UsageError(
            f"--fps {plan.fps * math.prod(plan.factors):g}: record `{record.id}` has {plan.fps:g}"
            f" frames a second, and for {large[0]} times as many, {large[0] - 1} new ones in a row,"
            f" clips of {size} are too short",
            next=f"--fps {2 * plan.fps:g}",
        )
    shortest = plan.length
    if plan.length == plan.have:
        shortest = plan.factors[0] * (plan.length - 1) + 1
    if shortest < size:
        raise UsageError(
            f"record `{record.id}` is to be {shortest} frames long, and `{folder.name}` makes"
            f" {size} at once",
            next=f"--num-frames {math.prod(plan.factors) * (size - 1) + 1}",
        )
    return plan


def _rate(record: Record, folder: ModelFolder) -> float:
    """Frames a second, by their times; of a single one what it says, or else the model's own."""
    times = record.torch("times")
    if len(times) == 1:
        own = record.attrs.get("fps")
        given = isinstance(own, int | float) and not isinstance(own, bool) and 0 < own < math.inf
        return float(own) if given else folder.geometry.fps  # type: ignore[arg-type]
    spacing = times.diff()
    least, most = float(spacing.min()), float(spacing.max())
    if not 0 < least <= most <= least * (1 + UNEVEN):
        raise InputError(
            f"record `{record.id}`: its latents are {least:.4g} to {most:.4g} s apart",
            why="the network makes frames at equal distances",
            next="vidgen encode-video --fps N makes latents at a constant rate",
        )
    return (len(times) - 1) / float(times[-1] - times[0])


def _warn_of_rate(fps: float, folder: ModelFolder, told: set[float], notify: Notify) -> None:
    """Once for each rate that the model doesn't say it was trained on."""
    sample = folder.config("transformer")["sample"]
    rates = sample.get("rates") or [folder.geometry.fps]
    if not any(abs(fps / rate - 1) < UNEVEN for rate in rates) and fps not in told:
        notify.warn(
            f"`{folder.name}` was trained on {' or '.join(f'{rate:g}' for rate in rates)} frames a"
            f" second, and is told {fps:g}"
        )
        told.add(fps)


@dataclass(frozen=True)
class Method:
    """How noise becomes a window: the model's own way, but for what the user chose."""

    solve: Solver
    levels: Levels
    guidance_scale: float

    @classmethod
    def of(cls, folder: ModelFolder, choices: Choices) -> Method:
        own, scale = folder.sampler, choices.guidance_scale
        return cls(
            load.solver(folder),
            load.levels(folder, choices.num_inference_steps or own.num_inference_steps),
            own.guidance_scale if scale is None else scale,
        )


@torch.no_grad()
def _extend(
    records: list[Record],
    plan: Plan,
    loading: Loading,
    folder: ModelFolder,
    method: Method,
    choices: Choices,
    compute: Compute,
    notify: Notify,
) -> Iterator[Record]:
    """Records of one shape and plan."""
    network = loading.get().to(device=compute.torch_device(), dtype=compute.torch_dtype())
    shape = system_of(folder).sample_shape(folder, network.config)
    made = torch.stack([r.torch("latents").float() for r in records])
    times = [r.torch("times") for r in records]
    passes = list(plan.passes(shape[1], choices.overlap))
    steps = len(method.levels) - 1
    total, count = steps * sum(len(some) for _, some, _ in passes), itertools.count(1)
    with attention.kernel(compute.attention) as used:
        for fps, some, factor in passes:
            made = spread(made, factor, plan.length)
            times = [_finer(x, factor, plan.length, fps) for x in times]
            for window in some:
                for z in _window(records, made, window, fps, network, folder, method, choices):
                    notify.step(next(count), total, "step")
                    last = z
                put(made, window, last)

    for record, clip, seconds in zip(records, made, times, strict=True):
        after = record.replace(
            tensors={"latents": clip, "times": seconds},
            drop=PER_FRAME,
            attrs={"num_frames": plan.num_frames, "fps": plan.fps * math.prod(plan.factors)},
            entry=log.new_entry(
                STAGE,
                argv=[STAGE, *choices.argv()],
                model=folder.identity("transformer"),
                seed=source(record)[0],
                attention="+".join(sorted(used)) or compute.attention,
                compiled=True if compute.compile else None,
                padding=network.padding(*shape[2:]) if isinstance(network, FIT) else None,
                windows=[len(some) for _, some, _ in passes],
                inputs=[record.digest],
                **compute.described(),
            ),
        )
        after.check_values()  # here too: in one process nobody writes latents
        yield after


def spread(made: Tensor, factor: int, length: int) -> Tensor:
    """Frames `b c t h w` at their places in a clip of factor·(t − 1) + 1, or for factor 1 of
    `length`; zeros between and behind them."""
    b, c, t, h, w = made.shape
    after = made.new_zeros(b, c, length if factor == 1 else factor * (t - 1) + 1, h, w)
    after[:, :, : factor * (t - 1) + 1 : factor] = made
    return after


def put(made: Tensor, window: Window, z: Tensor) -> None:
    """A window's new frames into the clip; those that were known stay to the bit."""
    for i, known in enumerate(window.known[: window.kept]):
        if not known:
            made[:, :, window.first + i] = z[:, :, i]


def _finer(times: Tensor, factor: int, length: int, fps: float) -> Tensor:
    """Seconds of all frames of such a clip; those that are there already to the bit."""
    count = length if factor == 1 else factor * (len(times) - 1) + 1
    after = times[0] + torch.arange(count, dtype=times.dtype) / fps
    after[: factor * (len(times) - 1) + 1 : factor] = times
    return after


def _window(
    records: list[Record],
    made: Tensor,
    window: Window,
    fps: float,
    network: Any,
    folder: ModelFolder,
    method: Method,
    choices: Choices,
) -> Iterator[Tensor]:
    """Steps of sampling a window's frames `b c t h w`, float32, on the CPU, where known ones are
    given. Their noisy selves are made of them, and stay so: the solver is told what they are."""
    device, levels = next(network.parameters()).device, method.levels
    shape = system_of(folder).sample_shape(folder, network.config)
    cond, uncond = text_cond(records, device)
    for part in (cond, uncond):
        part["times"] = (torch.arange(shape[1], device=device) / fps).expand(len(records), -1)
    mask = torch.tensor(window.known, device=device).view(1, 1, -1, 1, 1)
    known = made[:, :, window.first : window.first + shape[1]].to(device) * mask

    noise = Noise([source(r) for r in records], stage=f"{STAGE} {window.first}@{fps:g}")
    denoise = denoiser(system_of(folder).called(network), load.prediction(folder))
    denoise = load.guided(denoise, uncond, folder.sampler, levels, method.guidance_scale)
    weight = guidance.certain(choices.weight)
    denoise = guidance.reconstruction(denoise, known, mask, weight)
    z = noise.initial(shape).to(device) * levels[0].sigma + levels[0].alpha * known
    for step in method.solve(denoise, z, levels, cond, noise):
        yield step.z.float().cpu()
