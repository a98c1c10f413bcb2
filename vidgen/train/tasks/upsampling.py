"""Train the latent upsampler: the same clips of the world at one size and at twice that size.

Every scene is rendered at each size and at each rate, and encoded once; what the network is told of
it, the latents of enlarged frames, is made once, too. The rates are how the
temporal convolutions come to see both spacings that they will meet: keyframes, as they were
sampled, and frames near each other, as interpolation leaves them. A batch mixes the rates, and each
clip's spacing is told. What is told gets a random amount of noise, and that is told, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from vidgen.diffusion import losses
from vidgen.diffusion.level import Level, noised
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import PREDICTIONS, denoiser
from vidgen.diffusion.schedules import SCHEDULES
from vidgen.diffusion.solvers import SOLVERS
from vidgen.errors import UsageError
from vidgen.io.image import contact_sheet, write_png
from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.nn.pixels import to_uint8
from vidgen.nn.unet import UNet, UNetConfig, start_at_zero
from vidgen.systems import save, upsampling, world
from vidgen.systems.base import Geometry, ModelFolder
from vidgen.systems.upsampling import COMPONENT, FACTOR, Settings, Upsampler
from vidgen.train.distributed import World
from vidgen.train.recipe import section
from vidgen.train.task import Modules, Task, generator, share
from vidgen.train.tasks.begun import begin
from vidgen.train.tasks.latents import (
    cache_folder,
    cached,
    cached_latents,
    encode_scenes,
    spread_missing,
    whole,
)
from vidgen.train.tasks.pixels import clip_scores
from vidgen.world.render import render
from vidgen.world.scene import VALIDATION_SEEDS, sample_scene

MEANS = ("prediction", "spread")


@dataclass(frozen=True)
class Data:
    """Clips at several sizes and rates, and the autoencoder that encodes them."""

    vae: str  # a folder that holds `vae/`
    cache: str = "runs/cache"
    num: int = 8192  # scenes, at each size and rate; they come by again after that
    num_held: int = 32  # and as many that are only measured on
    level: str = "basic"  # of the world
    # Pixels (height, width), each twice the one before: every two neighbors are a pair to learn.
    sizes: tuple[tuple[int, int], ...] = ((40, 64), (80, 128))
    num_frames: int = 5  # of a clip, at each rate
    fps: tuple[float, ...] = (2.0, 8.0)  # of keyframes, and of what interpolation makes of them
    start: str | None = None  # a model whose upsampler it begins as


@dataclass(frozen=True)
class Loss:
    """What the network's output means, the distribution of noise levels, t = u^(1/noisy) with u
    uniform in 0 … 1, how noisy the told latents get, evenly from none to `noise_level`, and in how
    many steps the trained network is sampled unless the user says otherwise."""

    prediction: Literal["shrunk", "x0", "flow", "v"] = "shrunk"
    # Of latents around the enlarged ones: another one in each latent space, so there is no default.
    # A training without one tells what it is, and stops.
    spread: float | None = None
    noisy: float = 2.0  # 1: all levels alike; above: noisy ones come more often
    noise_level: float = 0.2
    steps: int = 1  # the mean of what details may be; more make some, and differ more


class UpsamplingTask(Task):
    """`model` is a `UNetConfig`; one sample is one clip at two sizes."""

    name = "upsampling"

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.config = section(UNetConfig, self.recipe.model, where="model")
        self.data = section(Data, self.recipe.data, where="data")
        self.weights = section(Loss, self.recipe.loss, where="loss")
        self.prediction = PREDICTIONS[self.weights.prediction]()
        self.vae_folder = ModelFolder(Path(self.data.vae))
        self._check()
        self.settings = Settings(
            self.weights.prediction, "linear_flow", "dpmpp_2m", self.weights.steps,
            spread=self.weights.spread or 1.0, noise_level=min(0.05, self.weights.noise_level),
            max_noise_level=self.weights.noise_level, fps=24.0,
            max_skip=round(24 / min(self.data.fps)), largest=self.data.sizes[-1][0],
        )  # fmt: skip
        if 0 < self.config.skip_rows <= self.settings.max_skip:
            raise UsageError(
                f"recipe: model.skip_rows is {self.config.skip_rows}, and a clip of"
                f" {min(self.data.fps):g} frames a second has a skip of {self.settings.max_skip}"
            )
        self.pairs = list(zip(self.data.sizes, self.data.sizes[1:], strict=False))

    def _check(self) -> None:
        """UsageError for settings that no network can be trained with."""
        c, d = self.config, self.data
        channels, stride = (self.vae_folder.size("vae", k) for k in ("channels", "stride"))
        if (c.in_channels, c.out_channels) != (2 * channels, channels):
            raise UsageError(
                f"recipe: model.in_channels and out_channels are {c.in_channels} and"
                f" {c.out_channels}, latents of {channels} channels want {2 * channels} and"
                f" {channels}"
            )
        doubled = all(
            (FACTOR * a, FACTOR * b) == large
            for (a, b), large in zip(d.sizes, d.sizes[1:], strict=False)
        )
        if len(d.sizes) < 2 or not doubled or any(n % stride for n in d.sizes[0]):
            raise UsageError(
                f"recipe: data.sizes are {[list(size) for size in d.sizes]}: there must be two or"
                f" more, each twice the one before, the first in multiples of {stride}"
            )
        if d.num < 1 or d.num_held < len(d.fps):
            raise UsageError(
                f"recipe: data.num is {d.num}, data.num_held is {d.num_held}: there must be a"
                " scene to train on, and one to measure on for each of data.fps"
            )
        if not d.fps or not all(0 < fps <= 24 for fps in d.fps):
            raise UsageError(f"recipe: data.fps are {list(d.fps)}, must be above 0 and up to 24")
        w = self.weights
        if not 0 < w.noise_level < 1:
            raise UsageError(
                f"recipe: loss.noise_level is {w.noise_level:g}, must be between 0 and 1"
            )
        for key in ("spread", "noisy", "steps"):
            value = getattr(w, key)
            if value is not None and not value > 0:
                raise UsageError(f"recipe: loss.{key} is {value:g}, must be above 0")

    def build(self) -> dict[str, torch.nn.Module]:
        vae = world.load_autoencoder(self.vae_folder).float()
        network = start_at_zero(UNet(self.config))
        if self.data.start is not None:
            found = Upsampler.of(ModelFolder.find(self.data.start))
            begin(network, found, self.vae_folder, self.config, self.settings, MEANS)
        return {COMPONENT: network, "vae": vae}

    def prepare(self, modules: Modules, say: Callable[[str], None]) -> None:
        vae, d = _vae(modules), self.data
        self._hold(vae)
        if self.weights.spread is None:
            found = float((self.large - self.enlarged).square().mean().sqrt())
            raise spread_missing(found, len(self.large), self.vae_folder.latent_space)
        dtype = getattr(torch, self.recipe.dtype)
        world = World(self.rank, self.world, self.device)
        self.latents, self.told = {}, {}
        for key in ((size, fps) for size in d.sizes for fps in d.fps):
            geometry = self._geometry(*key)
            folder = cache_folder(
                Path(d.cache), self.vae_folder.latent_space, geometry, dtype
            )  # fmt: skip
            latents = cached_latents(
                folder, whole(d.num), vae, level=d.level, geometry=geometry, world=world, say=say,
                dtype=dtype,
            )  # fmt: skip
            self.latents[key] = latents[: d.num]
            if key[0] == d.sizes[-1]:
                continue

            def enlarge(seeds: range, latents: Tensor = latents) -> Tensor:
                small = latents[seeds.start : seeds.stop].to(self.device).float()
                with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                    return upsampling.enlarged(small, vae).cpu()

            name = f"{d.level}-enlarged"
            self.told[key] = cached(folder, name, d.num, enlarge, world=world, say=say)

    def _geometry(self, size: tuple[int, int], fps: float) -> Geometry:
        return Geometry(self.data.num_frames, *size, fps)

    def _hold(self, vae: VideoAutoencoder) -> None:
        """Held-out scenes of the first pair of sizes, an equal share at each rate: latents small,
        enlarged and large, and the rendered frames `b t h w 3` of the large."""
        d, start = self.data, VALIDATION_SEEDS.start
        count = d.num_held // len(d.fps)
        parts = []
        for i, fps in enumerate(d.fps):
            seeds = range(start + i * count, start + (i + 1) * count)
            small, large = (self._geometry(size, fps) for size in d.sizes[:2])
            scenes = [sample_scene(seed, level=d.level) for seed in seeds]
            true = render(scenes, times=large.times, height=large.height, width=large.width)
            latents = encode_scenes(seeds, vae, d.level, small, self.device)
            parts.append((
                latents,
                upsampling.enlarged(latents.to(self.device), vae).cpu(),
                encode_scenes(seeds, vae, d.level, large, self.device),
                true.frames,
                torch.full((count,), self.settings.skip(1 / fps)),
            ))  # fmt: skip
        self.small, self.enlarged, self.large, self.truth, self.skips = map(
            torch.cat, zip(*parts, strict=True)
        )

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """One pair of sizes for all, any of the rates for each."""
        size, draw = self.recipe.batch_size, generator(self.recipe.seed, "batch", step)
        pair = self.pairs[int(torch.randint(len(self.pairs), (), generator=draw))]
        rows = torch.randint(self.data.num, (size,), generator=draw).tolist()
        rates = torch.randint(len(self.data.fps), (size,), generator=draw).tolist()
        mine = [(rows[i], self.data.fps[rates[i]]) for i in share(size, rank, world)]
        told, large = (
            torch.stack([cache[size, fps][row] for row, fps in mine])
            for cache, size in zip((self.told, self.latents), pair, strict=True)
        )
        skips = torch.tensor([self.settings.skip(1 / fps) for _, fps in mine])
        return {"enlarged": told, "large": large, "skip": skips}

    def loss(
        self, modules: Modules, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        enlarged = batch["enlarged"].float()
        x0 = self.settings.details(enlarged, batch["large"].float())
        p = torch.rand(len(x0), generator=generator, device=x0.device) * self.weights.noise_level
        cond = self.cond(enlarged, batch["skip"], p, generator)
        level = self._level(len(x0), generator)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        raw = self._raw(modules)
        return losses.training_loss(raw, self.prediction, x0, cond, level, eps).mean(), {}

    def cond(
        self, enlarged: Tensor, skip: Tensor, noise_level: Tensor, draw: torch.Generator
    ) -> dict[str, Tensor]:
        """What the network is told of clips whose enlarged latents are these, `b c t h w`."""
        noise = torch.randn(enlarged.shape, generator=draw, device=enlarged.device)
        return upsampling.cond(self.config, enlarged, noise, noise_level, skip, self.settings.fps)

    def _level(self, b: int, draw: torch.Generator) -> Level:
        t = torch.rand(b, generator=draw, device=draw.device) ** (1 / self.weights.noisy)
        return Level(t, 1 - t, t)

    def _raw(self, modules: Modules):
        return upsampling.raw(modules[COMPONENT])

    @torch.no_grad()
    def evaluate(self, modules: Modules, step: int) -> dict[str, float]:
        """On held-out clips, with the same noise every time: the error of the details, where 1 is
        about that of a network that adds none; and how the decoded frames differ from the rendered
        ones, beside those of stretched latents, of the enlarged ones that it is told, and of the
        true latents, which no upsampler can pass."""
        draw = generator(0, "validation", device=self.device)
        x0 = self.settings.details(self.enlarged.to(self.device), self.large.to(self.device))
        cond = self._held_cond(draw)
        level = self._level(len(x0), draw).on(x0)
        eps = torch.randn(x0.shape, generator=draw, device=self.device)
        found = denoiser(self._raw(modules), self.prediction)(noised(x0, eps, level), level, cond)
        scores = {"val_loss": float((found - x0).square().mean())}
        for way, frames in {"": self.made(modules, cond), **self.baselines(modules)}.items():
            measures = clip_scores(frames, self.truth)
            scores |= {f"{name}_{way}".rstrip("_"): value for name, value in measures.items()}
        return scores

    def _held_cond(self, draw: torch.Generator) -> dict[str, Tensor]:
        """What is told of the held-out clips, as noisy as the stage makes it."""
        p = torch.full((len(self.skips),), self.settings.noise_level, device=self.device)
        return self.cond(self.enlarged.to(self.device), self.skips.to(self.device), p, draw)

    def made(self, modules: Modules, cond: dict[str, Tensor]) -> Tensor:
        """Frames `b t h w 3` of what is sampled, as the stage does."""
        own, told = self.settings, cond["told"]
        noise = Noise([(i, str(i)) for i in range(len(told))], stage="validation")
        levels = SCHEDULES[own.schedule](own.num_inference_steps)
        z = noise.initial(told.shape[1:]).to(self.device) * levels[0].sigma
        denoise = denoiser(self._raw(modules), self.prediction)
        for step in SOLVERS[own.solver](denoise, z, levels, cond, noise):
            z = step.z
        return decoded(_vae(modules), own.detailed(self.enlarged.to(self.device), z))

    def baselines(self, modules: Modules) -> dict[str, Tensor]:
        """Held-out frames as they would be without a network, and of the true latents."""
        ways = {
            "bilinear": upsampling.stretched(self.small),
            "bicubic": self.enlarged,
            "autoencoder": self.large,
        }
        return {name: decoded(_vae(modules), z.to(self.device)) for name, z in ways.items()}

    @torch.no_grad()
    def sample_sheet(self, modules: Modules, path: Path) -> None:
        """Six held-out clips: as they are, made, and without a network."""
        made = self.made(modules, self._held_cond(generator(0, "sheet", device=self.device)))
        ways = {"true": self.truth, "made": made, **self.baselines(modules)}
        shown = range(0, len(made), max(1, len(made) // 6))[:6]
        strips = [x[i].cpu().numpy() for i in shown for x in ways.values()]
        labels = [name for _ in shown for name in ways]
        write_png(path, contact_sheet(strips, labels, columns=len(ways), frames_per_clip=2))

    def export(self, modules: Modules, folder: Path) -> None:
        """The network, and the autoencoder whose latents it works on, byte for byte."""
        config = {"_class_name": "UNet", **self.config.to_dict(), "sample": asdict(self.settings)}
        self.write_component(folder / COMPONENT, config, modules[COMPONENT])
        save.copy_component(self.vae_folder.place("vae"), folder / "vae")
        save.write_index(folder, self.vae_folder.name, self.vae_folder.system, [COMPONENT, "vae"])


def decoded(vae: VideoAutoencoder, latents: Tensor) -> Tensor:
    """Latents `b c t h w` → frames `b t h w 3`, uint8, clip by clip."""
    made = [rearrange(to_uint8(vae.decode(z[None])[0]), "c t h w -> t h w c") for z in latents]
    return torch.stack(made).cpu()


def _vae(modules: Modules) -> VideoAutoencoder:
    vae = modules["vae"]
    assert isinstance(vae, VideoAutoencoder)
    return vae
