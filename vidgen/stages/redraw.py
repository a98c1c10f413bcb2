"""Rendered clips as a model would have made them: what its decoder is really given.

The keyframes of a clip are encoded, noised up to one of the model's own noise levels, and sampled
from there by its network under the clip's caption (SDEdit, Meng et al. 2021, §3); then they go
through its interpolation and its upsampler. What comes out shows the same scene with the model's
own errors: lumps, rounded corners, blurred spins. Beside it stands the clip as it was rendered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vidgen.diffusion.level import noised
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import denoiser
from vidgen.io.record import Record
from vidgen.stages import interpolate, upsample
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.encode_video import encode_video
from vidgen.stages.rendered import clips_of, records
from vidgen.stages.sample_keyframes import text_cond
from vidgen.systems import load, world
from vidgen.systems.base import Enlarged, Geometry, ModelFolder
from vidgen.world.scene import Scene

PARTS = ("transformer", "text_encoder", "vae", "interpolation")  # that it takes; and an upsampler


class Redrawer:
    """The stages of one model, from keyframes to the latents that its decoder gets."""

    def __init__(self, folder: ModelFolder, compute: Compute) -> None:
        """InputError for a model that lacks one of PARTS."""
        self.folder, self.compute = folder, compute
        self.network = world.load_transformer(folder).to(compute.torch_device()).float()
        self.levels = load.levels(folder, folder.sampler.num_inference_steps)
        self.scale = 1
        if "upsampler" in folder.index:
            self.scale = folder.sample("upsampler", Enlarged).scale(folder.geometry.height)

    @property
    def geometry(self) -> Geometry:
        """Of the clips that come out."""
        return clips_of(self.folder.geometry, scale=self.scale)

    def start(self, sigma: float) -> int:
        """The place, in the model's own levels, of the noisiest that is no noisier than sigma; the
        last before none at all if every one is."""
        place = next(i for i, level in enumerate(self.levels) if float(level.sigma) <= sigma)
        return min(place, len(self.levels) - 2)

    @torch.no_grad()
    def clips(
        self, scenes: Sequence[Scene], captions: Sequence[str], start: int,
        dtype: torch.dtype = torch.float32,
    ) -> Iterator[Record]:  # fmt: skip
        """Latents records of the scenes, sampled from the model's `start`th level on. `dtype`: of
        the keyframe network's calls."""
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
        return clips

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
