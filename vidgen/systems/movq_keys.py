"""Names in `MoVQDecoder` → names in the published checkpoints of MoVQ.

Two layouts: the authors' (`movq.pt` of Kandinsky, `video_movq.pt` of Kandinsky Video 1.1) and
diffusers' (`VQModel` with norm_type "spatial"), which has image decoders only. Both hold an
encoder, too, which is left out; so is what the authors' decoder holds and never uses.

The authors' attention takes the latents of a chunk's first frame for all of its frames; ours takes
each frame's own. For single frames the two are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from vidgen.errors import InputError
from vidgen.io.weights import some
from vidgen.nn.meta import on_meta
from vidgen.nn.movq import Kind, MoVQConfig, MoVQDecoder, Place, layout

# Inside a norm that looks at the latents.
NORM = {"norm": "norm_layer", "scale": "conv_y", "shift": "conv_b"}

# Inside a layer of each kind.
AUTHORS: dict[Kind, dict[str, str]] = {
    "block": {
        "norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2",
        "skip": "nin_shortcut",
        "time1.conv": "temporal_projection1", "time1.gate": "temporal_merge1",
        "time2.conv": "temporal_projection2", "time2.gate": "temporal_merge2",
    },
    "time_block": {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2"},
    "attention": {"norm": "norm", "q": "q", "k": "k", "v": "v", "out": "proj_out"},
    "time_attention": {"norm": "norm.norm_layer", "q": "q", "k": "k", "v": "v", "out": "proj_out"},
    "up": {"conv": "conv"},
}  # fmt: skip
DIFFUSERS: dict[Kind, dict[str, str]] = {
    "block": {
        "norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2",
        "skip": "conv_shortcut",
    },
    "attention": {
        "norm": "spatial_norm", "q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0",
    },
    "up": {"conv": "conv"},
}  # fmt: skip

# Around the layers: the same but for the last norm.
OUTSIDE = {
    "post_quant": "post_quant_conv",
    "conv_in": "decoder.conv_in",
    "norm_out": "decoder.norm_out",
    "conv_out": "decoder.conv_out",
}

# What the files hold beside the decoder. The norm of the authors' temporal attention is called
# without latents, and their augmentation against flicker is off when a video is decoded.
UNUSED = re.compile(
    r"encoder\.|quant_conv\.|quantize\."
    r"|decoder\..*\.temporal_attn(_1|\.\d+)\.norm\.conv_[yb]\."
    r"|decoder\.mid\.block_1\.temporal_flicker_proj\."
)


class Prefix(NamedTuple):
    """A module of ours, and its name in a checkpoint."""

    own: str
    theirs: str


def from_authors(state: Mapping[str, Tensor], config: MoVQConfig) -> dict[str, Tensor]:
    """The weights of the `MoVQDecoder` of that config out of the authors' state dict. InputError
    for one of another config."""
    found = [Prefix(*pair) for pair in OUTSIDE.items()]
    for place in layout(config):
        found += _inside(place, _authors_place(place), AUTHORS)
    return _taken(state, config, found)


def from_diffusers(state: Mapping[str, Tensor], config: MoVQConfig) -> dict[str, Tensor]:
    """The same out of the state dict of a diffusers `VQModel` with norm_type "spatial"."""
    outside = OUTSIDE | {"norm_out": "decoder.conv_norm_out"}
    found = [Prefix(*pair) for pair in outside.items()]
    for place in layout(config):
        if place.kind not in DIFFUSERS:
            raise InputError(f"a diffusers VQModel has no {place.name}: it decodes single frames")
        found += _inside(place, _diffusers_place(place, len(config.widths)), DIFFUSERS)
    return _taken(state, config, found)


def _authors_place(place: Place) -> str:
    """Their levels count from the finest, as ours do."""
    names = {"time_block": "temporal_block", "attention": "attn", "time_attention": "temporal_attn"}
    kind = names.get(place.kind, place.kind)
    if place.level is None:
        return f"decoder.mid.{kind}_{place.number + 1}"
    inside = "upsample" if kind == "up" else f"{kind}.{place.number}"
    return f"decoder.up.{place.level}.{inside}"


def _diffusers_place(place: Place, levels: int) -> str:
    """Their levels count from the coarsest."""
    kind = {"block": "resnets", "attention": "attentions", "up": "upsamplers"}[place.kind]
    where = "mid_block" if place.level is None else f"up_blocks.{levels - 1 - place.level}"
    return f"decoder.{where}.{kind}.{place.number}"


def _inside(place: Place, theirs: str, table: dict[Kind, dict[str, str]]) -> list[Prefix]:
    return [
        Prefix(f"layers.{place.name}.{own}", f"{theirs}.{name}")
        for own, name in table[place.kind].items()
    ]


def _taken(
    state: Mapping[str, Tensor], config: MoVQConfig, prefixes: list[Prefix]
) -> dict[str, Tensor]:
    with on_meta():
        expected = MoVQDecoder(config).state_dict()
    names = {own: _theirs(own, prefixes) for own in expected}
    if missing := [name for name in names.values() if name not in state]:
        raise InputError(f"the checkpoint lacks {some(missing)} of a MoVQ decoder of this config")
    known = set(names.values())
    if extra := [name for name in state if name not in known and not UNUSED.match(name)]:
        raise InputError(f"a MoVQ decoder of this config hasn't the checkpoint's {some(extra)}")
    made = {}
    for own, name in names.items():
        x, shape = state[name], expected[own].shape
        # Their linear layers and kernels over time alone are 2-D convolutions here.
        if x.numel() != shape.numel() or x.shape[:2] != shape[:2]:
            raise InputError(f"the shape of `{name}` is {list(x.shape)}, not {list(shape)}")
        made[own] = x.reshape(shape)
    return made


def _theirs(own: str, prefixes: list[Prefix]) -> str:
    """The name of a tensor of ours in the checkpoint."""
    for prefix, theirs in prefixes:
        if own == prefix or own.startswith(prefix + "."):
            first, *rest = own.removeprefix(prefix).lstrip(".").split(".")
            return ".".join(filter(None, (theirs, NORM.get(first, first), *rest)))
    raise KeyError(own)
