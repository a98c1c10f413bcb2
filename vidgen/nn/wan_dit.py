"""The transformer of Wan 2.1 and 2.2 (Wan team 2025, arXiv 2503.20314, §4.2).

Patch tokens of all frames attend to each other, with rotary positions on (frame, row, column), then
to text token by token, and pass an MLP. The noise level shifts, scales and gates the first and the
last of these through six vectors: one projection for all blocks plus each block's own table. One
module serves five kinds of release:

    text to video        16 channels, or 48 of the 2.2 autoencoder
    image to video 2.1   36 channels (noise 16, mask 4, picture 16), and CLIP's tokens of the
                         picture: a second attention beside the one to text, added before `out`
    first and last frame the same with learned positions for the tokens of both pictures
    image to video 2.2   36 channels, no CLIP
    text+image 2.2 5B    48 channels; each frame, or each token, has a noise level of its own

Float32 whatever the dtype of the weights (as released): norms over the width and what modulates
them, gated residuals, the tables, the embedding of the noise level up to its projection. RMS norms
of q and k run over the whole width, before it is split into heads.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.nn.attention import Probe, attend
from vidgen.nn.embed import sinusoid
from vidgen.nn.rope import grid_rotary, turn

# Parts of our parameter names that stay float32 (`kept`).
ISLANDS = {"level_embed", "table", "norm1", "norm2", "norm3"}


@dataclass(frozen=True, kw_only=True)
class WanConfig:
    """Sizes of a `WanDiT`; the defaults are Wan2.1-T2V-1.3B."""

    in_channels: int = 16
    out_channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)  # frames, rows, columns in one token
    depth: int = 30
    heads: int = 12
    head_dim: int = 128
    mlp_dim: int = 8960
    text_dim: int = 4096  # of each text token
    level_dim: int = 256  # of the sinusoid of the noise level
    image_dim: int | None = None  # of each token of the picture; None: it has no such tokens
    image_positions: int | None = None  # how many such tokens have learned positions
    eps: float = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch", tuple(self.patch))  # JSON has lists
        if self.image_positions is not None and self.image_dim is None:
            raise ValueError("image_positions without image_dim")

    @property
    def dim(self) -> int:
        return self.heads * self.head_dim

    @property
    def rope_dims(self) -> tuple[int, int, int]:
        """Channels of a head that turn with frame, row and column: 44, 42, 42 of 128."""
        side = 2 * (self.head_dim // 6)
        return self.head_dim - 2 * side, side, side

    def to_dict(self) -> dict:
        return asdict(self)


class LayerNorm(nn.LayerNorm):
    """In float32, and the result is float32: whoever calls rounds it once, after modulating."""

    def forward(self, x: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps)


class Attention(nn.Module):
    """To the tokens themselves, or to text and, in some, to a picture."""

    def __init__(self, config: WanConfig, *, image: bool = False) -> None:
        super().__init__()
        dim, self.heads = config.dim, config.heads
        self.q, self.k, self.v = (nn.Linear(dim, dim) for _ in range(3))
        self.q_norm, self.k_norm = (nn.RMSNorm(dim, eps=config.eps) for _ in range(2))
        if image:
            self.image_k, self.image_v = nn.Linear(dim, dim), nn.Linear(dim, dim)
            self.image_k_norm = nn.RMSNorm(dim, eps=config.eps)
        self.out = nn.Linear(dim, dim)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        image: Tensor | None = None,
        *,
        rotary: tuple[Tensor, Tensor] | None = None,
        bias: Tensor | None = None,
        probe: Probe | None = None,
    ) -> Tensor:
        """x `b n d`, context `b l d` (None: x itself), image `b m d`, rotary: cosines and sines
        `n head_dim/2` → `b n d`."""
        context = x if context is None else context
        q = self._split(self.q_norm(self.q(x)))  # b h n d
        k = self._split(self.k_norm(self.k(context)))  # b h l d
        if rotary is not None:
            q, k = turn(q, *rotary), turn(k, *rotary)
        y = attend(q, k, self._split(self.v(context)), bias=bias, probe=probe)
        if image is not None:
            k = self._split(self.image_k_norm(self.image_k(image)))  # b h m d
            y = y + attend(q, k, self._split(self.image_v(image)))
        return self.out(rearrange(y, "b h n d -> b n (h d)"))

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "b n (h d) -> b h n d", h=self.heads)


class Block(nn.Module):
    """Self-attention, attention to text (and picture), MLP."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        dim = config.dim
        self.norm1 = LayerNorm(dim, config.eps, elementwise_affine=False)
        self.self_attn = Attention(config)
        self.norm2 = LayerNorm(dim, config.eps)
        self.cross_attn = Attention(config, image=config.image_dim is not None)
        self.norm3 = LayerNorm(dim, config.eps, elementwise_affine=False)
        self.mlp = nn.Sequential(
            nn.Linear(dim, config.mlp_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.mlp_dim, dim),
        )
        self.table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self,
        x: Tensor,
        shared: Tensor,
        rotary: tuple[Tensor, Tensor],
        text: Tensor,
        image: Tensor | None,
        *,
        bias: Tensor | None = None,
        probe: Probe | None = None,
    ) -> Tensor:
        """x `b n d`; shared `b m 6 d`, for m runs of n/m tokens each; text `b l d`."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (shared.float() + self.table).unbind(2)
        y = modulate(self.norm1(x), shift1, scale1).to(x.dtype)
        y = self.self_attn(y, rotary=rotary, bias=bias, probe=probe)
        x = (x.float() + runs(y, gate1)).to(x.dtype)
        x = x + self.cross_attn(self.norm2(x).to(x.dtype), text, image)
        y = self.mlp(modulate(self.norm3(x), shift2, scale2).to(x.dtype))
        return (x.float() + runs(y, gate2)).to(x.dtype)


class ImageTokens(nn.Module):
    """CLIP's tokens of a picture `b m c` → `b m d`."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        assert config.image_dim is not None
        width, dim = config.image_dim, config.dim
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(dim)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, dim))
        if config.image_positions is not None:
            self.positions = nn.Parameter(torch.zeros(1, config.image_positions, width))

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "positions"):
            x = x + self.positions
        y = self.layers(self.norm1(x).to(x.dtype))
        return self.norm2(y).to(x.dtype)


class WanDiT(nn.Module):
    """Noisy latents, a noise level and text → the flow eps − x0, shaped as the latents."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_in = nn.Conv3d(config.in_channels, dim, config.patch, stride=config.patch)
        self.level_embed = nn.Sequential(
            nn.Linear(config.level_dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.modulation = nn.Linear(dim, 6 * dim)
        self.text_in = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.image_in = None if config.image_dim is None else ImageTokens(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_norm = LayerNorm(dim, config.eps, elementwise_affine=False)
        self.table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        self.final = nn.Linear(dim, config.out_channels * prod(config.patch))

    def forward(
        self,
        z: Tensor,
        t: Tensor,
        *,
        text: Tensor,
        image: Tensor | None = None,
        bias: Tensor | None = None,
        probe: Probe | None = None,
    ) -> Tensor:
        """z `b c t h w`, text `b l c` (padding is zeros, not masked), image `b m c` → `b c t h w`.

        t, 0 to 1000, is `b`, or `b m` for m equal runs of consecutive tokens: one for each frame of
        tokens, or one for each token. `bias` and `probe` are handed to the self-attention of every
        block (see `attend`). ValueError for sizes that aren't whole patches, a picture too much or
        too little, or m that doesn't divide the tokens.
        """
        b, _, *size = z.shape
        patch = self.config.patch
        if any(n % p for n, p in zip(size, patch, strict=True)):
            raise ValueError(f"latents of {size} aren't whole patches of {list(patch)}")
        if (image is None) != (self.image_in is None):
            raise ValueError("this network needs a picture" if image is None else "it takes none")
        frames, height, width = (n // p for n, p in zip(size, patch, strict=True))
        t = t[:, None] if t.ndim == 1 else t  # b m
        if frames * height * width % t.shape[1]:
            raise ValueError(f"{t.shape[1]} levels for {frames * height * width} tokens")
        rotary = grid_rotary((frames, height, width), self.config.rope_dims, device=z.device)

        dtype = self.patch_in.weight.dtype
        x = rearrange(self.patch_in(z.to(dtype)), "b d t h w -> b (t h w) d")
        wave = sinusoid(t.flatten(), self.config.level_dim, scale=1.0)
        level = self.level_embed(wave.to(next(self.level_embed.parameters()).dtype)).to(dtype)
        level = rearrange(level, "(b m) d -> b m d", b=b)
        shared = rearrange(self.modulation(F.silu(level)), "b m (six d) -> b m six d", six=6)
        text = self.text_in(text.to(dtype))
        if self.image_in is not None and image is not None:
            image = self.image_in(image.to(dtype))
        for block in self.blocks:
            x = block(x, shared, rotary, text, image, bias=bias, probe=probe)

        shift, scale = (level[:, :, None] + self.table).unbind(2)  # b m d
        out = self.final(modulate(self.final_norm(x), shift, scale).to(dtype))
        return rearrange(
            out, "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)",
            t=frames, h=height, w=width, pt=patch[0], ph=patch[1], pw=patch[2],
        )  # fmt: skip


def kept(name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a parameter of a `WanDiT` that is in `dtype`: float32 on the islands."""
    return torch.float32 if ISLANDS & set(name.split(".")) else dtype


def runs(x: Tensor, factor: Tensor) -> Tensor:
    """x `b n d` times factor `b m d`, each for a run of n/m consecutive tokens."""
    y = rearrange(x, "b (m k) d -> b m k d", m=factor.shape[1]) * factor[:, :, None]
    return rearrange(y, "b m k d -> b (m k) d")


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x·(1 + scale) + shift, with x `b n d` and shift, scale `b m d` for runs of n/m tokens."""
    y = rearrange(x, "b (m k) d -> b m k d", m=scale.shape[1])
    y = y * (1 + scale[:, :, None]) + shift[:, :, None]
    return rearrange(y, "b m k d -> b (m k) d")
