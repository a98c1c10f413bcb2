"""A convolutional head behind a transformer of fat tokens: it draws what a token is too coarse for.

A token of 2 × 4 latents says what is there; a silhouette that runs through ten of them is bent at
every seam, and at low noise, where most of the answer already lies in z, a token rounds it off. The
head sees z latent by latent beside what the tokens say, and its convolutions run across the seams.
After the Patch Detailer Head of DiP (Chen et al. 2025, arXiv 2511.18822, §3.3), which works inside
of single patches; ours, over whole frames, has two scales instead of four.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.nn.unet_blocks import AdaptiveGroupNorm

GROUPS = 8  # of channels, in every norm


class ConvBlock(nn.Module):
    """Norm, SiLU, 3 × 3, twice, beside a shortcut; both norms are told the condition. It starts as
    the identity."""

    def __init__(self, width: int, cond_dim: int) -> None:
        super().__init__()
        self.norm1 = AdaptiveGroupNorm(width, cond_dim, GROUPS)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = AdaptiveGroupNorm(width, cond_dim, GROUPS)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x `n c h w`, cond `b d`: one row of it serves n/b rows of x that follow each other."""
        y = self.conv1(F.silu(self.norm1(x, cond)))
        return x + self.conv2(F.silu(self.norm2(y, cond)))


class Detailer(nn.Module):
    """Tokens and what they were made of → what is added to the output, zero at the start."""

    def __init__(
        self, dim: int, in_channels: int, out_channels: int, patch: tuple[int, int, int], width: int
    ) -> None:
        """`dim`: of a token and of the condition; `patch`: frames, rows, columns in one token."""
        super().__init__()
        self.patch = patch
        self.features = nn.Linear(dim, width * patch[0] * patch[1] * patch[2])
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.before = ConvBlock(width, dim)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList(ConvBlock(2 * width, dim) for _ in range(3))
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.after = nn.ModuleList(ConvBlock(width, dim) for _ in range(2))
        self.norm_out = AdaptiveGroupNorm(width, dim, GROUPS)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)
        for p in self.conv_out.parameters():
            nn.init.zeros_(p)

    def forward(self, tokens: Tensor, z: Tensor, cond: Tensor) -> Tensor:
        """tokens `b n dim` in the order frames, rows, columns; z `b in t h w`, whose sizes are
        multiples of the patch's; cond `b dim` → `b out t h w`."""
        (pt, ph, pw), (b, _, frames, height, width) = self.patch, z.shape
        cond = F.silu(cond)
        told = rearrange(
            self.features(tokens), "b (t h w) (c pt ph pw) -> (b t pt) c (h ph) (w pw)",
            t=frames // pt, h=height // ph, w=width // pw, pt=pt, ph=ph, pw=pw,
        )  # fmt: skip
        flat = rearrange(z, "b c t h w -> (b t) c h w").to(tokens.dtype)
        x = self.before(told + self.conv_in(flat), cond)
        y = self.down(x)
        for block in self.coarse:
            y = block(y, cond)
        x = x + self.up(y)[..., :height, :width]  # odd sizes went down rounded up
        for block in self.after:
            x = block(x, cond)
        out = self.conv_out(F.silu(self.norm_out(x, cond)))
        return rearrange(out, "(b t) c h w -> b c t h w", b=b)
