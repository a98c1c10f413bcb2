"""Clips as the model itself would have drawn them: what is behind it, shown before it is used.

Networks behind a keyframe network meet clips with that network's faults, which noise on true
latents hides but doesn't look like. Here true keyframes get noise, and the keyframe network takes
it away again, told the scene's caption (SDEdit, Meng et al. 2021, arXiv 2108.01073): things stay
where they are, and look as it makes them. An interpolation makes the frames between. What is behind
then learns to make true clips of these, as of true ones.

Without guidance, which makes things a little larger than they were.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidgen.diffusion import groups
from vidgen.diffusion.level import noised
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import denoiser
from vidgen.diffusion.solvers import SOLVERS
from vidgen.errors import UsageError
from vidgen.systems import interpolation, load, world
from vidgen.systems.base import Geometry, ModelFolder
from vidgen.systems.interpolation import Interpolator
from vidgen.train.tasks.captions import Captions
from vidgen.world.captions import caption
from vidgen.world.scene import sample_scene


class Redrawn:
    """Draws clips again by the model of `folder`, and fills in frames by that of `filling`.

    level  how noisy keyframes get, as the sigma of the model's own schedule; the steps are those
           of a run of sampling from there on
    """

    def __init__(
        self, folder: ModelFolder, filling: ModelFolder, level: float, device: torch.device
    ) -> None:
        self.folder, self.level, self.device = folder, level, device
        self.geometry = folder.geometry
        levels = load.levels(folder, folder.sampler.num_inference_steps)
        first = next((i for i in range(len(levels)) if float(levels[i].sigma) <= level), None)
        if first is None or first + 1 >= len(levels):
            raise UsageError(
                f"recipe: data.redrawn_level is {level:g}, which leaves no step of"
                f" `{folder.name}` to take"
            )
        self.levels = levels[first:]
        self.network = world.load_transformer(folder).float().to(device)
        self.tower = world.load_text_tower(folder).to(device)
        self.captions = Captions(folder)
        self.interpolator = Interpolator.of(filling, "grouped")
        self.between = self.interpolator.load().float().to(device)

    @property
    def name(self) -> str:
        """Another one wherever clips would be drawn otherwise."""
        drawn, filled = self.folder.sha256("transformer"), self.interpolator.identity["sha256"]
        return f"redrawn-{drawn[:8]}-{filled[:8]}-{self.level:g}"

    @property
    def rates(self) -> tuple[float, float]:
        """Frames a second of its keyframes, and with what comes between them."""
        return self.geometry.fps, groups.STRIDE * self.geometry.fps

    def fits(self, geometry: Geometry) -> bool:
        """Whether clips of this geometry can be drawn again."""
        own = self.geometry
        same = (own.num_frames, own.height, own.width)
        return (geometry.num_frames, geometry.height, geometry.width) == same and (
            geometry.fps in self.rates
        )

    @torch.no_grad()
    def keyframes(self, latents: Tensor, level: str, seeds: range) -> Tensor:
        """True keyframes of these scenes of a level of the world, `b c t h w` → the same redrawn,
        float32, on the CPU."""
        scenes = [sample_scene(seed, level=level) for seed in seeds]
        ids = self.captions.tokens([caption(scene) for scene in scenes])["ids"]
        cond = self.captions.told(self.tower, ids.to(self.device))
        times = torch.tensor(self.geometry.times, device=self.device)
        cond["times"] = times.expand(len(scenes), -1)
        noise = Noise([(seed, f"{level}-{seed}") for seed in seeds], stage="redrawn")
        eps = noise.initial(tuple(latents.shape[1:])).to(self.device)
        z = noised(latents.to(self.device).float(), eps, self.levels[0].on(eps))
        own = load.prediction(self.folder)
        denoise = denoiser(world.called(self.network), own)
        for step in SOLVERS[self.folder.sampler.solver](denoise, z, self.levels, cond, noise):
            z = step.z
        return z.float().cpu()

    @torch.no_grad()
    def filled(self, keyframes: Tensor, level: str, seeds: range) -> Tensor:
        """Keyframes `b c t h w` → as many frames from the first on, at the higher of the rates."""
        own, method = self.interpolator.settings, self.interpolator.method
        told = keyframes.to(self.device)
        skip = torch.full((len(told),), own.skip(1 / self.rates[1]), device=self.device)
        cond = interpolation.cond(self.between.config, method, told, skip, own.fps)
        noise = Noise([(seed, f"{level}-{seed}") for seed in seeds], stage="redrawn-between")
        levels = self.interpolator.levels(own.num_inference_steps)
        shape = groups.PACKINGS[method].shape(tuple(told.shape[1:]))
        z = noise.initial(shape).to(self.device) * levels[0].sigma
        denoise = self.interpolator.denoiser(self.between)
        for step in self.interpolator.solver()(denoise, z, levels, cond, noise):
            z = step.z
        clips = groups.join(told, own.unpacked(method, told, z, skip))
        return clips[:, :, : keyframes.shape[2]].float().cpu()
