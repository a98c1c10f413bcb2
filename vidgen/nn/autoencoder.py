"""A convolutional autoencoder: each frame to latents an eighth as high and as wide, and back.

It works frame by frame and normalises pixel by pixel, never over the picture: what it makes of a
region does not depend on how large the picture around it is, so any chunk of frames decodes to the
same pixels as the whole clip does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Sizes of a `VideoAutoencoder`; `stride` pixels of a side make one latent."""

    channels: int = 8
    encoder_widths: tuple[int, ...] = (48, 96, 128)  # at 1/2, 1/4, 1/8 of the size
    decoder_widths: tuple[int, ...] = (64, 96, 128)
    encoder_blocks: int = 2
    decoder_blocks: int = 2

    def __post_init__(self) -> None:
        for name in ("encoder_widths", "decoder_widths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def stride(self) -> int:
        return 2 ** len(self.encoder_widths)

    def to_dict(self) -> dict:
        return asdict(self)


class PixelNorm(nn.Module):
    """Root-mean-square normalisation over the channels of each pixel, with a learned gain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x `n c h w`."""
        power = x.float().square().mean(dim=1, keepdim=True)
        return x * (power + 1e-6).rsqrt().to(x.dtype) * self.gain.to(x.dtype)[:, None, None]


class ResBlock(nn.Module):
    """x + conv(silu(conv(silu(norm(x))))), the last convolution starting at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = PixelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


def _stack(width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResBlock(width) for _ in range(blocks)))


class Encoder(nn.Module):
    """Frames `n 3 h w` in −1…1 → latents `n c h/8 w/8`, not yet scaled."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        first, *rest = config.encoder_widths
        self.conv_in = nn.Conv2d(12, first, 3, padding=1)
        stages: list[nn.Module] = [_stack(first, config.encoder_blocks)]
        width = first
        for wider in rest:
            stages.append(nn.Conv2d(width, wider, 4, stride=2, padding=1))
            stages.append(_stack(wider, config.encoder_blocks))
            width = wider
        self.stages = nn.Sequential(*stages)
        self.norm = PixelNorm(width)
        self.conv_out = nn.Conv2d(width, config.channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(F.pixel_unshuffle(x, 2))  # n w h/2 w/2
        return self.conv_out(F.silu(self.norm(self.stages(x))))


class Decoder(nn.Module):
    """Latents `n c h w` → frames `n 3 8h 8w`, about −1…1."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        *rest, first = config.decoder_widths
        self.conv_in = nn.Conv2d(config.channels, first, 3, padding=1)
        stages: list[nn.Module] = [_stack(first, config.decoder_blocks + 1)]
        width = first
        for narrower in reversed(rest):
            stages.append(nn.Conv2d(width, 4 * narrower, 3, padding=1))
            stages.append(nn.PixelShuffle(2))
            stages.append(_stack(narrower, config.decoder_blocks))
            width = narrower
        self.stages = nn.Sequential(*stages)
        self.norm = PixelNorm(width)
        self.conv_out = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.stages(self.conv_in(z))
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm(x))), 2)


class VideoAutoencoder(nn.Module):
    """Frames ↔ latents of zero mean and unit variance per channel.

    `latents_mean` and `latents_std` are measured on training clips after training, and are part of
    the weights.
    """

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("latents_mean", torch.zeros(config.channels))
        self.register_buffer("latents_std", torch.ones(config.channels))

    def encode(self, frames: Tensor) -> Tensor:
        """frames `b 3 t h w` in −1…1, h and w multiples of `config.stride` → `b c t h/8 w/8`."""
        stride, (b, _, _, h, w) = self.config.stride, frames.shape
        if h % stride or w % stride:
            raise ValueError(f"frames of {h}x{w} do not divide by {stride}: pad them first")
        x = rearrange(frames, "b c t h w -> (b t) c h w").to(memory_format=torch.channels_last)
        z = rearrange(self.encoder(x), "(b t) c h w -> b c t h w", b=b)
        return (z - self._column(self.latents_mean)) / self._column(self.latents_std)

    def decode(self, latents: Tensor) -> Tensor:
        """latents `b c t h w` → frames `b 3 t 8h 8w`, about −1…1 (not clamped)."""
        z = latents * self._column(self.latents_std) + self._column(self.latents_mean)
        x = rearrange(z, "b c t h w -> (b t) c h w").to(memory_format=torch.channels_last)
        return rearrange(self.decoder(x), "(b t) c h w -> b c t h w", b=latents.shape[0])

    @staticmethod
    def _column(x: Tensor) -> Tensor:
        return x[:, None, None, None]
