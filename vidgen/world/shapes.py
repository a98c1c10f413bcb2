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

from vidgen.world.parts import (
    BALL_RADIUS,
    BOX_HALF,
    CAN_HALF,
    CAN_RADIUS,
    CONE_HALF,
    CONE_RADIUS,
    MARK_HALF,
    RING_RADIUS,
    RING_TUBE,
)

XYZ = tuple[Tensor, Tensor, Tensor]

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


def cone(o: XYZ, d: XYZ) -> tuple[Tensor, XYZ]:
    """An upright cone, its tip at the top, with a floor. At height y its radius is
    slope · (tip − y)."""
    slope, tip = CONE_RADIUS / (2 * CONE_HALF), CONE_HALF
    down = tip - o[1]
    a = d[0] * d[0] + d[2] * d[2] - slope**2 * d[1] * d[1]
    b = o[0] * d[0] + o[2] * d[2] + slope**2 * down * d[1]
    c = o[0] * o[0] + o[2] * o[2] - slope**2 * down * down
    a = torch.where(a.abs() < 1e-9, 1e-9, a)
    disc = b * b - a * c
    root = disc.clamp(min=0).sqrt()
    t = torch.full_like(a, math.inf)
    for s in ((-b - root) / a, (-b + root) / a):
        y = o[1] + s * d[1]
        # Beyond the tip there is a second, upside-down cone, which is not ours.
        t = torch.minimum(t, _entry(s, (disc > 0) & (y.abs() <= CONE_HALF)))
    floor = (-CONE_HALF - o[1]) / torch.where(d[1].abs() < 1e-9, 1e-9, d[1])
    x, _, z = along(o, floor, d)
    floor = _entry(floor, x * x + z * z <= CONE_RADIUS**2)
    side = t <= floor
    t = torch.minimum(t, floor)
    x, y, z = along(o, t.nan_to_num(posinf=0.0), d)
    # The gradient of x² + z² − slope²·(tip − y)², as long as 1.
    length = ((1 + slope**2) * (x * x + z * z)).sqrt().clamp(min=1e-9)
    return t, (
        torch.where(side, x / length, 0.0),
        torch.where(side, slope**2 * (tip - y) / length, -1.0),
        torch.where(side, z / length, 0.0),
    )


def ring(o: XYZ, d: XYZ) -> tuple[Tensor, XYZ]:
    """A torus that stands on its edge, its hole along z. Found by walking along the ray, each step
    as long as the distance to the surface, from where the ray enters the sphere around it."""
    length = dot(d, d).sqrt()
    u = (d[0] / length, d[1] / length, d[2] / length)
    b = dot(o, u)
    disc = b * b - dot(o, o) + (RING_RADIUS + RING_TUBE + 1e-3) ** 2
    root = disc.clamp(min=0).sqrt()
    walked = (-b - root).clamp(min=EPS)
    for _ in range(RING_STEPS):
        x, y, z = along(o, walked, u)
        walked = walked + _to_ring(x, y, z)
    x, y, z = along(o, walked, u)
    near = _to_ring(x, y, z) < RING_NEAR
    t = _entry(walked / length, near & (disc > 0) & (walked <= root - b))
    across = (x * x + y * y).sqrt().clamp(min=1e-9)
    inward = 1 - RING_RADIUS / across
    reach = ((x * x + y * y) * inward * inward + z * z).sqrt().clamp(min=1e-9)
    return t, (x * inward / reach, y * inward / reach, z / reach)


RING_STEPS = 32
RING_NEAR = 1e-3  # of a ring of size 1


def _to_ring(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Distance from the torus's surface, negative inside."""
    across = (x * x + y * y).sqrt() - RING_RADIUS
    return (across * across + z * z).sqrt() - RING_TUBE


INTERSECT = {"ball": ball, "cube": cube, "cylinder": cylinder, "cone": cone, "ring": ring}


def marked(shape: str, p: XYZ) -> Tensor:
    """Whether a point of the surface is in the mark: an upright stripe over the +z half; on a
    ring, which is thin there, a piece of its +x side."""
    if shape == "ring":
        return (p[0] > 0) & (p[1].abs() < MARK_HALF)
    return (p[2] > 0) & (p[0].abs() < MARK_HALF)
