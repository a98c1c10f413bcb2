"""Train the latent interpolation of FusionFrames (arXiv 2311.13073), or its masked baseline.

Clips of the world are rendered at a high rate and encoded once. Each step takes them at one skip s:
groups of frames s apart, of which every fourth is told to the network and the three between are to
be made. What is told is noised a little, and left out now and then, which makes the branch that
context guidance goes away from.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vidgen.diffusion import groups, guidance, losses
from vidgen.diffusion.groups import PACKINGS, STRIDE
from vidgen.diffusion.level import Level, noised
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import PREDICTIONS, denoiser
from vidgen.diffusion.schedules import SCHEDULES, cosine_betas, ddpm_table
from vidgen.diffusion.solvers import SOLVERS
from vidgen.errors import UsageError
from vidgen.io.image import contact_sheet, write_png
from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.nn.pixels import to_uint8
from vidgen.nn.unet import UNet, start_at_zero
from vidgen.systems import interpolation, save, world
from vidgen.systems.base import INTERPOLATIONS, Geometry, ModelFolder
from vidgen.systems.interpolation import Interpolator, Settings
from vidgen.systems.load import CLIP_NETWORKS, UNET
from vidgen.train.distributed import World
from vidgen.train.recipe import network_section, section
from vidgen.train.task import Modules, Task, generator, share
from vidgen.train.tasks.begun import begin
from vidgen.train.tasks.latents import (
    cache_folder,
    cached_latents,
    encode_scenes,
    spread_missing,
)
from vidgen.world.scene import VALIDATION_SEEDS

MEANS = ("prediction", "target", "spread", "fps")


@dataclass(frozen=True)
class Data:
    """Clips, and what is cut out of them."""

    vae: str  # a folder that holds `vae/`
    cache: str = "runs/cache"
    num: int = 8192  # clips rendered once; they come by again after that
    num_held: int = 64  # and as many that are only measured on
    level: str = "basic"  # of the world
    num_frames: int = 49  # of a clip
    height: int = 40
    width: int = 64
    fps: float = 24.0
    groups: int = 4  # at most; fewer where the clip is too short for the skip
    skips: tuple[int, ...] = tuple(range(1, 13))  # drawn from; one that comes twice, twice as often
    method: Literal["grouped", "masked"] = "grouped"  # how the network sees groups
    start: str | None = None  # a model whose interpolation it begins as, by the same method


@dataclass(frozen=True)
class Loss:
    """What the network's output means, how keyframes are told in training, and how the trained
    network is sampled unless the user says otherwise. The defaults are the paper's."""

    prediction: Literal["v", "x0", "shrunk", "eps"] = "v"
    target: Literal["frames", "residual"] = "frames"  # see `vidgen.systems.interpolation`
    # Of a residual, for each frame of the skip: another one in each latent space, so there is no
    # default. A training without one tells what it is, and stops.
    spread: float | None = None
    noisy: float = 1.0  # above 1: noisy levels come more often, see `losses.tilted`
    perturb: int = 250  # the noisiest that told keyframes get, of 1000 training timesteps
    clean: float = 0.0  # how often they are told without noise
    drop: float = 0.1  # how often they are left out
    steps: int = 8
    guidance_scale: float = 1.25
    refine: float | None = None  # see `vidgen.stages.refine`


class InterpolationTask(Task):
    """`model` is a `UNetConfig`, or with `network: GroupDiT` a `GroupDiTConfig`; one sample is
    some groups of one clip."""

    name = "interpolation"

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        kinds = {name: CLIP_NETWORKS[name] for name in Interpolator.KINDS}
        self.kind, self.config = network_section(self.recipe.model, kinds, UNET)
        self.build_network = kinds[self.kind][0]
        self.data = d = section(Data, self.recipe.data, where="data")
        self.weights = section(Loss, self.recipe.loss, where="loss")
        self.packing = PACKINGS[d.method]
        self.prediction = PREDICTIONS[self.weights.prediction]()
        self.vae_folder = ModelFolder(Path(d.vae))
        self.geometry = Geometry(d.num_frames, d.height, d.width, d.fps)
        self._check()
        w = self.weights
        self.settings = Settings(
            w.prediction, "cosine", "dpmpp_2m", w.steps, w.guidance_scale,
            fps=d.fps, max_skip=max(d.skips), target=w.target, spread=w.spread or 1.0,
            refine=w.refine,
        )  # fmt: skip
        self.table = ddpm_table(cosine_betas())

    def _check(self) -> None:
        """UsageError for settings that no network can be trained with."""
        c, d = self.config, self.data
        wanted = self.packing.channels(self.vae_folder.size("vae", "channels"))
        if (c.in_channels, c.out_channels) != wanted:
            raise UsageError(
                f"recipe: model.in_channels and out_channels are {c.in_channels} and"
                f" {c.out_channels}, data.method {d.method} wants {wanted[0]} and {wanted[1]}"
            )
        longest = (d.num_frames - 1) // STRIDE
        if not d.skips or not 1 <= min(d.skips) <= max(d.skips) <= longest:
            raise UsageError(
                f"recipe: data.skips are {list(d.skips)}, and clips of {d.num_frames} frames have"
                f" room for 1 to {longest}"
            )
        if 0 < c.skip_rows <= max(d.skips):
            raise UsageError(f"recipe: model.skip_rows is {c.skip_rows}, and a skip {max(d.skips)}")
        if d.groups < 1 or not 0 <= self.weights.perturb < 1000:
            raise UsageError(
                f"recipe: data.groups is {d.groups}, must be 1 or more; loss.perturb is"
                f" {self.weights.perturb}, must be 0 to 999"
            )
        for key in ("spread", "noisy", "steps", "guidance_scale"):
            value = getattr(self.weights, key)
            if value is not None and not value > 0:
                raise UsageError(f"recipe: loss.{key} is {value:g}, must be above 0")
        if (refine := self.weights.refine) is not None and not 0 < refine <= 1:
            raise UsageError(f"recipe: loss.refine is {refine:g}, must be above 0, and 1 at most")

    def build(self) -> dict[str, torch.nn.Module]:
        vae = world.load_autoencoder(self.vae_folder).float()
        network = self.build_network(self.config)
        if self.data.start is not None:
            found = Interpolator.of(ModelFolder.find(self.data.start), self.data.method)
            begin(network, found, self.vae_folder, self.config, self.settings, MEANS)
        elif self.weights.target == "residual" and isinstance(network, UNet):
            start_at_zero(network)
        return {"interpolation": network, "vae": vae}

    def prepare(self, modules: Modules, say) -> None:
        vae, start = _vae(modules), VALIDATION_SEEDS.start
        held = encode_scenes(
            range(start, start + self.data.num_held), vae, self.data.level, self.geometry,
            self.device,
        )  # fmt: skip
        space = self.vae_folder.latent_space
        if self.weights.target == "residual" and self.weights.spread is None:
            raise spread_missing(self._spread(held), len(held), space)
        dtype = getattr(torch, self.recipe.dtype)
        self.latents = cached_latents(
            cache_folder(Path(self.data.cache), space, self.geometry, dtype), self.data.num, vae,
            level=self.data.level, geometry=self.geometry, say=say, dtype=dtype,
            world=World(self.rank, self.world, self.device),
        )  # fmt: skip
        # The largest skip at which a clip holds all groups: as the clip is when it is sampled.
        room = (self.data.num_frames - 1) // (STRIDE * self.data.groups)
        self.held_skip = max([s for s in self.data.skips if s <= room] or [min(self.data.skips)])
        self.held = held[:, :, self._places(self.held_skip)]

    def _spread(self, clips: Tensor) -> float:
        """Of the residuals of clips `b c t h w`, with which those of the recipe's skips have a mean
        square of one."""
        squares = []
        for skip in self.data.skips:
            keyframes, between = groups.split(clips[:, :, self._places(skip)])
            squares.append((between - groups.linear(keyframes)).square().mean() / skip**2)
        return float(torch.stack(squares).mean().sqrt())

    def _places(self, skip: int) -> Tensor:
        """Frames of the clip that make its groups at this skip, from the first on."""
        count = min(self.data.groups, (self.data.num_frames - 1) // (STRIDE * skip))
        return torch.arange(STRIDE * count + 1) * skip

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """One skip for all, so that all have the same number of groups."""
        size, draw = self.recipe.batch_size, generator(self.recipe.seed, "batch", step)
        skip = self.data.skips[int(torch.randint(len(self.data.skips), (), generator=draw))]
        places = self._places(skip)
        rows = torch.randint(len(self.latents), (size,), generator=draw)
        starts = torch.randint(
            self.data.num_frames - int(places[-1]), (size,), generator=draw
        )  # fmt: skip
        mine = share(size, rank, world)
        clips = [self.latents[rows[i]][:, starts[i] + places] for i in mine]
        return {"clip": torch.stack(clips), "skip": torch.full((len(mine),), skip)}

    def loss(
        self, modules: Modules, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        keyframes, between = groups.split(batch["clip"].float())
        b, device = len(keyframes), keyframes.device
        p = torch.randint(self.weights.perturb + 1, (b,), generator=generator, device=device)
        clean = torch.rand(b, generator=generator, device=device) < self.weights.clean
        p = torch.where(clean, 0, p)
        eps = torch.randn(keyframes.shape, generator=generator, device=device)
        cond = self.cond(noised(keyframes, eps, self._perturbation(p)), batch["skip"], p.float())
        told = torch.rand(b, generator=generator, device=device) >= self.weights.drop
        cond["context"] = cond["context"] * told[:, None, None, None, None]
        x0 = self.settings.packed(self.data.method, keyframes, between, batch["skip"])
        level = losses.tilted(b, self.table, self.weights.noisy, generator)
        eps = torch.randn(x0.shape, generator=generator, device=device)
        raw = interpolation.raw(modules["interpolation"], self.data.method)
        return losses.training_loss(raw, self.prediction, x0, cond, level, eps).mean(), {}

    def _perturbation(self, p: Tensor) -> Level:
        """The level of timestep p (b,), where 0 is clean and 1 the least noise of the table."""
        t, alpha, sigma = (x.float().to(p.device)[(p - 1).clamp(min=0)] for x in self.table)
        return Level(t, torch.where(p > 0, alpha, 1.0), torch.where(p > 0, sigma, 0.0))

    def cond(
        self, keyframes: Tensor, skip: Tensor, noise_level: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What the network is told of keyframes `b c t h w`."""
        return interpolation.cond(
            self.config, self.data.method, keyframes, skip, self.data.fps, noise_level
        )

    @torch.no_grad()
    def evaluate(self, modules: Modules, step: int) -> dict[str, float]:
        """On held-out clips, with clean keyframes: the loss, with the same noise every time; and
        the latents between after sampling against those of linear blending, in dB of the latents'
        range."""
        clip = self.held.to(self.device)
        keyframes, between = groups.split(clip)
        skip = torch.full((len(clip),), self.held_skip, device=self.device)
        x0 = self.settings.packed(self.data.method, keyframes, between, skip)
        draw = generator(0, "validation", device=self.device)
        level = losses.uniform(len(x0), self.table, draw)
        eps = torch.randn(x0.shape, generator=draw, device=self.device)
        cond = self.cond(keyframes, skip)
        raw = interpolation.raw(modules["interpolation"], self.data.method)
        loss = losses.training_loss(raw, self.prediction, x0, cond, level, eps).mean()
        peak = float(clip.max() - clip.min())
        return {
            "val_loss": float(loss),
            "psnr": psnr(self.made(modules, keyframes), between, peak),
            "psnr_linear": psnr(groups.linear(keyframes), between, peak),
        }

    def made(self, modules: Modules, keyframes: Tensor) -> Tensor:
        """The latents between, sampled as the stage does, of held-out keyframes."""
        own, b = self.settings, len(keyframes)
        skip = torch.full((b,), self.held_skip, device=self.device)
        cond = self.cond(keyframes, skip)
        raw = interpolation.raw(modules["interpolation"], self.data.method)
        denoise = guidance.guided_by(
            denoiser(raw, self.prediction), cond, "context", own.guidance_scale
        )
        noise = Noise([(i, str(i)) for i in range(b)], stage="validation")
        levels = SCHEDULES[own.schedule](own.num_inference_steps)
        z = noise.initial(self.packing.shape(keyframes.shape[1:])).to(self.device)
        for step in SOLVERS[own.solver](denoise, z * levels[0].sigma, levels, cond, noise):
            z = step.z
        return own.unpacked(self.data.method, keyframes, z, skip)

    @torch.no_grad()
    def sample_sheet(self, modules: Modules, path: Path) -> None:
        """Eight held-out clips: as they are, made, and blended."""
        clip = self.held[:8].to(self.device)
        keyframes, between = groups.split(clip)
        made = self.made(modules, keyframes)
        vae, strips, labels = _vae(modules), [], []
        ways = {"true": between, "made": made, "linear": groups.linear(keyframes)}
        for i in range(len(clip)):
            for label, x in ways.items():
                whole = groups.join(keyframes[i : i + 1], x[i : i + 1])[:, :, : 2 * STRIDE + 1]
                strips.append(to_uint8(vae.decode(whole))[0].permute(1, 2, 3, 0).cpu().numpy())
                labels.append(label)
        write_png(path, contact_sheet(strips, labels, columns=3, frames_per_clip=2 * STRIDE + 1))

    def export(self, modules: Modules, folder: Path) -> None:
        """The network, and the autoencoder whose latents it works on, byte for byte."""
        component = INTERPOLATIONS[self.data.method]
        config = {
            "_class_name": self.kind,
            **self.config.to_dict(),
            "sample": asdict(self.settings),
        }
        self.write_component(folder / component, config, modules["interpolation"])
        save.copy_component(self.vae_folder.place("vae"), folder / "vae")
        save.write_index(
            folder, self.vae_folder.name, self.vae_folder.system, [component, "vae"],
            {component: self.kind},
        )  # fmt: skip


def psnr(made: Tensor, true: Tensor, peak: float) -> float:
    """Peak signal-to-noise ratio, dB."""
    return 10 * math.log10(peak**2 / max(float((made - true).square().mean()), 1e-12))


def _vae(modules: Modules) -> VideoAutoencoder:
    vae = modules["vae"]
    assert isinstance(vae, VideoAutoencoder)
    return vae
