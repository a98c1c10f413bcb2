"""Tiny CogVideoX networks of diffusers with random weights, one of each released kind."""

import json
import warnings
from types import SimpleNamespace

import pytest
import torch

with warnings.catch_warnings():
    # Its import warns about optional packages and its own old annotations; ours must not.
    warnings.simplefilter("ignore")
    pytest.importorskip("diffusers")
    from diffusers import AutoencoderKLCogVideoX, CogVideoXPipeline, CogVideoXTransformer3DModel

TEXT_DIM, TEXT_TOKENS = 12, 5

SIZES = {
    "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4,
    "time_embed_dim": 24, "text_embed_dim": TEXT_DIM, "num_layers": 2, "sample_width": 12,
    "sample_height": 8, "sample_frames": 9, "max_text_seq_length": TEXT_TOKENS,
}  # fmt: skip
ROTARY = {"use_rotary_positional_embeddings": True}
LEARNED = ROTARY | {"use_learned_positional_embeddings": True}

# The released kinds, as their configs differ.
KINDS: dict[str, dict] = {
    "2b": {},
    "5b": ROTARY,
    "5b-i2v": LEARNED | {"in_channels": 8},
    "1.5-5b": ROTARY | {"patch_size_t": 2, "patch_bias": False},
    "1.5-5b-i2v": ROTARY
    | {"patch_size_t": 2, "patch_bias": False, "in_channels": 8, "ofs_embed_dim": 24},
}


def transformer(kind: str, **more) -> "CogVideoXTransformer3DModel":
    """Every weight random, so that none is left out unseen."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = CogVideoXTransformer3DModel(**SIZES | KINDS[kind] | more).eval()
    made.requires_grad_(False)
    for x in made.parameters():
        x.normal_(std=0.2)
    if "learned" in str(KINDS[kind]):
        made.patch_embed.pos_embedding.normal_()
    return made


def autoencoder(**more) -> "AutoencoderKLCogVideoX":
    sizes = {
        "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4,
        "latent_channels": 4,
    }  # fmt: skip
    torch.manual_seed(1)
    made = AutoencoderKLCogVideoX(**sizes | more).eval().requires_grad_(False)
    for x in made.parameters():
        x.normal_(std=0.15)
    return made


def rotary(network, frames: int, rows: int, columns: int):
    """What diffusers' pipeline makes for latents of this size, or None for fixed positions."""
    if not network.config.use_rotary_positional_embeddings:
        return None
    pipeline = SimpleNamespace(vae_scale_factor_spatial=8, transformer=network)
    return CogVideoXPipeline._prepare_rotary_positional_embeddings(
        pipeline, rows * 8, columns * 8, frames, torch.device("cpu")
    )


def settings(network) -> dict:
    """The config.json that diffusers writes for it."""
    return json.loads(network.to_json_string())


def error(found, expected) -> float:
    """Relative, over all numbers."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())
