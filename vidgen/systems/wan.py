"""Wan 2.1 and 2.2 (Wan team 2025, arXiv 2503.20314) as released in diffusers' folders.

A causal autoencoder (`vidgen.nn.causal_vae`), a transformer with cross-attention to UMT5-XXL's
tokens (`vidgen.nn.wan_dit`) and a rectified flow. `vidgen.nn.wan_config` reads the configs of both
networks, `vidgen.nn.wan_keys` knows the names of their tensors.

| symbol | here | meaning |
|---|---|---|
| z | `z` `b c t h w` | noisy latents, of four frames (the first: of one); (1 − σ)·x0 + σ·eps |
| σ | `level.sigma` | s·u/(1 + (s − 1)·u), u evenly from 1 to 1/1000 and then 0, at most 1 − 1e-6 |
| s | `Settings.shift` | shift, `flow_shift` in the folder |
| t | `level.t` | 1000·σ, cut to a whole number as the released UniPC does |
| v | network output | eps − x0, so x0 = z − σ·v |
| w | `guided` | guidance scale; 2.2-A14B has one for each expert |
| boundary | `Settings.boundary` | the first network works where t ≥ 1000·boundary, or the second |

Published, and followed: all of the table. Text is 512 tokens, and those behind the prompt's end are
*zeros that are attended to*, no mask (`padded`). UniPC of order 2. Image to video gives a network
20 further channels, `given_frames`: which frames are known, and the latents of the clip with the
others gray; 2.1 adds CLIP's tokens of the picture (the last layer but one of ViT-H). TI2V-5B has
the first frame's latents in place of the noisy ones instead, at t = 0, the others at t (`called`).

What a folder doesn't say, and `PRESETS` has from the authors' own scripts: steps, guidance, and a
shift, which for some is another than the folder's. A folder is sampled with its own shift, and with
the steps, guidance and size of the preset that has its network; without one, with diffusers' 50
steps, guidance of 5, and 81 frames of 832×480.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vidgen.diffusion.cond import Cond
from vidgen.diffusion.guidance import contrast
from vidgen.diffusion.level import Level, Levels
from vidgen.diffusion.prediction import Denoiser, Flow, Network, denoiser
from vidgen.diffusion.schedules import flow_levels, linear_flow
from vidgen.diffusion.solvers import Solver, euler, unipc
from vidgen.errors import UsageError
from vidgen.nn.causal_vae import CausalVAE, CausalVAEConfig
from vidgen.nn.text import TextTower, Tokenizer
from vidgen.nn.wan_config import (
    VAE_2_1,
    VAE_2_2,
    Schema,
    refused,
    transformer_config,
    vae_config,
)
from vidgen.nn.wan_dit import Told, WanConfig, WanDiT, kept
from vidgen.nn.wan_keys import ORIGINAL, TRANSFORMER, autoencoder, released
from vidgen.systems.base import SCHEDULER, Geometry, ModelFolder, Sampler
from vidgen.systems.load import built, filled_released, released_windows
from vidgen.systems.released import (
    Asked,
    Pictured,
    Run,
    clip_tokens,
    fitted,
    load_encoder,
    require_picture,
    require_sides,
    solver_named,
    tokenizer,
    whitespace_cleaned,
    without_weights,
)

TEXT_TOKENS = 512
TIMESTEPS = 1000


@dataclass(frozen=True)
class Settings:
    """How a folder's model is sampled (`model_index.json`, `scheduler/scheduler_config.json`)."""

    shift: float
    solver: str = "unipc"  # or euler
    order: int = 2  # of unipc
    boundary: float | None = None  # share of the timesteps; None: one network
    still_first: bool = False  # a known first frame is at t = 0 (`expand_timesteps`)


class Preset(NamedTuple):
    """A release: its networks, what its folder says of sampling, and what the authors' scripts say
    besides. `guidance` has two scales where there are two networks: high noise, low noise."""

    transformer: WanConfig
    vae: CausalVAEConfig
    settings: Settings
    made: Geometry
    num_inference_steps: int
    shift: float
    guidance: tuple[float, ...]


_1_3B = WanConfig()
_14B = WanConfig(depth=40, heads=40, mlp_dim=13824)
_14B_CLIP = replace(_14B, in_channels=36, image_dim=1280)
_5B = WanConfig(in_channels=48, out_channels=48, heads=24, mlp_dim=14336)
_480P, _720P = Geometry(81, 480, 832, 16.0), Geometry(81, 720, 1280, 16.0)
_704P = Geometry(121, 704, 1280, 24.0)
_ONE, _T2V = Settings(3.0), Settings(3.0, boundary=0.875)
_I2V, _TI2V = Settings(3.0, boundary=0.9), Settings(5.0, still_first=True)

PRESETS = {
    "t2v-1.3b": Preset(_1_3B, VAE_2_1, _ONE, _480P, 50, 8.0, (6.0,)),
    "t2v-14b": Preset(_14B, VAE_2_1, _ONE, _720P, 50, 5.0, (5.0,)),
    "i2v-14b-480p": Preset(_14B_CLIP, VAE_2_1, _ONE, _480P, 40, 3.0, (5.0,)),
    "i2v-14b-720p": Preset(_14B_CLIP, VAE_2_1, _ONE, _720P, 40, 5.0, (5.0,)),
    "2.2-t2v-a14b": Preset(_14B, VAE_2_1, _T2V, _720P, 40, 12.0, (4.0, 3.0)),
    "2.2-i2v-a14b": Preset(
        replace(_14B, in_channels=36), VAE_2_1, _I2V, _720P, 40, 5.0, (3.5, 3.5)
    ),
    "2.2-ti2v-5b": Preset(_5B, VAE_2_2, _TI2V, _704P, 50, 5.0, (5.0,)),
}


# --- the scheduler of released folders ------------------------------------------------------------

# fmt: off
_SIGMAS = {f"use_{kind}_sigmas": False for kind in ("karras", "exponential", "beta")}
_UNIPC = Schema(
    "UniPCMultistepScheduler",
    {"flow_shift": 1.0, "solver_order": 2, "prediction_type": "epsilon", "use_flow_sigmas": False},
    {"num_train_timesteps": TIMESTEPS, "solver_type": "bh2", "predict_x0": True,
     "thresholding": False, "lower_order_final": True, "disable_corrector": [], "solver_p": None,
     "final_sigmas_type": "zero", "use_dynamic_shifting": False, "shift_terminal": None,
     "sigma_min": None, "sigma_max": None, **_SIGMAS},
    {"beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
     "timestep_spacing", "steps_offset", "dynamic_thresholding_ratio", "sample_max_value",
     "time_shift_type"},  # of betas, and of what is off
)
_EULER = Schema(
    "FlowMatchEulerDiscreteScheduler",
    {"shift": 1.0},
    {"num_train_timesteps": TIMESTEPS, "use_dynamic_shifting": False, "shift_terminal": None,
     "invert_sigmas": False, "stochastic_sampling": False, **_SIGMAS},
    {"base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"},
)
# fmt: on


def load_settings(folder: ModelFolder) -> Settings:
    """How the folder's model is sampled."""
    found, where = folder._json(SCHEDULER), str(folder.path / SCHEDULER)
    boundary = folder.index.get("boundary_ratio")
    if boundary is not None and not (isinstance(boundary, float) and 0 < boundary < 1):
        raise refused(f"{folder.path}/model_index.json", "boundary_ratio", boundary, "0 … 1")
    still = bool(folder.index.get("expand_timesteps"))
    name, order = "unipc", 2
    if found.get("_class_name") == _EULER.name:
        name, shift = "euler", _EULER.read(found, where)["shift"]
    else:
        read = _UNIPC.read(found, where)
        for key, wanted in (("prediction_type", "flow_prediction"), ("use_flow_sigmas", True)):
            if read[key] != wanted:
                raise refused(where, key, read[key], wanted)
        shift, order = read["flow_shift"], read["solver_order"]
    if not (isinstance(shift, int | float) and shift > 0):
        raise refused(where, "shift", shift, "a number above 0")
    if order not in (1, 2, 3):
        raise refused(where, "solver_order", order, [1, 2, 3])
    return Settings(float(shift), name, order, boundary, still)


def load_config(folder: ModelFolder, component: str = "transformer") -> WanConfig:
    """The sizes of the network."""
    where = f"{folder.path / component}/config.json"
    return built(lambda: transformer_config(folder.config(component), where), where)


def load_vae_config(folder: ModelFolder) -> CausalVAEConfig:
    """The sizes of the autoencoder."""
    where = f"{folder.path}/vae/config.json"
    return built(lambda: vae_config(folder.config("vae"), where), where)


def latent_sizes(folder: ModelFolder) -> tuple[int, int]:
    """Channels of its latents, and how many pixels wide and high one stands for."""
    config = load_vae_config(folder)
    return config.channels, config.stride


def decoder_width(folder: ModelFolder) -> int:
    """Channels of the decoder's finest level."""
    return load_vae_config(folder).decoder_width


def sampler(folder: ModelFolder) -> Sampler:
    """How the folder's model is sampled unless the user says otherwise."""
    settings, preset = load_settings(folder), _preset(folder)
    steps, scale = (50, 5.0) if preset is None else (preset.num_inference_steps, preset.guidance[0])
    return Sampler("flow", "linear_flow", settings.solver, steps, scale, shift=settings.shift)


def geometry(folder: ModelFolder) -> Geometry:
    """What the folder's model makes unless the user says otherwise."""
    if (preset := _preset(folder)) is not None:
        return preset.made
    return _704P if load_settings(folder).still_first else _480P


def _preset(folder: ModelFolder) -> Preset | None:
    """The release of this folder, by its network and what its settings say of the boundary."""
    config, settings = load_config(folder), load_settings(folder)
    known = settings.boundary, settings.still_first
    alike = (
        preset for preset in PRESETS.values()
        if (preset.settings.boundary, preset.settings.still_first) == known
        and preset.transformer == config
    )  # fmt: skip
    return next(alike, None)


# --- weights --------------------------------------------------------------------------------------


def load_transformer(
    folder: ModelFolder, component: str = "transformer", dtype: torch.dtype | None = None
) -> WanDiT:
    """The network, on the CPU, in `dtype` or that of its weights, with float32 islands as released.
    2.2-A14B has `transformer_2`, too."""
    config = load_config(folder, component)
    names = partial(released, table=TRANSFORMER)
    network = filled_released(partial(WanDiT, config), names, folder, component)
    for name, p in network.named_parameters():
        p.data = p.data.to(kept(name, dtype or p.dtype))
    return network


def load_autoencoder(folder: ModelFolder) -> CausalVAE:
    """Pixels ↔ latents, on the CPU, in float32."""
    config = load_vae_config(folder)
    names = partial(released, table=autoencoder(config))
    return filled_released(partial(CausalVAE, config), names, folder, "vae").float()


# --- conditions -----------------------------------------------------------------------------------


def padded(embeds: Tensor, mask: Tensor) -> Tensor:
    """Text `b l d` of which mask `b l` says what is the prompt's → `b 512 d`, the rest zeros."""
    kept_tokens = embeds[:, :TEXT_TOKENS] * mask[:, :TEXT_TOKENS, None].to(embeds.dtype)
    return nn.functional.pad(kept_tokens, (0, 0, 0, TEXT_TOKENS - kept_tokens.shape[1]))


@torch.no_grad()
def given_frames(
    vae: CausalVAE, first: Tensor, num_frames: int, last: Tensor | None = None
) -> Tensor:
    """What image to video is given beside z, for pictures `b 3 h w` in −1…1: `b 4+c t h w`. Of each
    latent's four frames, which are known (the first latent: all or none), and the normalised
    latents of the clip whose other frames are 0, gray."""
    clip = first.new_zeros(*first.shape[:2], num_frames, *first.shape[2:])
    clip[:, :, 0] = first
    if last is not None:
        clip[:, :, -1] = last
    latents = vae.encode(clip, chunk=1)
    known = latents.new_zeros(len(latents), vae.config.time_stride, *latents.shape[2:])
    known[:, :, 0] = 1
    if last is not None:
        known[:, -1, -1] = 1
    return torch.cat((known, latents), dim=1)


def latent_shape(
    made: Geometry, config: WanConfig, vae: CausalVAEConfig
) -> tuple[int, int, int, int]:
    """`c t h w` of the latents to sample. UsageError for frames or sides that can't be made."""
    step = vae.time_stride
    if made.num_frames < 1 or (made.num_frames - 1) % step:
        below = 1 + max(made.num_frames - 1, 0) // step * step
        raise UsageError(
            f"{made.num_frames} frames, and this model makes {step}n + 1",
            next=f"--num-frames {below} or {below + step}",
        )
    require_sides(made, (vae.stride * config.patch[1], vae.stride * config.patch[2]))
    frames = (made.num_frames - 1) // step + 1
    return config.out_channels, frames, made.height // vae.stride, made.width // vae.stride


# --- sampling -------------------------------------------------------------------------------------


def levels(settings: Settings, num_inference_steps: int, shift: float | None = None) -> Levels:
    """The noise levels as the folder's scheduler has them; `shift`: None for the folder's."""
    n, s = num_inference_steps, settings.shift if shift is None else shift
    if settings.solver == "unipc":
        return linear_flow(
            n, s, t_end=1 / TIMESTEPS, t_max=1 - 1e-6, t_scale=TIMESTEPS, whole_t=True
        )
    # The released Euler's last step begins at its least training time, shifted twice.
    least = s / TIMESTEPS / (1 + (s - 1) / TIMESTEPS)
    t = torch.linspace(1, least, n, dtype=torch.float64)
    t = s * t / (1 + (s - 1) * t)
    return flow_levels(torch.cat((t, t.new_zeros(1))), t_scale=TIMESTEPS)


def solver(settings: Settings) -> Solver:
    return euler if settings.solver == "euler" else partial(unipc, order=settings.order)


def called(high: WanDiT, low: WanDiT | None = None, boundary: float | None = None) -> Network:
    """The network, or of two the one for a level, as a run of sampling calls it.

    cond: `text` `b 512 d`; for some `image`, CLIP's tokens `b m c`; `given` (`given_frames`);
    `first`, known first frames' latents `b c k h w`, which stand in z's place and are told t = 0.
    What the network makes of text and picture is kept while it is called with the same tensors, or
    with two in turn, as guidance does.
    """
    known: list[tuple[tuple[object, ...], Told]] = []

    def told(*of: object) -> Told:
        for those, made in known:
            if all(a is b for a, b in zip(those, of, strict=True)):
                return made
        known[:] = [pair for pair in known if pair[0][0] is of[0]][-1:]
        known.append((of, Told()))
        return known[-1][1]

    def raw(z: Tensor, t: Tensor, cond: Cond) -> Tensor:
        network = high
        if low is not None and boundary is not None:
            noisy = t >= boundary * TIMESTEPS
            if noisy.any() != noisy.all():
                raise UsageError("a batch with levels of both networks")
            network = high if noisy.all() else low
        first, given, text, image = (cond.get(k) for k in ("first", "given", "text", "image"))
        if t.stride() == (0,):  # one level, however many samples
            t = t[:1]
        if first is not None:
            k, frames = first.shape[2], z.shape[2]
            z = torch.cat((first.to(z), z[:, :, k:]), dim=2)
            later = torch.arange(frames, device=z.device) >= k
            t = (t[:, None] * later)[:, :: network.config.patch[0]]  # b t
        if given is not None:
            z = torch.cat((z, given.to(z)), dim=1)
        assert text is not None
        return network(z, t, text=text, image=image, told=told(network, text, image))

    return raw


def wan_denoiser(network: Network) -> Denoiser:
    """The estimate of x0, in which known first frames (`first`) are what is known of them."""
    free = denoiser(network, Flow())

    def denoise(z: Tensor, level: Level, cond: Cond) -> Tensor:
        x0, first = free(z, level, cond), cond.get("first")
        return x0 if first is None else torch.cat((first.to(x0), x0[:, :, first.shape[2] :]), dim=2)

    return denoise


def guided(
    denoise: Denoiser, uncond: Cond, high: float, low: float | None = None,
    boundary: float | None = None, *, batched: bool = False,
) -> Denoiser:  # fmt: skip
    """Classifier-free guidance of scale `high`, and `low` below the boundary where there is one.
    A call for each branch, unless `batched`: that is as fast, and what is between takes half."""
    if boundary is None or low is None or low == high:
        return contrast(denoise, [(uncond, high - 1)], batched=batched)

    def weight(level: Level) -> Tensor:
        return torch.where(level.t >= boundary * TIMESTEPS, high - 1.0, low - 1.0)

    return contrast(denoise, [(uncond, weight)], batched=batched)


# --- what the stages ask for ----------------------------------------------------------------------


def text_settings(folder: ModelFolder) -> dict[str, int]:
    return {}


def load_tokenizer(folder: ModelFolder) -> Tokenizer:
    """UMT5's: a prompt is its own tokens, at most 512."""
    return tokenizer(folder, TEXT_TOKENS, cleaned=whitespace_cleaned)


def load_text_tower(folder: ModelFolder, dtype: torch.dtype = torch.float32) -> TextTower:
    """UMT5 and its tokenizer, on the CPU."""
    return TextTower(load_tokenizer(folder), load_encoder(folder, dtype))


def run(folder: ModelFolder, asked: Asked) -> Run:
    """How the folder's model is sampled. UsageError for what can't be made."""
    config, settings, preset = load_config(folder), load_settings(folder), _preset(folder)
    wanted = True if config.in_channels != config.out_channels else None
    wanted = wanted if wanted or settings.still_first else False
    require_picture(folder, given=asked.picture, wanted=wanted)
    vae = _vae_sizes(folder, config)
    made = asked.made(folder.geometry)
    own = (5.0,) if preset is None else preset.guidance
    scales = own if asked.guidance_scale is None else (asked.guidance_scale,)
    shape = latent_shape(made, config, vae)
    steps = asked.num_inference_steps or folder.sampler.num_inference_steps
    other = asked.solver not in (None, settings.solver)
    components = ("transformer",) if settings.boundary is None else ("transformer", "transformer_2")

    def denoise(networks: Sequence[nn.Module], uncond: Cond) -> Denoiser:
        high, low = networks[0], networks[1] if len(networks) > 1 else None
        assert isinstance(high, WanDiT) and isinstance(low, WanDiT | None)
        free = wan_denoiser(called(high, low, settings.boundary))
        return guided(free, uncond, scales[0], scales[-1], settings.boundary)

    return Run(
        made=made,
        shape=shape,
        levels=levels(settings, steps, asked.shift),
        solve=solver_named(str(asked.solver)) if other else solver(settings),
        sampler={
            "solver": asked.solver or settings.solver,
            "steps": steps,
            "guidance_scale": scales[0] if len(scales) == 1 else list(scales),
            "shift": settings.shift if asked.shift is None else asked.shift,
        },
        components=components,
        load=lambda component, dtype: load_transformer(folder, component, dtype),
        windows=lambda component, network: released_windows(
            network, partial(released, table=TRANSFORMER), folder, component
        ),
        dtype_of=kept,
        build=lambda component: without_weights(partial(WanDiT, load_config(folder, component))),
        text_dim=config.text_dim,
        text_tokens=TEXT_TOKENS,
        live=math.prod(shape[1:]) // math.prod(config.patch) * (config.mlp_dim + 6 * config.dim),
        text=padded,
        denoiser=denoise,
        pictured=partial(_pictured, folder, made, config, settings) if asked.picture else None,
    )


@torch.no_grad()
def _pictured(
    folder: ModelFolder, made: Geometry, config: WanConfig, settings: Settings, image: np.ndarray,
    device: torch.device, dtype: torch.dtype,
) -> Pictured:  # fmt: skip
    """What a first picture becomes; the autoencoder works in float32, whatever the dtype."""
    vae, first = load_autoencoder(folder).to(device), fitted(image, made).to(device)
    if settings.still_first:
        cond = {"first": vae.encode(first[:, :, None])}
    else:
        cond = {"given": given_frames(vae, first, made.num_frames)}
    if config.image_dim is not None:
        cond["image"] = clip_tokens(folder, image).to(device)
    return lambda noise: {name: x.expand(len(noise), *x.shape[1:]) for name, x in cond.items()}


def _vae_sizes(folder: ModelFolder, config: WanConfig) -> CausalVAEConfig:
    """Those of the folder's autoencoder, or where it has none, of the published one with as many
    channels."""
    if not (folder.path / "vae" / "config.json").is_file():
        for known in (VAE_2_1, VAE_2_2):
            if known.channels == config.out_channels:
                return known
    return load_vae_config(folder)


def build_autoencoder(folder: ModelFolder) -> CausalVAE:
    return without_weights(partial(CausalVAE, load_vae_config(folder)))


def layer_names(network: WanDiT) -> dict[str, str]:
    """Names of layers in files of LoRA, diffusers' and the authors' → the network's own."""
    own = list(network.state_dict())
    return {
        name.rpartition(".")[0]: mine.rpartition(".")[0]
        for table in (TRANSFORMER, ORIGINAL)
        for mine, name in released(own, table).items()
    }


def decoded(vae: CausalVAE, latents: Tensor) -> Iterator[Tensor]:
    """latents `b c t h w` → frames `b 3 t' H W` in −1…1, those of one latent at a time: exact."""
    return vae.decoded(latents, 1)


def encoded(vae: CausalVAE, frames: Tensor) -> Tensor:
    """frames `b 3 t H W` in −1…1 → latents `b c t' h w`. ValueError for a number of frames that
    isn't 4k + 1."""
    return vae.encode(frames, chunk=1)


FLOAT32_VAE = True
LOADERS = {
    "WanTransformer3DModel": load_transformer,
    "AutoencoderKLWan": lambda folder, component: load_autoencoder(folder),
}
