"""Train Snap Video's FIT on latents or pixels: input-scaled EDM, latent self-conditioning. Or the
U-Net that it is compared with, in the same way (`network: AdmUNet`).

In nine of ten samples the network first runs without gradient and without latents of a call before,
and what it ends with is given to the call that is trained (RIN, Jabri et al. 2022; Snap Video,
Menapace et al. 2024, table 8). A U-Net has nothing to be given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from vidgen.diffusion import losses, self_conditioning
from vidgen.diffusion.level import Level, expand, noised
from vidgen.diffusion.prediction import Network, Snap, denoiser
from vidgen.errors import UsageError
from vidgen.nn.adm_unet import AdmUNet
from vidgen.nn.fit import FIT
from vidgen.systems import snap_video
from vidgen.systems.base import ModelFolder, PixelSampler, Sampler
from vidgen.systems.snap_video import KIND, NETWORKS, SELF_CONDITIONED
from vidgen.train.recipe import network_section, section
from vidgen.train.task import Modules, require_alike
from vidgen.train.tasks.captioned import CaptionedTask
from vidgen.train.tasks.keyframes import Loss as Flow
from vidgen.train.tasks.text_to_latents import TextToLatentsTask
from vidgen.train.tasks.text_to_pixels import TextToPixelsTask


@dataclass(frozen=True)
class Loss:
    """Input scaling, and the distribution of noise levels: ln(sigma) ~ N(mean, std²)."""

    sigma_in: float = 1.0
    sigma_data: float = 1.0
    mean: float = -1.2
    std: float = 1.2
    self_conditioned: float = SELF_CONDITIONED  # share of the samples
    steps: int = 16  # of sampling, unless the user says otherwise


@dataclass(frozen=True)
class LatentsLoss(Loss):
    """The same, of latents."""

    object_weight: float = 1.0  # see `TextToLatentsTask.weigh_objects`


@dataclass(frozen=True)
class PixelsLoss(Loss):
    """The same, and how pixels are sampled unless the user says otherwise (`PixelSampler`)."""

    guidance_scale: float = 2.5
    threshold: float | None = None
    low_guidance_scale: float | None = None
    hold: int = 1


class InputScaled(CaptionedTask):
    """`model` is a `FITConfig`, or with `network: AdmUNet` an `AdmUNetConfig`. What is trained on,
    latents or pixels, another class says."""

    kinds: ClassVar[Mapping[str, tuple[type, type]]] = NETWORKS
    loss_class: type = Loss
    system = "snap-video"

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        w: Any = section(self.loss_class, self.recipe.loss, where="loss")
        self.weights = w
        for key in ("sigma_in", "sigma_data", "std", "steps"):
            if not getattr(w, key) > 0:
                raise UsageError(f"recipe: loss.{key} is {getattr(w, key):g}, must be above 0")
        if not 0 <= w.self_conditioned <= 1:
            raise UsageError(
                f"recipe: loss.self_conditioned is {w.self_conditioned:g}, must be from 0 to 1"
            )
        if self.kind != KIND and w.self_conditioned:
            raise UsageError(
                f"recipe: loss.self_conditioned is {w.self_conditioned:g}, and an {self.kind} has"
                " no latent tokens to begin with",
                next="--set loss.self_conditioned=0",
            )
        width = self.text_folder.size("text_encoder", "hidden_size")
        if self.config.text_dim != width:
            raise UsageError(
                f"recipe: model.text_dim is {self.config.text_dim}, and the text encoder of"
                f" {self.text_folder.path} makes vectors of {width}",
                next=f"--set model.text_dim={width}",
            )
        self.prediction = Snap(w.sigma_data)
        self.sampler = Sampler(
            "snap", "snap", "heun", w.steps, 2.5, sigma_in=w.sigma_in, sigma_data=w.sigma_data
        )

    def read_model(self) -> Any:
        self.kind, config = network_section(self.recipe.model, self.kinds, KIND)
        return config

    def network(self) -> FIT | AdmUNet:
        try:
            return self.kinds[self.kind][0](self.config)
        except ValueError as error:
            raise UsageError(f"recipe: model: {error}") from None

    def draw_levels(self, n: int, generator: torch.Generator) -> Level:
        w = self.weights
        return losses.lognormal_edm(n, w.mean, w.std, generator, sigma_in=w.sigma_in)

    def called(self, modules: Modules) -> Network:
        network = modules["transformer"]
        assert isinstance(network, (FIT, AdmUNet))
        return snap_video.called(network)

    def trained(self, modules: Modules, generator: torch.Generator) -> Network:
        if self.kind != KIND:
            return self.called(modules)
        step = snap_video.step(cast(FIT, modules["transformer"]))
        return self_conditioning.trained(step, self.weights.self_conditioned, generator)

    def error(
        self, modules: Modules, x0: Tensor, cond: dict[str, Tensor], draw: torch.Generator
    ) -> float:
        """Of the velocity eps − x0, self-conditioned once, on the levels that the task `keyframes`
        measures on, whatever the input scaling: comparable with that task, and between runs."""
        sigma_in = self.weights.sigma_in
        t = losses.logit_normal_flow(len(x0), mean=Flow.t_mean, std=Flow.t_std, generator=draw)
        eps = torch.randn(x0.shape, generator=draw, device=x0.device)
        sigma = t.sigma / (t.alpha * sigma_in)
        level = Level(sigma, torch.full_like(sigma, 1 / sigma_in), sigma)
        z = noised(x0, eps, level)
        called = self.called(modules)
        denoise = denoiser(called, self.prediction)
        if isinstance(called, self_conditioning.Carried):
            denoise(z, level, cond)
        found = denoise(z, level, cond)
        return float(((found - x0) / expand(t.sigma, x0)).square().mean())


class SnapVideoTask(InputScaled, TextToLatentsTask):
    """One sample is the latents of the frames of one clip."""

    name = "snap-video"
    loss_class = LatentsLoss

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.weigh_objects(self.weights.object_weight)
        c, made = self.config, self.geometry
        channels, stride = self.vae_folder.latent_sizes
        rows, columns = made.height // stride, made.width // stride
        for key in ("in_channels", "out_channels"):
            if (own := getattr(c, key)) != channels:
                raise UsageError(
                    f"recipe: model.{key} is {own}, and latents of {self.vae_folder.path} have"
                    f" {channels}",
                    next=f"--set model.{key}={channels}",
                )
        if why := c.unfit(made.num_frames, rows, columns):
            raise UsageError(
                f"recipe: data are {made.num_frames} latents of {rows} × {columns}, and {why}"
            )
        if c.levels != 1:
            raise UsageError(f"recipe: model.levels is {c.levels}, and of this task it is 1")

    def network(self) -> FIT | AdmUNet:
        """With `data.start`, the one there."""
        network, start = super().network(), self.data.start
        if start is None:
            return network
        folder, own = ModelFolder.find(start), self.sampler
        require_alike(folder, {"vae": self.vae_folder, "text_encoder": self.text_folder})
        trained = snap_video.load_transformer(folder).float()
        scales = {key: getattr(own, key) for key in ("sigma_in", "sigma_data")}
        wanted = {"model.network": self.kind}
        wanted |= {f"model.{k}": v for k, v in self.config.to_dict().items()}
        wanted |= {f"loss.{k}": v for k, v in scales.items()}
        found = {"model.network": type(trained).__name__}
        found |= {f"model.{k}": v for k, v in trained.config.to_dict().items()}
        found |= {f"loss.{k}": getattr(folder.sampler, k) for k in scales}
        for key, value in wanted.items():
            if found[key] != value:
                raise UsageError(
                    f"recipe: {key} is {value}, and that of data.start, {start}, is {found[key]}"
                )
        return trained.requires_grad_(True)


class SnapPixelsTask(InputScaled, TextToPixelsTask):
    """One sample is the frames of one clip, or one frame of it as often."""

    name = "snap-video-pixels"
    loss_class = PixelsLoss

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        w, coarse = self.weights, self.data.coarse
        if self.kind != KIND and coarse:
            raise UsageError(
                f"recipe: data.coarse is {coarse:g}, and an {self.kind} isn't told which clips were"
                " smaller once",
                next="--set data.coarse=0",
            )
        for key in ("guidance_scale", "low_guidance_scale", "hold"):
            if (value := getattr(w, key)) is not None and not value > 0:
                raise UsageError(f"recipe: loss.{key} is {value:g}, must be above 0")
        own = {key: getattr(w, key) for key in ("threshold", "low_guidance_scale", "hold")}
        settings = asdict(self.sampler) | own | {"guidance_scale": w.guidance_scale}
        try:
            self.sampler = PixelSampler(**settings)
        except ValueError as error:
            raise UsageError(f"recipe: loss.{error}") from None
