"""The MoVQ decoder, of pictures and of videos: latents to pixels, at every layer with a look at the
latents again.

Zheng et al. 2022 (arXiv 2209.09002) for pictures; Arkhipkin et al. 2023 (FusionFrames, arXiv
2311.13073, §3.4 and table 4) for the layers over time. The codebook is not used: latents are
continuous, and nothing scales them.

| table 4 | `temporal` | `temporal_attention` | parameters |
|---|---|---|---|
| image | none | no | 161 M |
| 3 × 1 × 1 conv | conv1d | no, yes | 203 M, 220 M |
| 3 × 3 × 3 conv | conv3d | no, yes | 539 M, 556 M |
| ResNet block + attention | resnet | yes | 220 M |
| 2-D → 3-D conv | inflate | no | 419 M |

The counts are of the decoder alone; `CONFIGS["paper"]` has them.

Ours, `CONFIGS["world"]`, has another body: that of an autoencoder's decoder of single frames, whose
equal it begins as (`image_decoder`), with the same layers over time and the same look at the
latents in every norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.nn.movq_blocks import (
    Attention,
    Gated,
    ResBlock,
    ShuffleUp,
    SpaceTimeConv,
    SpatialNorm,
    TimeAttention,
    TimeBlock,
    Upsample,
)

Body = Literal["movq", "autoencoder"]
Temporal = Literal["none", "conv1d", "conv3d", "resnet", "inflate"]
OVER_TIME = (Gated, TimeBlock, TimeAttention)  # what an image decoder hasn't


@dataclass(frozen=True, kw_only=True)
class MoVQConfig:
    """Sizes of a `MoVQDecoder`; `stride` pixels of a side come from one latent.

    body  "movq" as published, or "autoencoder": what `VideoAutoencoder` decodes with, which has no
          middle but one block more at the coarsest level, normalises pixel by pixel and once a
          block, and enlarges by shuffled channels; attention and groups don't belong to it
    """

    body: Body = "movq"
    channels: int = 4  # of the latents
    widths: tuple[int, ...] = (256, 512, 512, 1024)  # of the levels, the finest first
    blocks: int = 3  # residual blocks a level; the middle has two
    attention: tuple[int, ...] = (3,)  # levels with attention, which the middle always has
    patch: int = 1  # pixels of a side that the last convolution makes at once
    groups: int = 32  # of the norms
    temporal: Temporal = "none"
    temporal_levels: tuple[int, ...] | None = None  # that see time; None: all, and the middle
    temporal_attention: bool = False  # behind every attention

    def __post_init__(self) -> None:
        for name in ("widths", "attention", "temporal_levels"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, choices in (("body", Body), ("temporal", Temporal)):
            if getattr(self, name) not in choices.__args__:  # type: ignore[attr-defined]
                raise ValueError(f"{name} is {getattr(self, name)!r}")

    @property
    def stride(self) -> int:
        return self.patch * 2 ** (len(self.widths) - 1)

    @property
    def reach(self) -> int | None:
        """How many frames away a latent still changes a frame, to either side: one for every
        convolution over time. None: any number."""
        if self.temporal_attention:
            return None
        if self.temporal == "none":
            return 0
        return 2 * sum(p.kind == "block" and self.sees_time(p.level) for p in layout(self))

    def sees_time(self, level: int | None) -> bool:
        """Whether the blocks of a level (None: the middle) have something over time."""
        if self.temporal == "none":
            return False
        return self.temporal_levels is None or level in self.temporal_levels

    def to_dict(self) -> dict:
        return asdict(self)


CONFIGS = {
    "paper": MoVQConfig(),  # ch 256, multipliers 1 2 2 4, attention at 32 of 256 pixels
    "world": MoVQConfig(
        body="autoencoder", channels=8, widths=(64, 96, 128), blocks=2, attention=(), patch=2,
        temporal="conv1d",
    ),
}  # fmt: skip


Kind = Literal["block", "attention", "time_block", "time_attention", "up"]


class Place(NamedTuple):
    """A layer: what it is, the widths that go in and come out, and which it is among its kind in
    its level (None: in the middle)."""

    kind: Kind
    width_in: int
    width: int
    level: int | None
    number: int

    @property
    def name(self) -> str:
        where = "middle" if self.level is None else f"level_{self.level}"
        return f"{where}_{self.kind}_{self.number}"


def layout(config: MoVQConfig) -> Iterator[Place]:
    """The layers between the first convolution and the last norm, in their order.

    The middle and the levels differ in where the time blocks stand; that is as published.
    """
    published, width = config.body == "movq", config.widths[-1]
    if published:
        yield from _middle(config)
    for level in reversed(range(len(config.widths))):
        coarsest = level == len(config.widths) - 1
        for i in range(config.blocks + (coarsest and not published)):
            before, width = width, config.widths[level]
            yield Place("block", before, width, level, i)
            if config.temporal == "resnet" and config.sees_time(level):
                yield Place("time_block", width, width, level, i)
            if level in config.attention:
                yield Place("attention", width, width, level, i)
                if config.temporal_attention:
                    yield Place("time_attention", width, width, level, i)
        if level:
            before, width = width, width if published else config.widths[level - 1]
            yield Place("up", before, width, level, 0)


def _middle(config: MoVQConfig) -> Iterator[Place]:
    width = config.widths[-1]
    for i in (0, 1):
        yield Place("block", width, width, None, i)
        if i == 0:
            yield Place("attention", width, width, None, i)
            if config.temporal_attention:
                yield Place("time_attention", width, width, None, i)
        if config.temporal == "resnet" and config.sees_time(None):
            yield Place("time_block", width, width, None, i)


class MoVQDecoder(nn.Module):
    """Latents `b c t h w`, as records hold them → pixels `b 3 t H W`, about −1…1 (not clamped)."""

    def __init__(self, config: MoVQConfig) -> None:
        super().__init__()
        self.config = config
        channels, groups, first = config.channels, self._groups, config.widths[0]
        self.post_quant = nn.Conv2d(channels, channels, 1)
        self.conv_in = nn.Conv2d(channels, config.widths[-1], 3, padding=1)
        self.layers = nn.ModuleDict({p.name: self._layer(p) for p in layout(config)})
        self.norm_out = SpatialNorm(first, channels, groups)
        self.conv_out = nn.Conv2d(first, 3 * config.patch**2, 3, padding=1)
        if config.temporal == "inflate":
            self._inflate()

    def _layer(self, place: Place) -> nn.Module:
        config, width = self.config, place.width
        channels, groups = config.channels, self._groups
        if place.kind == "block":
            over_time = config.temporal if config.sees_time(place.level) else "none"
            time = over_time if over_time in ("conv1d", "conv3d") else None
            inflated = over_time == "inflate"
            return ResBlock(place.width_in, width, channels, groups, time=time, inflated=inflated)
        if place.kind == "attention":
            return Attention(width, channels, groups)
        if place.kind == "time_block":
            return TimeBlock(width, channels, groups)
        if place.kind == "time_attention":
            return TimeAttention(width, groups)
        if config.body == "autoencoder":
            return ShuffleUp(place.width_in, width)
        return Upsample(width)

    @property
    def _groups(self) -> int | None:
        """Of the norms; None: over the channels of each pixel alone."""
        return self.config.groups if self.config.body == "movq" else None

    def forward(self, latents: Tensor) -> Tensor:
        frames = latents.shape[2]
        z = rearrange(latents, "b c t h w -> (b t) c h w")
        z = z.contiguous(memory_format=torch.channels_last)
        x = self.conv_in(self.post_quant(z))
        for layer in self.layers.values():
            x = layer(x, z, frames)
        x = self.conv_out(F.silu(self.norm_out(x, z)))
        x = F.pixel_shuffle(x, self.config.patch)
        return rearrange(x, "(b t) c h w -> b c t h w", t=frames)

    def time_parameters(self) -> list[nn.Parameter]:
        """Of the layers that only a video decoder has; none where its convolutions are inflated."""
        return [p for m in self.modules() if isinstance(m, OVER_TIME) for p in m.parameters()]

    @torch.no_grad()
    def _inflate(self) -> None:
        """A kernel that was 2-D starts as the middle of a 3-D one: each frame sees itself only."""
        for module in self.modules():
            if isinstance(module, SpaceTimeConv):
                module.weight[:, :, ::2] = 0

    @torch.no_grad()
    def begin(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of an image decoder, or of another video decoder, of the same sizes;
        layers over time that it lacks stay new, 2-D kernels become the middle of 3-D ones.

        ValueError for a tensor that has no place here, or another shape, or that is missing.
        """
        own = self.state_dict()
        time = {id(p) for p in self.time_parameters()}
        optional = {name for name, p in self.named_parameters() if id(p) in time}
        if wrong := (own.keys() - state.keys() - optional) | (state.keys() - own.keys()):
            raise ValueError(f"of another decoder: {min(wrong)}")
        for name, x in state.items():
            mine = own[name]
            if mine.ndim == x.ndim + 1 and mine.ndim == 5:
                mine.zero_()
                mine = mine[:, :, 1]
            if mine.shape != x.shape:
                raise ValueError(f"{name} is {list(x.shape)}, not {list(mine.shape)}")
            mine.copy_(x)


@torch.no_grad()
def image_decoder(vae: VideoAutoencoder) -> MoVQDecoder:
    """The decoder of an autoencoder as one of ours without time: the same pixels of the same
    latents. The look at the latents is there, and changes nothing yet."""
    sizes = vae.config
    config = MoVQConfig(
        body="autoencoder", channels=sizes.channels, widths=sizes.decoder_widths,
        blocks=sizes.decoder_blocks, attention=(), patch=2,
    )  # fmt: skip
    decoder = MoVQDecoder(config)
    for module in decoder.modules():
        if isinstance(module, SpatialNorm):
            module.look_away()
    decoder.post_quant.weight.copy_(torch.diag(vae.latents_std)[..., None, None])
    decoder.post_quant.bias.copy_(vae.latents_mean)  # type: ignore[union-attr]
    theirs = vae.decoder.state_dict()
    names = {"conv_in": "conv_in", "norm_out.norm": "norm", "conv_out": "conv_out"}
    for place in layout(config):
        assert place.level is not None  # this body has no middle
        stage = 3 * (len(config.widths) - 1 - place.level)  # blocks, convolution, shuffling
        if place.kind == "up":
            names[f"layers.{place.name}.conv"] = f"stages.{stage + 1}"
        else:
            for own, name in (("norm1.norm", "norm"), ("conv1", "conv1"), ("conv2", "conv2")):
                names[f"layers.{place.name}.{own}"] = f"stages.{stage}.{place.number}.{name}"
    for own, name in names.items():
        for key, p in decoder.get_submodule(own).named_parameters():
            p.copy_(theirs[f"{name}.{key}"])
    return decoder
