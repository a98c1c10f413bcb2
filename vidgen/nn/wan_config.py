"""Sizes of Wan's networks out of the config.json of diffusers' folders, as released.

Their keys have defaults in diffusers' code, which count where a file is silent. What would change
the computation and we don't do is refused by name; so is a key that nobody here has heard of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from vidgen.errors import InputError
from vidgen.nn.causal_vae import CausalVAEConfig
from vidgen.nn.wan_dit import WanConfig

# fmt: off
VAE_2_1 = CausalVAEConfig(
    latents_mean=(
        -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
    ),
    latents_std=(
        2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
        3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
    ),
)
VAE_2_2 = CausalVAEConfig(
    channels=48, width=160, decoder_width=256, shortcuts=True, patch=2,
    latents_mean=(
        -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
        -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
        -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
        -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
        -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
        0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
    ),
    latents_std=(
        0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
        0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
        0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
        0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
        0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
        0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
    ),
)
# fmt: on


class Schema(NamedTuple):
    """A released class's config: keys with their defaults there, those that may have one value
    only, and those that change nothing here. Any other key is refused."""

    name: str
    defaults: dict[str, Any]
    fixed: dict[str, Any]
    idle: set[str]

    def read(self, found: Mapping[str, Any], where: str) -> dict[str, Any]:
        """`defaults` with what the config says. InputError for what we'd compute otherwise."""
        if (kind := found.get("_class_name", self.name)) != self.name:
            raise InputError(f"{where}: is of class {kind}", next=f"known is {self.name}")
        settings = {k: v for k, v in found.items() if not k.startswith("_") and k not in self.idle}
        for key, value in settings.items():
            if key not in self.fixed and key not in self.defaults:
                raise InputError(
                    f"{where}: {key} is {json.dumps(value)}, and nothing is known of {key}"
                )
            if key in self.fixed and value != self.fixed[key]:
                raise refused(where, key, value, self.fixed[key])
        return self.defaults | {k: v for k, v in settings.items() if k in self.defaults}


def refused(where: str, key: str, value: Any, known: Any) -> InputError:
    return InputError(f"{where}: {key} is {json.dumps(value)}, known is {json.dumps(known)}")


# fmt: off
_TRANSFORMER = Schema(
    "WanTransformer3DModel",
    {"patch_size": (1, 2, 2), "num_attention_heads": 40, "attention_head_dim": 128,
     "in_channels": 16, "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "ffn_dim": 13824,
     "num_layers": 40, "eps": 1e-6, "image_dim": None, "added_kv_proj_dim": None,
     "pos_embed_seq_len": None},
    {"cross_attn_norm": True, "qk_norm": "rms_norm_across_heads"},
    {"rope_max_seq_len"},  # how many positions are tabled there; here there is no table
)
_VAE = Schema(
    "AutoencoderKLWan",
    {"base_dim": 96, "decoder_base_dim": None, "z_dim": 16, "dim_mult": (1, 2, 4, 4),
     "num_res_blocks": 2, "temperal_downsample": (False, True, True), "is_residual": False,
     "patch_size": None, "in_channels": 3, "out_channels": 3, "scale_factor_temporal": 4,
     "scale_factor_spatial": 8, "latents_mean": VAE_2_1.latents_mean,
     "latents_std": VAE_2_1.latents_std},
    {"attn_scales": []},
    {"dropout", "clip_output"},  # the released decoder clamps, whatever clip_output says
)
# fmt: on


def transformer_config(found: Mapping[str, Any], where: str) -> WanConfig:
    """The sizes in a `WanTransformer3DModel`'s config.json."""
    read = _TRANSFORMER.read(found, where)
    config = WanConfig(
        in_channels=read["in_channels"],
        out_channels=read["out_channels"] or read["in_channels"],
        patch=read["patch_size"],
        depth=read["num_layers"],
        heads=read["num_attention_heads"],
        head_dim=read["attention_head_dim"],
        mlp_dim=read["ffn_dim"],
        text_dim=read["text_dim"],
        level_dim=read["freq_dim"],
        image_dim=read["image_dim"],
        image_positions=read["pos_embed_seq_len"],
        eps=read["eps"],
    )
    key = "added_kv_proj_dim"
    if read[key] != (wanted := None if config.image_dim is None else config.dim):
        raise refused(where, key, read[key], wanted)
    return config


def vae_config(found: Mapping[str, Any], where: str) -> CausalVAEConfig:
    """The sizes in an `AutoencoderKLWan`'s config.json."""
    read = _VAE.read(found, where)
    config = CausalVAEConfig(
        channels=read["z_dim"],
        width=read["base_dim"],
        decoder_width=read["decoder_base_dim"] or read["base_dim"],
        multipliers=read["dim_mult"],
        blocks=read["num_res_blocks"],
        time=read["temperal_downsample"],
        shortcuts=read["is_residual"],
        patch=read["patch_size"] or 1,
        latents_mean=read["latents_mean"],
        latents_std=read["latents_std"],
    )
    values = 3 * config.patch**2
    for key, wanted in (
        ("in_channels", values), ("out_channels", values),
        ("scale_factor_temporal", config.time_stride), ("scale_factor_spatial", config.stride),
    ):  # fmt: skip
        if read[key] != wanted:
            raise refused(where, key, read[key], wanted)
    return config
