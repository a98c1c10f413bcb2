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

from collections.abc import Mapping
from inspect import signature
from typing import TypeVar

from torch import Tensor

from vidgen.diffusion import prediction, schedules
from vidgen.diffusion.level import Levels
from vidgen.diffusion.solvers import SOLVERS, Solver
from vidgen.errors import InputError, UsageError, is_out_of_memory
from vidgen.nn.autoencoder import AutoencoderConfig, VideoAutoencoder
from vidgen.nn.dit import DiTConfig, VideoDiT
from vidgen.nn.text import TextTower, Tokenizer
from vidgen.systems.base import SCHEDULER, ModelFolder
from vidgen.systems.load import filled, first_line, named

T = TypeVar("T")


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


def latent_shape(folder: ModelFolder, config: DiTConfig) -> tuple[int, int, int, int]:
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


def denoiser(network: VideoDiT, folder: ModelFolder):
    """The network as `denoise(z, level, cond) → x0`; cond holds `VideoDiT`'s other arguments."""
    meaning = _named("prediction", prediction.PREDICTIONS, folder)()
    dtype = next(network.parameters()).dtype

    def raw(z: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return network(z.to(dtype), t, **cond)

    return prediction.denoiser(raw, meaning)


def solver(folder: ModelFolder, name: str | None = None) -> Solver:
    """The solver of that name, or the model's own."""
    if name is None:
        return _named("solver", SOLVERS, folder)
    if name not in SOLVERS:
        raise UsageError(f"no solver `{name}`", next=f"one of: {', '.join(SOLVERS)}")
    return SOLVERS[name]


def levels(folder: ModelFolder, num_inference_steps: int, shift: float | None = None) -> Levels:
    """The noise levels of a sampling run, noisiest first. `shift`: None for the model's own, where
    its schedule has one; UsageError for one where it hasn't."""
    schedule = _named("schedule", schedules.SCHEDULES, folder)
    if "shift" in signature(schedule).parameters:
        return schedule(num_inference_steps, shift=shift or folder.sampler.shift)
    if shift is not None:
        raise UsageError(
            f"--shift {shift:g}: the schedule of `{folder.name}`, {folder.sampler.schedule},"
            " has no shift",
            next="leave --shift out",
        )
    return schedule(num_inference_steps)


def _named(key: str, table: Mapping[str, T], folder: ModelFolder) -> T:
    """What the model's sampler names with a key; InputError for a name that isn't in the table."""
    return named(key, table, folder.sampler, folder.path / SCHEDULER)
