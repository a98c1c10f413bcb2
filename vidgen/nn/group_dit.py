"""Interpolation by a transformer: FusionFrames' groups, in fat tokens like the keyframes'.

The interface is that of the interpolating `UNet`: the frames of a group lie in the channels, left
keyframe, three noisy frames, right keyframe, and groups on the time axis (Arkhipkin et al. 2023,
§3.3). Here a token is a patch of all five frames; tokens of all groups attend to each other, with
rotary positions, so that a ball's whole path counts for each of its pieces. Blocks and modulation
are those of `VideoDiT`, without text.

A pass costs a fraction of convolutions over every latent, and what moves several latents from one
keyframe to the next is within reach from the first layer on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.nn.dit import Block
from vidgen.nn.embed import ScalarEmbedding
from vidgen.nn.norm import SharedModulation, modulate
from vidgen.nn.rope import axial_angles, grid_positions


@dataclass(frozen=True, kw_only=True)
class GroupDiTConfig:
    """Sizes of a `GroupDiT`. ValueError for widths that heads and rotations don't share out."""

    in_channels: int = 40  # left, three noisy, right: five times the latents'
    out_channels: int = 24
    patch: tuple[int, int] = (2, 4)  # rows, columns in one token
    dim: int = 192
    depth: int = 8
    heads: int = 3
    mlp_ratio: float = 4.0
    rope_dims: tuple[int, int, int] = (16, 24, 24)  # channels of a head that turn with t, h, w
    time_scale: float = 2.0  # rotary units in a second, as `VideoDiT` has it
    level_scale: float = 1.0  # training timesteps in one unit of t and of noise_level
    skip_rows: int = 20  # of the table of skip-frame numbers; 0: no table
    noise_embedding: bool = True  # whether it is told how noisy its keyframes are

    def __post_init__(self) -> None:
        for name in ("patch", "rope_dims"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.dim % self.heads or sum(self.rope_dims) != self.dim // self.heads:
            raise ValueError(
                f"rope_dims {self.rope_dims} must add up to dim/heads = {self.dim}/{self.heads}"
            )
        if any(d % 2 for d in self.rope_dims):
            raise ValueError(f"rope_dims {self.rope_dims} must be even: channels turn in pairs")

    @property
    def live(self) -> float:
        """Numbers alive at the widest moment of a block, for each latent of a group: the MLP's
        hidden layer beside its input and output."""
        return self.dim * (self.mlp_ratio + 6) / (self.patch[0] * self.patch[1])

    @property
    def text_dim(self) -> int:
        """Its blocks read none."""
        return 0

    def to_dict(self) -> dict:
        return asdict(self)


class GroupDiT(nn.Module):
    """Noisy groups between their keyframes, and a noise level → the network's raw output."""

    def __init__(self, config: GroupDiTConfig) -> None:
        super().__init__()
        self.config = c = config
        area = c.patch[0] * c.patch[1]
        self.patch_in = nn.Linear(c.in_channels * area, c.dim)
        self.level_embed = ScalarEmbedding(c.dim, scale=c.level_scale)
        if c.noise_embedding:
            self.noise_embed = ScalarEmbedding(c.dim, scale=c.level_scale)
        if c.skip_rows:
            self.skip_embed = nn.Embedding(c.skip_rows, c.dim)
            nn.init.normal_(self.skip_embed.weight, std=0.02)
        self.modulation = SharedModulation(c.dim, parts=6)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        self.final_modulation = SharedModulation(c.dim, parts=2)
        self.final_norm = nn.LayerNorm(c.dim, eps=1e-6, elementwise_affine=False)
        self.final = nn.Linear(c.dim, c.out_channels * area)
        nn.init.zeros_(self.final.weight)  # with residual targets: linear blending, at first
        nn.init.zeros_(self.final.bias)

    def forward(
        self,
        z: Tensor,
        t: Tensor,
        *,
        times: Tensor,
        skip: Tensor | None = None,
        noise_level: Tensor | None = None,
    ) -> Tensor:
        """z `b in_channels g h w`, t `b`, times `b g` seconds of the left keyframes, skip `b`
        int64, noise_level `b` in the unit of t (None: 0) → `b out_channels g h w`.

        h and w that a patch doesn't divide are padded inside by their last row and column, and cut
        back.
        """
        c, (height, width) = self.config, z.shape[-2:]
        (ph, pw), b = c.patch, len(z)
        x = rearrange(z, "b c g h w -> (b g) c h w").to(self.patch_in.weight.dtype)
        x = F.pad(x, (0, -width % pw, 0, -height % ph), "replicate")
        rows, columns = x.shape[2] // ph, x.shape[3] // pw
        x = rearrange(
            x, "(b g) c (h ph) (w pw) -> b (g h w) (c ph pw)", b=b, ph=ph, pw=pw
        )  # b n values
        x = self.patch_in(x)
        level = self.level_embed(t)
        if c.noise_embedding:
            noise = torch.zeros_like(t) if noise_level is None else noise_level
            level = level + self.noise_embed(noise)
        if skip is not None:
            level = level + self.skip_embed(skip)
        positions = grid_positions(times * c.time_scale, rows, columns)
        angles = axial_angles(positions, c.rope_dims)
        shared = self.modulation(level)  # b 6 d
        for block in self.blocks:
            x = block(x, shared, angles)
        shift, scale = self.final_modulation(level).unbind(dim=1)
        out = self.final(modulate(self.final_norm(x), shift, scale))
        out = rearrange(
            out, "b (g h w) (c ph pw) -> b c g (h ph) (w pw)", h=rows, w=columns, ph=ph, pw=pw
        )
        return out[..., :height, :width]
