"""A whole model of random weights, small enough to run in milliseconds: the same layout and code
paths as a real one."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from vidgen.diffusion.groups import PACKINGS
from vidgen.nn.autoencoder import AutoencoderConfig, VideoAutoencoder
from vidgen.nn.dit import DiTConfig, VideoDiT
from vidgen.nn.unet import UNet, UNetConfig
from vidgen.systems import save, upsampling
from vidgen.systems.base import INTERPOLATIONS, Geometry, Sampler
from vidgen.systems.interpolation import Settings
from vidgen.train.recipe import Recipe, load_recipe
from vidgen.train.task import make_task
from vidgen.train.tasks.text import TextTask

VAE = AutoencoderConfig(
    channels=4, encoder_widths=(8, 8, 8), decoder_widths=(8, 8, 8), encoder_blocks=1,
    decoder_blocks=1,
)  # fmt: skip
DIT = DiTConfig(
    channels=4, dim=32, depth=2, heads=2, text_dim=16, pooled_dim=16, rope_dims=(4, 6, 6)
)


def make(folder: Path, *, name: str = "tiny", seed: int = 0) -> Path:
    """Write the model into `folder`; another seed is another autoencoder, encoder and network."""
    torch.manual_seed(seed)
    vae, network = VideoAutoencoder(VAE), VideoDiT(DIT)
    with torch.no_grad():
        for p in network.parameters():  # a new network returns zero
            p.add_(0.05 * torch.randn_like(p))
    config = {"_class_name": "VideoAutoencoder", "stride": VAE.stride} | VAE.to_dict()
    save.write_component(folder / "vae", config, vae)
    geometry = asdict(Geometry(num_frames=3, height=16, width=32, fps=2.0))
    save.write_component(folder / "transformer", DIT.to_dict() | {"sample": geometry}, network)
    task = TextTask(Recipe("text", model={"dim": 16, "depth": 1, "heads": 2, "max_length": 24}))
    task.export(task.build(), folder)
    sampler = Sampler("flow", "linear_flow", "euler", 3, 2.0, shift=2.0)
    save.write_json(folder / "scheduler" / "scheduler_config.json", asdict(sampler))
    for method, component in INTERPOLATIONS.items():
        interpolator(folder / component, method)
    upsampler(folder / upsampling.COMPONENT)
    parts = ["text_encoder", "tokenizer", "transformer", "vae", "scheduler",
             *INTERPOLATIONS.values(),
             upsampling.COMPONENT]  # fmt: skip
    save.write_index(folder, name, "world", parts)
    return folder


def interpolator(folder: Path, method: str) -> None:
    """Write an interpolation network of either kind."""
    channels, out = PACKINGS[method].channels(VAE.channels)
    variant = "interpolation" if method == "grouped" else "conv1d_attn1d_blocks"
    config = UNetConfig(
        in_channels=channels, out_channels=out, variant=variant, init_channels=16, widths=(16, 16),
        self_attention=(False, True), cross_attention=(False, False), blocks=1, head_dim=8,
        groups=4, time_dim=32, text_dim=0, noise_embedding="time", skip_rows=20,
    )  # fmt: skip
    unet(folder, config, Settings("v", "cosine", "euler", 3, 1.25))


def upsampler(folder: Path) -> None:
    """Write an upsampler."""
    config = UNetConfig(
        in_channels=2 * VAE.channels, out_channels=VAE.channels, variant="interpolation",
        init_channels=16, widths=(16, 16), self_attention=(False, False),
        cross_attention=(False, False), blocks=1, groups=4, time_dim=32, level_scale=1000.0,
        text_dim=0, noise_embedding="time", skip_rows=20,
    )  # fmt: skip
    unet(folder, config, upsampling.Settings("x0", "linear_flow", "euler", 4))


def unet(folder: Path, config: UNetConfig, settings: Settings) -> None:
    """Write a network of this config, and how it is sampled."""
    network = UNet(config)
    with torch.no_grad():
        for p in network.parameters():  # in a new network gates are closed
            p.add_(0.05 * torch.randn_like(p))
    save.write_component(folder, config.to_dict() | {"sample": asdict(settings)}, network)


def pixels(folder: Path, text: Path) -> Path:
    """Write a model that makes pixels, of random weights, and its upsampler; `text`: a model whose
    text it reads."""
    for stage, given in (("pixels", f"data.text={text}"), ("upsampler", f"data.base={folder}")):
        recipe = load_recipe(f"world-snap-video-{stage}", preset="tiny", overrides=[given])
        task = make_task(recipe)
        torch.manual_seed(0)
        modules = task.build()
        made = folder.with_name(f"{folder.name}-{stage}")
        task.export(modules, made)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    return folder


def leave(folder: Path, *parts: str) -> None:
    """Leave only these components in a model."""
    index = json.loads((folder / "model_index.json").read_text())
    for name in [name for name, pair in index.items() if isinstance(pair, list)]:
        if name not in parts:
            shutil.rmtree(folder / name)
            index.pop(name)
    (folder / "model_index.json").write_text(json.dumps(index))


def change(path: Path) -> None:
    """Other weights."""
    tensors = {name: x + 0.01 for name, x in load_file(path).items()}
    save_file(tensors, path)
