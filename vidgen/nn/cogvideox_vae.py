"""CogVideoX's autoencoder: 1 + 4n frames to 1 + n latents an eighth as high and as wide, and back.

Yang et al. 2024 (arXiv 2408.06072), §2.1. It is causal: a frame or a latent is made of those up to
it. And it works in chunks, which are part of what a checkpoint computes: 8 frames or 2 latents at
once, where the first chunk takes what is left over, so that 13 latents are 3, 2, 2, 2, 2, 2.

What equals what:
- in those chunks, what released pipelines compute, to rounding; of a longer clip the first frames
  are those of its beginning alone, if both have an odd number of latents (or an even one);
- in larger chunks, or all at once, what the released code computes with its own number of frames
  in a batch set so. It is another result: convolutions carry their last two frames over to the
  next chunk and would be exact, but the statistics of the norms are of a chunk.

An even number of latents decodes to four frames each, for the first as well: 8n + 1 frames, which
are an odd number of latents, come back as many as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidgen.nn.cogvideox_vae_blocks import CausalConv, Down, Past, ResBlock, Up, norm

FRAMES_AT_ONCE = 8
LATENTS_AT_ONCE = 2


@dataclass(frozen=True, kw_only=True)
class CogVideoXVAEConfig:
    """Sizes of a `CogVideoXAutoencoder`."""

    channels: int = 16  # of the latents
    widths: tuple[int, ...] = (128, 256, 256, 512)  # of the levels, the finest first
    blocks: int = 3  # residual blocks in a level of the encoder; the decoder has one more
    groups: int = 32  # of the norms
    time_stride: int = 4  # frames to a latent: halved so often, from the finest level on
    scale: float = 1.15258426  # latents are multiplied with it: 0.7 from 5B on
    inverted_image_scale: bool = False  # 1.5's image-to-video: those of its picture are divided

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # JSON has lists
        if self.time_stride not in (2**i for i in range(len(self.widths))):
            raise ValueError(f"time_stride {self.time_stride} of {len(self.widths)} levels")

    @property
    def stride(self) -> int:
        """Pixels of a side that make one latent."""
        return 2 ** (len(self.widths) - 1)

    @property
    def halvings(self) -> int:
        """How many levels halve time."""
        return self.time_stride.bit_length() - 1

    def to_dict(self) -> dict:
        return asdict(self)


class Level(nn.Module):
    """Residual blocks, then another size."""

    def __init__(self, blocks: list[ResBlock], resize: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resize = resize

    def forward(self, x: Tensor, z: tuple[Tensor, ...], past: Past) -> Tensor:
        for block in self.blocks:
            x = block(x, z, past)
        return self.resize(x)


class Half(nn.Module):
    """What encoder and decoder share. The middle is last in the one, first in the other."""

    def __init__(
        self, ends: tuple[int, int], widths: list[int], middle: int, config: CogVideoXVAEConfig,
        resize: type[Down] | type[Up], channels: int | None,
    ) -> None:  # fmt: skip
        super().__init__()
        groups, last = config.groups, len(widths) - 1
        count = config.blocks + (channels is not None)
        self.conv_in = CausalConv(ends[0], widths[0])
        self.middle = nn.ModuleList(ResBlock(middle, middle, groups, channels) for _ in range(2))
        levels, before = [], widths[0]
        for i, width in enumerate(widths):
            sizes = [before, *[width] * (count - 1)]
            blocks = [ResBlock(size, width, groups, channels) for size in sizes]
            over_time = i < config.halvings
            levels.append(Level(blocks, resize(width, over_time) if i < last else nn.Identity()))
            before = width
        self.levels = nn.ModuleList(levels)
        out = middle if channels is None else before
        self.norm_out = norm(out, groups, channels)
        self.conv_out = CausalConv(out, ends[1])


class Encoder(Half):
    """Frames `b 3 t h w` → mean and log variance of latents, `b 2c t' h/8 w/8`."""

    def __init__(self, config: CogVideoXVAEConfig) -> None:
        widths = list(config.widths)
        super().__init__((3, 2 * config.channels), widths, widths[-1], config, Down, None)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        x = self.conv_in(x, past)
        for part in (*self.levels, *self.middle):
            x = part(x, (), past)
        return self.conv_out(F.silu(self.norm_out(x)), past)


class Decoder(Half):
    """Latents `b c t h w` → frames `b 3 t' 8h 8w`; every norm looks at the latents again."""

    def __init__(self, config: CogVideoXVAEConfig) -> None:
        widths, channels = list(reversed(config.widths)), config.channels
        super().__init__((channels, 3), widths, widths[0], config, Up, channels)

    def forward(self, z: Tensor, past: Past) -> Tensor:
        x = self.conv_in(z, past)
        for part in (*self.middle, *self.levels):
            x = part(x, (z,), past)
        return self.conv_out(F.silu(self.norm_out(x, z)), past)


class CogVideoXAutoencoder(nn.Module):
    """Frames ↔ latents as the transformer knows them: multiplied with `config.scale`."""

    def __init__(self, config: CogVideoXVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, frames: Tensor, at_once: int | None = FRAMES_AT_ONCE) -> Tensor:
        """frames `b 3 t h w` in −1…1 → latents `b c t' h/8 w/8`, the means of what they could be.

        at_once: frames in a chunk, None for all. ValueError for sizes that don't divide.
        """
        return self.posterior(frames, at_once)[0] * self.config.scale

    def posterior(
        self, frames: Tensor, at_once: int | None = FRAMES_AT_ONCE
    ) -> tuple[Tensor, Tensor]:
        """The same as mean and standard deviation, neither multiplied yet."""
        stride, every, (n, h, w) = self.config.stride, self.config.time_stride, frames.shape[2:]
        if h % stride or w % stride:
            raise ValueError(f"frames of {h}x{w} do not divide by {stride}: pad them first")
        if n % every > 1:
            raise ValueError(f"{n} frames are neither {every}n nor {every}n + 1")
        past: Past = {}
        parts = [self.encoder(frames[:, :, i:j], past) for i, j in _chunks(n, at_once, every)]
        mean, log_variance = torch.cat(parts, dim=2).chunk(2, dim=1)
        return mean, (log_variance.clamp(-30, 20) / 2).exp()

    def decode(self, latents: Tensor, at_once: int | None = LATENTS_AT_ONCE) -> Tensor:
        """latents `b c t h w` → frames `b 3 t' 8h 8w`, about −1…1 (not clamped); t' is 4t − 3 for
        an odd t, else 4t. at_once: latents in a chunk, None for all."""
        return torch.cat(list(self.decode_chunks(latents, at_once)), dim=2)

    def decode_chunks(
        self, latents: Tensor, at_once: int | None = LATENTS_AT_ONCE
    ) -> Iterator[Tensor]:
        """The same a chunk at a time, so that no more than one need be in memory."""
        past: Past = {}
        for i, j in _chunks(latents.shape[2], at_once, 2):
            yield self.decoder(latents[:, :, i:j] / self.config.scale, past)


def _chunks(n: int, size: int | None, multiple: int) -> Iterator[tuple[int, int]]:
    """Where chunks of n things begin and end: the first takes what doesn't fill one of its own.
    ValueError for a size that isn't a multiple: an odd chunk would begin a clip anew."""
    if size is None or size > n:
        size = n
    elif size < 1 or size % multiple:
        raise ValueError(f"{size} at once, which is no multiple of {multiple}")
    start = n % size + size
    yield 0, start
    for i in range(start, n, size):
        yield i, i + size
