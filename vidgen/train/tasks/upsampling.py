"""Train the latent upsampler: the same clips of the world at one size and at twice that size.

Every scene is rendered at each size and at each rate, and encoded once; what the network is told of
it, the latents of enlarged frames, is made once, too. The rates are how the temporal convolutions
come to see both spacings that they will meet: keyframes, as they were sampled, and frames near each
other, as interpolation leaves them. A batch mixes the rates, and each clip's spacing is told. What
is told gets a random amount of noise, and that is told, too.

With a text encoder captions are told as well, so that what is unclear in small latents may be known
from the words for it. With a model to redraw by, a share of the samples is told small latents with
that model's faults (`redrawn`), and learns to mend them.
"""

from __future__ import annotations

import random
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
from vidgen.systems.base import ModelFolder
from vidgen.systems.upsampling import COMPONENT, FACTOR, Settings
from vidgen.train.distributed import World
from vidgen.train.recipe import section
from vidgen.train.task import Modules, Task, generator, share
from vidgen.train.tasks.captions import Captions
from vidgen.train.tasks.latents import spread_missing
from vidgen.train.tasks.pixels import clip_scores
from vidgen.train.tasks.shown import importance
from vidgen.train.tasks.upsampling_clips import Data, Held, Maker, redraw_of


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
    # How much more a number counts where there is an object, or its edge or shadow.
    object_weight: float = 1.0
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
        self.text_folder = ModelFolder(Path(self.data.text)) if self.data.text else None
        self.captions = None
        if self.text_folder is not None:
            d = self.data
            self.captions = Captions(self.text_folder, drop=d.drop_caption, canonical=d.canonical)
        self._check()
        self.settings = Settings(
            self.weights.prediction, "linear_flow", "dpmpp_2m", self.weights.steps,
            spread=self.weights.spread or 1.0, noise_level=min(0.05, self.weights.noise_level),
            max_noise_level=self.weights.noise_level, fps=24.0,
            max_skip=round(24 / min(self.data.fps)),
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
        width = self.text_folder.size("text_encoder", "hidden_size") if self.text_folder else 0
        if c.text_dim != width:
            raise UsageError(
                f"recipe: model.text_dim is {c.text_dim}, must be {width}",
                why=f"data.text is {d.text}" if d.text else "there is no data.text",
            )
        if d.level == "full" and d.num_full:
            raise UsageError(
                "recipe: data.num_full beside data.level full", next="set data.num alone"
            )
        for key in ("drop_caption", "canonical", "redrawn_share"):
            if not 0 <= getattr(d, key) <= 1:
                raise UsageError(f"recipe: data.{key} is {getattr(d, key):g}, must be from 0 to 1")
        if not d.fps or not all(0 < fps <= 24 for fps in d.fps):
            raise UsageError(f"recipe: data.fps are {list(d.fps)}, must be above 0 and up to 24")
        w = self.weights
        if not 0 < w.noise_level < 1:
            raise UsageError(
                f"recipe: loss.noise_level is {w.noise_level:g}, must be between 0 and 1"
            )
        for key in ("spread", "noisy", "object_weight", "steps"):
            value = getattr(w, key)
            if value is not None and not value > 0:
                raise UsageError(f"recipe: loss.{key} is {value:g}, must be above 0")

    def build(self) -> dict[str, torch.nn.Module]:
        vae = world.load_autoencoder(self.vae_folder).float()
        tower = {"tower": world.load_text_tower(self.text_folder)} if self.text_folder else {}
        return {COMPONENT: start_at_zero(UNet(self.config)), "vae": vae, **tower}

    def prepare(self, modules: Modules, say: Callable[[str], None]) -> None:
        vae, w = _vae(modules), self.weights
        redraw = redraw_of(self.data, self.vae_folder, self.device)
        self.held = held = Held.of(self.data, vae, redraw, self.device)
        if w.spread is None:
            found = float((held.large - held.enlarged).square().mean().sqrt())
            raise spread_missing(found, len(held.large), self.vae_folder.latent_space)
        maker = Maker(
            self.data, self.vae_folder, vae, redraw, getattr(torch, self.recipe.dtype),
            World(self.rank, self.world, self.device), say,
        )  # fmt: skip
        self.clips = maker.clips(shown=w.object_weight != 1)

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """One pair of sizes for all, any of the rates for each."""
        size, draw = self.recipe.batch_size, generator(self.recipe.seed, "batch", step)
        clips, rates = self.clips, self.data.fps
        small, large = self.pairs[int(torch.randint(len(self.pairs), (), generator=draw))]
        rows = torch.randint(len(clips.scenes), (size,), generator=draw).tolist()
        at = torch.randint(len(rates), (size,), generator=draw).tolist()
        redrawn = (torch.rand(size, generator=draw) < self.data.redrawn_share).tolist()
        mine = [(rows[i], rates[at[i]], redrawn[i]) for i in share(size, rank, world)]

        def told(row: int, fps: float, again: bool) -> Tensor:
            key = (small, fps)
            return (clips.redrawn if again and key in clips.redrawn else clips.told)[key][row]

        batch = {
            "enlarged": torch.stack([told(*one) for one in mine]),
            "large": torch.stack([clips.latents[large, fps][row] for row, fps, _ in mine]),
            "skip": torch.tensor([self.settings.skip(1 / fps) for _, fps, _ in mine]),
        }
        if clips.shown:
            batch["shown"] = torch.stack([clips.shown[large, fps][row] for row, fps, _ in mine])
        if self.captions is not None:
            words = random.Random(f"{self.recipe.seed}/{step}/{rank}")
            said = self.captions.draw([clips.scenes[row] for row, _, _ in mine], words)
            batch |= self.captions.tokens(said)
        return batch

    def loss(
        self, modules: Modules, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        enlarged = batch["enlarged"].float()
        x0 = self.settings.details(enlarged, batch["large"].float())
        p = torch.rand(len(x0), generator=generator, device=x0.device) * self.weights.noise_level
        text = self.text(modules, batch.get("ids"))
        cond = self.cond(enlarged, batch["skip"], p, generator, text)
        level = self._level(len(x0), generator)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        raw = self._raw(modules)
        loss = losses.training_loss(
            raw, self.prediction, x0, cond, level, eps, self._importance(batch)
        )
        return loss.mean(), {}

    def _importance(self, batch: dict[str, Tensor]) -> Tensor | None:
        """`b 1 t h w`, 1 on average; None: all numbers count alike."""
        if "shown" not in batch:
            return None
        return importance(batch["shown"], self.weights.object_weight)

    def text(self, modules: Modules, ids: Tensor | None) -> dict[str, Tensor]:
        """What a network that reads text is told of token numbers `b l`; others nothing."""
        if self.captions is None or ids is None:
            return {}
        return self.captions.told(modules["tower"], ids.to(self.device))

    def cond(
        self,
        enlarged: Tensor,
        skip: Tensor,
        noise_level: Tensor,
        draw: torch.Generator,
        text: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """What the network is told of clips whose enlarged latents are these, `b c t h w`."""
        noise = torch.randn(enlarged.shape, generator=draw, device=enlarged.device)
        told = upsampling.cond(self.config, enlarged, noise, noise_level, skip, self.settings.fps)
        return told | text

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
        true latents, which no upsampler can pass. Where clips are redrawn, the same of those."""
        held = self.held
        scores = self._measured(modules, held.enlarged, "")
        for way, frames in self.baselines(modules).items():
            scores |= _named(clip_scores(frames, held.truth), way)
        if held.redrawn is None:
            return scores
        scores |= self._measured(modules, held.redrawn, "redrawn")
        frames = decoded(_vae(modules), held.redrawn.to(self.device))
        return scores | _named(clip_scores(frames, held.truth), "redrawn_bicubic")

    def _measured(self, modules: Modules, enlarged: Tensor, way: str) -> dict[str, float]:
        draw = generator(0, "validation", device=self.device)
        enlarged = enlarged.to(self.device)
        x0 = self.settings.details(enlarged, self.held.large.to(self.device))
        cond = self._held_cond(modules, enlarged, draw)
        level = self._level(len(x0), draw).on(x0)
        eps = torch.randn(x0.shape, generator=draw, device=self.device)
        found = denoiser(self._raw(modules), self.prediction)(noised(x0, eps, level), level, cond)
        scores = {"val_loss": float((found - x0).square().mean())}
        frames = self.made(modules, enlarged, cond)
        return _named(scores | clip_scores(frames, self.held.truth), way)

    def _held_cond(
        self, modules: Modules, enlarged: Tensor, draw: torch.Generator
    ) -> dict[str, Tensor]:
        """What is told of the held-out clips, as noisy as the stage makes it."""
        p = torch.full((len(enlarged),), self.settings.noise_level, device=self.device)
        skip = torch.tensor([self.settings.skip(1 / fps) for fps in self.held.fps.tolist()])
        ids = self.captions.tokens(self.held.captions)["ids"] if self.captions else None
        text = self.text(modules, ids)
        return self.cond(enlarged, skip.to(self.device), p, draw, text)

    def made(self, modules: Modules, enlarged: Tensor, cond: dict[str, Tensor]) -> Tensor:
        """Frames `b t h w 3` of what is sampled, as the stage does."""
        own, told = self.settings, cond["told"]
        noise = Noise([(i, str(i)) for i in range(len(told))], stage="validation")
        levels = SCHEDULES[own.schedule](own.num_inference_steps)
        z = noise.initial(told.shape[1:]).to(self.device) * levels[0].sigma
        denoise = denoiser(self._raw(modules), self.prediction)
        for step in SOLVERS[own.solver](denoise, z, levels, cond, noise):
            z = step.z
        return decoded(_vae(modules), own.detailed(enlarged, z))

    def baselines(self, modules: Modules) -> dict[str, Tensor]:
        """Held-out frames as they would be without a network, and of the true latents."""
        ways = {
            "bilinear": upsampling.stretched(self.held.small),
            "bicubic": self.held.enlarged,
            "autoencoder": self.held.large,
        }
        return {name: decoded(_vae(modules), z.to(self.device)) for name, z in ways.items()}

    @torch.no_grad()
    def sample_sheet(self, modules: Modules, path: Path) -> None:
        """Six held-out clips: as they are, made, redrawn and made, and without a network."""
        held = self.held
        ways = {"true": held.truth}
        for name, told in (("made", held.enlarged), ("redrawn", held.redrawn)):
            if told is None:
                continue
            enlarged, draw = told.to(self.device), generator(0, "sheet", device=self.device)
            ways[name] = self.made(modules, enlarged, self._held_cond(modules, enlarged, draw))
        ways |= self.baselines(modules)
        made = ways["made"]
        shown = range(0, len(made), max(1, len(made) // 6))[:6]
        strips = [x[i].cpu().numpy() for i in shown for x in ways.values()]
        labels = [name for _ in shown for name in ways]
        write_png(path, contact_sheet(strips, labels, columns=len(ways), frames_per_clip=2))

    def export(self, modules: Modules, folder: Path) -> None:
        """The network, and the autoencoder whose latents it works on and the text encoder that it
        reads, byte for byte."""
        config = {"_class_name": "UNet", **self.config.to_dict(), "sample": asdict(self.settings)}
        self.write_component(folder / COMPONENT, config, modules[COMPONENT])
        save.copy_component(self.vae_folder.path / "vae", folder / "vae")
        text = ["text_encoder", "tokenizer"] if self.text_folder else []
        for part in text:
            assert self.text_folder is not None
            save.copy_component(self.text_folder.path / part, folder / part)
        parts = [COMPONENT, "vae", *text]
        save.write_index(folder, self.vae_folder.name, self.vae_folder.system, parts)


def _named(scores: dict[str, float], way: str) -> dict[str, float]:
    return {f"{name}_{way}".rstrip("_"): value for name, value in scores.items()}


def decoded(vae: VideoAutoencoder, latents: Tensor) -> Tensor:
    """Latents `b c t h w` → frames `b t h w 3`, uint8, clip by clip."""
    made = [rearrange(to_uint8(vae.decode(z[None])[0]), "c t h w -> t h w c") for z in latents]
    return torch.stack(made).cpu()


def _vae(modules: Modules) -> VideoAutoencoder:
    vae = modules["vae"]
    assert isinstance(vae, VideoAutoencoder)
    return vae
