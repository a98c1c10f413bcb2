"""The two sides of a level of the FusionFrames U-Net, built from spatial and temporal blocks."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from vidgen.nn.unet_blocks import AttentionBlock, Cond, Parts, ResBlock
from vidgen.nn.unet_config import UNetConfig
from vidgen.nn.unet_temporal import (
    AddedAttention,
    AddedConv,
    LerpAttentionBlock,
    LerpConv,
    TimeAttentionBlock,
    TimeResBlock,
)


class Level(nn.Module):
    """What the two sides of a level have in common: how their parts are made."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__()
        self.config, self.level = config, level
        self.sizes = config.time_dim, config.groups

    def res_block(self, channels: int, out: int, resample: str = "") -> ResBlock:
        layers: dict[str, Parts] = {
            "conv1d_attn1d_layers": AddedConv,
            "interpolation": LerpConv,
        }
        layer = layers.get(self.config.variant)
        return ResBlock(channels, out, *self.sizes, resample=resample, time_conv=layer)

    def self_attention(self, channels: int) -> nn.Module:
        c = self.config
        if not c.self_attention[self.level]:
            return Nothing()
        layer = partial(AddedAttention, cond_dim=c.time_dim, head_dim=c.head_dim)
        return AttentionBlock(
            channels, *self.sizes, c.head_dim, c.ff_ratio,
            time_attn=layer if c.variant == "conv1d_attn1d_layers" else None,
        )  # fmt: skip

    def cross_attention(self, channels: int) -> nn.Module:
        c = self.config
        if not c.cross_attention[self.level]:
            return Nothing()
        return AttentionBlock(channels, *self.sizes, c.head_dim, c.ff_ratio, context=c.context)

    def time_block(self, channels: int) -> nn.Module:
        if not self.config.has_blocks:
            return Nothing()
        spatial = self.config.variant == "conv3d_attn1d_blocks"
        return TimeResBlock(channels, *self.sizes, spatial=spatial)

    def time_attention(self, channels: int) -> nn.Module:
        c = self.config
        if not c.self_attention[self.level] or not (c.has_blocks or c.lerp_attention):
            return Nothing()
        if c.lerp_attention:
            return LerpAttentionBlock(channels, *self.sizes, c.head_dim, c.ff_ratio)
        return TimeAttentionBlock(channels, *self.sizes, c.head_dim, c.ff_ratio, window=c.window)


class Nothing(nn.Module):
    """A part that a level doesn't have."""

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        return x


class Down(Level):
    """Self-attention, then pairs of residual blocks with cross-attention between; a temporal part
    behind each spatial one. The last pair halves the resolution, but for the deepest level."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__(config, level)
        channels, out = config.channels(level)
        deepest = level == len(config.widths) - 1
        self.self_attn = self.self_attention(channels)
        self.time_attn = self.time_attention(channels)
        self.pairs = nn.ModuleList()
        for i in range(config.blocks):
            down = "down" if i == config.blocks - 1 and not deepest else ""
            pair = nn.ModuleDict()
            pair["res_in"] = self.res_block(channels if i == 0 else out, out)
            pair["time_in"] = self.time_block(out)
            pair["cross_attn"] = self.cross_attention(out)
            pair["res_out"] = self.res_block(out, out, down)
            pair["time_out"] = self.time_block(out)
            self.pairs.append(pair)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        x = self.time_attn(self.self_attn(x, cond), cond)
        for pair in self.pairs:
            assert isinstance(pair, nn.ModuleDict)
            for part in ("res_in", "time_in", "cross_attn", "res_out", "time_out"):
                x = pair[part](x, cond)
        return x


class Up(Level):
    """`Down` backwards: temporal parts in front of their spatial ones, self-attention last. The
    first pair takes what came down beside what came up, and doubles the resolution."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        super().__init__(config, level)
        out, channels = config.channels(level)
        deepest = level == len(config.widths) - 1
        self.pairs = nn.ModuleList()
        for i in range(config.blocks):
            up = "up" if i == 0 and not deepest else ""
            wide = 2 * channels if up else channels
            narrow = out if i == config.blocks - 1 else channels
            pair = nn.ModuleDict()
            pair["time_in"] = self.time_block(wide)
            pair["res_in"] = self.res_block(wide, wide, up)
            pair["cross_attn"] = self.cross_attention(wide)
            pair["time_out"] = self.time_block(wide)
            pair["res_out"] = self.res_block(wide, narrow)
            self.pairs.append(pair)
        self.time_attn = self.time_attention(out)
        self.self_attn = self.self_attention(out)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        for pair in self.pairs:
            assert isinstance(pair, nn.ModuleDict)
            for part in ("time_in", "res_in", "cross_attn", "time_out", "res_out"):
                x = pair[part](x, cond)
        if self.config.lerp_attention:  # v1.1's interpolation has it last on both sides
            return self.time_attn(self.self_attn(x, cond), cond)
        return self.self_attn(self.time_attn(x, cond), cond)
