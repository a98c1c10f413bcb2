"""A video diffusion transformer: patch tokens of all frames attend to each other and to text.

Peebles & Xie 2022 (DiT) for the block; PixArt-α's shared modulation; full attention over space and
time with rotary positions on (seconds, row, column). Text arrives twice: token by token through
cross-attention, and as one pooled vector added to the embedding of the noise level.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor, nn

from vidgen.nn.attention import CrossAttention, Probe, SelfAttention
from vidgen.nn.embed import ScalarEmbedding
from vidgen.nn.norm import AdaptiveTable, SharedModulation, modulate
from vidgen.nn.rope import axial_angles, grid_positions


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Sizes of a `VideoDiT`."""

    channels: int = 8  # of the latents, in and out
    patch: tuple[int, int, int] = (1, 1, 2)  # frames, rows, columns in one token
    dim: int = 192
    depth: int = 6
    heads: int = 3
    mlp_ratio: float = 4.0
    text_dim: int = 128  # of each text token
    pooled_dim: int = 128  # of the pooled text vector
    rope_dims: tuple[int, int, int] = (16, 24, 24)  # channels of a head that turn with t, h, w
    self_conditioned: bool = False  # takes the tokens that the call before ended with
    skip: bool = False  # z goes past the blocks to the output, by gates that the level sets
    time_scale: float = 2.0  # rotary units in a second: keyframes half a second apart are 1 apart

    def __post_init__(self) -> None:
        if self.dim % self.heads or sum(self.rope_dims) != self.dim // self.heads:
            raise ValueError(
                f"rope_dims {self.rope_dims} must add up to dim/heads = {self.dim}/{self.heads}"
            )
        if any(d % 2 for d in self.rope_dims):
            raise ValueError(f"rope_dims {self.rope_dims} must be even: channels turn in pairs")
        for name in ("patch", "rope_dims"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def to_dict(self) -> dict:
        return asdict(self)


class Sizes(Protocol):
    """What a block has to know."""

    @property
    def dim(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def mlp_ratio(self) -> float: ...
    @property
    def text_dim(self) -> int: ...  # 0: no text is read


class Block(nn.Module):
    """Self-attention, cross-attention to text, MLP, each on a normalised residual stream."""

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        dim, hidden = config.dim, int(config.dim * config.mlp_ratio)
        self.adaln = AdaptiveTable(dim, parts=6)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.self_attn = SelfAttention(dim, config.heads)
        if config.text_dim:
            self.norm2 = nn.LayerNorm(dim, eps=1e-6)
            self.cross_attn = CrossAttention(dim, config.text_dim, config.heads)
            # Adds nothing at the start; the shared modulation already closes the other two gates.
            nn.init.zeros_(self.cross_attn.out.weight)
        self.norm3 = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, dim)
        )

    def forward(
        self,
        x: Tensor,
        shared: Tensor,
        angles: Tensor,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        probe: Probe | None = None,
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaln(shared)  # b d each
        y = modulate(self.norm1(x), shift1, scale1)
        x = x + gate1.unsqueeze(1) * self.self_attn(y, angles, bias=bias, probe=probe)
        if text is not None:
            x = x + self.cross_attn(self.norm2(x), text, text_mask)
        y = modulate(self.norm3(x), shift2, scale2)
        return x + gate2.unsqueeze(1) * self.mlp(y)


class VideoDiT(nn.Module):
    """Noisy latents, a noise level and text → the network's raw output, shaped as the latents."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        values = config.channels * config.patch[0] * config.patch[1] * config.patch[2]
        self.patch_in = nn.Linear(values, config.dim)
        if config.self_conditioned:
            # Of zeros, which are no tokens, both make zeros; and at the start of all tokens.
            self.previous_norm = nn.LayerNorm(config.dim, eps=1e-6, elementwise_affine=False)
            self.previous = nn.Linear(config.dim, config.dim, bias=False)
            nn.init.zeros_(self.previous.weight)
        self.level_embed = ScalarEmbedding(config.dim)
        self.pooled_embed = nn.Linear(config.pooled_dim, config.dim)
        self.modulation = SharedModulation(config.dim, parts=6)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_modulation = SharedModulation(config.dim, parts=2)
        self.final_norm = nn.LayerNorm(config.dim, eps=1e-6, elementwise_affine=False)
        self.final = nn.Linear(config.dim, values)
        nn.init.zeros_(self.final.weight)
        nn.init.zeros_(self.final.bias)
        if config.skip:
            # Where there is little noise most of z is in the output, and through normalised blocks
            # it comes out rounded off. What `edm` fixes by coefficients is learned here, from zero.
            self.skip = nn.Linear(config.dim, values)
            nn.init.zeros_(self.skip.weight)
            nn.init.zeros_(self.skip.bias)

    def forward(self, z: Tensor, t: Tensor, **told: Any) -> Tensor:
        """The first of what `carry` gives for the same arguments."""
        return self.carry(z, t, **told)[0]

    def carry(
        self,
        z: Tensor,
        t: Tensor,
        *,
        text: Tensor,
        pooled: Tensor,
        text_mask: Tensor | None = None,
        times: Tensor | None = None,
        latents: Tensor | None = None,
        bias: Tensor | None = None,
        probe: Probe | None = None,
    ) -> tuple[Tensor, Tensor]:
        """z `b c t h w`, t `b` (what the prediction tells the network of the level),
        text `b l d`, pooled `b d`, text_mask `b l` (true = a word), times `b t` seconds
        (default: half a second apart) → the output `b c t h w`, and the tokens `b n d` that the
        last block ends with.

        `latents`: the tokens of the call before, for a network that is self-conditioned; zeros are
        as none. `bias` and `probe` are handed to the self-attention of every block (see `attend`).
        """
        pt, ph, pw = self.config.patch
        b, _, frames, height, width = z.shape
        grid = {"t": frames // pt, "h": height // ph, "w": width // pw}
        if times is None:
            times = torch.arange(frames, device=z.device, dtype=torch.float32).expand(b, -1) / 2
        positions = grid_positions(times[:, ::pt] * self.config.time_scale, grid["h"], grid["w"])
        angles = axial_angles(positions, self.config.rope_dims)  # b n head_dim/2

        tokens = rearrange(
            z, "b c (t pt) (h ph) (w pw) -> b (t h w) (c pt ph pw)", pt=pt, ph=ph, pw=pw
        )
        x = self.patch_in(tokens.to(self.patch_in.weight.dtype))  # b n d
        if self.config.self_conditioned:
            # Without tokens, too: DDP wants a gradient of every weight, if of zeros.
            before = torch.zeros_like(x[:1, :1]) if latents is None else latents.to(x.dtype)
            x = x + self.previous(self.previous_norm(before))
        cond = self.level_embed(t) + self.pooled_embed(pooled.to(x.dtype))  # b d
        text = text.to(x.dtype)
        shared = self.modulation(cond)  # b 6 d
        for block in self.blocks:
            x = block(x, shared, angles, text, text_mask, bias=bias, probe=probe)
        shift, scale = self.final_modulation(cond).unbind(dim=1)
        out = self.final(modulate(self.final_norm(x), shift, scale))
        if self.config.skip:
            out = out + self.skip(nn.functional.silu(cond)).unsqueeze(1) * tokens.to(out.dtype)
        out = rearrange(
            out, "b (t h w) (c pt ph pw) -> b c (t pt) (h ph) (w pw)", **grid, pt=pt, ph=ph, pw=pw
        )
        return out, x


@torch.no_grad()
def grown(network: VideoDiT, config: DiTConfig) -> VideoDiT:
    """A network of these sizes that computes what `network` computes: it may have more blocks,
    which add nothing yet, and may be self-conditioned, with tokens that count for nothing yet, or
    have a skip, whose gates are closed. With patches of another size its first and last layers
    begin anew, and it computes zeros.

    New blocks are spread evenly, each behind the block it begins as a copy of, with the last layers
    of its three branches zero (Net2DeeperNet's identity layers, Chen et al. 2015, for residual
    blocks). ValueError for other sizes, fewer blocks, or less to be conditioned on.
    """
    have, depth, old = network.config.depth, config.depth, network.state_dict()
    more = replace(
        network.config,
        depth=max(have, depth),
        self_conditioned=network.config.self_conditioned or config.self_conditioned,
        skip=network.config.skip or config.skip,
        patch=config.patch,
    )
    if more != config:
        raise ValueError(f"{network.config} can't become {config}")
    deep = VideoDiT(config)
    state = deep.state_dict()
    anew = () if network.config.patch == config.patch else ("patch_in.weight", "final.", "skip.")
    kept = [key for key in old if not key.startswith(("blocks.", *anew))]
    state |= {key: old[key] for key in kept}
    sources = [i * have // depth for i in range(depth)]  # 0 0 1 2 2 3 … for three from two
    for i, source in enumerate(sources):
        prefix = f"blocks.{source}."
        own = {key.removeprefix(prefix): v for key, v in old.items() if key.startswith(prefix)}
        if i and sources[i - 1] == source:
            silent = ("self_attn.out.", "cross_attn.out.", "mlp.2.")
            own = {k: torch.zeros_like(v) if k.startswith(silent) else v for k, v in own.items()}
        state |= {f"blocks.{i}.{key}": value for key, value in own.items()}
    deep.load_state_dict(state)
    return deep
