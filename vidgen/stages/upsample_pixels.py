"""Pixels records → pixels records of the same clips in more pixels: Snap Video's second stage.

Its network is told the small video, enlarged and with some noise on it, and the text. It makes
clips of one size, in one pass; `vidgen.systems.snap_video` has the method.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import Snap, denoiser
from vidgen.diffusion.schedules import SCHEDULES
from vidgen.diffusion.solvers import SOLVERS
from vidgen.errors import InputError, UsageError
from vidgen.io import log, weights
from vidgen.io.record import Record, human_bytes
from vidgen.nn import attention
from vidgen.nn.fit import FIT, FITConfig
from vidgen.stages.base import (
    FLOATS,
    Compute,
    Loading,
    Notify,
    accelerated,
    require_kind,
    require_tensor,
    require_whole,
)
from vidgen.stages.latents import alike, source
from vidgen.stages.memory import require_memory
from vidgen.stages.sample_keyframes import require_text, text_cond
from vidgen.systems import load, snap_video
from vidgen.systems.base import PIXELS, Geometry, ModelFolder
from vidgen.systems.snap_video import UPSAMPLER, UpsamplerSampler, called

if TYPE_CHECKING:
    from vidgen.stages.upsample import Choices

STAGE = "upsample"


@dataclass(frozen=True)
class SecondStage:
    """The upsampler of a model that makes pixels: what is known without its weights, and chosen."""

    folder: ModelFolder
    choices: Choices
    config: FITConfig
    sampler: UpsamplerSampler
    made: Geometry  # what comes out
    factor: int  # of the sides
    steps: int
    noise_level: float

    @classmethod
    def of(cls, folder: ModelFolder, choices: Choices) -> SecondStage:
        """InputError for a model without one, or whose parts don't fit; UsageError for choices that
        it can't be sampled with."""
        config = load.sizes(FIT, FITConfig, folder, UPSAMPLER)
        sampler = folder.sample(UPSAMPLER, UpsamplerSampler)
        made, small = folder.sample(UPSAMPLER, Geometry), folder.geometry
        snap_video.fitting(folder, UPSAMPLER, made, config)
        snap_video.require_told(folder, UPSAMPLER, config, levels=2)
        path = folder.path / UPSAMPLER / "config.json"
        load.named("solver", SOLVERS, sampler, path)
        load.named("schedule", SCHEDULES, sampler, path)
        load.named("prediction", {"snap": Snap}, sampler, path)
        if made.height * small.width != made.width * small.height or made.height % small.height:
            raise InputError(
                f"{path}: sample is {made.height} × {made.width}, no whole multiple of the"
                f" {small.height} × {small.width} that the model begins with"
            )
        factor = made.height // small.height
        if choices.scale != factor:
            raise UsageError(
                f"--scale {choices.scale:g}: the upsampler of `{folder.name}` makes sides {factor}"
                " times as long",
                next=f"--scale {factor}",
            )
        level = choices.noise_level
        if level is not None and not 0 <= level <= sampler.max_noise_level:
            raise UsageError(
                f"--noise-level {level:g}: `{folder.name}` was trained on 0 to"
                f" {sampler.max_noise_level:g}",
                next=f"leave it out for the model's own, {sampler.noise_level:g}",
            )
        return cls(
            folder, choices, config, sampler, made, factor,
            choices.num_inference_steps or sampler.num_inference_steps,
            sampler.noise_level if level is None else level,
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`c t h w` of what comes out."""
        return self.config.out_channels, self.made.num_frames, self.made.height, self.made.width

    def check(self, record: Record) -> None:
        """InputError for pixels of another size, or without the text that the network reads."""
        f, g = self.factor, self.made
        wanted = 3, g.num_frames, g.height // f, g.width // f
        shape = record["latents"].shape
        if len(shape) == 4 and shape[1] != g.num_frames:
            raise InputError(
                f"record `{record.id}`: `latents` are {shape[1]} frames, the upsampler of"
                f" `{self.folder.name}` is made for {g.num_frames}",
                why="it does not go on from window to window, as vidgen extend does",
            )
        require_tensor(record, "latents", FLOATS, *wanted)
        require_tensor(record, "times", ("F64",), g.num_frames)
        require_text(record, self.folder, UPSAMPLER)

    def memory_bytes(self, compute: Compute, count: int) -> int:
        """About what `count` clips at once take: the weights, and the widest moment of a block, a
        feed-forward's hidden layer beside what it begins and ends with."""
        c, branches = self.config, 1 if self.sampler.guidance_scale == 1 else 2
        widest = count * branches * math.prod(c.grid) * c.dim * (c.mlp_ratio + 6)
        kept = sum(map(weights.parameters, self.folder.weight_files(UPSAMPLER)))
        pixels = 4 * 6 * count * math.prod(self.shape)  # z, its noise, the small ones, enlarged
        return pixels + int((kept + widest) * compute.torch_dtype().itemsize)

    def require_memory(self, compute: Compute, count: int) -> None:
        """OutOfMemory where so many clips at once wouldn't fit."""
        alone = human_bytes(self.memory_bytes(compute, 1))
        require_memory(
            self.memory_bytes(compute, count),
            compute.torch_device(),
            what=f"--scale {self.factor} of {count} clip{'s' * (count > 1)}",
            next=f"--batch-size 1, which takes about {alone}" if count > 1 else "another device",
        )


def upsample_pixels(
    records: Iterable[Record],
    folder: ModelFolder,
    choices: Choices,
    *,
    compute: Compute,
    notify: Notify,
) -> Iterator[Record]:
    """Pixels records `3 T h w` → the same with more pixels, and attributes `height` and `width` to
    match. All else stays. Noise follows from a sample's seed, the id of what it was sampled from,
    and its size. Before any weights are read InputError for records that hold no pixels, or pixels
    that the network isn't made for, and OutOfMemory for what doesn't fit."""
    if choices.method != choices.METHODS[0]:
        for record in records:
            require_pixels(record, folder)
            yield _enlarged(record, int(choices.scale), choices)
        return
    stage = SecondStage.of(folder, choices)
    network = Loading(
        lambda: accelerated(snap_video.load_upsampler(folder), compute), now=compute.preload
    )
    checked = (_checked(record, stage) for record in records)
    for clips in alike(checked, compute.batch_size):
        stage.require_memory(compute, len(clips))
        yield from _sampled(clips, stage, network, compute, notify)


def require_pixels(record: Record, folder: ModelFolder) -> None:
    """InputError for latents of an autoencoder."""
    require_kind(record, "latents", made_by="vidgen sample")
    space = record.attrs.get("latent_space")
    if space != PIXELS:
        raise InputError(
            f"record `{record.id}`: latents are in space `{space}`,"
            f" `{folder.name}` upsamples `{PIXELS}`",
            next="vidgen log FILE   (names the model that made them)",
        )
    require_tensor(record, "latents", FLOATS, 3, None, None, None)
    for side in ("height", "width"):
        require_whole(record, side)


def _checked(record: Record, stage: SecondStage) -> Record:
    require_pixels(record, stage.folder)
    stage.check(record)
    return record


def _enlarged(record: Record, scale: int, choices: Choices) -> Record:
    """Every frame by itself, by a formula: what to compare with."""
    frames = rearrange(record.torch("latents").float(), "c t h w -> t c h w")
    frames = F.interpolate(frames, scale_factor=scale, mode=choices.method).clamp(-1, 1)
    made = rearrange(frames, "t c h w -> c t h w").contiguous()
    entry = log.new_entry(
        STAGE, argv=[STAGE, *choices.argv()], inputs=[record.digest], method=choices.method
    )
    return _larger(record, made, scale, entry)


def _larger(record: Record, made: Tensor, scale: int, entry: dict[str, Any]) -> Record:
    sides = {side: record.attrs[side] * scale for side in ("height", "width")}
    after = record.replace(tensors={"latents": made}, attrs=sides, entry=entry)
    after.check_values()  # here too: in one process nobody writes latents
    return after


@torch.no_grad()
def _sampled(
    records: list[Record],
    stage: SecondStage,
    loading: Loading,
    compute: Compute,
    notify: Notify,
) -> Iterator[Record]:
    device, dtype = compute.torch_device(), compute.torch_dtype()
    network = loading.get().to(device=device, dtype=dtype)
    small = torch.stack([r.torch("latents").float() for r in records])
    sources, size = [source(r) for r in records], f"{small.shape[3]}x{small.shape[4]}"
    noise, told = (Noise(sources, stage=f"{name} {size}") for name in (STAGE, f"{STAGE}-told"))
    low = snap_video.low_cond(
        snap_video.enlarged(small, stage.made.height, stage.made.width).to(device),
        told.initial(stage.shape).to(device),
        torch.full((len(records),), stage.noise_level, device=device),
    )
    times = torch.stack([r.torch("times").float() for r in records]).to(device)
    cond, uncond = (part | low | {"times": times} for part in text_cond(records, device))

    levels = load.levels_of(stage.sampler, stage.steps)
    denoise = denoiser(called(network), Snap(stage.sampler.sigma_data))
    denoise = load.guided(denoise, uncond, stage.sampler, levels)
    z = noise.initial(stage.shape).to(device) * levels[0].sigma
    with attention.kernel(compute.attention) as used:
        for step in SOLVERS[stage.sampler.solver](denoise, z, levels, cond, noise):
            z = step.z
            notify.step(step.i + 1, len(levels) - 1, "step")

    for record, made in zip(records, z.float().cpu(), strict=True):
        entry = log.new_entry(
            STAGE,
            argv=[STAGE, *stage.choices.argv()],
            model=stage.folder.identity(UPSAMPLER),
            seed=source(record)[0],
            attention="+".join(sorted(used)) or compute.attention,
            **compute.accelerations(),
            padding=network.padding(*stage.shape[2:]),
            method=stage.choices.method,
            steps=stage.steps,
            noise_level=stage.noise_level,
            inputs=[record.digest],
            **compute.described(),
        )
        yield _larger(record, made, stage.factor, entry)
