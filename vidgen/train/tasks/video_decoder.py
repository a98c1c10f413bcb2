"""Train a video decoder: clips of the world, encoded frame by frame, decoded together.

FusionFrames (arXiv 2311.13073, §3.4): the encoder is frozen, so latents stay what they were, and
of the decoder either everything is trained or only what it has for time. `data.start` is the
decoder of the autoencoder itself or another image decoder (`temporal: none`), from which a video
decoder begins as its equal, or a video decoder that is trained on. The loss is the autoencoder's,
and may count how the error changes from frame to frame.

With `data.redrawn`, most clips are latents as the model `vae` makes them, near to a rendered clip,
and the decoder learns to show that one: what it gets in a cascade are never an encoder's latents.
(LTX-Video, arXiv 2501.00103, closes this gap by a decoder that takes the last step of denoising.)
`loss.latent_noise` is for the others.

Beside the signal-to-noise ratio it measures flicker, and both of the image decoder that belongs to
the encoder, on the same held-out clips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from einops import rearrange
from torch import Tensor

from vidgen.diffusion.groups import STRIDE
from vidgen.errors import UsageError
from vidgen.io.image import write_png
from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.nn.discriminator import PatchDiscriminator
from vidgen.nn.movq import MoVQConfig, MoVQDecoder, image_decoder
from vidgen.nn.pixels import from_uint8, to_uint8
from vidgen.systems import save, world
from vidgen.systems.base import ModelFolder
from vidgen.systems.video_decoder import COMPONENT, load_video_decoder
from vidgen.train.distributed import World
from vidgen.train.recipe import section
from vidgen.train.task import Modules, Task, generator, require_alike, share
from vidgen.train.tasks.adversarial import adversarial
from vidgen.train.tasks.pixels import PixelLoss, clip_scores, noisy, pixel_loss
from vidgen.train.tasks.redrawn import (
    Redrawn,
    compute_of,
    digest,
    missing,
    of_seeds,
    redrawn_clips,
    shown,
    unable,
)
from vidgen.world.render import frame_times, render
from vidgen.world.scene import VALIDATION_SEEDS, sample_scene

HELD = 16  # clips
DISCRIMINATOR = "discriminator"


@dataclass(frozen=True)
class Data:
    """Clips to decode, and what is there already."""

    vae: str = "world"  # a model by name or folder: whose latents are decoded
    level: str = "full"  # of the world
    # One size (height, width) a step, in turn; a larger one has fewer clips, equal in pixels.
    sizes: tuple[tuple[int, int], ...] = ((40, 64), (40, 64), (40, 64), (80, 128))
    num_frames: tuple[int, int] = (5, 9)  # of a clip, the fewest and the most
    fps: tuple[float, ...] = (8.0,)  # one a step, in turn
    # Where the weights begin: "vae", as the decoder of `vae`, or a model with a `video_decoder/`.
    start: str | None = None
    trained: Literal["all", "temporal"] = "all"
    redrawn: Redrawn | None = None


@dataclass(frozen=True)
class Loss(PixelLoss):
    """An adversarial term, too; see `adversarial`. Beside redrawn clips, of those alone: what the
    encoder makes leaves little open, and there the nearest is the best. `grad_clip` is of one norm
    over both networks: a large gradient of the discriminator makes the decoder's steps smaller."""

    adversarial: float = 0.0
    adversarial_after: int = 200  # steps in which the discriminator learns alone

    def __post_init__(self) -> None:
        for key in ("adversarial", "adversarial_after"):
            if getattr(self, key) < 0:
                raise UsageError(f"recipe: loss.{key} is {getattr(self, key):g}, must be 0 or more")

    def weight(self, step: int) -> float:
        return self.adversarial if step >= self.adversarial_after else 0.0


class VideoDecoderTask(Task):
    """`model` is a `MoVQConfig`; one sample is one clip."""

    name = "video-decoder"

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.config = section(MoVQConfig, self.recipe.model, where="model")
        self.data = section(Data, self.recipe.data, where="data")
        self.weights = section(Loss, self.recipe.loss, where="loss")
        self.vae_folder = ModelFolder.find(self.data.vae)
        for key, own in (("channels", self.config.channels), ("stride", self.config.stride)):
            vae = self.vae_folder.size("vae", key)
            if own != vae:
                raise UsageError(f"recipe: {key} of model is {own}, that of data.vae is {vae}")
        fewest, most = self.data.num_frames
        if not 1 <= fewest <= most:
            raise UsageError(f"recipe: data.num_frames is [{fewest}, {most}], from less to more")
        if self.data.trained == "temporal" and self.data.start is None:
            raise UsageError("recipe: data.trained is temporal without data.start: beside what?")
        if self.weights.adversarial and self.recipe.parallel == "fsdp":
            raise UsageError(
                f"recipe: loss.adversarial with parallel: fsdp is {self.weights.adversarial:g},"
                " must be 0",
                why="sharded, the discriminator would be trained to be fooled, too",
                next="parallel: ddp",
            )
        if self.data.redrawn is not None:
            self._check_redrawn(self.data.redrawn)

    def _check_redrawn(self, wanted: Redrawn) -> None:
        """UsageError for a model that can't redraw clips, not as long ones, or not so near."""
        if lacking := missing(self.vae_folder):
            raise UsageError(
                f"recipe: data.redrawn, and {self.vae_folder.path} has no {', '.join(lacking)}",
                next="set data.vae to a whole model",
            )
        self.geometry, most = shown(self.vae_folder), self.data.num_frames[1]
        if self.geometry.num_frames < most:
            raise UsageError(
                f"recipe: data.num_frames goes up to {most}, and clips that are redrawn have"
                f" {self.geometry.num_frames}"
            )
        least = wanted.strength[0]
        if why := unable(self.vae_folder, least):
            raise UsageError(
                f"recipe: data.redrawn.strength begins at {least:g}, and no step of"
                f" {self.vae_folder.path} with so little noise",
                why=why,
                next="a larger least strength",
            )

    def depends_on(self) -> list[str]:
        """The model that redraws clips: of its networks `build` has the autoencoder alone."""
        if self.data.redrawn is None:
            return []
        return [digest(self.vae_folder, compute_of(self.recipe.dtype, self.device))]

    def build(self) -> dict[str, torch.nn.Module]:
        decoder = MoVQDecoder(self.config)
        vae = world.load_autoencoder(self.vae_folder).float()
        if self.data.start is not None:
            try:
                decoder.begin(self._start(vae, self.data.start).state_dict())
            except ValueError as error:
                raise UsageError(f"recipe: data.start: {error}") from None
        if self.data.trained == "temporal":
            decoder.requires_grad_(False)
            time = decoder.time_parameters()
            if not time:
                raise UsageError(f"recipe: nothing of `{self.config.temporal}` is for time only")
            for p in time:
                p.requires_grad_(True)
        for p in decoder.parameters():
            if p.ndim == 4:  # as the pictures are
                p.data = p.data.contiguous(memory_format=torch.channels_last)
        modules = {COMPONENT: decoder, "vae": vae}
        if self.weights.adversarial:
            modules[DISCRIMINATOR] = PatchDiscriminator(self.config.channels, self.config.stride)
        return modules

    def _start(self, vae: VideoAutoencoder, start: str) -> torch.nn.Module:
        """What weights begin as."""
        if start == "vae":
            return image_decoder(vae)
        folder = ModelFolder.find(start)
        require_alike(folder, {"vae": self.vae_folder})
        return load_video_decoder(folder)

    def prepare(self, modules: Modules, say: Callable[[str], None]) -> None:
        wanted = self.data.redrawn
        if wanted is None:
            return
        compute = compute_of(self.recipe.dtype, self.device)
        self.redrawn = redrawn_clips(
            self.vae_folder, wanted, compute=compute,
            world=World(self.rank, self.world, self.device), say=say,
        )  # fmt: skip
        self.scenes = [(level, seed) for level, num in wanted.parts() for seed in range(num)]
        held = range(VALIDATION_SEEDS.start, VALIDATION_SEEDS.start + HELD)
        self.held_redrawn = of_seeds(self.vae_folder, held, "basic", wanted.strength, compute)

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        return self._clips(step, rank, world) | {"step": torch.tensor(step)}

    def _clips(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        if self.data.redrawn is not None:
            draw = generator(self.recipe.seed, "redrawn", step)  # alike on all ranks: equal work
            if float(torch.rand((), generator=draw)) < self.data.redrawn.share:
                return self._redrawn(draw, rank, world)
        data = self.data
        height, width = data.sizes[step % len(data.sizes)]
        fps = data.fps[step % len(data.fps)]
        rows = share(self.recipe.batch_size, rank, world)
        area = height * width / (data.sizes[0][0] * data.sizes[0][1])
        count = max(1, round(len(rows) / area))
        draw = generator(self.recipe.seed, "clips", step)  # alike on all ranks: equal work
        fewest, most = data.num_frames
        num_frames = int(torch.randint(fewest, most + 1, (), generator=draw))
        begin = float(torch.rand((), generator=draw, dtype=torch.float64))  # s
        times = [begin + t for t in frame_times(num_frames, fps)]
        first = (step * world + rank) * self.recipe.batch_size
        return {"frames": self._render(range(first, first + count), times, height, width)}

    def _redrawn(self, draw: torch.Generator, rank: int, world: int) -> dict[str, Tensor]:
        """Frames of redrawn clips one after the other, or now and then keyframes alone."""
        (height, width), g = self.data.sizes[0], self.geometry
        area = g.height * g.width / (height * width)
        count = world * max(1, round(self.recipe.batch_size / world / area))
        rows = torch.randint(len(self.scenes), (count,), generator=draw)
        stride = 1 if float(torch.rand((), generator=draw)) < 2 / 3 else STRIDE
        fewest, most = self.data.num_frames
        most = min(most, 1 + (g.num_frames - 1) // stride)
        num = int(torch.randint(min(fewest, most), most + 1, (), generator=draw))
        first = int(torch.randint(g.num_frames - stride * (num - 1), (), generator=draw))
        places = first + stride * torch.arange(num)
        mine = [int(rows[i]) for i in share(len(rows), rank, world)]
        scenes = [sample_scene(seed, level=level) for level, seed in (self.scenes[i] for i in mine)]
        times = [g.times[i] for i in places]
        frames = render(scenes, times=times, height=g.height, width=g.width).frames
        return {"frames": frames, "latents": self.redrawn[mine][:, :, places]}

    def _render(self, seeds: range, times: list[float], height: int, width: int) -> Tensor:
        scenes = [sample_scene(seed, level=self.data.level) for seed in seeds]
        return render(scenes, times=times, height=height, width=width).frames  # b t h w 3

    def loss(
        self, modules: Modules, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        frames = from_uint8(rearrange(batch["frames"], "b t h w c -> b c t h w"))
        if "latents" in batch:
            latents = batch["latents"].float()
        else:
            with torch.no_grad():
                latents = _vae(modules).encode(frames).float()
            latents = noisy(latents, self.weights, generator)
        made = modules[COMPONENT](latents).float()
        loss, squared = pixel_loss(made - frames, self.weights)
        told: dict[str, Tensor | float] = {"psnr": -10 * (squared.detach() / 4).log10()}
        if self.weights.adversarial:
            known = self.data.redrawn is not None and "latents" not in batch
            weight = 0.0 if known else self.weights.weight(int(batch["step"]))
            more, scores = adversarial(modules[DISCRIMINATOR], made, frames, latents, loss, weight)
            loss, told = loss + more, {**told, **scores}
        return loss, told

    @torch.no_grad()
    def evaluate(self, modules: Modules, step: int) -> dict[str, float]:
        """Of held-out clips, clamped and rounded: signal-to-noise ratio in dB and flicker in
        levels, and the same of the image decoder; the first of redrawn ones, too."""
        scores = {}
        for height, width in sorted(set(self.data.sizes)):
            frames, image, video = self._decoded(modules, HELD, height, width)
            for whose, made in (("", video), ("image_", image)):
                for name, value in clip_scores(made, frames).items():
                    scores[f"{whose}{name}_{height}x{width}"] = value
        return scores | self._evaluate_redrawn(modules)

    def _evaluate_redrawn(self, modules: Modules) -> dict[str, float]:
        """Signal-to-noise ratio of held-out redrawn clips, dB, and that of the image decoder."""
        if self.data.redrawn is None:
            return {}
        start, g = VALIDATION_SEEDS.start, self.geometry
        scenes = [sample_scene(start + i) for i in range(len(self.held_redrawn))]
        frames = render(scenes, times=g.times, height=g.height, width=g.width).frames
        scores, latents = {}, self.held_redrawn.to(self.device)
        ways: dict[str, Callable[[Tensor], Tensor]] = {
            "": modules[COMPONENT], "image_": _vae(modules).decode,
        }  # fmt: skip
        for whose, decode in ways.items():
            made = rearrange(to_uint8(decode(latents)).cpu(), "b c t h w -> b t h w c")
            scores[f"{whose}psnr_redrawn"] = clip_scores(made, frames)["psnr"]
        return scores

    def sample_sheet(self, modules: Modules, path: Path) -> None:
        """Clips as rows of frames: the truth, the image decoder's beneath, and ours."""
        three = torch.stack(self._decoded(modules, 3, *self.data.sizes[-1]))
        sheet = rearrange(three, "three b t h w c -> (b three h) (t w) c")
        write_png(path, sheet.numpy())

    @torch.no_grad()
    def _decoded(
        self, modules: Modules, count: int, height: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Held-out clips, what the image decoder makes of them, and what ours does: uint8
        `b t h w 3`, on the CPU."""
        seeds = range(VALIDATION_SEEDS.start, VALIDATION_SEEDS.start + count)
        times = frame_times(self.data.num_frames[1], self.data.fps[0])
        frames = self._render(seeds, times, height, width)
        x = from_uint8(rearrange(frames.to(self.device), "b t h w c -> b c t h w"))
        vae = _vae(modules)
        latents = vae.encode(x)
        image, video = (
            rearrange(to_uint8(made).cpu(), "b c t h w -> b t h w c")
            for made in (vae.decode(latents), modules[COMPONENT](latents))
        )
        return frames.cpu(), image, video

    def export(self, modules: Modules, folder: Path) -> None:
        """`video_decoder/`, beside the autoencoder whose latents it decodes, byte for byte."""
        config = {"_class_name": "MoVQDecoder", "stride": self.config.stride}
        self.write_component(folder / COMPONENT, config | self.config.to_dict(), modules[COMPONENT])
        save.copy_component(self.vae_folder.place("vae"), folder / "vae")
        save.write_index(folder, self.vae_folder.name, self.vae_folder.system, ["vae", COMPONENT])


def _vae(modules: Modules) -> VideoAutoencoder:
    return cast(VideoAutoencoder, modules["vae"])
