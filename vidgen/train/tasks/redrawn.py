"""Rendered clips as a model would have made them: what its decoder will really be given.

The keyframes of a clip are encoded, noised up to one of the model's own noise levels, and sampled
from there by its network under the clip's caption (SDEdit, Meng et al. 2021, §3); then they go
through its interpolation and its upsampler. What comes out shows the same scene with the model's
own errors: lumps, rounded corners, blurred spins. Beside it stands the clip as it was rendered.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from vidgen.diffusion.level import noised
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import denoiser
from vidgen.errors import UsageError
from vidgen.stages import interpolate, upsample
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.encode_video import encode_video
from vidgen.stages.part_model import clips_of, records
from vidgen.stages.sample_keyframes import text_cond
from vidgen.systems import load, world
from vidgen.systems.base import DOUBLINGS, Enlarged, Geometry, ModelFolder
from vidgen.train.distributed import World
from vidgen.train.tasks.latents import cached
from vidgen.world.captions import caption
from vidgen.world.render import RENDERER
from vidgen.world.scene import Scene, sample_scene

TOGETHER = 16  # clips that begin at the same noise level
PARTS = ("transformer", "text_encoder", "interpolation", "upsampler")


@dataclass(frozen=True)
class Redrawn:
    """How many clips, and how far they may be from what was rendered."""

    num: int = 2048  # of the basic world, made once
    num_full: int = 1024  # of the full world
    share: float = 0.75  # of the steps; the others see what the encoder makes
    # Sampling begins at a level of noise (of x0's spread) between these.
    noise: tuple[float, float] = (0.3, 0.75)
    cache: str = "runs/cache"

    def __post_init__(self) -> None:
        least, most = self.noise
        if not 0 < least <= most <= 1:
            raise UsageError(f"recipe: data.redrawn.noise is [{least:g}, {most:g}], within 0 and 1")
        if not 0 <= self.share <= 1:
            raise UsageError(f"recipe: data.redrawn.share is {self.share:g}, must be from 0 to 1")
        if self.num < 0 or self.num_full < 0 or not self.num + self.num_full:
            raise UsageError("recipe: data.redrawn has no clips: num and num_full")

    def parts(self) -> list[tuple[str, int]]:
        """The level and number of the clips of each part of the cache."""
        return [(k, n) for k, n in (("basic", self.num), ("full", self.num_full)) if n]


class Redrawer:
    """The stages of one model, from keyframes to the latents that its decoder gets."""

    def __init__(self, folder: ModelFolder, compute: Compute) -> None:
        """InputError for a model without keyframes or interpolation."""
        self.folder, self.compute = folder, compute
        self.network = world.load_transformer(folder).to(compute.torch_device()).float()
        self.levels = load.levels(folder, folder.sampler.num_inference_steps)
        self.scale = 1
        if "upsampler" in folder.index:
            self.scale = folder.sample("upsampler", Enlarged).scale(folder.geometry.height)
        assert self.scale == 1 or self.scale in DOUBLINGS

    @property
    def geometry(self) -> Geometry:
        """Of the clips that come out."""
        return clips_of(self.folder.geometry, scale=self.scale)

    def cached(
        self, wanted: Redrawn, *, dtype: torch.dtype, world: World, say: Callable[[str], None]
    ) -> Tensor:
        """`n c t h w` of the training scenes, those of the basic world first; bfloat16, on the CPU.
        They are made where they aren't kept yet."""
        g = self.geometry
        of = [self.folder.sha256(part) for part in PARTS if part in self.folder.index]
        of += [self.folder.latent_space, repr(self.folder.sampler), str(dtype), str(RENDERER)]
        name = (
            f"{g.num_frames}x{g.height}x{g.width}@{g.fps:g}-{wanted.noise[0]:g}-{wanted.noise[1]:g}"
        )
        digest = sha256(" ".join(of).encode()).hexdigest()[:12]
        folder = Path(wanted.cache) / "redrawn" / f"{name}-{digest}"

        def made(level: str, num: int) -> Tensor:
            return cached(
                folder, level, num, lambda seeds: self.of_seeds(seeds, level, wanted.noise, dtype),
                world=world, say=say,
            )  # fmt: skip

        return torch.cat([made(level, num) for level, num in wanted.parts()])

    def of_seeds(
        self, seeds: range, level: str, noise: tuple[float, float], dtype: torch.dtype
    ) -> Tensor:
        """Of these scenes, under captions drawn anew; some together begin at one noise level."""
        clips = []
        for first in range(0, len(seeds), TOGETHER):
            some = seeds[first : first + TOGETHER]
            draw = random.Random(f"redrawn/{level}/{some.start}")
            scenes = [sample_scene(seed, level=level) for seed in some]
            captions = [caption(scene, draw) for scene in scenes]
            clips.append(self(scenes, captions, self.start(draw.uniform(*noise)), dtype))
        return torch.cat(clips)

    def start(self, sigma: float) -> int:
        """The place, in the model's own levels, of the noisiest that is no noisier than sigma; the
        last before none at all if every one is."""
        place = next(i for i, level in enumerate(self.levels) if float(level.sigma) <= sigma)
        return min(place, len(self.levels) - 2)

    @torch.no_grad()
    def __call__(
        self, scenes: Sequence[Scene], captions: Sequence[str], start: int,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:  # fmt: skip
        """Latents `b c t h w`, sampled from the model's `start`th level on; float32, on the CPU.
        `dtype`: of the keyframe network's calls."""
        given = list(
            encode_video(records(scenes, self.folder.geometry), self.folder, compute=self.compute)
        )
        x0 = torch.stack([record.torch("latents") for record in given]).float()
        device = self.compute.torch_device()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            made = self._sampled(x0.to(device), scenes, captions, start).float().cpu()
        keyframes = (
            record.replace(tensors={"latents": latents, "times": record.torch("times")})
            for record, latents in zip(given, made, strict=True)
        )
        clips = interpolate.interpolate(keyframes, self.folder, compute=self.compute)
        if self.scale > 1:
            choices = upsample.Choices(self.scale)
            clips = upsample.upsample(clips, self.folder, choices, compute=self.compute)
        return torch.stack([record.torch("latents") for record in clips])

    def _sampled(
        self, x0: Tensor, scenes: Sequence[Scene], captions: Sequence[str], start: int
    ) -> Tensor:
        own, levels = self.folder.sampler, self.levels[start:]
        texts = list(encode_text([Prompt(text) for text in captions], self.folder))
        cond, uncond = text_cond(texts, x0.device)
        times = torch.tensor(self.folder.geometry.times, dtype=torch.float32, device=x0.device)
        for part in (cond, uncond):
            part["times"] = times.expand(len(x0), -1)
        noise = Noise([(scene.seed, f"{scene.seed}") for scene in scenes], stage="redrawn")
        z = noised(x0, noise.initial(tuple(x0.shape[1:])).to(x0.device), levels[0].on(x0))
        denoise = denoiser(world.called(self.network), load.prediction(self.folder))
        denoise = load.guided(denoise, uncond, own, levels, own.guidance_scale)
        for step in load.solver(self.folder)(denoise, z, levels, cond, noise):
            z = step.z
        return z
