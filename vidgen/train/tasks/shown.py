"""Where in a clip's latents there is an object, so that a loss can count it for more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vidgen.systems.base import Geometry
from vidgen.world.render import GROUND, RENDERER, geometry
from vidgen.world.scene import sample_scene


def shown(seeds: range, level: str, clips: Geometry, height: int, width: int) -> Tensor:
    """Of these scenes, which latents `t height width` show an object or are half a latent or less
    beside one: uint8 `b t height width`, 0 or 1."""
    down, across = clips.height // height, clips.width // width
    made = []
    for seed in seeds:
        scene = sample_scene(seed, level=level)
        _, owner = geometry(scene, clips.times, clips.height, clips.width)
        objects = (owner > GROUND).float()[:, None]
        near = F.max_pool2d(
            objects, (2 * down, 2 * across), (down, across), (down // 2, across // 2)
        )
        made.append(near[:, 0].to(torch.uint8))
    return torch.stack(made)


def shown_name(clips: Geometry, height: int, width: int) -> str:
    """What a cache of this is called: all that decides it, but for scenes."""
    size = f"{clips.num_frames}x{clips.height}x{clips.width}@{clips.fps:g}"
    return f"{size}-{height}x{width}-r{RENDERER}"
