"""The shipped model: keyframes of the procedural world, by a latent flow-matching transformer.

No paper of its own. A BERT-shaped text tower, a convolutional autoencoder that works frame by
frame, and a `VideoDiT` on its latents, trained with rectified flow (Lipman et al. 2022; Liu et al.
2022): z = (1 − t)·x0 + t·eps, the network returns eps − x0, and a plain Euler step per level is
the solver. All sizes and settings are our own choices, found by training on two CPU cores; the
model card says what was tried.

| symbol | here | meaning |
|---|---|---|
| x0 | latents `8 5 5 8` | five keyframes, half a second apart, of 40 × 64 pixels |
| t | `level.t` | flow time, 1 = noise |
| shift | `Sampler.shift` | t ← shift·t / (1 + (shift − 1)·t): more steps where the picture forms |
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidgen.diffusion import prediction, schedules
from vidgen.diffusion.level import Levels
from vidgen.io import weights
from vidgen.nn.autoencoder import AutoencoderConfig, VideoAutoencoder
from vidgen.nn.dit import DiTConfig, VideoDiT
from vidgen.nn.text import TextTower, Tokenizer
from vidgen.systems.base import ModelFolder


def load_tokenizer(folder: ModelFolder) -> Tokenizer:
    """The tokenizer alone: fast, no torch, enough to say which words are unknown."""
    length = folder.config("text_encoder")["max_position_embeddings"]
    return Tokenizer(folder.component("tokenizer") / "tokenizer.json", length)


def load_text_tower(folder: ModelFolder) -> TextTower:
    """The prompt's encoder and its tokenizer, on the CPU."""
    return TextTower.load(load_tokenizer(folder), folder.component("text_encoder"))


def load_transformer(folder: ModelFolder) -> VideoDiT:
    """The keyframe network, in the dtype of its weights, on the CPU."""
    config = folder.config("transformer")
    known = {k: v for k, v in config.items() if k in DiTConfig.__dataclass_fields__}
    return _filled(VideoDiT, DiTConfig(**known), folder, "transformer")


def load_autoencoder(folder: ModelFolder) -> VideoAutoencoder:
    """Pixels ↔ latents, in the dtype of its weights, on the CPU."""
    config = folder.config("vae")
    known = {k: v for k, v in config.items() if k in AutoencoderConfig.__dataclass_fields__}
    return _filled(VideoAutoencoder, AutoencoderConfig(**known), folder, "vae")


def _filled(network: type, config, folder: ModelFolder, component: str):
    """Build on the meta device and let the weights be the memory map of the file."""
    with torch.device("meta"):
        module = network(config)
    state: dict[str, Tensor] = {}
    for path in folder.weight_files(component):
        state.update(weights.load_safetensors(path))
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval().requires_grad_(False)


def denoiser(network: VideoDiT, folder: ModelFolder):
    """The network as `denoise(z, level, cond) → x0`; cond holds `VideoDiT`'s other arguments."""
    meaning = prediction.PREDICTIONS[folder.sampler.prediction]()
    dtype = next(network.parameters()).dtype

    def raw(z: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return network(z.to(dtype), t, **cond)

    return prediction.denoiser(raw, meaning)


def levels(folder: ModelFolder, num_inference_steps: int, shift: float) -> Levels:
    """The noise levels of a sampling run, noisiest first."""
    return schedules.SCHEDULES[folder.sampler.schedule](num_inference_steps, shift=shift)
