"""FIT: far-reaching interleaved transformers over groups of patches and a few latent tokens.

Chen & Li 2023 (arXiv 2305.12689), as Snap Video uses it (Menapace et al. 2024, arXiv 2402.14797,
§3.4 and appendix A). Video patches are many and carry the picture; latent tokens are few and carry
the computation. Patches and latents are divided into groups. In each block

    1. latents read the context (text, noise level, frame rate, resolution)
    2. latents of a group read the patches of that group
    3. all latents attend to each other, several times
    4. patches of a group read the latents of that group: the write

and every read is followed by a feed-forward. So attention costs patches × latents of a group, never
patches × patches; a group spans all frames, so that motion within it is seen at once.

Published facts are followed where there are any; what the papers leave open is marked "ours".
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from vidgen.nn.attention import Probe, attend_wide

INIT_SCALE = 3**-0.5  # of torch's own initialisation of linear layers, biases too
LATENT_STD = 0.02
FREQUENCIES = 8  # learned, of the noise level's features
TOKEN_HIDDEN = 1024  # width of the MLPs that make scalars tokens; ours, to fit table 8's counts


@dataclass(frozen=True, kw_only=True)
class FITConfig:
    """Sizes of a `FIT`; the defaults are Snap Video's 500 M base model (its table 8)."""

    in_channels: int = 3  # more than out_channels where the input has conditions beside it
    out_channels: int = 3
    num_frames: int = 16
    height: int = 40  # of the grid that patches cover; smaller inputs are padded to it
    width: int = 64
    patch: tuple[int, int, int] = (1, 4, 4)  # frames, rows, columns in one token
    group: tuple[int, int, int] = (16, 5, 4)  # the same, in patches
    dim: int = 768  # of a patch token
    latents: int = 512
    latent_dim: int = 1024
    context_dim: int = 768
    text_dim: int = 1024
    blocks: int = 6
    global_layers: int = 4  # of a block: attention of all latents
    local_layers: int = 0  # of a block: attention of a group's patches; GenAu has two
    head_dim: int = 48  # of attention between patches and what they meet
    latent_head_dim: int = 64
    mlp_ratio: float = 4.0
    dropout: float = 0.1  # in the feed-forwards of global layers
    levels: int = 1  # scalars of the noise: 2 with the level of a low-resolution condition
    position_std: float = 0.02  # that positions begin with; patches have 1

    def __post_init__(self) -> None:
        for name in ("patch", "group"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        grid = self.grid
        for have, part, what in zip(grid, self.group, ("frames", "rows", "columns"), strict=True):
            if have % part:
                raise ValueError(f"groups of {part} don't divide {have} {what} of patches")
        if self.latents % self.num_groups:
            raise ValueError(f"{self.num_groups} groups don't divide {self.latents} latents")

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches along time, rows and columns. ValueError if the size doesn't divide."""
        sizes = (self.num_frames, self.height, self.width)
        for size, part in zip(sizes, self.patch, strict=True):
            if size % part:
                raise ValueError(f"patches of {self.patch} don't divide {sizes}")
        t, h, w = (size // part for size, part in zip(sizes, self.patch, strict=True))
        return t, h, w

    @property
    def num_groups(self) -> int:
        return math.prod(self.grid) // math.prod(self.group)

    def unfit(self, num_frames: int, height: int, width: int) -> str:
        """Why it makes no videos of this size, in words; empty: it does."""
        if num_frames != self.num_frames or height > self.height or width > self.width:
            return f"the network is made for {self.num_frames} of {self.height} × {self.width}"
        return ""

    def to_dict(self) -> dict:
        return asdict(self)


class Linear(nn.Linear):
    """torch's, begun smaller by √3, as the authors' public FIT layers are."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            for p in self.parameters():
                p.mul_(INIT_SCALE)


def norm(dim: int) -> nn.LayerNorm:
    """With a gain and no bias."""
    return nn.LayerNorm(dim, bias=False)


class FeedForward(nn.Module):
    """x + MLP(norm(x))."""

    def __init__(self, dim: int, ratio: float, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.norm = norm(dim)
        self.up, self.down = Linear(dim, hidden), Linear(hidden, dim)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.update(x)

    def update(self, x: Tensor) -> Tensor:
        """MLP(norm(x)), without the residual."""
        hidden = F.gelu(self.up(self.norm(x)))
        return self.down(F.dropout(hidden, self.dropout, self.training))


class Attention(nn.Module):
    """x + attention of norm(x), to itself or to a context, which is normalised too. The inner width
    is the smaller of both."""

    def __init__(self, dim: int, head_dim: int, context_dim: int | None = None) -> None:
        super().__init__()
        inner = min(dim, context_dim or dim)
        if head_dim < 1 or inner % head_dim:
            raise ValueError(f"heads of {head_dim} don't divide a width of {inner}")
        self.heads = inner // head_dim
        self.norm = norm(dim)
        self.context_norm = None if context_dim is None else norm(context_dim)
        self.q = Linear(dim, inner, bias=False)
        self.kv = Linear(context_dim or dim, 2 * inner, bias=False)
        self.out = Linear(inner, dim, bias=False)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        probe: Probe | None = None,
    ) -> Tensor:
        """x `b n d`, context `b l c`, mask `b l` (true = attend) → `b n d`."""
        y = self.norm(x)
        source = y if context is None else self.context_norm(context)  # type: ignore[misc]
        q = rearrange(self.q(y), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.kv(source), "b l (two h d) -> two b h l d", two=2, h=self.heads)
        bias = None if mask is None else rearrange(mask.bool(), "b l -> b 1 1 l")
        y = attend_wide(q, k, v, bias=bias, probe=probe)
        return x + self.out(rearrange(y, "b h n d -> b n (h d)"))


class SelfLayer(nn.Module):
    """Tokens attend to each other, and a feed-forward."""

    def __init__(self, dim: int, head_dim: int, ratio: float, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(dim, head_dim)
        self.feed = FeedForward(dim, ratio, dropout)

    def forward(self, x: Tensor, *, probe: Probe | None = None) -> Tensor:
        return self.feed(self.attention(x, probe=probe))


class Block(nn.Module):
    """One round of reading the context and the patches, computing, and writing back."""

    def __init__(self, config: FITConfig) -> None:
        super().__init__()
        c = config
        self.groups = c.num_groups

        self.local_layers = nn.ModuleList(
            SelfLayer(c.dim, c.head_dim, c.mlp_ratio, 0.0) for _ in range(c.local_layers)
        )
        self.read_context = Attention(c.latent_dim, c.head_dim, c.context_dim)
        self.feed_context = FeedForward(c.latent_dim, c.mlp_ratio)
        self.read = Attention(c.latent_dim, c.head_dim, c.dim)
        self.feed_read = FeedForward(c.latent_dim, c.mlp_ratio)
        self.global_layers = nn.ModuleList(
            SelfLayer(c.latent_dim, c.latent_head_dim, c.mlp_ratio, c.dropout)
            for _ in range(c.global_layers)
        )
        self.write = Attention(c.dim, c.head_dim, c.latent_dim)
        self.feed_write = FeedForward(c.dim, c.mlp_ratio)

    def forward(
        self,
        patches: Tensor,
        latents: Tensor,
        context: Tensor,
        mask: Tensor | None,
        *,
        probe: Probe | None = None,
    ) -> tuple[Tensor, Tensor]:
        """patches `(b g) n d`, latents `b l d`, context `b c d`, mask `b c` → both, renewed.
        `probe` sees the global layers."""
        for layer in self.local_layers:
            patches = layer(patches)
        latents = self.feed_context(self.read_context(latents, context, mask))
        grouped = rearrange(latents, "b (g l) d -> (b g) l d", g=self.groups)
        grouped = self.feed_read(self.read(grouped, patches))
        latents = rearrange(grouped, "(b g) l d -> b (g l) d", g=self.groups)
        for layer in self.global_layers:
            latents = layer(latents, probe=probe)
        grouped = rearrange(latents, "b (g l) d -> (b g) l d", g=self.groups)
        return self.feed_write(self.write(patches, grouped)), latents


class LevelToken(nn.Module):
    """A scalar → one context token: learned sinusoids and the scalar itself, through an MLP."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.randn(FREQUENCIES))
        self.layers = nn.Sequential(
            Linear(2 * FREQUENCIES + 1, TOKEN_HIDDEN), nn.GELU(), Linear(TOKEN_HIDDEN, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`b` → `b 1 d`."""
        angles = 2 * math.pi * x.float()[:, None] * self.frequencies.float()
        features = torch.cat((angles.sin(), angles.cos(), x.float()[:, None]), dim=-1)
        return self.layers(features.to(next(self.parameters()).dtype))[:, None]


class FIT(nn.Module):
    """Noisy video, a noise level and text → the network's raw output, and its latent tokens.

    Latent self-conditioning (RIN, Jabri et al. 2022, §2.3): the latent tokens that one call ends
    with may be given to the next; the gain on them starts at zero.
    """

    def __init__(self, config: FITConfig) -> None:
        super().__init__()
        self.config = c = config
        volume = math.prod(c.patch)
        self.patch_in: nn.Linear = Linear(c.in_channels * volume, c.dim)
        self.patch_norm = norm(c.dim)
        self.positions = nn.Parameter(c.position_std * torch.randn(math.prod(c.grid), c.dim))
        self.latents = nn.Parameter(LATENT_STD * torch.randn(c.latents, c.latent_dim))
        self.previous = FeedForward(c.latent_dim, c.mlp_ratio)
        self.previous_norm = norm(c.latent_dim)
        nn.init.zeros_(self.previous_norm.weight)
        self.text_in = Linear(c.text_dim, c.context_dim, bias=False)
        self.level_tokens = nn.ModuleList(LevelToken(c.context_dim) for _ in range(c.levels))
        self.rate_token = LevelToken(c.context_dim)
        self.size_token = nn.Sequential(
            Linear(2, TOKEN_HIDDEN), nn.GELU(), Linear(TOKEN_HIDDEN, c.context_dim)
        )
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.blocks))
        self.final_norm = norm(c.dim)
        self.final = Linear(c.dim, c.out_channels * volume)

    def forward(
        self,
        z: Tensor,
        t: Tensor,
        *,
        text: Tensor,
        text_mask: Tensor | None = None,
        period: Tensor | None = None,
        size: Tensor | None = None,
        noise_level: Tensor | None = None,
        latents: Tensor | None = None,
        probe: Probe | None = None,
    ) -> tuple[Tensor, Tensor]:
        """z `b c t h w` (smaller than the grid: padded at the bottom and on the right, and cropped
        back), t `b`, text `b l d` with text_mask `b l` (true = a word), period `b` seconds from
        frame to frame (0: an image, whose rate is infinite), size `b 2` rows and columns that the
        clip once had, in units of z's, noise_level `b` of a condition, latents `b n d` of the
        call before (default: zeros) → output `b c t h w`, latents `b n d`. ValueError for sizes
        that don't fit.
        """
        c, b = self.config, len(z)
        frames, rows, columns = z.shape[2:]
        if why := c.unfit(frames, rows, columns):
            raise ValueError(f"{frames} frames of {rows} × {columns}, and {why}")
        if text.shape[-1] != c.text_dim:
            raise ValueError(f"text is {text.shape[-1]} wide, the network takes {c.text_dim}")
        z = F.pad(z, (0, c.width - columns, 0, c.height - rows))
        patches = self.patch_norm(self.patch_in(self._grouped(z).to(self.patch_in.weight.dtype)))
        patches = patches + self._positions(b)
        tokens = repeat(self.latents, "l d -> b l d", b=b)
        # Without latents they are all alike, and one will do.
        before = torch.zeros_like(tokens[:1, :1]) if latents is None else latents.to(tokens.dtype)
        tokens = tokens + self.previous_norm(self.previous.update(before))
        context, mask = self._context(t, text, text_mask, period, size, noise_level)
        for block in self.blocks:
            patches, tokens = block(patches, tokens, context, mask, probe=probe)
        out = self._video(self.final(self.final_norm(patches)))
        return out[..., :rows, :columns], tokens

    def padding(self, rows: int, columns: int) -> str | None:
        """What is done to videos of so many rows and columns, for a log; None where they fill the
        grid."""
        c = self.config
        if (rows, columns) == (c.height, c.width):
            return None
        return f"{rows} × {columns} padded to {c.height} × {c.width} and cropped back"

    def _context(
        self,
        t: Tensor,
        text: Tensor,
        mask: Tensor | None,
        period: Tensor | None,
        size: Tensor | None,
        noise_level: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens `b n d` of everything that is given, and which of them count `b n`."""
        c, b = self.config, len(t)
        if (noise_level is None) != (c.levels == 1):
            raise ValueError(f"noise_level is given, or not, to a network of {c.levels} levels")
        period = t.new_zeros(b) if period is None else period
        size = t.new_ones(b, 2) if size is None else size
        scalars = [t] if noise_level is None else [t, noise_level]
        dtype = self.text_in.weight.dtype
        own = [token(x) for token, x in zip(self.level_tokens, scalars, strict=True)]
        own += [self.rate_token(period), self.size_token(size.to(dtype))[:, None]]
        context = torch.cat([*own, self.text_in(text.to(dtype))], dim=1)
        if mask is None:
            return context, None
        return context, F.pad(mask.bool(), (len(own), 0), value=True)

    def _shape(self) -> dict[str, int]:
        """Sizes by axis, for einops: p patches in a group, g groups, q pixels in a patch."""
        c = self.config
        sizes: dict[str, int] = {}
        for axis, grid, group, patch in zip("thw", c.grid, c.group, c.patch, strict=True):
            sizes |= {f"g{axis}": grid // group, f"p{axis}": group, f"q{axis}": patch}
        return sizes

    def _grouped(self, z: Tensor) -> Tensor:
        """`b c t h w` → `(b groups) patches values`."""
        return rearrange(
            z,
            "b c (gt pt qt) (gh ph qh) (gw pw qw) -> (b gt gh gw) (pt ph pw) (c qt qh qw)",
            **self._shape(),
        )

    def _video(self, x: Tensor) -> Tensor:
        """The way back."""
        return rearrange(
            x,
            "(b gt gh gw) (pt ph pw) (c qt qh qw) -> b c (gt pt qt) (gh ph qh) (gw pw qw)",
            c=self.config.out_channels,
            **self._shape(),
        )

    def _positions(self, b: int) -> Tensor:
        """A learned vector for each place, in the order of the groups."""
        return repeat(self.positions, "(g n) d -> (b g) n d", b=b, g=self.config.num_groups)
