"""What each latent of a clip shows, in numbers that a picture is drawn from: ground and objects as
surfaces, not as colors.

A network that is asked for these halfway through its blocks learns sooner what it has to know of a
scene (representation alignment, Yu et al. 2024, arXiv 2410.06940; there the features of another
network are what is asked for, here what the renderer knows). They are for training alone.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn

from vidgen.systems.base import Geometry
from vidgen.world.render import CHECK_FADE_M, RENDERER, TILE, surfaces
from vidgen.world.scene import sample_scene

# ground, object; nearness; the ground's checks, as waves along its two axes, fading as they do;
# where on the object, in its own axes
CHANNELS = 2 + 1 + 4 + 3
SCENES = 64  # at once


def shown_surfaces(seeds: range, level: str, clips: Geometry, height: int, width: int) -> Tensor:
    """Of these scenes, at the middle of each latent: int8 `b CHANNELS t height width`, 127 is 1."""
    made = []
    for first in range(seeds.start, seeds.stop, SCENES):
        some = range(first, min(first + SCENES, seeds.stop))
        scenes = [sample_scene(seed, level=level) for seed in some]
        parts = [_numbers(s) for s in surfaces(scenes, clips.times, height, width)]
        frames = torch.cat(parts, dim=1)
        made.append(rearrange(frames, "c (b t) h w -> b c t h w", b=len(scenes)))
    return torch.cat(made)


def _numbers(s) -> Tensor:
    sky = s.z == torch.inf
    ground = ~sky & ~s.thing
    near = torch.where(sky, 0.0, 1 / s.z.clamp(min=1))
    fade = torch.where(ground, torch.exp(-s.z.clamp(max=1e4) / CHECK_FADE_M), 0.0)
    waves = [
        fade * f(math.pi / TILE * s.place[axis]) for axis in (0, 2) for f in (torch.sin, torch.cos)
    ]
    local = [s.local[i].clamp(-1, 1) for i in range(3)]
    whole = torch.stack([ground.float(), s.thing.float(), near, *waves, *local])
    return (127 * whole).round().to(torch.int8)


def surfaces_name(clips: Geometry, height: int, width: int) -> str:
    """What a cache of this is called: all that decides it, but for scenes."""
    size = f"{clips.num_frames}x{clips.height}x{clips.width}@{clips.fps:g}"
    return f"{size}-{height}x{width}-r{RENDERER}"


class Aligned(nn.Module):
    """Tokens `b n d` of a block → what they show, `b CHANNELS t h w`, by one layer a token."""

    def __init__(self, dim: int, patch: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch = patch
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, CHANNELS * math.prod(patch))

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        pt, ph, pw = self.patch
        return rearrange(
            self.out(self.norm(tokens)), "b (t h w) (c pt ph pw) -> b c (t pt) (h ph) (w pw)",
            h=height // ph, w=width // pw, pt=pt, ph=ph, pw=pw,
        )  # fmt: skip
