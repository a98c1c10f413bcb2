"""The networks of FusionFrames (Arkhipkin et al. 2023, arXiv 2311.13073), Kandinsky Video.

A text-to-image U-Net makes keyframes once temporal parts are trained between its frozen spatial
blocks; another, started from the same weights, makes the three frames between two keyframes in one
pass. The networks are `vidgen.nn.unet`; sampling the second is `vidgen.systems.interpolation`,
decoding frames is `vidgen.systems.video_decoder`.

| symbol | here | meaning |
|---|---|---|
| z_t | `z` | noisy latents: `b c t h w`, or the three frames of a group on the channels |
| t | `t` | what the network is told of the noise level: a training timestep, 0 to 999 |
| eps, v | prediction | keyframes return eps, the interpolation v = alpha·eps − sigma·x0 (§3.3) |
| c = [c1, c2] | channels | keyframes around a group; the input is [c1, z1, z2, z3, c2] |
| s | `skip` | frames of the training clip between neighbors: a row of 20, Embedding(s) · gate |
| t_p, p | `noise_level` | noise in c, 0 to 250: lerp(embedding of t, embedding of t_p; gate) |
| m | zeros in c | the unconditional branch of context guidance |
| alpha (Eq. 3) | `LerpConv.gate` | how much of a convolution over groups is mixed in; starts at 0 |
| T | `z.shape[2]` | keyframes (16 in the paper; 15 in release 1.0, 12 in 1.1), or groups |

Parameters, counted, and what the READMEs of the releases say:

    text to image, `pictures`        3.04 B    3 B (Kandinsky 3.0)
    temporal parts of the keyframes  1.11 B
    `keyframes-1.0`                  4.14 B    4.0 B
    `keyframes-1.1`                  4.15 B    4.15 B; two embeddings and a stem for pictures more
    `interpolation-1.0`              3.87 B
    `interpolation-1.1`              3.98 B    4.0 B; attention over groups more

The one difference is release 1.0's 4.0 B, which its own code doesn't give either: built, it counts
4.14 B. The layer that brings the text encoder's tokens to 4096 channels is in front of the U-Net in
the releases, and `text.project` here; its 0.017 B aren't counted above.

What the paper leaves open and we chose: the mixed variant's inits and its frame positions
(`AddedConv`, `AddedAttention`), the width of the squeezed 3×3×3 convolutions (`squeezed`), which
noisy frame the text-to-image weights look at when an interpolation starts (`widened`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from vidgen.errors import InputError
from vidgen.io.weights import mismatches
from vidgen.nn.meta import on_meta
from vidgen.nn.unet import UNet, UNetConfig

_KEYFRAMES_1_0 = UNetConfig(
    context_dim=4096,
    text_mean="padding_as_zeros",
    time_scale=24.0,  # keyframes two a second have positions 0, 12, …, 168
)
_INTERPOLATION_1_0 = UNetConfig(
    in_channels=20,
    out_channels=12,
    variant="interpolation",
    text_mean="padding_as_zeros",
    null_tokens=2,  # it is never told another text
    noise_embedding="time",
    skip_rows=20,
)

# The published networks.
PAPER = {
    "pictures": replace(_KEYFRAMES_1_0, variant="spatial"),
    "keyframes-1.0": _KEYFRAMES_1_0,
    "keyframes-1.1": replace(
        _KEYFRAMES_1_0,
        in_channels=9,  # noisy, the first frame or zeros, a mask that says which
        time_scale=2.0,  # positions 0, 1, …, 11
        frame_embedding="all",
        noise_embedding="frames",
        motion=True,
        image_stem=True,
    ),
    "interpolation-1.0": _INTERPOLATION_1_0,
    "interpolation-1.1": replace(
        _INTERPOLATION_1_0,
        context_dim=4096,
        null_tokens=1,
        lerp_attention=True,
        pooling_last=True,
    ),
}

_WORLD = UNetConfig(
    in_channels=8,
    out_channels=8,
    init_channels=64,
    widths=(64, 96),
    self_attention=(True, True),
    cross_attention=(True, True),
    blocks=1,
    head_dim=32,
    groups=8,
    time_dim=96,
    level_scale=1000.0,  # t is a flow time, 0 to 1
    text_dim=128,
)

# Sizes that two CPU cores train, for the latents and the text of the shipped model; ours, not the
# paper's.
WORLD = {
    "pictures": replace(_WORLD, variant="spatial"),
    "keyframes": _WORLD,
    "keyframes-layers": replace(_WORLD, variant="conv1d_attn1d_layers"),
    "keyframes-conv3d": replace(_WORLD, variant="conv3d_attn1d_blocks"),
    "keyframes-attn3d": replace(_WORLD, variant="conv1d_attn3d_blocks"),
    "interpolation": replace(
        _WORLD, in_channels=40, out_channels=24, variant="interpolation",
        noise_embedding="time", skip_rows=20,
    ),
    "masked": replace(_WORLD, in_channels=17),  # the baseline: noisy, keyframes, mask
    "upsampler": replace(_WORLD, in_channels=16, noise_embedding="time"),
}  # fmt: skip

PRESETS = PAPER | {f"world-{name}": config for name, config in WORLD.items()}


def widened(state: Mapping[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """The weights that a network of this config starts from, given those of a text-to-image
    `UNet`: `load_state_dict` takes them as they are.

    Temporal parts are new. Input channels that are new have zero weights; output channels repeat
    the old ones, so that an interpolation at its start returns its first noisy frame's prediction
    three times: the text-to-image weights look at z1 in [c1, z1, z2, z3, c2], which is what
    [z_t, c], as the paper writes the input, begins with. InputError for weights of another network.
    """
    with on_meta():
        pictures = UNet(config.of_pictures()).state_dict()
    place = {"stem.weight": 1, "out.weight": 0, "out.bias": 0}
    made = {
        name: _fitted(x, pictures[name].shape, place[name], config) if name in place else x
        for name, x in state.items()
    }
    expected = {name: tuple(x.shape) for name, x in pictures.items()}
    if wrong := mismatches(expected, {name: tuple(x.shape) for name, x in made.items()}):
        raise InputError(f"these weights are of another text-to-image network: {wrong[0]}")
    if config.image_stem:
        made |= {f"image_{name}": made[name] for name in ("stem.weight", "stem.bias")}
    return UNet(config).state_dict() | made


def _fitted(x: Tensor, shape: torch.Size, axis: int, config: UNetConfig) -> Tensor:
    """x with as many channels as the shape has; x itself where that can't be."""
    have, want = x.shape[axis], shape[axis]
    if axis == 0:
        return torch.cat([x] * (want // have)) if want % have == 0 else x
    first = have if config.variant == "interpolation" else 0
    if want < first + have:
        return x
    wide = x.new_zeros(len(x), want, *x.shape[2:])
    wide[:, first : first + have] = x
    return wide
