"""What makes a video bad, kind by kind, each by a strength of 0 … 1.

The network of features learns to tell these from each other, and the benchmark of FVD asks whether
the distance grows with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vidgen.train.tasks.roughen import compressed


def distorted(clips: Tensor, strengths: Tensor, generator: torch.Generator) -> Tensor:
    """Clips uint8 `b t h w 3`, strengths `b k` by the order of `KINDS`: 0 leaves a clip alone."""
    out = []
    for clip, amounts in zip(clips, strengths.tolist(), strict=True):
        x = rearrange(clip.float(), "t h w c -> t c h w")
        for change, amount in zip(KINDS.values(), amounts, strict=True):
            if amount:
                x = change(x, amount, generator)
        out.append(rearrange(x, "t c h w -> t h w c"))
    return torch.stack(out).round().clamp(0, 255).to(torch.uint8)


def distort(clips: Tensor, kind: str, strength: float, generator: torch.Generator) -> Tensor:
    """All clips by one kind."""
    strengths = torch.zeros(len(clips), len(KINDS))
    strengths[:, list(KINDS).index(kind)] = strength
    return distorted(clips, strengths, generator)


# --- Each takes one clip, float32 `t c h w` of 0 … 255; lengths are shares of the picture's height


def reversed_(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Played backwards, whatever the strength."""
    return x.flip(0)


def shuffled(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Every frame moved by up to `strength` of the clip; in any order at 1."""
    places = torch.arange(len(x)) / len(x)
    keys = torch.rand(len(x), generator=generator)
    return x[((1 - strength) * places + strength * keys).argsort()]


def stuttered(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Frames that come out as the one before them: four out of five at 1."""
    kept = torch.rand(len(x), generator=generator) >= 0.8 * strength
    kept[0] = True
    return x[torch.where(kept, torch.arange(len(x)), 0).cummax(0).values]


def frozen(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """The last `strength` of the clip stands still."""
    last = round((1 - strength) * (len(x) - 1))
    return x[torch.arange(len(x)).clamp(max=last)]


def ghosted(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Frames with one or two steps before and after them shining through."""
    away = int(torch.randint(1, 3, (), generator=generator))
    at = torch.arange(len(x))
    near = x[(at - away).clamp(min=0)] + x[(at + away).clamp(max=len(x) - 1)]
    return torch.lerp(x, near / 2, 0.7 * strength)


def warped(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Shapes made lumpy: pixels displaced by a smooth field, partly the same in all frames, partly
    changing; by 6 % of the height along each axis at 1, root mean square."""
    t, _, h, w = x.shape
    cells = ((4, 6), (6, 10), (10, 16))[int(torch.randint(3, (), generator=generator))]
    fields = torch.randn(5, 2, *cells, generator=generator)  # four moments, and all of them
    angle = math.pi / 2 * float(torch.rand((), generator=generator))
    fields = F.interpolate(fields, (h, w), mode="bicubic")
    moving = F.interpolate(
        rearrange(fields[:4], "k c h w -> 1 (c h w) k"), t, mode="linear", align_corners=True
    )
    moving = rearrange(moving, "1 (c h w) t -> t h w c", c=2, h=h)
    still = rearrange(fields[4], "c h w -> h w c")
    moves = math.cos(angle) * still + math.sin(angle) * moving
    moves = moves / moves.square().mean().sqrt()
    unit = torch.tensor((2 * h / w, 2.0))  # the height, in the sampler's −1 … 1
    x_at, y_at = ((2 * torch.arange(n) + 1) / n - 1 for n in (w, h))
    grid = torch.stack(torch.meshgrid(x_at, y_at, indexing="xy"), dim=-1)
    grid = grid + 0.06 * strength * moves * unit
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def recolored(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Red, green and blue each made stronger or weaker, lighter or darker."""
    gain, offset = (2 * torch.rand(2, 3, 1, 1, generator=generator) - 1).unbind()
    offset = offset / offset.abs().max()
    return (x - 128) * (1 + 0.3 * strength * gain) + 128 + 50 * strength * offset


def flickering(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Every frame with a brightness of its own."""
    return x + 40 * strength * torch.randn(len(x), 1, 1, 1, generator=generator)


def blurred(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Gaussian blur; of 6 % of the height at 1."""
    t, _, h, _ = x.shape
    sigma = 0.06 * h * strength
    reach = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = (-offsets.square() / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    planes = rearrange(x, "t c h w -> (t c) 1 h w")
    planes = F.conv2d(F.pad(planes, (reach, reach, 0, 0), mode="replicate"), kernel)
    planes = F.conv2d(F.pad(planes, (0, 0, reach, reach), mode="replicate"), kernel.mT)
    return rearrange(planes, "(t c) 1 h w -> t c h w", t=t)


def noisy(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise, new in every frame."""
    return x + 40 * strength * torch.randn(x.shape, generator=generator)


def blocky(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Compressed in blocks, as by JPEG; sides must be multiples of 8."""
    return compressed(x[None], torch.tensor(80.0 * strength).view(1, 1, 1, 1, 1))[0]


Change = Callable[[Tensor, float, torch.Generator], Tensor]

# In the order in which several are done to one clip.
KINDS: dict[str, Change] = {
    "reverse": reversed_,
    "shuffle": shuffled,
    "stutter": stuttered,
    "freeze": frozen,
    "ghost": ghosted,
    "warp": warped,
    "color": recolored,
    "flicker": flickering,
    "blur": blurred,
    "noise": noisy,
    "blocks": blocky,
}
TIMING = ("reverse", "shuffle", "stutter", "freeze")  # after these, motions are others
