"""A discriminator of patches: whether each part of a picture could be a true one of its latents."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Pixels and the latents that they show → a logit for each cell of latents.

    Convolutions of stride 2 down to the size of the latents, as in pix2pix (Isola et al. 2017,
    §3.2.2), which join there, and two more of 3 × 3: with a stride of 8 a logit's convolutions see
    54 pixels across; its norms see the frame. Frames are looked at one by one.

    channels   of the latents
    stride     pixels a latent: 2, 4, 8 …
    width      channels of the first convolution; they double, up to four times as many
    """

    def __init__(self, channels: int, stride: int, width: int = 32) -> None:
        super().__init__()
        widths = [min(2**i, 4) * width for i in range((stride - 1).bit_length())]
        layers: list[nn.Module] = []
        for before, after in zip([3, *widths], widths, strict=False):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.GroupNorm(4, after), nn.LeakyReLU(0.2)]
        del layers[1]  # brightness and contrast are seen once
        self.down = nn.Sequential(*layers)
        last = widths[-1]
        self.joined = nn.Sequential(
            nn.Conv2d(last + channels, last, 3, 1, 1), nn.GroupNorm(4, last), nn.LeakyReLU(0.2),
            nn.Conv2d(last, 1, 3, 1, 1),
        )  # fmt: skip

    def forward(self, frames: Tensor, latents: Tensor) -> Tensor:
        """frames `b 3 t h*stride w*stride` in −1 … 1, latents `b c t h w` → `b t h w`."""
        b = len(frames)
        seen = self.down(rearrange(frames, "b c t h w -> (b t) c h w"))
        told = rearrange(latents, "b c t h w -> (b t) c h w").to(seen.dtype)
        logits = self.joined(torch.cat([seen, told], dim=1))
        return rearrange(logits, "(b t) 1 h w -> b t h w", b=b)
