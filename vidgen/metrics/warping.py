"""Warping error: how little of a frame the motion of the picture explains in the next one.

Each frame is warped onto the one before along the optical flow, and where the flow can be trusted
the two are compared (Lai et al. 2018, ECCV, Eq. 9). The flow is classical, not a network's such as
RAFT, so numbers compare with each other and not with those of papers: the combined local-global
method (Bruhn, Weickert, Schnörr 2005, IJCV 61(3), Eq. 13), which is Lucas–Kanade where the picture
has structure and Horn–Schunck where it is flat, coarse to fine, of gray pictures. What the flow
forward and the flow back disagree about is taken for occluded (Sundaram et al. 2010, ECCV, Eq. 5),
and so is what leaves the picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vidgen.metrics.fidelity import LEVELS, check_pair

METHOD = "combined local-global, not RAFT"
GRAY = (0.299, 0.587, 0.114)
WINDOW, SIGMA = 15, 3.0  # pixels around each place that move with it
COARSEST = 8  # pixels of the shorter side at the top of the pyramid, at least
WARPS = 2  # at each level
SWEEPS = 10  # of Jacobi at each warp
SMOOTHNESS = 1e-4  # how much a neighbor's flow counts; levels are 0 … 1
RELATIVE, ABSOLUTE = 0.01, 0.5  # of the test for occlusion; pixels²


def warping(made: Tensor, true: Tensor) -> Tensor:
    """Of two clips, uint8 `b t h w 3`: `b`, lower is better, 0 … 1. The flow and what is occluded
    are those of the true clip. The mean of the squared difference (of levels 0 … 1) over pixels
    that aren't occluded, channels and neighbors; NaN where all is occluded. The clips need two
    frames."""
    check_pair(made, true)
    if made.shape[1] < 2:
        raise ValueError("one frame has no flow")
    found = torch.zeros(len(made), made.shape[1] - 1, dtype=torch.float64)
    for i in range(found.shape[1]):
        flow, seen = trusted_flow(_gray(true[:, i]), _gray(true[:, i + 1]))
        here, there = (_pixels(made[:, j]) for j in (i, i + 1))
        apart = (warp(there, flow) - here).double().square().mean(dim=1, keepdim=True)
        total, count = (apart * seen).sum(dim=(1, 2, 3)), seen.sum(dim=(1, 2, 3))
        found[:, i] = total / count
    return found.nanmean(dim=1)


def trusted_flow(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """From a to b, `n 1 h w` of levels 0 … 1: the flow `n 2 h w` (x, y; pixels), and 1 where it
    can be trusted, `n 1 h w`."""
    there, back = flow(a, b), flow(b, a)
    inside = _inside(there)
    round_trip = there + warp(back, there)
    lengths = there.square().sum(1, keepdim=True) + warp(back, there).square().sum(1, keepdim=True)
    agree = round_trip.square().sum(1, keepdim=True) <= RELATIVE * lengths + ABSOLUTE
    return there, (agree & inside).double()


def flow(a: Tensor, b: Tensor) -> Tensor:
    """Where each pixel of a went in b, `n 2 h w` (x, y; pixels): b(p + flow) = a(p), for pictures
    `n 1 h w` of levels 0 … 1."""
    pyramid = [(a, b)]
    while min(pyramid[-1][0].shape[2:]) >= 2 * COARSEST:
        x, y = pyramid[-1]
        pyramid.append((F.avg_pool2d(x, 2, ceil_mode=True), F.avg_pool2d(y, 2, ceil_mode=True)))
    found = torch.zeros(len(a), 2, *pyramid[-1][0].shape[2:], dtype=a.dtype, device=a.device)
    for x, y in reversed(pyramid):
        if found.shape[2:] != x.shape[2:]:
            found = 2 * F.interpolate(found, scale_factor=2, mode="bilinear", align_corners=False)
            found = found[:, :, : x.shape[2], : x.shape[3]]
        for _ in range(WARPS):
            found = _improved(x, warp(y, found), found)
    return found


def _improved(a: Tensor, b: Tensor, flow: Tensor) -> Tensor:
    """The flow from a, given one and the next picture b warped along it: at each place a quadratic
    fit to its window, and nearness to the mean flow of its four neighbors."""
    slope_x, slope_y = _slopes((a + b) / 2)
    left = a - b
    xx, xy, yy = (_windowed(v) for v in (slope_x**2, slope_x * slope_y, slope_y**2))
    to = torch.cat([_windowed(slope_x * left), _windowed(slope_y * left)], dim=1)
    xx, yy = xx + SMOOTHNESS, yy + SMOOTHNESS
    det = xx * yy - xy**2
    straight, cross = torch.cat([yy, xx], dim=1) / det, -xy / det  # of the inverse matrix

    def solve(v: Tensor) -> Tensor:
        return straight * v + cross * v.flip(1)

    fixed = flow + solve(to - SMOOTHNESS * flow)
    straight, cross = straight * (SMOOTHNESS / 4), cross * (SMOOTHNESS / 4)
    for _ in range(SWEEPS):
        p = F.pad(flow, (1, 1, 1, 1), mode="replicate")
        near = p[:, :, 1:-1, 2:] + p[:, :, 1:-1, :-2] + p[:, :, 2:, 1:-1] + p[:, :, :-2, 1:-1]
        flow = fixed + solve(near)
    return flow


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, `n 1 h w`."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return (
        (x[:, :, 1:-1, 2:] - x[:, :, 1:-1, :-2]) / 2,
        (x[:, :, 2:, 1:-1] - x[:, :, :-2, 1:-1]) / 2,
    )


def _windowed(x: Tensor) -> Tensor:
    """`n 1 h w` → its Gaussian mean around each place; what lies outside counts nothing."""
    at = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weight = torch.exp(-0.5 * (at / SIGMA) ** 2)
    weight = weight / weight.sum()
    x = F.conv2d(x, weight[None, None, :, None], padding=(WINDOW // 2, 0))
    return F.conv2d(x, weight[None, None, None, :], padding=(0, WINDOW // 2))


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """x(p + flow) at each pixel p, linearly between pixels, the border continued: `n c h w`."""
    h, w = x.shape[2:]
    at_x, at_y = _targets(flow)
    grid = torch.stack([2 * at_x / max(w - 1, 1) - 1, 2 * at_y / max(h - 1, 1) - 1], dim=-1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)


def _targets(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Where each pixel ends, x and y, `n h w` each."""
    h, w = flow.shape[2:]
    x = torch.arange(w, dtype=flow.dtype, device=flow.device)
    y = torch.arange(h, dtype=flow.dtype, device=flow.device)
    return x + flow[:, 0], y[:, None] + flow[:, 1]


def _inside(flow: Tensor) -> Tensor:
    """Whether each pixel ends inside the picture, `n 1 h w`."""
    h, w = flow.shape[2:]
    x, y = _targets(flow)
    return ((x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1))[:, None]


def _pixels(frames: Tensor) -> Tensor:
    """uint8 `b h w 3` → levels 0 … 1, `b 3 h w`."""
    return rearrange(frames.float() / LEVELS, "b h w c -> b c h w")


def _gray(frames: Tensor) -> Tensor:
    """uint8 `b h w 3` → levels 0 … 1 of its luma, `b 1 h w`."""
    weight = torch.tensor(GRAY, device=frames.device)
    return ((frames.float() / LEVELS) @ weight)[:, None]
