"""Clips as a trained model makes them, beside the true ones: what stands behind it learns its
errors.

A model that samples from nothing makes another clip each time, and there is no true one to hold
against it. So a true clip is noised part of the way, and the model samples from there, with its
caption (SDEdit, Meng et al. 2022, arXiv 2108.01073): everything stays where it was, and what the
model makes of outlines and shadows is its own. Conditioning a cascade on such clips is what noise
augmentation stands in for (Ho et al. 2021, arXiv 2106.15282, §3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vidgen.diffusion import groups, guidance
from vidgen.diffusion.level import Levels, noised
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import denoiser
from vidgen.diffusion.solvers import SOLVERS
from vidgen.errors import UsageError
from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.nn.text import pad_text
from vidgen.systems import interpolation, load, world
from vidgen.systems.base import Geometry, ModelFolder
from vidgen.systems.interpolation import Interpolator
from vidgen.train.distributed import World
from vidgen.train.tasks.latents import cached, cached_latents, whole
from vidgen.world.captions import caption
from vidgen.world.scene import sample_scene

METHOD = "grouped"  # of interpolation
PASS = 4  # frames after a pass of interpolation, for each before it
STAGE = "remade"  # of the noise


class Remaker:
    """The networks of a model folder, on a device."""

    def __init__(self, folder: ModelFolder, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.network = world.load_transformer(folder).float().to(device)
        self.tower = world.load_text_tower(folder).float().to(device)
        self.tokenizer = world.load_tokenizer(folder)
        self.between = Interpolator.of(folder, METHOD)
        self.interpolation = self.between.load().float().to(device)

    @torch.no_grad()
    def keyframes(self, latents: Tensor, captions: Sequence[str], levels: Levels) -> Tensor:
        """True keyframes `b c t h w` and their captions → keyframes of the model's own, sampled
        from the first of these levels to the last, with guidance."""
        noise = Noise(list(enumerate(captions)), stage=STAGE)
        cond, uncond = self._told(captions)
        denoise = denoiser(world.called(self.network), load.prediction(self.folder))
        denoise = load.guided(denoise, uncond, self.folder.sampler, levels)
        x0 = latents.to(self.device).float()
        z = noised(x0, noise.initial(x0.shape[1:]).to(self.device), levels[0].on(x0))
        for step in load.solver(self.folder)(denoise, z, levels, cond, noise):
            z = step.z
        return z

    @torch.no_grad()
    def finer(self, keyframes: Tensor) -> Tensor:
        """Keyframes `b c t h w` at the model's own rate → frames at four times that, `b c 4t−3 h
        w`, by the model's interpolation."""
        own, packing = self.between, groups.PACKINGS[METHOD]
        skip = own.settings.skip(1 / (PASS * self.folder.geometry.fps))
        skips = torch.full((len(keyframes),), skip, device=self.device)
        cond = interpolation.cond(own.config, METHOD, keyframes, skips, own.settings.fps)
        denoise = own.denoiser(self.interpolation)
        denoise = guidance.guided_by(denoise, cond, "context", own.settings.guidance_scale)
        levels = own.levels(own.settings.num_inference_steps)
        noise = Noise([(i, "") for i in range(len(keyframes))], stage=f"{STAGE} between")
        z = noise.initial(packing.shape(keyframes.shape[1:])).to(self.device) * levels[0].sigma
        for step in SOLVERS[own.settings.solver](denoise, z, levels, cond, noise):
            z = step.z
        return groups.join(keyframes, own.settings.unpacked(METHOD, keyframes, z, skips))

    def _told(self, captions: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the network takes beside z and t, with these captions and with none."""
        n = len(captions)
        texts = [self.tower.encode(text) for text in (*captions, *[""] * n)]
        both = {name: x.to(self.device) for name, x in pad_text(texts).items()}
        times = torch.tensor(self.folder.geometry.times, device=self.device)
        both["times"] = times.expand(2 * n, -1)
        return {k: x[:n] for k, x in both.items()}, {k: x[n:] for k, x in both.items()}


def beginnings(folder: ModelFolder, lowest: float, highest: float) -> list[Levels]:
    """Of the noise levels that the model samples through, the ends that begin with a sigma between
    these; UsageError if none does."""
    levels = load.levels_of(folder.sampler, folder.sampler.num_inference_steps)
    found = [levels[i:] for i in range(len(levels) - 1) if lowest <= levels[i].sigma <= highest]
    if not found:
        sigmas = ", ".join(f"{float(level.sigma):.2g}" for level in levels)
        raise UsageError(
            f"recipe: data.remade_levels are {lowest:g} and {highest:g}, with none of the noise"
            f" levels of `{folder.name}` between them: {sigmas}"
        )
    return found


def rates(folder: ModelFolder) -> tuple[float, float]:
    """Frames a second of its keyframes, and of what it makes between them."""
    return folder.geometry.fps, PASS * folder.geometry.fps


def check(folder: ModelFolder, latent_space: str, wanted: Sequence[Geometry]) -> None:
    """UsageError unless the model makes latents of this space, and one of the wanted clips."""
    own, of = folder.geometry, f"recipe: data.remade is `{folder.name}`"
    if folder.latent_space != latent_space:
        raise UsageError(f"{of}, of `{folder.latent_space}`; data.vae's latents are others")
    known = [replace(own, fps=fps) for fps in rates(folder)]
    if not any(geometry in known for geometry in wanted):
        raise UsageError(
            f"{of}, which makes {own.num_frames} keyframes of {own.height} × {own.width} pixels, "
            f"{' and '.join(f'{fps:g}' for fps in rates(folder))} a second",
            next="data.num_frames, the first of data.sizes and one of data.fps must be the same",
        )


def cached_clips(
    model: ModelFolder,
    level: str,
    num: int,
    fps: Sequence[float],
    sigmas: tuple[float, float],
    *,
    folder: Callable[[float], Path],
    finish: Callable[[Tensor], Tensor],
    vae: VideoAutoencoder,
    dtype: torch.dtype,
    world: World,
    say: Callable[[str], None],
) -> dict[float, Tensor]:
    """What the model makes of the training scenes 0 … num−1, at each of its rates that is among
    `fps`, as many frames as it makes keyframes: `finish` of latents `b c t h w`, cached where
    `folder` says for a rate. Neighboring scenes are noised alike, others from another of its
    levels."""
    own = model.geometry
    true = cached_latents(
        folder(own.fps), whole(num), vae,
        level=level, geometry=own, world=world, say=say, dtype=dtype,
    )  # fmt: skip
    maker, starts = Remaker(model, world.device), beginnings(model, *sigmas)
    name = f"{level}-remade-{model.sha256('transformer')[:12]}-{sigmas[0]:g}-{sigmas[1]:g}"

    def keyframes(seeds: range) -> Tensor:
        captions = [caption(sample_scene(seed, level=level)) for seed in seeds]
        start = starts[seeds.start // len(seeds) % len(starts)]
        with torch.autocast(world.device.type, dtype, enabled=dtype != torch.float32):
            return maker.keyframes(true[seeds.start : seeds.stop], captions, start).cpu()

    made = cached(folder(own.fps), name, whole(num), keyframes, world=world, say=say)

    def finished(seeds: range, rate: float) -> Tensor:
        latents = made[seeds.start : seeds.stop].to(world.device).float()
        with torch.autocast(world.device.type, dtype, enabled=dtype != torch.float32):
            if rate != own.fps:
                latents = maker.finer(latents)[:, :, : own.num_frames]
            return finish(latents).cpu()

    return {
        rate: cached(
            folder(rate), f"{name}-enlarged", num, partial(finished, rate=rate),
            world=world, say=say,
        )
        for rate in rates(model) if rate in fps
    }  # fmt: skip
