"""What the JSON files of a released CogVideoX folder say, as configs of ours.

Every key that changes what is computed is either read or must have the one value that is built
here; InputError names it otherwise. So it does for a key that nobody here knows, unless it is off
(null or false). A key that a file hasn't is what diffusers takes for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from vidgen.diffusion.level import Levels
from vidgen.diffusion.prediction import PREDICTIONS, Prediction
from vidgen.diffusion.schedules import ddpm_scaled_linear
from vidgen.diffusion.solvers import Solver, ddim, dpmpp_2m
from vidgen.errors import InputError
from vidgen.nn.cogvideox_dit import CogVideoXConfig, Positions
from vidgen.nn.cogvideox_vae import CogVideoXVAEConfig


class Known(NamedTuple):
    """The keys of a class: those that are read, with the value of a missing one; those that have
    one value only; and those that change nothing when a trained model is sampled."""

    classes: tuple[str, ...]
    read: Mapping[str, Any]
    only: Mapping[str, Any]
    unused: frozenset[str]


TRANSFORMER = Known(
    ("CogVideoXTransformer3DModel",),
    {
        "num_attention_heads": 30, "attention_head_dim": 64, "in_channels": 16, "num_layers": 30,
        "out_channels": 16, "time_embed_dim": 512, "ofs_embed_dim": None, "text_embed_dim": 4096,
        "max_text_seq_length": 226, "sample_frames": 49, "sample_height": 60, "sample_width": 90,
        "patch_size": 2, "patch_size_t": None, "patch_bias": True, "temporal_compression_ratio": 4,
        "norm_eps": 1e-5, "spatial_interpolation_scale": 1.875,
        "temporal_interpolation_scale": 1.0, "use_rotary_positional_embeddings": False,
        "use_learned_positional_embeddings": False,
    },
    {
        "flip_sin_to_cos": True, "freq_shift": 0, "attention_bias": True,
        "activation_fn": "gelu-approximate", "timestep_activation_fn": "silu",
        "norm_elementwise_affine": True,
    },
    frozenset({"dropout"}),
)  # fmt: skip
VAE = Known(
    ("AutoencoderKLCogVideoX",),
    {
        "block_out_channels": [128, 256, 256, 512], "latent_channels": 16, "layers_per_block": 3,
        "down_block_types": ["CogVideoXDownBlock3D"] * 4, "norm_num_groups": 32,
        "up_block_types": ["CogVideoXUpBlock3D"] * 4, "temporal_compression_ratio": 4,
        "scaling_factor": 1.15258426, "invert_scale_latents": False,
    },
    {
        "in_channels": 3, "out_channels": 3, "act_fn": "silu", "norm_eps": 1e-6,
        "shift_factor": None, "latents_mean": None, "latents_std": None, "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    frozenset({"sample_height", "sample_width", "force_upcast"}),
)  # fmt: skip
SCHEDULER = Known(
    ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"),
    {
        "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 0,
        "clip_sample": True, "prediction_type": "epsilon", "timestep_spacing": "leading",
        "rescale_betas_zero_snr": False, "snr_shift_scale": 3.0,
    },
    {"beta_schedule": "scaled_linear", "trained_betas": None, "set_alpha_to_one": True},
    frozenset({"clip_sample_range", "sample_max_value"}),
)  # fmt: skip

PREDICTION = {"v_prediction": "v", "epsilon": "eps", "sample": "x0"}
SPACINGS = ("trailing", "leading", "linspace")


def transformer_config(settings: Mapping[str, Any], where: str) -> CogVideoXConfig:
    """What a `CogVideoXTransformer3DModel` with this config.json, called `where`, is here."""
    s = _read(settings, where, TRANSFORMER)
    rotary, learned = (s[f"use_{kind}_positional_embeddings"] for kind in ("rotary", "learned"))
    if learned and not rotary:
        raise InputError(
            f"{where}: use_learned_positional_embeddings without use_rotary_positional_embeddings:"
            " no released model has that"
        )
    positions: Positions = "learned" if learned else "rotary" if rotary else "sincos"
    frames = (s["sample_frames"] - 1) // s["temporal_compression_ratio"] + 1
    try:
        return CogVideoXConfig(
            in_channels=s["in_channels"],
            out_channels=s["out_channels"],
            patch=s["patch_size"],
            patch_frames=s["patch_size_t"],
            patch_bias=s["patch_bias"],
            heads=s["num_attention_heads"],
            head_dim=s["attention_head_dim"],
            depth=s["num_layers"],
            time_dim=s["time_embed_dim"],
            offset_dim=s["ofs_embed_dim"],
            text_dim=s["text_embed_dim"],
            text_tokens=s["max_text_seq_length"],
            positions=positions,
            sample=(frames, s["sample_height"], s["sample_width"]),
            space_scale=s["spatial_interpolation_scale"],
            time_scale=s["temporal_interpolation_scale"],
            eps=s["norm_eps"],
        )
    except ValueError as error:
        raise InputError(f"{where}: builds no transformer: {error}") from None


def vae_config(settings: Mapping[str, Any], where: str) -> CogVideoXVAEConfig:
    """What an `AutoencoderKLCogVideoX` with this config.json, called `where`, is here."""
    s = _read(settings, where, VAE)
    widths = s["block_out_channels"]
    for way in ("Down", "Up"):
        key, kind = f"{way.lower()}_block_types", f"CogVideoX{way}Block3D"
        if s[key] != [kind] * len(widths):
            raise InputError(f"{where}: {key} is {_shown(s[key])}, must be {kind} for each level")
    try:
        return CogVideoXVAEConfig(
            channels=s["latent_channels"],
            widths=tuple(widths),
            blocks=s["layers_per_block"],
            groups=s["norm_num_groups"],
            time_stride=s["temporal_compression_ratio"],
            scale=s["scaling_factor"],
            inverted_image_scale=s["invert_scale_latents"],
        )
    except ValueError as error:
        raise InputError(f"{where}: builds no autoencoder: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """How a released model is sampled. The defaults are those of 5B."""

    solver_name: str = "ddim"  # or dpmpp_2m, with all of its noise
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
        return ddim if self.solver_name == "ddim" else partial(dpmpp_2m, eta=1.0)

    @property
    def dynamic_guidance(self) -> bool:
        """Whether released scripts vary the guidance from step to step: with the DPM solver."""
        return self.solver_name == "dpmpp_2m"


def scheduler(settings: Mapping[str, Any], where: str) -> Scheduler:
    """What the scheduler with this scheduler_config.json, called `where`, is here."""
    s = _read(settings, where, SCHEDULER)
    for key, choices in (
        ("clip_sample", (False,)),
        ("prediction_type", tuple(PREDICTION)),
        ("timestep_spacing", SPACINGS),
    ):
        if s[key] not in choices:
            allowed = ", ".join(map(_shown, choices))
            raise InputError(f"{where}: {key} is {_shown(s[key])}, known: {allowed}")
    return Scheduler(
        solver_name="ddim" if settings["_class_name"] == SCHEDULER.classes[0] else "dpmpp_2m",
        prediction_name=PREDICTION[s["prediction_type"]],
        spacing=s["timestep_spacing"],
        num_train_timesteps=s["num_train_timesteps"],
        beta_start=s["beta_start"],
        beta_end=s["beta_end"],
        zero_snr=s["rescale_betas_zero_snr"],
        snr_shift=s["snr_shift_scale"],
        steps_offset=s["steps_offset"],
    )


def _read(settings: Mapping[str, Any], where: str, known: Known) -> dict[str, Any]:
    """The keys that are read, all there; InputError for a value that isn't built here."""
    kind = settings.get("_class_name")
    if kind not in known.classes:
        names = " or ".join(known.classes)
        raise InputError(f"{where}: its class is {_shown(kind)}, not {names}")
    for key, value in settings.items():
        if key.startswith("_") or key in known.unused:
            continue
        if key in known.read:
            if not _alike(value, known.read[key]):
                like = _shown(known.read[key])
                raise InputError(f"{where}: {key} is {_shown(value)}, must be such as {like}")
        elif key in known.only:
            if value != known.only[key]:
                only = _shown(known.only[key])
                raise InputError(f"{where}: {key} is {_shown(value)}, only {only} is built here")
        elif value not in (None, False):
            raise InputError(f"{where}: {key} is {_shown(value)}, and nobody here knows that key")
    return {key: settings.get(key, default) for key, default in known.read.items()}


def _alike(value: Any, default: Any) -> bool:
    """Whether a value is of the kind of the default: a switch, text, a list, a number as large as
    that kind can be. Where the default is nothing, a whole number is meant."""
    if default is None:
        return value is None or _alike(value, 1)
    if isinstance(default, bool | str):
        return type(value) is type(default)
    if isinstance(default, list):
        return isinstance(value, list) and all(_alike(x, default[0]) for x in value)
    number = isinstance(value, int if isinstance(default, int) else int | float)
    return number and not isinstance(value, bool) and value >= (0 if default == 0 else 1e-9)


def _shown(value: Any) -> str:
    return json.dumps(value)
