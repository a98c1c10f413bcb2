"""Keyframes by the U-Net of FusionFrames instead of the shipped transformer: the recipe of a
text-to-image network, and those of the temporal parts between its frozen blocks.

Everything else is the keyframes task's: the cached latents, the captions, the noise levels, the
held-out loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidgen.diffusion import guidance
from vidgen.diffusion.level import Levels, noised
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import denoiser
from vidgen.diffusion.schedules import flow_levels, linear_flow
from vidgen.diffusion.solvers import SOLVERS
from vidgen.nn.unet import UNet, UNetConfig, temporal_parameters
from vidgen.nn.unet_temporal import AddedConv, TimeConv
from vidgen.systems import save
from vidgen.systems.base import ModelFolder
from vidgen.systems.fusion_frames import widened
from vidgen.systems.load import filled
from vidgen.train.recipe import section
from vidgen.train.task import Modules
from vidgen.train.tasks.keyframes import KeyframesTask
from vidgen.world.captions import caption
from vidgen.world.scene import sample_scene

COMPONENT = "unet"
LAYERS = "conv1d_attn1d_layers"


class UNetKeyframesTask(KeyframesTask):
    """`model` is a `UNetConfig`. `data.start`: a folder that holds `unet/`, a text-to-image network
    of these sizes, which is frozen; without it everything is trained.

    Temporal layers are widened until they have as many parameters as temporal blocks of the same
    sizes (`equalized`).
    """

    name = "unet-keyframes"
    eight_bits = False  # others start from what it exports

    def __init__(self, recipe, *args, **kwargs) -> None:
        super().__init__(recipe.replace(model={}), *args, **kwargs)
        self.recipe = recipe
        self.unet = section(UNetConfig, recipe.model, where="model")

    def build(self) -> dict[str, nn.Module]:
        start = self.data.start
        self.data = replace(self.data, start=None)  # the transformer's, to the task beneath
        modules = super().build()
        self.data = replace(self.data, start=start)
        network = UNet(self.unet)
        if start is not None:
            pictures = filled(UNet, UNetConfig, ModelFolder(Path(start)), COMPONENT)
            network.load_state_dict(widened(pictures.state_dict(), self.unet))
            network.requires_grad_(False)
        if self.unet.variant == LAYERS:
            equalized(network)
        if start is not None:
            for p in temporal_parameters(network).values():
                p.requires_grad_(True)
        return {**modules, "transformer": network}

    def export(self, modules: Modules, folder: Path) -> None:
        """Of a text-to-image network only: what the others start from."""
        if self.unet.variant == "spatial":
            config = {"_class_name": "UNet", **self.unet.to_dict()}
            save.write_component(
                folder / COMPONENT, config, modules["transformer"], dtype=torch.float32
            )

    @torch.no_grad()
    def generated(self, modules: Modules, seeds: Sequence[int], run_seed: int) -> Tensor:
        """Latents `b c t h w` of these scenes' full captions, with the shipped model's sampler."""
        stride = self.vae_folder.size("vae", "stride")
        shape = (
            self.unet.out_channels, self.data.num_frames,
            self.data.height // stride, self.data.width // stride,
        )  # fmt: skip
        noise = _noise(seeds, run_seed)
        levels = linear_flow(self.sampler.num_inference_steps, shift=self.sampler.shift)
        return self._solved(modules, seeds, noise.initial(shape), levels, noise)

    @torch.no_grad()
    def restored(
        self, modules: Modules, seeds: Sequence[int], x0: Tensor, level: float, run_seed: int
    ) -> Tensor:
        """The latents of these scenes, noised to the flow time `level` and sampled from there on:
        a caption doesn't say where things are, what is left of a clip does."""
        noise = _noise(seeds, run_seed)
        steps = self.sampler.num_inference_steps
        levels = flow_levels(torch.linspace(level, 0, steps + 1, dtype=torch.float64))
        z = noised(x0, noise.initial(x0.shape[1:]), levels[0])
        return self._solved(modules, seeds, z, levels, noise)

    def _solved(
        self, modules: Modules, seeds: Sequence[int], z: Tensor, levels: Levels, noise: Noise
    ) -> Tensor:
        prompts = [caption(sample_scene(s, level=self.data.level)) for s in seeds]
        both = self.cond(modules, self.tokens(prompts + [""] * len(prompts))["ids"])
        cond = {k: x[: len(prompts)] for k, x in both.items()}
        uncond = {k: x[len(prompts) :] for k, x in both.items()}
        denoise = denoiser(self.called(modules), self.prediction)
        denoise = guidance.cfg(denoise, uncond, self.sampler.guidance_scale)
        for step in SOLVERS[self.sampler.solver](denoise, z, levels, cond, noise):
            z = step.z
        return z


def _noise(seeds: Sequence[int], run_seed: int) -> Noise:
    return Noise([(run_seed, str(seed)) for seed in seeds], stage="claim")


class WideConv(nn.Module):
    """Two convolutions over three frames with a SiLU between, in the place of a temporal layer's
    one; zero at the start, as that is."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.first = TimeConv(channels, hidden, 3)
        self.second = TimeConv(hidden, channels, 3).start_at_zero()

    def forward(self, x: Tensor, frames: int) -> Tensor:
        return self.second(F.silu(self.first(x, frames)), frames)


def equalized(network: UNet) -> None:
    """Widen the temporal layers of a network until it has as many temporal parameters as temporal
    blocks have at these sizes: `temporal_ratio` in the report of claim a tells how nearly.

    Blocks have norms, feed-forward parts and bottlenecks of their own, so at the same sizes they
    have more parameters. The paper compares them as they are; here the layers' side is
    made stronger rather than the blocks' weaker.
    """
    layers = [m for m in network.modules() if isinstance(m, AddedConv)]
    with torch.device("meta"):
        blocks = UNet(replace(network.config, variant="conv1d_attn1d_blocks"))
    wanted = _count(temporal_parameters(blocks).values())
    others = _count(temporal_parameters(network).values()) - _count(
        p for layer in layers for p in layer.parameters()
    )
    widths = [layer.conv.in_channels for layer in layers]

    def total(share: float) -> int:
        return others + sum(6 * c * _hidden(c, share) + _hidden(c, share) + c for c in widths)

    low, high = 0.0, 16.0  # hidden channels, in shares of the layer's own
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if total(middle) < wanted else (low, middle)
    for layer, width in zip(layers, widths, strict=True):
        layer.conv = WideConv(width, _hidden(width, high))  # type: ignore[assignment]


def _hidden(channels: int, share: float) -> int:
    return max(1, round(share * channels))


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() for p in parameters)
