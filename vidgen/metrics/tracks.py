"""Points followed through a clip by classical means: pyramidal Lucas–Kanade (Lucas & Kanade 1981;
Bouguet 2001) in color from each frame to the next. It loses what blurs, hides or has no texture; a
trained tracker such as CoTracker does better, and its tracks can be given instead. Positions as
everywhere in vidgen: column and row in pixels, the first pixel's middle at 0.5, 0.5.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from vidgen.metrics.fidelity import LEVELS

METHOD = "pyramidal Lucas-Kanade"
GRID = 16  # points along the longer side
REACH = 3  # pixels around a point, each way, that move with it
SIGMA = 2.0  # of their weight, pixels
COARSEST = 16  # pixels of the shorter side at the top of the pyramid, at least
ROUNDS = 8  # at each level
TEXTURE = 1e-4  # least eigenvalue of the mean gradient matrix that a point needs; levels 0 … 1
RETURN = 0.5  # pixels that a point may come back beside where it was
RESIDUE = 0.08  # mean difference of what a point shows from a frame to the next, levels 0 … 1


def grid_points(height: int, width: int, along: int = GRID) -> Tensor:
    """Places `n 2` of a regular grid, `along` of them on the longer side."""
    step = max(height, width) / along
    rows, columns = (max(1, round(side / step)) for side in (height, width))
    y = (torch.arange(rows) + 0.5) * height / rows
    x = (torch.arange(columns) + 0.5) * width / columns
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)


def follow(frames: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Where points `n 2` of the first frame of a clip, uint8 `t h w 3`, are in each frame: `n t 2`
    float32; and how long they could be followed, bool `n t`. A point is lost for good, and stays
    where it was, from the first frame on in which its surroundings have no texture, it leaves the
    picture, it doesn't come back to where it was when followed backwards, or what it shows has
    changed."""
    height, width = frames.shape[1:3]
    pyramids = [_pyramid(frame) for frame in frames]
    tracks = [points.float()]
    known = [torch.ones(len(points), dtype=torch.bool)]
    for before, after in pairwise(pyramids):
        at = tracks[-1]
        moved, sharp, residue = _step(before, after, at)
        back, _, _ = _step(after, before, moved)
        inside = (moved >= 0).all(1) & (moved[:, 0] < width) & (moved[:, 1] < height)
        same = ((back - at).norm(dim=1) <= RETURN) & (residue <= RESIDUE)
        known.append(known[-1] & sharp & inside & same)
        tracks.append(torch.where(known[-1][:, None], moved, at))
    if len(known) > 1:
        known[0] = known[1]  # what is lost at once was never followed
    return torch.stack(tracks, dim=1), torch.stack(known, dim=1)


def _pyramid(frame: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Finest first: a frame, uint8 `h w 3`, as `1 3 h w` of 0 … 1, and its slopes along x and y,
    `1 6 h w`."""
    x = frame.permute(2, 0, 1)[None].float() / LEVELS
    levels = []
    while True:
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
        down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
        levels.append((x, torch.cat((across, down), dim=1)))
        if min(x.shape[2:]) < 2 * COARSEST:
            return levels
        x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def _step(
    before: list[tuple[Tensor, Tensor]], after: list[tuple[Tensor, Tensor]], at: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Where points `n 2` of one picture are in the other; whether their surroundings have texture;
    and the mean difference of what they show."""
    offsets = torch.arange(-REACH, REACH + 1, dtype=torch.float32)
    window = torch.stack(torch.meshgrid(offsets, offsets, indexing="xy"), dim=-1).reshape(-1, 2)
    weight = torch.exp(-window.square().sum(1) / (2 * SIGMA**2))
    weight = weight / weight.sum()
    moved = torch.zeros_like(at)
    for level in reversed(range(len(before))):
        here = at / 2**level
        picture, slopes = (_sampled(x, here, window) for x in before[level])
        across, down = slopes[:, :3], slopes[:, 3:]
        xx, xy, yy = (
            ((a * b).mean(1) * weight).sum(1)
            for a, b in ((across, across), (across, down), (down, down))
        )
        least = (xx + yy) / 2 - (((xx - yy) / 2) ** 2 + xy**2).sqrt()
        # Where there is no texture both ways the point goes with what is coarser.
        solvable = least > TEXTURE / 4
        det = torch.where(solvable, xx * yy - xy**2, 1.0)
        for _ in range(ROUNDS):
            left = picture - _sampled(after[level][0], here + moved / 2**level, window)
            tx, ty = (((left * s).mean(1) * weight).sum(1) for s in (across, down))
            step = torch.stack((yy * tx - xy * ty, xx * ty - xy * tx), dim=1) / det[:, None]
            step = torch.where(solvable[:, None], step.clamp(-1, 1), 0.0)
            moved = moved + step * 2**level
    left = picture - _sampled(after[0][0], at + moved, window)
    return at + moved, least > TEXTURE, (left.abs().mean(1) * weight).sum(1)


def _sampled(x: Tensor, at: Tensor, window: Tensor) -> Tensor:
    """A picture `1 c h w` around places `n 2`, linearly between middles of pixels, the border
    continued: `n c k`."""
    size = torch.tensor((x.shape[3], x.shape[2]), dtype=torch.float32)
    grid = 2 * (at[:, None] + window) / size - 1
    found = F.grid_sample(x, grid[None], padding_mode="border", align_corners=False)
    return found[0].permute(1, 0, 2)
