"""Wan's causal autoencoder: 1 + 4k frames to 1 + k latent frames, and back.

The first frame is a picture for itself; each further latent frame stands for four frames, and
nothing looks ahead. So a clip can be read and written chunk by chunk, each chunk with the last
frames of every convolution before it (`Past`): the same numbers as in one piece, to rounding.

| | 2.1, also of Wan2.2-A14B | 2.2, of TI2V-5B |
|---|---|---|
| latents | 16 channels, 8×8 pixels | 48 channels, 16×16 pixels |
| widths, levels | 96, 4 | 160 and 256 in the decoder, 4 |
| pixels go in | as they are | 2×2 of them on the channels |
| beside each level | nothing | a shortcut without weights: means down, repeats up |

`encode` and `decode` work on *normalised* latents, (z − mean)/std by the config's `latents_mean`
and `latents_std`, channel by channel: what Wan's transformers see and make. The encoder says a mean
and a log-variance; `encode` gives the mean, `posterior` both, before normalising. Run it in
float32, as its authors do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.nn.causal_blocks import (
    CausalConv,
    ChannelNorm,
    Down,
    Middle,
    Past,
    ResBlock,
    Up,
    folded,
    unfolded,
)


@dataclass(frozen=True, kw_only=True)
class CausalVAEConfig:
    """Sizes of a `CausalVAE`; the defaults are Wan 2.1's."""

    channels: int = 16  # of the latents
    width: int = 96  # of the finest level
    decoder_width: int = 96
    multipliers: tuple[int, ...] = (1, 2, 4, 4)  # of the widths, the finest level first
    blocks: int = 2  # a level of the encoder; the decoder has one more
    time: tuple[bool, ...] = (False, True, True)  # where the encoder halves the frames, too
    shortcuts: bool = False  # beside the levels: Wan 2.2
    patch: int = 1  # pixels of a side that lie on the channels
    latents_mean: tuple[float, ...] = (0.0,) * 16
    latents_std: tuple[float, ...] = (1.0,) * 16

    def __post_init__(self) -> None:
        for name in ("multipliers", "time", "latents_mean", "latents_std"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.time) != len(self.multipliers) - 1:
            raise ValueError(f"{len(self.multipliers)} levels and time {self.time}")
        for name in ("latents_mean", "latents_std"):
            if len(getattr(self, name)) != self.channels:
                raise ValueError(f"{len(getattr(self, name))} {name} of {self.channels} channels")

    @property
    def stride(self) -> int:
        """Pixels of a side in one latent."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    @property
    def time_stride(self) -> int:
        """Frames in each latent frame but the first."""
        return 2 ** sum(self.time)

    def to_dict(self) -> dict:
        return asdict(self)


class DownLevel(nn.Module):
    """Residual blocks, a `Down` but at the coarsest level, and in Wan 2.2 a shortcut beside."""

    def __init__(
        self, config: CausalVAEConfig, width_in: int, width: int, time: bool | None
    ) -> None:
        """`time`: whether the frames are halved; None for the coarsest level."""
        super().__init__()
        self.width, self.shortcut = width, config.shortcuts
        self.cell = (2 if time else 1, 1 if time is None else 2)  # frames, rows and columns
        widths = [width_in, *[width] * config.blocks]
        self.blocks = nn.ModuleList(map(ResBlock, widths[:-1], widths[1:]))
        self.down = None if time is None else Down(width, time=time)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        y = x
        for block in self.blocks:
            y = block(y, past)
        if self.down is not None:
            y = self.down(y, past)
        return y + folded(x, self.width, *self.cell) if self.shortcut else y


class UpLevel(nn.Module):
    """Residual blocks, an `Up` but at the finest level, and in Wan 2.2 a shortcut beside."""

    def __init__(
        self, config: CausalVAEConfig, width_in: int, width: int, width_out: int, time: bool | None
    ) -> None:
        """`time`: whether the frames are doubled; None for the finest level."""
        super().__init__()
        self.width_out, self.shortcut = width_out, config.shortcuts and time is not None
        self.frames = 2 if time else 1
        widths = [width_in, *[width] * (config.blocks + 1)]
        self.blocks = nn.ModuleList(map(ResBlock, widths[:-1], widths[1:]))
        self.up = None if time is None else Up(width, width_out, time=time)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        y = x
        for block in self.blocks:
            y = block(y, past)
        if self.up is not None:
            y = self.up(y, past)
        if self.shortcut:
            y = y + unfolded(x, self.width_out, self.frames, first=past.first)
        return y


class Encoder(nn.Module):
    """Frames `b 3p² t h w`, patches on the channels → mean and log-variance `b 2c t' h' w'`."""

    def __init__(self, config: CausalVAEConfig) -> None:
        super().__init__()
        widths = [config.width * m for m in (1, *config.multipliers)]
        self.conv_in = CausalConv(3 * config.patch**2, widths[0], (3, 3, 3))
        self.levels = nn.ModuleList(
            DownLevel(config, *sizes)
            for sizes in zip(widths[:-1], widths[1:], (*config.time, None), strict=True)
        )
        self.middle = Middle(widths[-1])
        self.norm = ChannelNorm(widths[-1], 3)
        self.conv_out = CausalConv(widths[-1], 2 * config.channels, (3, 3, 3))

    def forward(self, x: Tensor, past: Past) -> Tensor:
        x = self.conv_in.continued(x, past)
        for level in self.levels:
            x = level(x, past)
        x = self.middle(x, past)
        return self.conv_out.continued(F.silu(self.norm(x)), past)


class Decoder(nn.Module):
    """Latents `b c t h w` → frames, patches on the channels. Levels go from coarse to fine."""

    def __init__(self, config: CausalVAEConfig) -> None:
        super().__init__()
        widths = [config.decoder_width * m for m in reversed(config.multipliers)]
        # Wan 2.1 halves the width where it doubles the size, Wan 2.2 at the next level.
        outs = widths if config.shortcuts else [w // 2 for w in widths]
        ins = [widths[0], *outs[:-1]]
        self.conv_in = CausalConv(config.channels, widths[0], (3, 3, 3))
        self.middle = Middle(widths[0])
        self.levels = nn.ModuleList(
            UpLevel(config, *sizes)
            for sizes in zip(ins, widths, outs, (*reversed(config.time), None), strict=True)
        )
        self.norm = ChannelNorm(widths[-1], 3)
        self.conv_out = CausalConv(widths[-1], 3 * config.patch**2, (3, 3, 3))

    def forward(self, x: Tensor, past: Past) -> Tensor:
        x = self.middle(self.conv_in.continued(x, past), past)
        for level in self.levels:
            x = level(x, past)
        return self.conv_out.continued(F.silu(self.norm(x)), past)


class CausalVAE(nn.Module):
    """Frames in −1…1 ↔ normalised latents."""

    def __init__(self, config: CausalVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant = nn.Conv3d(2 * config.channels, 2 * config.channels, 1)
        self.post_quant = nn.Conv3d(config.channels, config.channels, 1)
        self.decoder = Decoder(config)

    def encode(self, frames: Tensor, *, chunk: int | None = None) -> Tensor:
        """frames `b 3 t h w`, t = 1 + k·`time_stride`, h and w multiples of `stride` → normalised
        latents `b c 1+k h' w'`. `chunk`: latent frames in one pass; None: all."""
        mean, std = self._normal(frames)
        return (self.posterior(frames, chunk=chunk)[0] - mean) / std

    def posterior(self, frames: Tensor, *, chunk: int | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latents, not normalised. ValueError for sizes that no latent
        has, naming the nearest numbers of frames."""
        _, _, t, h, w = frames.shape
        stride, step, p = self.config.stride, self.config.time_stride, self.config.patch
        if h % stride or w % stride:
            raise ValueError(f"frames of {w}x{h} don't divide by {stride}: pad them first")
        if (t - 1) % step:
            below = t - (t - 1) % step
            raise ValueError(f"{t} frames: the nearest that it takes are {below}, {below + step}")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk is {chunk}, must be at least 1")
        x = rearrange(frames, "b c t (h ph) (w pw) -> b (c pw ph) t h w", ph=p, pw=p)
        past, made = Past(), []
        start, stop = 0, t if chunk is None else 1 + (chunk - 1) * step
        while start < t:
            made.append(self.encoder(x[:, :, start:stop], past))
            past.first = False
            start, stop = stop, stop + (chunk or 0) * step
        mean, logvar = self.quant(torch.cat(made, dim=2)).chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, latents: Tensor, *, chunk: int | None = None) -> Tensor:
        """Normalised latents `b c t h w` → frames `b 3 1+(t−1)·time_stride h' w'`, clamped to −1…1.
        `chunk`: latent frames in one pass; None: all."""
        return torch.cat(list(self.decoded(latents, chunk or latents.shape[2])), dim=2)

    def decoded(self, latents: Tensor, chunk: int) -> Iterator[Tensor]:
        """The same frames, as many at a time as `chunk` latent frames make: all that is kept of the
        former ones is two frames at each convolution."""
        mean, std = self._normal(latents)
        p, past = self.config.patch, Past()
        for part in latents.split(chunk, dim=2):
            x = self.decoder(self.post_quant(part * std + mean), past)
            past.first = False
            x = rearrange(x, "b (c pw ph) t h w -> b c t (h ph) (w pw)", ph=p, pw=p)
            yield x.clamp(-1, 1)

    def _normal(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The config's mean and standard deviation of the latents, `c 1 1 1`."""
        mean, std = (
            like.new_tensor(x)[:, None, None, None]
            for x in (self.config.latents_mean, self.config.latents_std)
        )
        return mean, std
