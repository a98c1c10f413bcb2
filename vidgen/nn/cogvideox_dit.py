"""CogVideoX's transformer: text and video tokens in one sequence, each kind modulated its own way.

Yang et al. 2024 (arXiv 2408.06072), §2.2. There is no cross-attention: text stands in front of the
patches of all frames, and every token attends to every other. A block's LayerNorm is shared; what
shifts, scales and gates it is another for text than for video ("expert adaptive LayerNorm").

Released in three generations: with fixed sinusoids as positions (2B), with rotary ones (5B; its
image-to-video model adds a table to them), and with two frames in a patch (1.5). As released there
are no islands of float32 but the angles and the sinusoids, which are rounded once they are made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from vidgen.nn.attention import Probe, attend
from vidgen.nn.embed import ScalarEmbedding
from vidgen.nn.fused import FeedForward, Linear, plain
from vidgen.nn.norm import modulate
from vidgen.nn.rope import axial_angles, cos_sin, turn

Positions = Literal["sincos", "rotary", "learned"]  # "learned": a table, and rotary ones as well

OFFSET = 2.0  # what the released pipeline tells 1.5's image-to-video model, always


@dataclass(frozen=True, kw_only=True)
class CogVideoXConfig:
    """Sizes of a `CogVideoXDiT`."""

    in_channels: int = 16  # of the latents; twice as many where a picture is given beside them
    out_channels: int = 16
    patch: int = 2  # rows and columns in a token
    patch_frames: int | None = None  # frames in a token; None: one, as 1.0 stores its weights
    patch_bias: bool = True  # of 1.0's; 1.5's has always one
    heads: int = 30
    head_dim: int = 64
    depth: int = 30
    time_dim: int = 512  # of the embedded noise level
    offset_dim: int | None = None  # of the embedded `OFFSET`, where there is one
    text_dim: int = 4096  # of each text token
    text_tokens: int = 226
    positions: Positions = "sincos"
    sample: tuple[int, int, int] = (13, 60, 90)  # latents `t h w` that the positions are made for
    space_scale: float = 1.875  # of sinusoids: patches to a unit of position
    time_scale: float = 1.0
    eps: float = 1e-5  # of the norms, but for those of q and k: 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "sample", tuple(self.sample))  # JSON has lists
        if self.positions not in Positions.__args__:  # type: ignore[attr-defined]
            raise ValueError(f"positions is {self.positions!r}")
        if self.head_dim % 16:
            raise ValueError(f"head_dim is {self.head_dim}, not a multiple of 16")
        if self.patch_frames is not None and self.positions != "rotary":
            raise ValueError("patches of several frames have rotary positions only")
        if self.offset_dim not in (None, self.time_dim):
            raise ValueError(f"offset_dim {self.offset_dim} is not time_dim {self.time_dim}")

    @property
    def dim(self) -> int:
        return self.heads * self.head_dim

    @property
    def patches(self) -> tuple[int, int, int]:
        """Frames, rows, columns in a token."""
        return self.patch_frames or 1, self.patch, self.patch

    def to_dict(self) -> dict:
        return asdict(self)


# Of text and of video, `b 1 d` each.
Gates: TypeAlias = tuple[Tensor, Tensor]


class ExpertNorm(nn.Module):
    """One LayerNorm, and of the noise level a shift, a scale and a gate for text and for video."""

    def __init__(self, dim: int, cond_dim: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.project = nn.Linear(cond_dim, 6 * dim)  # video's three, then those of text

    def forward(self, x: Tensor, words: int, cond: Tensor) -> tuple[Tensor, Gates]:
        """x `b l+n d` with l words, cond `b c` → x normed, and the gates."""
        parts = self.project(F.silu(cond)).unsqueeze(1).chunk(6, dim=-1)  # b 1 d each
        shift, scale, gate, text_shift, text_scale, text_gate = parts
        y, modulations = self.norm(x), ((text_shift, text_scale), (shift, scale))
        if plain():
            both = zip(kinds(y, words), modulations, strict=True)
            y = torch.cat([modulate(part, *how) for part, how in both], dim=1)
        else:
            for part, (move, stretch) in zip(kinds(y, words), modulations, strict=True):
                part.mul_(1 + stretch).add_(move)
        return y, (text_gate, gate)


class JointAttention(nn.Module):
    """Self-attention of text and video; q and k of each head pass through a LayerNorm."""

    def __init__(self, config: CogVideoXConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.q, self.k, self.v = (Linear(dim, dim) for _ in range(3))
        self.q_norm = nn.LayerNorm(config.head_dim, eps=1e-6)
        self.k_norm = nn.LayerNorm(config.head_dim, eps=1e-6)
        self.out = Linear(dim, dim)

    def forward(
        self, x: Tensor, wave: Tensor | None, *, bias: Tensor | None, probe: Probe | None
    ) -> Tensor:
        """x `b n d`, wave `n head_dim/2 2` → `b n d`."""
        q, k, v = (
            rearrange(part(x), "b n (h d) -> b n h d", h=self.heads)
            for part in (self.q, self.k, self.v)
        )
        q, k, v = (x.transpose(1, 2) for x in (self.q_norm(q), self.k_norm(k), v))  # b h n d
        if wave is not None:
            q, k = turn(q, wave), turn(k, wave)
        y = attend(q, k, v, bias=bias, probe=probe)
        return self.out(rearrange(y, "b h n d -> b n (h d)"))


class Block(nn.Module):
    """Attention, then an MLP, on text and video alike."""

    def __init__(self, config: CogVideoXConfig) -> None:
        super().__init__()
        dim = config.dim
        self.adaln1 = ExpertNorm(dim, config.time_dim, config.eps)
        self.self_attn = JointAttention(config)
        self.adaln2 = ExpertNorm(dim, config.time_dim, config.eps)
        self.mlp = FeedForward(dim, 4 * dim)

    def forward(
        self,
        x: Tensor,
        words: int,
        cond: Tensor,
        wave: Tensor | None,
        *,
        bias: Tensor | None,
        probe: Probe | None,
    ) -> Tensor:
        """x `b l+n d` with l words, cond `b c`, wave `l+n head_dim/2 2`."""
        y, gates = self.adaln1(x, words, cond)
        x = x + gated(self.self_attn(y, wave, bias=bias, probe=probe), words, gates)
        y, gates = self.adaln2(x, words, cond)
        return x + gated(self.mlp(y), words, gates)


class CogVideoXDiT(nn.Module):
    """Noisy latents, a noise level and text → v, shaped as the latents."""

    positions: Tensor

    def __init__(self, config: CogVideoXConfig) -> None:
        super().__init__()
        self.config = config
        self._wave: tuple[object, Tensor] | None = None  # of the last grid
        self._sines: tuple[object, Tensor] | None = None
        dim, (frames, p, _) = config.dim, config.patches
        if config.patch_frames is None:
            self.patch_in: nn.Conv2d | nn.Linear = nn.Conv2d(
                config.in_channels, dim, p, stride=p, bias=config.patch_bias
            )
        else:
            self.patch_in = nn.Linear(config.in_channels * frames * p * p, dim)
        self.text_in = nn.Linear(config.text_dim, dim)
        if config.positions == "learned":
            grid = [size // own for size, own in zip(config.sample, config.patches, strict=True)]
            rows = config.text_tokens + grid[0] * grid[1] * grid[2]
            self.register_buffer("positions", torch.zeros(1, rows, dim))
        self.level_embed = ScalarEmbedding(config.time_dim, frequencies=dim, scale=1.0)
        if config.offset_dim is not None:
            self.offset_embed = ScalarEmbedding(
                config.offset_dim, frequencies=config.offset_dim, scale=1.0
            )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=config.eps)
        self.final_project = nn.Linear(config.time_dim, 2 * dim)
        self.final_norm = nn.LayerNorm(dim, eps=config.eps)
        self.final = nn.Linear(dim, config.out_channels * frames * p * p)

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
        """z `b c t h w`, t `b` (the training timestep, 0…999), text `b l d` (padding counts: no
        mask is used), image `b c t h w` (image-to-video: latents of the picture in its frame, zeros
        in the others) → `b c t h w`.

        `bias` and `probe` are handed to the attention of every block (see `attend`), which is over
        l text tokens and the patches behind them. ValueError for a size that patches don't divide
        or, where positions are learned, other rows, columns or text than the table has.
        """
        if image is not None:
            z = torch.cat((z, image.to(z)), dim=1)
        pt, ph, pw = self.config.patches
        if any(size % p for size, p in zip(z.shape[2:], (pt, ph, pw), strict=True)):
            raise ValueError(f"patches of {pt}×{ph}×{pw} don't divide latents {[*z.shape[2:]]}")
        grid = {"t": z.shape[2] // pt, "h": z.shape[3] // ph, "w": z.shape[4] // pw}

        weight, patch_bias = self.patch_in.weight, self.patch_in.bias
        tokens = rearrange(
            z, "b c (t pt) (h ph) (w pw) -> b (t h w) (c pt ph pw)", pt=pt, ph=ph, pw=pw
        )
        video = F.linear(tokens.to(weight.dtype), weight.flatten(1), patch_bias)  # b n d
        words = self.text_in(text.to(weight.dtype))  # b l d
        x, length = torch.cat(self._placed(words, video, **grid), dim=1), words.shape[1]
        wave = None if self.config.positions == "sincos" else self._turns(length, grid, z.device)

        cond = self.level_embed(t)  # b c
        if self.config.offset_dim is not None:
            cond = cond + self.offset_embed(t.new_full((1,), OFFSET, dtype=torch.float32))
        for block in self.blocks:
            x = block(x, length, cond, wave, bias=bias, probe=probe)
        shift, scale = self.final_project(F.silu(cond)).chunk(2, dim=-1)
        out = self.final(modulate(self.final_norm(self.norm(x[:, length:])), shift, scale))
        return rearrange(
            out, "b (t h w) (c pt ph pw) -> b c (t pt) (h ph) (w pw)", **grid, pt=pt, ph=ph, pw=pw
        )

    def _placed(self, text: Tensor, video: Tensor, t: int, h: int, w: int) -> tuple[Tensor, Tensor]:
        """Both with positions added, where there are any to add.

        A table is for one number of frames; for others sinusoids take its place, as released.
        """
        config = self.config
        if config.positions == "rotary":
            return text, video
        if config.positions == "learned":
            patches = zip(config.sample, config.patches, strict=True)
            frames, *size = (n // p for n, p in patches)
            if [h, w] != size or text.shape[1] != config.text_tokens:
                raise ValueError(
                    f"positions are learned for {config.text_tokens} text tokens and {size[0]}×"
                    f"{size[1]} patches, there are {text.shape[1]} and {h}×{w}"
                )
            if t == frames:
                table = self.positions.to(video.dtype)
                return text + table[:, : text.shape[1]], video + table[:, text.shape[1] :]
        of = (t, h, w), video.device, video.dtype
        if self._sines is None or self._sines[0] != of:
            self._sines = of, self._sinusoids(t, h, w, video.device).to(video.dtype)
        return text, video + self._sines[1]

    def _turns(self, words: int, grid: dict[str, int], device: torch.device) -> Tensor:
        """Cosines and sines `l+n head_dim/2 2`; words don't turn. Made once for the calls that have
        the same."""
        of = words, grid, device
        if self._wave is None or self._wave[0] != of:
            angles = self.angles(**grid, device=device)[0]
            self._wave = of, cos_sin(F.pad(angles, (0, 0, words, 0)))
        return self._wave[1]

    def _sinusoids(self, t: int, h: int, w: int, device: torch.device) -> Tensor:
        """Of a quarter of the channels by time, of three eighths by column and as many by row
        → `(t h w) d`, float64."""
        dim, space, time = self.config.dim, self.config.space_scale, self.config.time_scale
        widths = (dim // 4, dim * 3 // 8, dim * 3 // 8)
        parts = (
            repeat(_sines(t, time, widths[0], device), "t d -> (t h w) d", h=h, w=w),
            repeat(_sines(w, space, widths[1], device), "w d -> (t h w) d", t=t, h=h),
            repeat(_sines(h, space, widths[2], device), "h d -> (t h w) d", t=t, w=w),
        )
        return torch.cat(parts, dim=-1)

    def angles(self, t: int, h: int, w: int, device: torch.device | None = None) -> Tensor:
        """By how much rotary positions turn q and k of a grid of patches → `1 (t h w) head_dim/2`.

        1.5 counts rows and columns from 0. 1.0 stretches the grid over the one that it was trained
        on, `sample`, keeping its shape and centred; the last row then lies short of the end by a
        share of its distance from 0, not from the first row. That is as released.
        """
        head, (_, high, wide) = self.config.head_dim, self.config.sample
        rows, columns = torch.arange(h, device=device), torch.arange(w, device=device)
        if self.config.patch_frames is None:
            high, wide = high // self.config.patch, wide // self.config.patch
            tall = h / w > high / wide
            fit_h = high if tall else round(wide / w * h)
            fit_w = round(high / h * w) if tall else wide
            top, left = round((high - fit_h) / 2), round((wide - fit_w) / 2)
            rows = torch.linspace(top, (top + fit_h) * (h - 1) / h, h, device=device)
            columns = torch.linspace(left, (left + fit_w) * (w - 1) / w, w, device=device)
        frames = torch.arange(t, device=device)
        positions = torch.cartesian_prod(frames.float(), rows.float(), columns.float())  # n 3
        dims = (head // 4, head // 8 * 3, head // 8 * 3)
        return axial_angles(positions[None], dims, base=10_000.0)


def kinds(x: Tensor, words: int) -> tuple[Tensor, Tensor]:
    """x `b l+n d` → its text and its video."""
    return x[:, :words], x[:, words:]


def gated(y: Tensor, words: int, gates: Gates) -> Tensor:
    """y `b l+n d`, text and video each times its gate. Without gradients y itself is changed."""
    if plain():
        both = zip(kinds(y, words), gates, strict=True)
        return torch.cat([gate * part for part, gate in both], dim=1)
    for part, gate in zip(kinds(y, words), gates, strict=True):
        part.mul_(gate)
    return y


def _sines(n: int, scale: float, dim: int, device: torch.device) -> Tensor:
    """Sines, then cosines, of the positions 0, 1/scale, 2/scale … → `n dim`, float64."""
    at = torch.arange(n, device=device, dtype=torch.float32) / scale
    steps = torch.arange(dim // 2, device=device, dtype=torch.float64) / (dim / 2)
    turns = at.double()[:, None] * 10_000.0**-steps
    return torch.cat((turns.sin(), turns.cos()), dim=-1)
