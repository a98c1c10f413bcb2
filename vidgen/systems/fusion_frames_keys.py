"""Names in `UNet` → names in the published checkpoints, and loading those.

Three layouts: the authors' `.pt` files of Kandinsky Video 1.0 and 1.1, and diffusers'
`Kandinsky3UNet`, the text-to-image network beneath them. The shapes are the same everywhere.

    file                                     holds
    kandinsky_video.pt                 1.0   unet, null_embedding, projections
    kandinsky_video_interpolation.pt   1.0   unet, null_embedding
    t2v.pt, interpolation.pt           1.1   unet, null_embedding
    t5_projections.pt                  1.1   projection_base, projection_interpolation

Release 1.1 brings the interpolation's text to its width by `projection_base`, too, though the file
holds one for it; `projection` chooses. Its code can build further parts of the interpolation (time
downsampling, convolutions beside the resampling ones), which its defaults leave out and we don't
have: a file with them is refused.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from vidgen.errors import InputError, UsageError, is_out_of_memory
from vidgen.io import weights
from vidgen.nn.meta import on_meta
from vidgen.nn.unet import UNet, UNetConfig

# Ours → theirs, or (theirs, what is inside). A * is a number, the same on both sides.
Table: TypeAlias = dict[str, Any]

MLP: Table = {"layers.0": "1", "layers.2": "3"}
ATTENTION: Table = {"q": "to_query", "k": "to_key", "v": "to_value", "out": "output_layer"}
FF: Table = {"ff.0": "feed_forward.0", "ff.2": "feed_forward.2"}
NORMS: Table = {"norm1.project": "in_norm.context_mlp.1", "norm2.project": "out_norm.context_mlp.1"}
SPACE: Table = {**NORMS, **FF, "attention": ("attention", ATTENTION)}
UNIT: Table = {
    "norm.project": "group_norm.context_mlp.1",
    "up": "up_sample",
    "conv": "projection",
    "down": "down_sample",
}
SHORTCUTS: Table = {
    "shortcut_up": "shortcut_up_sample",
    "shortcut": "shortcut_projection",
    "shortcut_down": "shortcut_down_sample",
}
TIME_BLOCK: Table = {
    "norms.*.project": "temporal_resnet_blocks.*.0.context_mlp.1",
    "convs.*": "temporal_resnet_blocks.*.2",
}


def _authors(unit: Table, time_attn: Table, projection: str) -> Table:
    res: Table = {"units.*": ("resnet_blocks.*", {**UNIT, **unit}), **SHORTCUTS}
    level: Table = {
        "self_attn": ("self_attention_block", SPACE),
        "time_attn": ("temporal_attention_block", time_attn),
        "pairs.*.res_in": ("resnet_attn_blocks.*.0", res),
        "pairs.*.cross_attn": ("resnet_attn_blocks.*.1", SPACE),
        "pairs.*.res_out": ("resnet_attn_blocks.*.2", res),
        "pairs.*.time_in": ("resnet_attn_blocks.*.3", TIME_BLOCK),
        "pairs.*.time_out": ("resnet_attn_blocks.*.4", TIME_BLOCK),
    }
    return {
        "stem": "unet.in_layer",
        "level_embed": ("unet.to_time_embed", MLP),
        "frame_embed": ("unet.to_temporal_embed", MLP),
        "text.pool": ("unet.feature_pooling.attention", ATTENTION),
        "text.null": "null_embedding",
        "text.project": projection,
        "down.*": ("unet.down_samples.*", level),
        "up.*": ("unet.up_samples.*", level),
        "norm": "unet.out_layer.0",
        "out": "unet.out_layer.2",
    }


# The interpolation's own, beside the noise level and the skip-frame number.
_GROUPS: Table = {
    "noise_embed": ("unet.perturbation_to_time_embed", MLP),
    "noise_gate": "unet.time_embed_merge",
    "skip_embed": "unet.skip_embeddings",
    "skip_gate": "unet.skip_merge",
}


# Kandinsky Video 1.0, keyframes and interpolation.
AUTHORS_1_0 = _GROUPS | _authors(
    {"time_conv.conv": "temporal_projection", "time_conv.gate": "temporal_merge"},
    {**NORMS, **FF, "attention": ("temporal_attention", ATTENTION)},
    "projections.t5",
)


def authors_1_1(variant: str, projection: str = "projection_base") -> Table:
    """Kandinsky Video 1.1, whose keyframes and interpolation name their parts differently."""
    new = "temporal_projection_new"
    unit: Table = {
        "time_conv.conv": f"{new}.temporal_projection",
        "time_conv.gate": f"{new}.temporal_merge",
    }
    if variant == "interpolation":
        gates = {"gate1": "temporal_merge1", "gate2": "temporal_merge2"}
        return _GROUPS | _authors(unit, {**SPACE, **gates}, projection)
    time_attn: Table = {
        "norm1.project": "temporal_norm.context_mlp.1",
        "norm2.project": "ff_norm.context_mlp.1",
        "attention": ("temporal_attention", ATTENTION),
        **FF,
    }
    return {
        **_authors(unit, time_attn, projection),
        "image_stem": "unet.image_in_layer",
        "noise_embed": ("unet.temporal_noise_aug_time_encoding", MLP),
        "motion_embed": ("unet.temporal_motion_score_encoding", MLP),
    }


def diffusers_3(blocks: int) -> Table:
    """diffusers' `Kandinsky3UNet`. Its text-free branch is a prompt of zeros, whose tokens are the
    projection's bias alone: that is our null text."""
    attention = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
    space: Table = {**NORMS, **FF, "attention": ("attention", attention)}
    res: Table = {"units.*": ("resnet_blocks.*", UNIT), **SHORTCUTS}
    level: Table = {"self_attn": ("attentions.0", space)}
    for i in range(blocks):
        level |= {
            f"pairs.{i}.res_in": (f"resnets_in.{i}", res),
            f"pairs.{i}.cross_attn": (f"attentions.{i + 1}", space),
            f"pairs.{i}.res_out": (f"resnets_out.{i}", res),
        }
    return {
        "stem": "conv_in",
        "level_embed": ("time_embedding", {"layers.0": "linear_1", "layers.2": "linear_2"}),
        "text.pool": ("add_time_condition.attention", attention),
        "text.project.0": "encoder_hid_proj.projection_linear",
        "text.project.1": "encoder_hid_proj.projection_norm",
        "text.null": "encoder_hid_proj.projection_norm.bias",
        "down.*": ("down_blocks.*", level),
        "up.*": ("up_blocks.*", level),
        "norm": "conv_norm_out",
        "out": "conv_out",
    }


def theirs(own: str, table: Table) -> str:
    """What a tensor of ours is called there."""
    for prefix, found in table.items():
        pattern = re.escape(prefix).replace(r"\*", r"(\d+)") + r"(?:\.(.+))?"
        if match := re.fullmatch(pattern, own):
            *numbers, rest = match.groups()
            name, inside = (found, None) if isinstance(found, str) else found
            for number in numbers:
                name = name.replace("*", number, 1)
            if inside is not None:
                return f"{name}.{theirs(rest, inside)}"
            return f"{name}.{rest}" if rest else name
    raise KeyError(own)


def taken(
    state: Mapping[str, Tensor], config: UNetConfig, table: Table, where: str
) -> dict[str, Tensor]:
    """The weights of the `UNet` of this config out of a checkpoint's. InputError, beginning with
    `where`, names the first tensor that is missing, unknown or of another shape."""
    with on_meta():
        expected = UNet(config).state_dict()
    names = {own: theirs(own, table) for own in expected}
    missing = [own for own, name in names.items() if name not in state]
    known = set(names.values())
    unknown = [name for name in state if name not in known]
    if missing or unknown:
        said = []
        if missing:
            own = missing[0]
            said.append(f"lacks `{names[own]}` ({_shape(expected[own])})")
        if unknown:
            said.append(
                f"holds `{unknown[0]}` ({_shape(state[unknown[0]])}), which this config hasn't"
            )
        raise InputError(f"{where}: {' and '.join(said)}")
    made = {}
    for own, name in names.items():
        x = state[name]
        if own == "text.null" and x.numel() == expected[own].numel():
            # With or without an axis for the token; diffusers' serves as a bias, too.
            x = x.reshape(-1).clone()
        if x.shape != expected[own].shape:
            raise InputError(
                f"{where}: `{name}` is {_shape(x)}, this config's is {_shape(expected[own])}"
            )
        made[own] = x
    return made


def _shape(x: Tensor) -> str:
    return weights.shown(tuple(x.shape))


def load_authors(
    path: str | Path,
    config: UNetConfig,
    release: str,
    *,
    projections: str | Path | None = None,
    projection: str = "projection_base",
) -> UNet:
    """The network in one of the authors' `.pt` files, in the dtype of its weights, on the CPU.

    `release` is "1.0" or "1.1"; `projections` the `t5_projections.pt` of 1.1, for configs with a
    context_dim. InputError for a file that holds something else than tensors, or other ones than
    the config's.
    """
    if release not in ("1.0", "1.1"):
        raise UsageError(f"no release `{release}` of Kandinsky Video", next="1.0 or 1.1")
    state = _flat(_load(path))
    if projections is not None:
        found = _flat(_load(projections))
        state |= {k: x for k, x in found.items() if k.startswith(f"{projection}.")}
    table = AUTHORS_1_0 if release == "1.0" else authors_1_1(config.variant, projection)
    return _network(config, taken(state, config, table, str(path)))


def diffusers_config(settings: Mapping[str, Any]) -> UNetConfig:
    """What a `Kandinsky3UNet` with this config.json is here. Where diffusers differs from the
    paper's network: padding counts when text is pooled."""
    widths = tuple(settings["block_out_channels"])  # four: its attention is written for four levels
    attending = (False, *[True] * (len(widths) - 1))
    return UNetConfig(
        in_channels=settings["in_channels"],
        out_channels=settings["in_channels"],
        variant="spatial",
        init_channels=widths[0] // 2,
        widths=widths,
        self_attention=attending,
        cross_attention=attending,
        blocks=settings["layers_per_block"],
        head_dim=settings["attention_head_dim"],
        groups=settings["groups"],
        time_dim=settings["time_embedding_dim"],
        text_dim=settings["encoder_hid_dim"],
        context_dim=settings["cross_attention_dim"],
        text_mean="padding_too",
    )


def from_diffusers(state: Mapping[str, Tensor], config: UNetConfig, where: str) -> UNet:
    """The network with the weights of a `Kandinsky3UNet`, whose file is called `where`."""
    return _network(config, taken(state, config, diffusers_3(config.blocks), where))


def _network(config: UNetConfig, state: Mapping[str, Tensor]) -> UNet:
    with on_meta():
        network = UNet(config)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _load(path: str | Path) -> Any:
    """What a `.pt` file holds, mapped rather than read. Nothing in it is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: holds more than tensors",
            why="loading it could run any code, so it isn't",
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{path}: can't be read: {reason}") from None


def _flat(found: Any, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of nested dicts, by their names joined by dots; what is no tensor is left out."""
    if isinstance(found, Tensor):
        return {prefix: found}
    if not isinstance(found, Mapping):
        return {}
    flat: dict[str, Tensor] = {}
    for name, x in found.items():
        flat |= _flat(x, f"{prefix}.{name}" if prefix else str(name))
    return flat
