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

from typing import Any

from torch import Tensor

from vidgen.diffusion.prediction import Network
from vidgen.diffusion.self_conditioning import Carried, Step
from vidgen.errors import InputError, is_out_of_memory
from vidgen.nn.autoencoder import AutoencoderConfig, VideoAutoencoder
from vidgen.nn.dit import DiTConfig, VideoDiT
from vidgen.nn.text import TextTower, Tokenizer
from vidgen.systems.base import ModelFolder
from vidgen.systems.load import filled, first_line


def load_tokenizer(folder: ModelFolder) -> Tokenizer:
    """The tokenizer alone: fast, no torch, enough to say which words are unknown."""
    length = folder.size("text_encoder", "max_position_embeddings")
    path = folder.component("tokenizer") / "tokenizer.json"
    try:
        return Tokenizer(path, length)
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError(f"{path}: can't be read: {first_line(error)}") from None


def load_text_tower(folder: ModelFolder) -> TextTower:
    """The prompt's encoder and its tokenizer, on the CPU."""
    tokenizer, path = load_tokenizer(folder), folder.component("text_encoder")
    try:
        return TextTower.load(tokenizer, path)
    except (OSError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(f"{path}: can't be loaded: {first_line(error)}") from None


def load_transformer(folder: ModelFolder) -> VideoDiT:
    """The keyframe network, in the dtype of its weights, on the CPU."""
    return filled(VideoDiT, DiTConfig, folder, "transformer")


def load_autoencoder(folder: ModelFolder) -> VideoAutoencoder:
    """Pixels ↔ latents, in the dtype of its weights, on the CPU."""
    return filled(VideoAutoencoder, AutoencoderConfig, folder, "vae")


def sample_shape(folder: ModelFolder, config: DiTConfig) -> tuple[int, int, int, int]:
    """`c t h w` of the latents that the keyframe network makes. InputError where its patches don't
    divide them."""
    made, stride = folder.geometry, folder.size("vae", "stride")
    shape = config.channels, made.num_frames, made.height // stride, made.width // stride
    if any(not n or n % patch for n, patch in zip(shape[1:], config.patch, strict=True)):
        raise InputError(
            f"{folder.path}/transformer/config.json: sample makes latents of {list(shape[1:])},"
            f" which patches of {list(config.patch)} don't divide"
        )
    return shape


def step(network: VideoDiT) -> Step:
    """One call of it; cond holds its other arguments."""
    dtype = next(network.parameters()).dtype

    def call(
        z: Tensor, t: Tensor, cond: dict[str, Any], latents: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return network.carry(z.to(dtype), t, latents=latents, **cond)

    return call


def called(network: VideoDiT) -> Network:
    """The network as it is called in a run of sampling."""
    if network.config.self_conditioned:
        return Carried(step(network))
    dtype = next(network.parameters()).dtype

    def raw(z: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return network(z.to(dtype), t, **cond)

    return raw
