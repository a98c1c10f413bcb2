"""Names in released CogVideoX folders → names in `CogVideoXDiT` and `CogVideoXAutoencoder`.

The layout of diffusers: `CogVideoXTransformer3DModel` and `AutoencoderKLCogVideoX`. Each table is
of modules, or of single tensors, and is one to one; shapes are the same on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vidgen.nn.cogvideox_dit import CogVideoXConfig
from vidgen.nn.cogvideox_vae import CogVideoXVAEConfig

TRANSFORMER = {
    "patch_embed.proj": "patch_in",
    "patch_embed.text_proj": "text_in",
    "patch_embed.pos_embedding": "positions",
    "time_embedding.linear_1": "level_embed.layers.0",
    "time_embedding.linear_2": "level_embed.layers.2",
    "ofs_embedding.linear_1": "offset_embed.layers.0",
    "ofs_embedding.linear_2": "offset_embed.layers.2",
    "norm_final": "norm",
    "norm_out.linear": "final_project",
    "norm_out.norm": "final_norm",
    "proj_out": "final",
}

# Inside `transformer_blocks.0`, here `blocks.0`.
BLOCK = {
    "norm1.linear": "adaln1.project",
    "norm1.norm": "adaln1.norm",
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.norm_q": "self_attn.q_norm",
    "attn1.norm_k": "self_attn.k_norm",
    "attn1.to_out.0": "self_attn.out",
    "norm2.linear": "adaln2.project",
    "norm2.norm": "adaln2.norm",
    "ff.net.0.proj": "mlp.0",
    "ff.net.2": "mlp.2",
}

# Inside a norm that looks at the latents; a plain norm has no more to its name.
LATENT_NORM = {".norm_layer": ".norm", ".conv_y.conv": ".scale", ".conv_b.conv": ".shift"}


def transformer_keys(config: CogVideoXConfig) -> dict[str, str]:
    """Released name → ours, of all that a transformer of that config may have."""
    keys = dict(TRANSFORMER)
    for i in range(config.depth):
        keys |= {f"transformer_blocks.{i}.{a}": f"blocks.{i}.{b}" for a, b in BLOCK.items()}
    return keys


def vae_keys(config: CogVideoXVAEConfig) -> dict[str, str]:
    """Released name → ours, of all that an autoencoder of that config may have."""
    keys: dict[str, str] = {}
    for half, level, resize, norms, more in (
        ("encoder", "down_blocks", "downsamplers", {"": ""}, 0),
        ("decoder", "up_blocks", "upsamplers", LATENT_NORM, 1),
    ):
        for name in ("conv_in", "conv_out"):
            keys[f"{half}.{name}.conv"] = f"{half}.{name}"
        keys |= {f"{half}.norm_out{a}": f"{half}.norm_out{b}" for a, b in norms.items()}
        blocks = {f"{half}.mid_block.resnets.{i}": f"{half}.middle.{i}" for i in range(2)}
        for i in range(len(config.widths)):
            theirs, own = f"{half}.{level}.{i}", f"{half}.levels.{i}"
            keys[f"{theirs}.{resize}.0.conv"] = f"{own}.resize"
            for j in range(config.blocks + more):
                blocks[f"{theirs}.resnets.{j}"] = f"{own}.blocks.{j}"
        for theirs, own in blocks.items():
            keys[f"{theirs}.conv_shortcut"] = f"{own}.skip"
            for n in (1, 2):
                keys[f"{theirs}.conv{n}.conv"] = f"{own}.conv{n}"
                for a, b in norms.items():
                    keys[f"{theirs}.norm{n}{a}"] = f"{own}.norm{n}{b}"
    return keys


def released(names: Iterable[str], keys: Mapping[str, str]) -> dict[str, str]:
    """Released name → ours, of tensors whose names here are given. KeyError for one that the table
    doesn't know."""
    own = {b: a for a, b in keys.items()}
    found = {}
    for name in names:
        module, _, leaf = name.rpartition(".")
        found[own[name] if name in own else f"{own[module]}.{leaf}"] = name
    return found
