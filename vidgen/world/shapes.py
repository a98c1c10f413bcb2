"""Rays against shapes, in the shape's own axes, for any number of rays at once.

A shape of size 1 stands upright, its center at the origin, its mark on the side of +z. Every
function takes the ray's origin `o` and direction `d` as three tensors each, in units of the
object's size, and returns where it enters (`t`, +inf for a miss) with the normal there. The
direction need not have unit length: `t` counts in units of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

XYZ = tuple[Tensor, Tensor, Tensor]

BALL_RADIUS = 0.5
BOX_HALF = 0.42
CAN_RADIUS, CAN_HALF = 0.38, 0.5
MARK_HALF = 0.15  # half the width of the mark

# Of a shape of size 1: how high its center is above the ground it stands on, and the radius of a
# sphere about the center that holds it.
REST_HEIGHT = {"ball": BALL_RADIUS, "cube": BOX_HALF, "cylinder": CAN_HALF}
BOUND = {
    "ball": BALL_RADIUS,
    "cube": BOX_HALF * math.sqrt(3),
    "cylinder": math.hypot(CAN_RADIUS, CAN_HALF),
}

EPS = 1e-4


def along(o: XYZ, t: Tensor, d: XYZ) -> XYZ:
    """The point o + t·d."""
    return o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]


def dot(a: XYZ, b: XYZ) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def pick(v: XYZ, index: Tensor) -> XYZ:
    return v[0][index], v[1][index], v[2][index]


def _entry(t: Tensor, hit: Tensor) -> Tensor:
    return torch.where(hit & (t > EPS), t, math.inf)


def ball(o: XYZ, d: XYZ) -> tuple[Tensor, XYZ]:
    """A sphere."""
    a, b, c = dot(d, d), dot(o, d), dot(o, o) - BALL_RADIUS**2
    disc = b * b - a * c
    t = _entry((-b - disc.clamp(min=0).sqrt()) / a, disc > 0)
    x, y, z = along(o, t.nan_to_num(posinf=0.0), d)
    return t, (x / BALL_RADIUS, y / BALL_RADIUS, z / BALL_RADIUS)


def cube(o: XYZ, d: XYZ) -> tuple[Tensor, XYZ]:
    """A box with equal sides: the last of the three slabs entered, if none was left before."""
    near, far = [], []
    for oi, di in zip(o, d, strict=True):
        inverse = 1 / torch.where(di.abs() < 1e-9, 1e-9, di)
        center, half = -oi * inverse, BOX_HALF * inverse.abs()
        near.append(center - half)
        far.append(center + half)
    enter = torch.maximum(torch.maximum(near[0], near[1]), near[2])
    leave = torch.minimum(torch.minimum(far[0], far[1]), far[2])
    t = _entry(enter, enter < leave)
    x, y, z = (torch.where(enter == n, -torch.sign(di), 0.0) for n, di in zip(near, d, strict=True))
    return t, (x, y, z)


def cylinder(o: XYZ, d: XYZ) -> tuple[Tensor, XYZ]:
    """An upright can: inside the endless cylinder and between its two lids."""
    a = (d[0] * d[0] + d[2] * d[2]).clamp(min=1e-12)
    b = o[0] * d[0] + o[2] * d[2]
    c = o[0] * o[0] + o[2] * o[2] - CAN_RADIUS**2
    disc = b * b - a * c
    root = disc.clamp(min=0).sqrt()
    near, far = (-b - root) / a, (-b + root) / a
    inverse = 1 / torch.where(d[1].abs() < 1e-9, 1e-9, d[1])
    center, half = -o[1] * inverse, CAN_HALF * inverse.abs()
    lid = center - half
    enter, leave = torch.maximum(near, lid), torch.minimum(far, center + half)
    t = _entry(enter, (enter < leave) & (disc > 0))
    at = t.nan_to_num(posinf=0.0)
    side = near > lid
    return t, (
        torch.where(side, (o[0] + at * d[0]) / CAN_RADIUS, 0.0),
        torch.where(side, 0.0, -torch.sign(d[1])),
        torch.where(side, (o[2] + at * d[2]) / CAN_RADIUS, 0.0),
    )


INTERSECT = {"ball": ball, "cube": cube, "cylinder": cylinder}


def marked(p: XYZ) -> Tensor:
    """Whether a point of the surface is in the mark: an upright stripe over the +z half."""
    return (p[2] > 0) & (p[0].abs() < MARK_HALF)
