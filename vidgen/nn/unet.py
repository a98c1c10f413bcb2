"""The FusionFrames U-Net: a text-to-image network on every frame, temporal parts between.

Arkhipkin et al. 2023 (arXiv 2311.13073), §3, on the U-Net of Kandinsky 3.0. One skip joins the two
sides of a level, there is no middle block, and text arrives twice: pooled into the embedding of the
noise level, and token by token through cross-attention on some levels. Spatial blocks never see
where a frame lies in time, so that frozen text-to-image weights stay what they are.

The same network has five uses by its channels: keyframes c → c, groups of three between two
keyframes 5c → 3c, masked frames 2c+1 → c, upsampling 2c → c, single pictures c → c.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.nn.meta import on_meta
from vidgen.nn.unet_blocks import Cond, StepEmbedding, Text
from vidgen.nn.unet_config import UNetConfig
from vidgen.nn.unet_levels import Down, Up


class UNet(nn.Module):
    """Noisy latents, a noise level and text → the network's raw output."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = c = config
        self.stem = nn.Conv2d(c.in_channels, c.init_channels, 3, padding=1)
        if c.image_stem:
            self.image_stem = nn.Conv2d(c.in_channels, c.init_channels, 3, padding=1)

        def embedding(scale: float) -> StepEmbedding:
            return StepEmbedding(c.time_dim, c.init_channels, scale)

        self.level_embed = embedding(c.level_scale)
        if c.has_frames:
            self.frame_embed = embedding(c.time_scale)
        if c.noise_embedding:
            self.noise_embed = embedding(c.level_scale)
        if c.noise_embedding == "time":
            self.noise_gate = nn.Parameter(torch.zeros(1))
        if c.motion:
            self.motion_embed = embedding(1.0)
        if c.skip_rows:
            self.skip_embed = nn.Embedding(c.skip_rows, c.time_dim)
            self.skip_gate = nn.Parameter(torch.zeros(1))
        if c.pooled_dim:
            self.pooled_embed = nn.Linear(c.pooled_dim, c.time_dim)
        if c.text_dim:
            self.text = Text(
                c.text_dim, c.time_dim, c.head_dim,
                project=c.context_dim, mean=c.text_mean, null_tokens=c.null_tokens,
            )  # fmt: skip
        levels = range(len(c.widths))
        self.down = nn.ModuleList(Down(c, level) for level in levels)
        self.up = nn.ModuleList(Up(c, level) for level in reversed(levels))
        self.norm = nn.GroupNorm(c.groups, c.init_channels)
        self.out = nn.Conv2d(c.init_channels, c.out_channels, 3, padding=1)

    @property
    def blocks(self) -> list[nn.Module]:
        """What `--compile` compiles one by one."""
        return [*self.down, *self.up]

    def forward(
        self,
        z: Tensor,
        t: Tensor,
        *,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        pooled: Tensor | None = None,
        times: Tensor | None = None,
        skip: Tensor | None = None,
        noise_level: Tensor | None = None,
        motion: Tensor | None = None,
        temporal: Tensor | None = None,
    ) -> Tensor:
        """z `b in_channels t h w` (t = frames, or groups of the interpolation), t `b` (what the
        prediction tells the network of the level) → `b out_channels t h w`.

        text         `b l text_dim`; None, or a row without a word: the learned null text
        text_mask    `b l`, true = a word; None: all are
        pooled       `b pooled_dim`
        times        `b t` seconds, × `time_scale` = frame positions; None: half a second apart
        skip         `b` int64: the skip-frame number of the interpolation; None: not told
        noise_level  `b`: noise in the condition channels, in t's unit; None: told none, or zero
                     where `noise_embedding` is "time"
        motion       `b`: how much moves; None: not told
        temporal     `b`: 0 closes the gates of "interpolation"; None: all open

        Text, pooled and times go unread where the config has no place for them, so that networks
        of different configs take the same conditions. h and w that `stride` doesn't divide are
        padded inside by their last row and column, and cut back.
        """
        b, _, frames, height, width = z.shape
        picture = self.config.image_stem and frames == 1
        x = rearrange(z, "b c t h w -> (b t) c h w").to(self.stem.weight.dtype)
        x = F.pad(x, (0, -width % self.config.stride, 0, -height % self.config.stride), "replicate")
        x = (self.image_stem if picture else self.stem)(x)

        tokens, bias, told = self._text(b, text, text_mask)
        level = self._level(t, told, pooled, skip, noise_level)
        time_attn, time = self._frames(level, frames, times, noise_level, motion)
        cond = Cond(
            frames, F.silu(level), F.silu(time_attn), F.silu(time),
            text=tokens, text_bias=bias, on=temporal, picture=picture,
        )  # fmt: skip

        skips = []
        for down in self.down:
            x = down(x, cond)
            skips.append(x)
        for i, up in enumerate(self.up):
            # The deepest level's output goes on; of the others each meets its like on the way up.
            kept = skips.pop()
            x = up(torch.cat((x, kept), dim=1) if i else x, cond)
        x = self.out(F.silu(self.norm(x)))
        return rearrange(x[:, :, :height, :width], "(b t) c h w -> b c t h w", b=b)

    def _text(self, b: int, text: Tensor | None, mask: Tensor | None):
        """Tokens `b l c`, bias `b 1 1 l` and pooled vector `b d`; None each without text."""
        return self.text(b, text, mask) if self.config.text_dim else (None, None, None)

    def _level(
        self,
        t: Tensor,
        told: Tensor | None,
        pooled: Tensor | None,
        skip: Tensor | None,
        noise_level: Tensor | None,
    ) -> Tensor:
        """The embedding `b d` of the noise level and of all that the spatial blocks are told."""
        c = self.config
        x = self.level_embed(t)
        if told is not None and not c.pooling_last:
            x = x + told
        if c.noise_embedding == "time":
            noise = self.noise_embed(torch.zeros_like(t) if noise_level is None else noise_level)
            x = x + self.noise_gate * (noise - x)
        elif noise_level is not None and not c.noise_embedding:
            raise ValueError("noise_level: this network has no noise_embedding")
        if skip is not None:
            if not c.skip_rows:
                raise ValueError("skip: this network has no skip_rows")
            x = x + self.skip_gate * self.skip_embed(skip)
        if told is not None and c.pooling_last:
            x = x + told
        if c.pooled_dim:
            if pooled is None:
                raise ValueError("pooled: this network needs it, pooled_dim is not 0")
            x = x + self.pooled_embed(pooled.to(x.dtype))
        return x

    def _frames(
        self,
        level: Tensor,
        frames: int,
        times: Tensor | None,
        noise_level: Tensor | None,
        motion: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Embeddings for the norm before temporal attention and for the other temporal norms, `b d`
        or `(b t) d`."""
        c, b = self.config, len(level)
        if motion is not None and not c.motion:
            raise ValueError("motion: this network has no motion embedding")
        if not c.has_frames:
            return level, level
        if times is None:
            times = torch.arange(frames, device=level.device).expand(b, -1) / 2
        frame = rearrange(self.frame_embed(times.flatten()), "(b t) d -> b t d", b=b)
        if c.noise_embedding == "frames" and noise_level is not None:
            frame = frame + self.noise_embed(noise_level).unsqueeze(1)
        if motion is not None:
            frame = frame + self.motion_embed(motion).unsqueeze(1)
        if c.frame_embedding == "attention":
            return frame.flatten(0, 1), level
        frame = (frame + level.unsqueeze(1)).flatten(0, 1)
        return frame, frame


def start_at_zero(network: UNet) -> UNet:
    """A new network, with an output of zero."""
    nn.init.zeros_(network.out.weight)
    nn.init.zeros_(network.out.bias)  # type: ignore[arg-type]
    return network


def temporal_parameters(network: UNet) -> dict[str, nn.Parameter]:
    """Name → parameter of everything that a text-to-image network of the same sizes doesn't have.

    These alone are trained on top of frozen text-to-image weights; the interpolation and the
    upsampler train everything.
    """
    with on_meta():
        image = {name for name, _ in UNet(network.config.of_pictures()).named_parameters()}
    return {name: p for name, p in network.named_parameters() if name not in image}
