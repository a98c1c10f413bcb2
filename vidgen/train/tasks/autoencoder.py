"""Train the autoencoder: single frames of the world, at several sizes, reconstructed.

Loss = L1 + squared error + L1 of neighbour differences (edges), plus a pull of the latents towards
zero mean and unit variance per channel. Noise on the latents makes the decoder forgive what a
sampler will get slightly wrong, and leaves the encoder no room for what can't be told from noise.

With `loss.equivariance` latents of half the size, each the mean of four, must decode to the frames
of half the size (Skorokhodov et al. 2025, "Improving the Diffusability of Autoencoders"): then they
are smooth, and a diffusion model learns them sooner.

With `data.start` an existing autoencoder is trained on. With `data.decoder_only` its encoder and
the scale of its latents are frozen: a network trained on those latents stays right.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vidgen.errors import UsageError
from vidgen.io.image import write_png
from vidgen.nn.autoencoder import AutoencoderConfig, VideoAutoencoder
from vidgen.nn.pixels import from_uint8, to_uint8
from vidgen.systems import world
from vidgen.systems.base import ModelFolder
from vidgen.systems.save import write_index
from vidgen.train.recipe import section
from vidgen.train.task import Modules, Task, generator, share
from vidgen.train.tasks.pixels import PixelLoss, clip_scores, noisy, pixel_loss
from vidgen.world.render import render
from vidgen.world.scene import VALIDATION_SEEDS, sample_scene


@dataclass(frozen=True)
class Data:
    """Frames to reconstruct."""

    level: str = "basic"  # of the world
    # One size (height, width) a step, in turn; a larger one has fewer frames, equal in pixels.
    sizes: tuple[tuple[int, int], ...] = ((40, 64), (40, 64), (40, 64), (80, 128))
    start: str | None = None  # a folder that holds `vae/`: where its weights begin
    decoder_only: bool = False  # of `start`


@dataclass(frozen=True)
class Loss(PixelLoss):
    """Weights of the terms beside L1."""

    moments: float = 0.01
    equivariance: float = 0.0  # of what latents of half the size decode to


class AutoencoderTask(Task):
    """`model` is an `AutoencoderConfig`; one sample is one frame."""

    name = "autoencoder"
    eight_bits = False  # latents are measured by the weights as stored

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.config = section(AutoencoderConfig, self.recipe.model, where="model")
        self.data = section(Data, self.recipe.data, where="data")
        self.weights = section(Loss, self.recipe.loss, where="loss")
        if self.data.decoder_only and self.data.start is None:
            raise UsageError("recipe: data.decoder_only without data.start: whose decoder?")

    def build(self) -> dict[str, torch.nn.Module]:
        if self.data.start is None:
            vae = VideoAutoencoder(self.config)
        else:
            vae = world.load_autoencoder(ModelFolder(Path(self.data.start))).float()
            (vae.decoder if self.data.decoder_only else vae).requires_grad_(True)
        return {"vae": vae.to(memory_format=torch.channels_last)}  # type: ignore[call-overload]

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        height, width = self.data.sizes[step % len(self.data.sizes)]
        rows = share(self.recipe.batch_size, rank, world)
        area = height * width / (self.data.sizes[0][0] * self.data.sizes[0][1])
        count = max(2, round(len(rows) / area))
        # Two moments of each scene: rendering a scene twice costs less than two scenes.
        draw = generator(self.recipe.seed, "times", step, rank)
        times = (torch.rand(2, generator=draw, dtype=torch.float64) * 2).tolist()
        first = (step * world + rank) * self.recipe.batch_size
        frames = self._render(range(first, first + count // 2), times, height, width)
        return {"frames": rearrange(frames, "b t h w c -> (b t) c 1 h w")}

    def _render(self, seeds: range, times: list[float], height: int, width: int) -> Tensor:
        scenes = [sample_scene(seed, level=self.data.level) for seed in seeds]
        return render(scenes, times=times, height=height, width=width).frames  # b t h w 3

    def loss(
        self, modules: Modules, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        frames = from_uint8(batch["frames"])  # b 3 1 h w
        vae = _vae(modules)
        with torch.set_grad_enabled(not self.data.decoder_only):
            latents = vae.encode(frames).float()
        made = vae.decode(noisy(latents, self.weights, generator)).float()
        error = made - frames
        mean = latents.mean(dim=(0, 2, 3, 4))
        std = latents.std(dim=(0, 2, 3, 4))
        loss, squared = pixel_loss(error, self.weights)
        loss = loss + self.weights.moments * (mean.square() + (std - 1).square()).mean()
        if self.weights.equivariance:
            loss = loss + self.weights.equivariance * self._of_half_size(vae, latents, frames)
        return loss, {"psnr": -10 * (squared.detach() / 4).log10(), "latent_std": std.mean()}

    def _of_half_size(self, vae: VideoAutoencoder, latents: Tensor, frames: Tensor) -> Tensor:
        """The loss of what halved latents decode to, against halved frames; an odd row or column of
        latents is left out."""
        rows, columns = (2 * (n // 2) for n in latents.shape[-2:])
        s = vae.config.stride
        small = F.avg_pool3d(latents[..., :rows, :columns], (1, 2, 2))
        true = F.avg_pool3d(frames[..., : s * rows, : s * columns], (1, 2, 2))
        return pixel_loss(vae.decode(small).float() - true, self.weights)[0]

    @torch.no_grad()
    def evaluate(self, modules: Modules, step: int) -> dict[str, float]:
        """Peak signal-to-noise ratio on validation scenes, in dB, clamped and rounded frames."""
        scores = {}
        for height, width in sorted(set(self.data.sizes)):
            frames, made = self._reconstruct(modules, 32, height, width)
            scores[f"psnr_{height}x{width}"] = clip_scores(made, frames)["psnr"]
        return scores

    def sample_sheet(self, modules: Modules, path: Path) -> None:
        """Rows of frames, with what the autoencoder makes of them beneath."""
        frames, made = self._reconstruct(modules, 8, *self.data.sizes[-1])
        rows = torch.stack((frames[:, 0], made[:, 0]))  # two b h w c
        sheet = rearrange(rows, "two (r b) h w c -> (r two h) (b w) c", r=2)
        write_png(path, sheet.numpy())

    @torch.no_grad()
    def _reconstruct(
        self, modules: Modules, count: int, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        seeds = range(VALIDATION_SEEDS.start, VALIDATION_SEEDS.start + count)
        frames = self._render(seeds, [0.75], height, width)  # b 1 h w 3
        x = from_uint8(rearrange(frames.to(self.device), "b t h w c -> b c t h w"))
        vae = _vae(modules)
        pixels = to_uint8(vae.decode(vae.encode(x))).cpu()
        return frames.cpu(), rearrange(pixels, "b c t h w -> b t h w c")

    @torch.no_grad()
    def export(self, modules: Modules, folder: Path) -> None:
        """Measure the latents' mean and spread on training scenes (unless that is fixed already),
        and write `vae/`."""
        vae = _vae(modules).float()
        for p in vae.parameters():  # as they will be read back
            p.copy_(p.to(torch.bfloat16).float())
        if not self.data.decoder_only:
            self._measure(vae)
        config = {"_class_name": "VideoAutoencoder", "stride": vae.config.stride}
        self.write_component(folder / "vae", config | vae.config.to_dict(), vae)
        write_index(folder, "world", "world", ["vae"])

    def _measure(self, vae: VideoAutoencoder) -> None:
        vae.latents_mean.zero_()
        vae.latents_std.fill_(1)
        frames = self._render(range(256), [0.0, 1.0, 2.0], *self.data.sizes[0])
        latents = vae.encode(from_uint8(rearrange(frames, "b t h w c -> b c t h w")))
        vae.latents_mean.copy_(latents.mean(dim=(0, 2, 3, 4)))
        vae.latents_std.copy_(latents.std(dim=(0, 2, 3, 4)))


def _vae(modules: Modules) -> VideoAutoencoder:
    return cast(VideoAutoencoder, modules["vae"])
