"""What the config.json files of released CogVideoX networks say, as configs of ours.

Every key that changes what is computed is either read or must have the one value that is built
here; InputError names it otherwise. So it does for a key that nobody here knows, unless it is off
(null or false). A key that a file hasn't is what diffusers takes for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

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


def transformer_config(settings: Mapping[str, Any], where: str) -> CogVideoXConfig:
    """What a `CogVideoXTransformer3DModel` with this config.json, called `where`, is here."""
    s = read_settings(settings, where, TRANSFORMER)
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
    s = read_settings(settings, where, VAE)
    widths = s["block_out_channels"]
    for way in ("Down", "Up"):
        key, kind = f"{way.lower()}_block_types", f"CogVideoX{way}Block3D"
        if s[key] != [kind] * len(widths):
            raise InputError(f"{where}: {key} is {shown(s[key])}, must be {kind} for each level")
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


def read_settings(settings: Mapping[str, Any], where: str, known: Known) -> dict[str, Any]:
    """The keys that are read, all there; InputError for a value that isn't built here."""
    kind = settings.get("_class_name")
    if kind not in known.classes:
        names = " or ".join(known.classes)
        raise InputError(f"{where}: its class is {shown(kind)}, not {names}")
    for key, value in settings.items():
        if key.startswith("_") or key in known.unused:
            continue
        if key in known.read:
            if not _alike(value, known.read[key]):
                like = shown(known.read[key])
                raise InputError(f"{where}: {key} is {shown(value)}, must be such as {like}")
        elif key in known.only:
            if value != known.only[key]:
                only = shown(known.only[key])
                raise InputError(f"{where}: {key} is {shown(value)}, only {only} is built here")
        elif value not in (None, False):
            raise InputError(f"{where}: {key} is {shown(value)}, and nobody here knows that key")
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


def shown(value: Any) -> str:
    """As JSON has it."""
    return json.dumps(value)
