"""CogVideoX (Yang et al. 2024, arXiv 2408.06072) as released: 2B, 5B, 1.5-5B, and image to video.

A causal autoencoder (`vidgen.nn.cogvideox_vae`), a transformer over text and video in one sequence
(`vidgen.nn.cogvideox_dit`), T5-XXL for the text, and diffusion with v as what the network returns,
from pure noise (zero terminal SNR). Folders have diffusers' layout: `vidgen.nn.cogvideox_config`
reads their networks' JSON, `vidgen.nn.cogvideox_keys` knows their names.

| symbol | here | meaning |
|---|---|---|
| z | `z` `b 16 t h w` | noisy latents, of 4 frames (the first: of one) and 8 × 8 pixels each |
| ᾱ_t | `level.alpha`² | signal left at timestep t = 0…999; even steps in √beta, .00085 to .012 |
| s | `Scheduler.snr_shift` | ᾱ ← ᾱ/(s + (1 − s)·ᾱ), then √ᾱ is stretched to end at 0; 2B: 3 |
| v | network output | √ᾱ·eps − √(1 − ᾱ)·x0 |
| g | `guidance_scale` | 6; with the DPM solver it varies by step: `guidance.dynamic_cfg` |

Published, and followed: all of the above; 50 steps; DDIM, and SDE-DPM-Solver++(2M), which is
`dpmpp_2m_sde`; text of 226 tokens (1.5: 224), padded, without a mask; frames to make:
8n + 1 (1.5: 16n + 1). 1.5 has two latents in a patch, so an odd number of them gets one more in
front, in training a copy of the first, which is cut off in the end. In image-to-video the picture's
latents are given beside the first frame of z, that of 1.5 being the copy, and zeros beside the
others.

Released schedulers step to t − ⌊1000/n⌋ although the next t is rounded otherwise: for numbers of
steps that don't divide 1000, and spacings but "trailing", they land a timestep beside the next
level, and ours on it. Where n divides 1000 the two are the same.

Ours: z stays float32 from step to step, which released pipelines round to the network's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vidgen.diffusion.cond import Cond
from vidgen.diffusion.guidance import cfg, dynamic_cfg
from vidgen.diffusion.level import Levels
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import PREDICTIONS, Denoiser, Network, Prediction, denoiser
from vidgen.diffusion.schedules import ddpm_scaled_linear
from vidgen.diffusion.solvers import SOLVERS, Solver
from vidgen.errors import InputError, UsageError
from vidgen.nn.cogvideox_config import (
    Known,
    read_settings,
    shown,
    transformer_config,
    vae_config,
)
from vidgen.nn.cogvideox_dit import CogVideoXConfig, CogVideoXDiT
from vidgen.nn.cogvideox_keys import released, transformer_keys, vae_keys
from vidgen.nn.cogvideox_vae import CogVideoXAutoencoder, CogVideoXVAEConfig
from vidgen.nn.text import TextTower, Tokenizer
from vidgen.systems.base import SCHEDULER, Geometry, ModelFolder, Sampler
from vidgen.systems.load import filled_released, released_windows
from vidgen.systems.released import (
    Asked,
    Pictured,
    Run,
    fitted,
    load_encoder,
    require_picture,
    require_sides,
    solver_named,
    tokenizer,
    without_weights,
)

STEPS = 50
PICTURE = "sample picture"  # the stage of the noise by which a picture's latents are drawn
GUIDANCE_SCALE = 6.0


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """How a released model is sampled. The defaults are those of 5B."""

    solver_name: str = "ddim"  # or dpmpp_2m_sde
    prediction_name: str = "v"
    spacing: str = "trailing"
    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    zero_snr: bool = True
    snr_shift: float = 1.0
    steps_offset: int = 0

    def levels(self, num_inference_steps: int) -> Levels:
        """The noise levels of a sampling run, noisiest first."""
        return ddpm_scaled_linear(
            num_inference_steps,
            self.spacing,
            num_train_timesteps=self.num_train_timesteps,
            beta_start=self.beta_start,
            beta_end=self.beta_end,
            zero_snr=self.zero_snr,
            snr_shift=self.snr_shift,
            steps_offset=self.steps_offset,
        )

    def prediction(self) -> Prediction:
        return PREDICTIONS[self.prediction_name]()

    def solver(self) -> Solver:
        return SOLVERS[self.solver_name]

    @property
    def dynamic_guidance(self) -> bool:
        """Whether released scripts vary the guidance from step to step: with the DPM solver."""
        return self.solver_name == "dpmpp_2m_sde"


class Preset(NamedTuple):
    """A released model: its networks, how it is sampled, and what it makes."""

    transformer: CogVideoXConfig
    vae: CogVideoXVAEConfig
    scheduler: Scheduler
    geometry: Geometry


_2B = CogVideoXConfig()
_5B = replace(_2B, heads=48, depth=42, positions="rotary")
_1_5 = replace(_5B, patch_frames=2, patch_bias=False, sample=(21, 300, 300), text_tokens=224)
_VAE = CogVideoXVAEConfig(scale=0.7)
_SMALL, _LARGE = Geometry(49, 480, 720, 8.0), Geometry(81, 768, 1360, 16.0)

PRESETS = {
    "2b": Preset(_2B, CogVideoXVAEConfig(), Scheduler(snr_shift=3.0), _SMALL),
    "5b": Preset(_5B, _VAE, Scheduler(), _SMALL),
    "5b-i2v": Preset(replace(_5B, in_channels=32, positions="learned"), _VAE, Scheduler(), _SMALL),
    "1.5-5b": Preset(_1_5, _VAE, Scheduler(), _LARGE),
    "1.5-5b-i2v": Preset(
        replace(_1_5, in_channels=32, offset_dim=512),
        replace(_VAE, inverted_image_scale=True),
        Scheduler(),
        _LARGE,
    ),
}


# --- schedulers -----------------------------------------------------------------------------------

SCHEDULERS = Known(
    ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"),
    {
        "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 0,
        "clip_sample": True, "prediction_type": "epsilon", "timestep_spacing": "leading",
        "rescale_betas_zero_snr": False, "snr_shift_scale": 3.0,
    },
    {"beta_schedule": "scaled_linear", "trained_betas": None, "set_alpha_to_one": True},
    frozenset({"clip_sample_range", "sample_max_value"}),
)  # fmt: skip

PREDICTION_TYPES = {"v_prediction": "v", "epsilon": "eps", "sample": "x0"}
SPACINGS = ("trailing", "leading", "linspace")


def scheduler(settings: Mapping[str, Any], where: str) -> Scheduler:
    """What the scheduler with this scheduler_config.json, called `where`, is here."""
    s = read_settings(settings, where, SCHEDULERS)
    for key, choices in (
        ("clip_sample", (False,)),
        ("prediction_type", tuple(PREDICTION_TYPES)),
        ("timestep_spacing", SPACINGS),
    ):
        if s[key] not in choices:
            allowed = ", ".join(map(shown, choices))
            raise InputError(f"{where}: {key} is {shown(s[key])}, known: {allowed}")
    return Scheduler(
        solver_name="ddim" if settings["_class_name"] == SCHEDULERS.classes[0] else "dpmpp_2m_sde",
        prediction_name=PREDICTION_TYPES[s["prediction_type"]],
        spacing=s["timestep_spacing"],
        num_train_timesteps=s["num_train_timesteps"],
        beta_start=s["beta_start"],
        beta_end=s["beta_end"],
        zero_snr=s["rescale_betas_zero_snr"],
        snr_shift=s["snr_shift_scale"],
        steps_offset=s["steps_offset"],
    )


# --- folders --------------------------------------------------------------------------------------


def load_config(folder: ModelFolder) -> CogVideoXConfig:
    """The sizes of the network."""
    where = f"{folder.path}/transformer/config.json"
    return transformer_config(folder.config("transformer"), where)


def load_vae_config(folder: ModelFolder) -> CogVideoXVAEConfig:
    """The sizes of the autoencoder."""
    return vae_config(folder.config("vae"), f"{folder.path}/vae/config.json")


def latent_sizes(folder: ModelFolder) -> tuple[int, int]:
    """Channels of its latents, and how many pixels wide and high one stands for."""
    config = load_vae_config(folder)
    return config.channels, config.stride


def decoder_width(folder: ModelFolder) -> int:
    """Channels of the decoder's finest level."""
    return load_vae_config(folder).widths[0]


def sampler(folder: ModelFolder) -> Sampler:
    """How the folder's model is sampled unless the user says otherwise."""
    own = load_scheduler(folder)
    return Sampler(
        own.prediction_name, "ddpm_scaled_linear", own.solver_name, STEPS, GUIDANCE_SCALE
    )


def geometry(folder: ModelFolder) -> Geometry:
    """What the folder's model makes unless the user says otherwise: the size in its config, but of
    1.5, whose config has a square that isn't its size."""
    config = load_config(folder)
    if config.patch_frames is not None:
        return _LARGE
    frames, rows, columns = config.sample
    return Geometry(4 * (frames - 1) + 1, 8 * rows, 8 * columns, _SMALL.fps)


def load_transformer(folder: ModelFolder, dtype: torch.dtype | None = None) -> CogVideoXDiT:
    """The network of a released folder, in `dtype` or that of its weights, on the CPU."""
    config = load_config(folder)
    names = _names(transformer_keys(config))
    network = filled_released(partial(CogVideoXDiT, config), names, folder, "transformer")
    return network if dtype is None else network.to(dtype)


def load_autoencoder(folder: ModelFolder) -> CogVideoXAutoencoder:
    """Pixels ↔ latents, in the dtype of the folder's weights, on the CPU."""
    config = load_vae_config(folder)
    names = _names(vae_keys(config))
    return filled_released(partial(CogVideoXAutoencoder, config), names, folder, "vae")


def load_scheduler(folder: ModelFolder) -> Scheduler:
    """How the folder's model is sampled."""
    return scheduler(folder._json(SCHEDULER), f"{folder.path / SCHEDULER}")


def _names(keys: Mapping[str, str]) -> Callable[[Iterable[str]], dict[str, str]]:
    """What gives our tensors' names → the released ones."""
    return lambda own: {ours: theirs for theirs, ours in released(own, keys).items()}


# --- sizes ----------------------------------------------------------------------------------------


def check_frames(num_frames: int, config: CogVideoXConfig, vae: CogVideoXVAEConfig) -> None:
    """UsageError, naming the two nearest, for a number of frames that isn't 8n + 1, or 16n + 1 for
    1.5. Others would come back from the autoencoder as another number, or not at all."""
    every = 2 * vae.time_stride * (config.patch_frames or 1)
    if num_frames < 1 or (num_frames - 1) % every:
        below = 1 + max(num_frames - 1, 0) // every * every
        raise UsageError(
            f"{num_frames} frames, and this model makes {every}n + 1",
            next=f"--num-frames {below} or {below + every}",
        )


def latent_shape(
    made: Geometry, config: CogVideoXConfig, vae: CogVideoXVAEConfig
) -> tuple[int, int, int, int]:
    """`c t h w` of the latents to sample, with the one in front that 1.5 needs (`without_padding`).

    UsageError for frames or sides that the model can't make.
    """
    check_frames(made.num_frames, config, vae)
    require_sides(made, (vae.stride * config.patch,) * 2)
    rows, columns = made.height // vae.stride, made.width // vae.stride
    if config.positions == "learned" and (rows, columns) != config.sample[1:]:
        high, wide = (n * vae.stride for n in config.sample[1:])
        raise UsageError(
            f"{made.width}x{made.height} pixels, and this model knows {wide}x{high} only",
            why="its positions are a learned table",
        )
    frames = (made.num_frames - 1) // vae.time_stride + 1
    padding = -frames % (config.patch_frames or 1)
    return config.out_channels, frames + padding, rows, columns


def without_padding(latents: Tensor, num_frames: int, vae: CogVideoXVAEConfig) -> Tensor:
    """Of the latents `b c t h w` that were sampled, those of the frames that were asked for."""
    return latents[:, :, -((num_frames - 1) // vae.time_stride + 1) :]


# --- sampling -------------------------------------------------------------------------------------


def called(network: CogVideoXDiT) -> Network:
    """The network as it is called in a run of sampling; cond holds `text`, and `image` where the
    model is given one."""
    dtype = next(network.parameters()).dtype

    def raw(z: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        return network(z.to(dtype), t, text=cond["text"], image=cond.get("image"))

    return raw


@torch.no_grad()
def image_condition(
    vae: CogVideoXAutoencoder, picture: Tensor, frames: int, eps: Tensor | None = None
) -> Tensor:
    """picture `b 3 h w` in −1…1 → what an image-to-video model is given beside z: `b c t h w`, its
    latents and then zeros, for `frames` latents (1.5: the one in front counts).

    eps: noise of the shape of the picture's latents, with which released pipelines draw from the
    posterior; without it they are its mean. 1.5's were divided by the scale in training, and are so
    here (`inverted_image_scale`).
    """
    mean, std = vae.posterior(picture.unsqueeze(2))  # b c 1 h w
    latents = mean if eps is None else mean + std * eps
    scale = vae.config.scale
    latents = latents / scale if vae.config.inverted_image_scale else latents * scale
    return nn.functional.pad(latents, (0, 0, 0, 0, 0, frames - 1))


# --- what the stages ask for ----------------------------------------------------------------------


def text_tokens(folder: ModelFolder) -> int:
    """How many tokens the text is padded to: as the network's config says, or the tokenizer's where
    the folder has no network."""
    if (folder.path / "transformer" / "config.json").is_file():
        return load_config(folder).text_tokens
    length = folder._json("tokenizer/tokenizer_config.json").get("model_max_length")
    return length if isinstance(length, int) and 0 < length < 1000 else _2B.text_tokens


def text_settings(folder: ModelFolder) -> dict[str, int]:
    return {"vidgen_tokens": text_tokens(folder)}


def load_tokenizer(folder: ModelFolder) -> Tokenizer:
    """T5's: a prompt is padded, and the padding is read as any other token."""
    padding = folder.config("text_encoder").get("pad_token_id") or 0
    return tokenizer(folder, text_tokens(folder), padding=padding)


def load_text_tower(folder: ModelFolder, dtype: torch.dtype = torch.float32) -> TextTower:
    """T5 and its tokenizer, on the CPU."""
    return TextTower(load_tokenizer(folder), load_encoder(folder, dtype))


def run(folder: ModelFolder, asked: Asked) -> Run:
    """How the folder's model is sampled. UsageError for what can't be made."""
    config, own = load_config(folder), load_scheduler(folder)
    wanted = config.in_channels != config.out_channels
    require_picture(folder, given=asked.picture, wanted=wanted)
    if asked.shift is not None:
        raise UsageError(
            f"--shift {asked.shift:g}: the schedule of `{folder.name}` has no shift",
            next="leave --shift out",
        )
    if asked.solver is not None:
        solver_named(asked.solver)
        own = replace(own, solver_name=asked.solver)
    has_vae = (folder.path / "vae" / "config.json").is_file()
    vae = load_vae_config(folder) if has_vae else CogVideoXVAEConfig()
    made = asked.made(folder.geometry)
    shape = latent_shape(made, config, vae)
    scale = GUIDANCE_SCALE if asked.guidance_scale is None else asked.guidance_scale
    steps = asked.num_inference_steps or STEPS
    dynamic = own.dynamic_guidance and scale != 1

    def denoise(networks: Sequence[nn.Module], uncond: Cond) -> Denoiser:
        (network,) = networks
        assert isinstance(network, CogVideoXDiT)
        free = denoiser(called(network), own.prediction())
        if dynamic:
            return dynamic_cfg(free, uncond, scale, steps)
        return cfg(free, uncond, scale)

    return Run(
        made=made,
        shape=shape,
        levels=own.levels(steps),
        solve=own.solver(),
        sampler={
            "solver": own.solver_name,
            "steps": steps,
            "guidance_scale": scale,
            "dynamic_guidance": dynamic,
        },
        components=("transformer",),
        load=lambda component, dtype: load_transformer(folder, dtype),
        windows=lambda component, network: released_windows(
            network, _names(transformer_keys(config)), folder, component
        ),
        build=lambda component: without_weights(partial(CogVideoXDiT, config)),
        text_dim=config.text_dim,
        text_tokens=config.text_tokens,
        live=(math.prod(shape[1:]) // math.prod(config.patches) + config.text_tokens)
        * 10
        * config.dim,
        text=partial(_required_text, tokens=config.text_tokens),
        denoiser=denoise,
        kept=lambda z: without_padding(z, made.num_frames, vae),
        pictured=partial(_pictured, folder, made, shape) if asked.picture else None,
    )


def _pictured(
    folder: ModelFolder, made: Geometry, shape: tuple[int, int, int, int], image: np.ndarray,
    device: torch.device, dtype: torch.dtype,
) -> Pictured:  # fmt: skip
    """What a first picture becomes: drawn from what its latents could be, with noise of its own."""
    vae, first = load_autoencoder(folder).to(device, dtype), fitted(image, made).to(device, dtype)
    c, t, h, w = shape

    def conditions(noise: Noise) -> dict[str, Tensor]:
        eps = Noise(noise.samples, stage=PICTURE).initial((c, 1, h, w)).to(first)
        return {"image": image_condition(vae, first.expand(len(noise), -1, -1, -1), t, eps)}

    return conditions


def _required_text(embeds: Tensor, mask: Tensor, tokens: int) -> Tensor:
    """The text as it is; InputError for another length than the network reads."""
    if embeds.shape[1] != tokens:
        raise InputError(
            f"text of {embeds.shape[1]} tokens, and this model reads {tokens}, padding and all",
            next="vidgen encode-text with a folder that has transformer/config.json",
        )
    return embeds


def build_autoencoder(folder: ModelFolder) -> CogVideoXAutoencoder:
    return without_weights(partial(CogVideoXAutoencoder, load_vae_config(folder)))


def layer_names(network: CogVideoXDiT) -> dict[str, str]:
    """Names of layers in files of LoRA → the network's own."""
    names = released(network.state_dict(), transformer_keys(network.config))
    return {name.rpartition(".")[0]: own.rpartition(".")[0] for name, own in names.items()}


def decoded(vae: CogVideoXAutoencoder, latents: Tensor) -> Iterator[Tensor]:
    """latents `b c t h w` → frames `b 3 t' H W`, about −1…1, in the chunks that are part of what
    the checkpoint computes (`vidgen.nn.cogvideox_vae`)."""
    return vae.decode_chunks(latents)


def encoded(vae: CogVideoXAutoencoder, frames: Tensor) -> Tensor:
    """frames `b 3 t H W` in −1…1 → latents `b c t' h w`. ValueError for a number of frames that is
    neither 4k nor 4k + 1."""
    return vae.encode(frames)


FLOAT32_VAE = False
LOADERS = {
    "CogVideoXTransformer3DModel": lambda folder, component: load_transformer(folder),
    "AutoencoderKLCogVideoX": lambda folder, component: load_autoencoder(folder),
}
