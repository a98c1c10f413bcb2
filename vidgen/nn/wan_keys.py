"""Names of the tensors of Wan in diffusers' folders, as released: ours → theirs, one to one.

A * is a number, the same on both sides. The norms' order is a trap: the authors call them, in the
order in which they run, norm1, norm3, norm2; diffusers, and we, norm1, norm2, norm3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from vidgen.nn.causal_vae import CausalVAEConfig

_ATTENTION = {
    "q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0", "q_norm": "norm_q",
    "k_norm": "norm_k", "image_k": "add_k_proj", "image_v": "add_v_proj",
    "image_k_norm": "norm_added_k",
}  # fmt: skip
_TEXT, _IMAGE = "condition_embedder.text_embedder", "condition_embedder.image_embedder"
_LEVEL = "condition_embedder.time_embedder"

TRANSFORMER = {
    "patch_in": "patch_embedding",
    "level_embed.0": f"{_LEVEL}.linear_1",
    "level_embed.2": f"{_LEVEL}.linear_2",
    "modulation": "condition_embedder.time_proj",
    "text_in.0": f"{_TEXT}.linear_1",
    "text_in.2": f"{_TEXT}.linear_2",
    "image_in.norm1": f"{_IMAGE}.norm1",
    "image_in.layers.0": f"{_IMAGE}.ff.net.0.proj",
    "image_in.layers.2": f"{_IMAGE}.ff.net.2",
    "image_in.norm2": f"{_IMAGE}.norm2",
    "image_in.positions": f"{_IMAGE}.pos_embed",
    "blocks.*.norm2": "blocks.*.norm2",
    "blocks.*.mlp.0": "blocks.*.ffn.net.0.proj",
    "blocks.*.mlp.2": "blocks.*.ffn.net.2",
    "blocks.*.table": "blocks.*.scale_shift_table",
    "table": "scale_shift_table",
    "final": "proj_out",
    **{f"blocks.*.self_attn.{own}": f"blocks.*.attn1.{name}" for own, name in _ATTENTION.items()},
    **{f"blocks.*.cross_attn.{own}": f"blocks.*.attn2.{name}" for own, name in _ATTENTION.items()},
}

# The same as the authors name them, for LoRA that their code, or trainers of it, wrote.
_ORIGINAL = {
    "q": "q", "k": "k", "v": "v", "out": "o", "q_norm": "norm_q", "k_norm": "norm_k",
    "image_k": "k_img", "image_v": "v_img", "image_k_norm": "norm_k_img",
}  # fmt: skip
ORIGINAL = {
    "patch_in": "patch_embedding",
    "level_embed.0": "time_embedding.0",
    "level_embed.2": "time_embedding.2",
    "modulation": "time_projection.1",
    "text_in.0": "text_embedding.0",
    "text_in.2": "text_embedding.2",
    "image_in.norm1": "img_emb.proj.0",
    "image_in.layers.0": "img_emb.proj.1",
    "image_in.layers.2": "img_emb.proj.3",
    "image_in.norm2": "img_emb.proj.4",
    "image_in.positions": "img_emb.emb_pos",
    "blocks.*.norm2": "blocks.*.norm3",
    "blocks.*.mlp.0": "blocks.*.ffn.0",
    "blocks.*.mlp.2": "blocks.*.ffn.2",
    "blocks.*.table": "blocks.*.modulation",
    "table": "head.modulation",
    "final": "head.head",
    **{f"blocks.*.{a}.{own}": f"blocks.*.{a}.{name}" for own, name in _ORIGINAL.items()
       for a in ("self_attn", "cross_attn")},
}  # fmt: skip

_BLOCK = {
    "norm1.gain": "norm1.gamma", "conv1": "conv1", "norm2.gain": "norm2.gamma", "conv2": "conv2",
    "skip": "conv_shortcut",
}  # fmt: skip
_RESAMPLE = {"space": "resample.1", "time": "time_conv"}


def autoencoder(config: CausalVAEConfig) -> dict[str, str]:
    """The table of this autoencoder. Wan 2.1's encoder counts blocks and what lies between levels
    in one row; its decoder, and both sides of Wan 2.2, have levels, as ours."""
    table = {"quant": "quant_conv", "post_quant": "post_quant_conv"}
    for side in ("encoder", "decoder"):
        table |= {f"{side}.conv_in": f"{side}.conv_in", f"{side}.conv_out": f"{side}.conv_out"}
        table |= {f"{side}.norm.gain": f"{side}.norm_out.gamma"}
        middle = f"{side}.mid_block"
        table |= _inside(f"{side}.middle.block1", f"{middle}.resnets.0", _BLOCK)
        table |= _inside(f"{side}.middle.block2", f"{middle}.resnets.1", _BLOCK)
        attention = {"norm.gain": "norm.gamma", "qkv": "to_qkv", "out": "proj"}
        table |= _inside(f"{side}.middle.attention", f"{middle}.attentions.0", attention)
    row = 0
    for i in range(len(config.multipliers)):
        names = [f"encoder.down_blocks.{i}.resnets.{j}" for j in range(config.blocks)]
        down = f"encoder.down_blocks.{i}.downsampler"
        up = f"decoder.up_blocks.{i}.upsampler"
        if not config.shortcuts:
            names = [f"encoder.down_blocks.{row + j}" for j in range(config.blocks)]
            down = f"encoder.down_blocks.{row + config.blocks}"
            row += config.blocks + 1
            up += "s.0"
        for j, name in enumerate(names):
            table |= _inside(f"encoder.levels.{i}.blocks.{j}", name, _BLOCK)
        table |= _inside(f"encoder.levels.{i}.down", down, _RESAMPLE)
        table |= _inside(f"decoder.levels.{i}.up", up, _RESAMPLE)
    table |= _inside("decoder.levels.*.blocks.*", "decoder.up_blocks.*.resnets.*", _BLOCK)
    return table


def _inside(own: str, theirs: str, table: dict[str, str]) -> dict[str, str]:
    return {f"{own}.{a}": f"{theirs}.{b}" for a, b in table.items()}


def released(names: Iterable[str], table: dict[str, str]) -> dict[str, str]:
    """Our tensors' names → theirs. KeyError for one that the table hasn't."""
    patterns = [
        (re.compile(re.escape(own).replace(r"\*", r"(\d+)") + r"(\.weight|\.bias)?"), theirs)
        for own, theirs in table.items()
    ]
    found = {}
    for name in names:
        matches = ((p.fullmatch(name), theirs) for p, theirs in patterns)
        match, theirs = next(((m, t) for m, t in matches if m), (None, ""))
        if match is None:
            raise KeyError(name)
        *numbers, kind = match.groups()
        for number in numbers:
            theirs = theirs.replace("*", number, 1)
        found[name] = theirs + (kind or "")
    return found
