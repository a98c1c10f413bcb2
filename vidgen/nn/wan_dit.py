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

from dataclasses import asdict, dataclass, field
from math import log, prod
from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.nn.attention import Probe, attend
from vidgen.nn.embed import sinusoid
from vidgen.nn.fused import FeedForward, Linear, layer_norm
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


# Keys and values `b h l head_dim`, of the text; and of the picture, where there is one.
Keys: TypeAlias = tuple[Tensor, ...]


@dataclass
class Told:
    """What a network has made of a text and a picture. Its first call with an empty one fills it,
    for the calls that follow with the same two."""

    text: Tensor | None = None  # `b l d`
    image: Tensor | None = None  # `b m d`
    bias: Tensor | None = None  # of the scores of attention to text, `1 l`
    keys: list[Keys] = field(default_factory=list)  # of the blocks


class LayerNorm(nn.LayerNorm):
    """In float32 whatever the dtype of x, and rounded to that once: after the modulation."""

    def forward(
        self, x: Tensor, shift: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor:
        """x `b n d`; shift and scale, of norms without weights, `b m d` for runs of n/m tokens."""
        if shift is None or scale is None:
            weight = None if self.weight is None else self.weight.float()
            bias = None if self.bias is None else self.bias.float()
            return layer_norm(x, weight, bias, self.eps)
        if shift.shape[:2] == (1, 1):  # as its weights, in the same pass
            return layer_norm(x, 1 + scale[0, 0], shift[0, 0], self.eps)
        y = F.layer_norm(x.float(), self.normalized_shape, eps=self.eps)
        return modulate(y, shift, scale).to(x.dtype)


class Attention(nn.Module):
    """To the tokens themselves, or to text and, in some, to a picture."""

    def __init__(self, config: WanConfig, *, image: bool = False) -> None:
        super().__init__()
        dim, self.heads = config.dim, config.heads
        self.q, self.k, self.v = (Linear(dim, dim) for _ in range(3))
        self.q_norm, self.k_norm = (nn.RMSNorm(dim, eps=config.eps) for _ in range(2))
        if image:
            self.image_k, self.image_v = Linear(dim, dim), Linear(dim, dim)
            self.image_k_norm = nn.RMSNorm(dim, eps=config.eps)
        self.out = Linear(dim, dim)

    def keys(self, context: Tensor, image: Tensor | None = None) -> Keys:
        """Of the context `b l d`, and of the picture `b m d`."""
        keys = self._split(self.k_norm(self.k(context))), self._split(self.v(context))
        if image is None:
            return keys
        k = self._split(self.image_k_norm(self.image_k(image)))
        return *keys, k, self._split(self.image_v(image))

    def forward(
        self,
        x: Tensor,
        keys: Keys | None = None,
        *,
        rotary: Tensor | None = None,
        bias: Tensor | None = None,
        probe: Probe | None = None,
    ) -> Tensor:
        """x `b n d`; keys: None for those of x itself; rotary: cosines and sines
        `n head_dim/2 2` → `b n d`."""
        q = self._split(self.q_norm(self.q(x)))  # b h n d
        k, v, *image = self.keys(x) if keys is None else keys
        if rotary is not None:
            q, k = turn(q, rotary), turn(k, rotary)
        y = attend(q, k, v, bias=bias, probe=probe)
        if image:
            y = y + attend(q, *image)
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
        self.mlp = FeedForward(dim, config.mlp_dim)
        self.table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self,
        x: Tensor,
        shared: Tensor,
        rotary: Tensor,
        keys: Keys,
        text_bias: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        probe: Probe | None = None,
    ) -> Tensor:
        """x `b n d`; shared `b m 6 d`, or `1 m 6 d`, for m runs of n/m tokens each; keys of the
        text and the picture."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (shared.float() + self.table).unbind(2)
        y = self.self_attn(self.norm1(x, shift1, scale1), rotary=rotary, bias=bias, probe=probe)
        x = gated(x, y, gate1)
        x = x + self.cross_attn(self.norm2(x), keys, bias=text_bias)
        return gated(x, self.mlp(self.norm3(x, shift2, scale2)), gate2)


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
        return self.norm2(self.layers(self.norm1(x)))


class WanDiT(nn.Module):
    """Noisy latents, a noise level and text → the flow eps − x0, shaped as the latents."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        self._rotary: tuple[object, Tensor] | None = None  # of the last grid
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
        told: Told | None = None,
        bias: Tensor | None = None,
        probe: Probe | None = None,
    ) -> Tensor:
        """z `b c t h w`, text `b l c` (padding is zeros, not masked), image `b m c` → `b c t h w`.

        t, 0 to 1000, is `b`, or `b m` for m equal runs of consecutive tokens: one for each frame of
        tokens, or one for each token; b may be 1 for all samples. `told`: what this network made of
        this text and picture in a call before. `bias` and `probe` are handed to the self-attention
        of every block (see `attend`). ValueError for sizes that aren't whole patches, a picture too
        much or too little, or m that doesn't divide the tokens.
        """
        size = z.shape[2:]
        patch = self.config.patch
        if any(n % p for n, p in zip(size, patch, strict=True)):
            raise ValueError(f"latents of {[*size]} aren't whole patches of {list(patch)}")
        if (image is None) != (self.image_in is None):
            raise ValueError("this network needs a picture" if image is None else "it takes none")
        frames, height, width = (n // p for n, p in zip(size, patch, strict=True))
        t = t[:, None] if t.ndim == 1 else t  # b m
        if frames * height * width % t.shape[1]:
            raise ValueError(f"{t.shape[1]} levels for {frames * height * width} tokens")
        rotary, told = self._turns((frames, height, width), z.device), told or Told()

        dtype = self.patch_in.weight.dtype
        x = rearrange(self.patch_in(z.to(dtype)), "b d t h w -> b (t h w) d")
        wave = sinusoid(t.flatten(), self.config.level_dim, scale=1.0)
        level = self.level_embed(wave.to(next(self.level_embed.parameters()).dtype)).to(dtype)
        level = rearrange(level, "(b m) d -> b m d", b=len(t))
        shared = rearrange(self.modulation(F.silu(level)), "b m (six d) -> b m six d", six=6)
        if told.text is None:
            text, told.bias = folded(text.to(dtype))
            told.text = self.text_in(text)
            if self.image_in is not None and image is not None:
                told.image = self.image_in(image.to(dtype))
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            if i == len(told.keys):
                told.keys.append(block.cross_attn.keys(told.text, told.image))
            x = block(x, shared, rotary, told.keys[i], told.bias, bias=bias, probe=probe)

        shift, scale = (level[:, :, None] + self.table).unbind(2)  # b m d
        out = self.final(self.final_norm(x, shift, scale))
        return rearrange(
            out, "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)",
            t=frames, h=height, w=width, pt=patch[0], ph=patch[1], pw=patch[2],
        )  # fmt: skip

    def _turns(self, grid: tuple[int, int, int], device: torch.device) -> Tensor:
        """Cosines and sines of a grid of tokens; made once for the calls that have the same."""
        if self._rotary is None or self._rotary[0] != (grid, device):
            made = grid_rotary(grid, self.config.rope_dims, device=device)
            self._rotary = (grid, device), made
        return self._rotary[1]


def kept(name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a parameter of a `WanDiT` that is in `dtype`: float32 on the islands."""
    return torch.float32 if ISLANDS & set(name.split(".")) else dtype


def folded(text: Tensor) -> tuple[Tensor, Tensor | None]:
    """text `b l d` without the zeros behind all prompts but one, and what attention adds to its
    scores `1 l'`: log n for a token that stands for n alike. Softmax is the same with n of them.

    On a CPU; kernels of GPUs that take a bias are slower than those that take none.
    """
    if text.device.type != "cpu":
        return text, None
    used = text.ne(0).any(dim=-1).any(dim=0).nonzero()
    kept = int(used[-1]) + 2 if len(used) else 1
    alike = text.shape[1] - kept + 1
    if alike < 2:
        return text, None
    bias = torch.zeros(1, kept)
    bias[:, -1] = log(alike)
    return text[:, :kept], bias


def gated(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + y·gate in float32, rounded to the dtype of x: x, y `b n d`, gate `b m d` for runs of n/m
    tokens."""
    m = gate.shape[1]
    x_runs, y_runs = (rearrange(part, "b (m k) d -> b m k d", m=m) for part in (x, y))
    total = torch.addcmul(x_runs, y_runs, gate[:, :, None])
    return rearrange(total, "b m k d -> b (m k) d").to(x.dtype)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x·(1 + scale) + shift, with x `b n d` and shift, scale `b m d` for runs of n/m tokens."""
    y = rearrange(x, "b (m k) d -> b m k d", m=scale.shape[1])
    y = torch.addcmul(shift[:, :, None], y, 1 + scale[:, :, None])
    return rearrange(y, "b m k d -> b (m k) d")
