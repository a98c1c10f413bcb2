"""Latents records → latents records of longer clips, or of more frames a second, by the network
that made them: it is given the frames that are known, and makes the others (reconstruction
guidance; Ho et al. 2022, Video Diffusion Models, Eq. 7; Snap Video, Menapace et al. 2024, C.5).

Any model that makes whole clips can do this, and needs no training for it. Where a model in pixels
wants its estimates clipped (dynamic thresholding), the gradient is of the unclipped estimate, as in
equation 7, and what is clipped is the guided one, as after any other guidance; of new frames alone.
No paper says in which order Snap Video does both.
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

from vidgen.diffusion import guidance
from vidgen.diffusion.level import Levels
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import denoiser
from vidgen.diffusion.solvers import Solver
from vidgen.diffusion.windows import Window
from vidgen.io import log
from vidgen.io.record import Record
from vidgen.nn import attention
from vidgen.nn.fit import FIT
from vidgen.stages.base import Compute, Loading, Notify, Silent, batched
from vidgen.stages.extend_choices import Choices, Plan, plan_of, warn_of_rate
from vidgen.stages.interpolate import PER_FRAME
from vidgen.stages.latents import source
from vidgen.stages.sample_keyframes import text_cond
from vidgen.stages.text_network import loading, system_of
from vidgen.systems import load
from vidgen.systems.base import ModelFolder

STAGE = "extend"


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
    network = loading(folder, compute)
    told: set[float] = set()
    planned = ((record, plan_of(record, folder, choices)) for record in records)
    for batch in batched(planned, compute.batch_size):
        for (_, plan), some in groupby(batch, key=lambda x: (x[0]["latents"].shape, x[1])):
            clips = [record for record, _ in some]
            for fps, _, _ in plan.passes(folder.geometry.num_frames, choices.overlap):
                warn_of_rate(fps, folder, told, notify)
            yield from _extend(clips, plan, network, folder, method, choices, compute, notify)


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
    weights: Loading,
    folder: ModelFolder,
    method: Method,
    choices: Choices,
    compute: Compute,
    notify: Notify,
) -> Iterator[Record]:
    """Records of one shape and plan."""
    network = weights.get().to(device=compute.torch_device(), dtype=compute.torch_dtype())
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
                **compute.accelerations(),
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
    denoise = load.steered(denoise, uncond, folder.sampler, levels, method.guidance_scale)
    weight = guidance.certain(choices.weight)
    denoise = guidance.reconstruction(denoise, known, mask, weight)
    denoise = load.thresholded(denoise, folder.sampler, mask)
    z = noise.initial(shape).to(device) * levels[0].sigma + levels[0].alpha * known
    for step in method.solve(denoise, z, levels, cond, noise):
        yield step.z.float().cpu()
