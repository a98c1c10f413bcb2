"""From a scene to poses at given times: cameras and objects as NumPy float64 arrays.

A pose is the first pose plus what each event has added by then; an event adds nothing before it
starts and keeps what it added after it ends. So events of any number and order compose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vidgen.world.parts import (
    FALL_SHARE,
    REST_HEIGHT,
    Camera,
    Event,
    Object,
    Poses,
    Scene,
    Vector,
)
from vidgen.world.vocabulary import COLORS

Array = np.ndarray
Times = Sequence[float] | Array


class CameraPath(NamedTuple):
    """c2w `T 3 4` (OpenCV axes), focal `T` (fx over width)."""

    c2w: Array
    focal: Array


class ObjectPath(NamedTuple):
    """center `T 3` m, rotation `T 3 3` (own axes to world), size `T` m, albedo `T 3` sRGB."""

    center: Array
    rotation: Array
    size: Array
    albedo: Array


class Impact(NamedTuple):
    """An object hits the ground: seconds, meters a second."""

    time: float
    speed: float


def progress(times: Array, start: float, end: float) -> Array:
    """How much of an event is over, 0 … 1."""
    return np.clip((times - start) / (end - start), 0.0, 1.0)


# --- Cameras


def camera_path(camera: Camera, times: Times) -> CameraPath:
    """The camera at each time."""
    t = np.asarray(times, dtype=np.float64)
    if camera.poses is not None:
        return _interpolated(camera.poses, t)
    yaw, pitch = np.full(len(t), camera.yaw), np.full(len(t), camera.pitch)
    focal = np.full(len(t), camera.focal)
    position = np.tile(np.array(camera.position), (len(t), 1))
    for move in camera.moves:
        s = progress(t, move.start, move.end)
        yaw += move.pan * s
        pitch -= move.tilt * s
        focal *= move.zoom**s
        position += s[:, None] * np.array(move.shift)
        if move.orbit:
            position = orbited(position, move.orbit * s, move.pivot)
            yaw -= move.orbit * s
    zero = np.zeros_like(yaw)
    sin, cos, sin_p, cos_p = np.sin(yaw), np.cos(yaw), np.sin(pitch), np.cos(pitch)
    right = np.stack((cos, zero, sin), axis=-1)
    forward = np.stack((sin * cos_p, -sin_p, -cos * cos_p), axis=-1)
    down = np.cross(forward, right)
    return CameraPath(np.stack((right, down, forward, position), axis=-1), focal)


def orbited(position: Array, angle: Array, pivot: Vector) -> Array:
    """Positions `T 3` turned about the vertical through `pivot`, counter-clockwise from above."""
    sin, cos, center = np.sin(angle), np.cos(angle), np.array(pivot)
    x, y, z = (position - center * (1, 0, 1)).T
    return np.stack((x * cos + z * sin, y, z * cos - x * sin), axis=-1) + center * (1, 0, 1)


def _interpolated(poses: Poses, t: Array) -> CameraPath:
    """Positions and axes between neighbors in a straight line, the axes made orthonormal again
    (the nearest rotation, by singular values)."""
    known = np.array(poses.c2w).reshape(-1, 12)
    rows = np.stack([np.interp(t, poses.times, known[:, i]) for i in range(12)], axis=-1)
    c2w = rows.reshape(-1, 3, 4)
    u, _, v = np.linalg.svd(c2w[:, :, :3])
    return CameraPath(
        np.concatenate((u @ v, c2w[:, :, 3:]), axis=-1), np.interp(t, poses.times, poses.focal)
    )


def project(path: CameraPath, points: Array, aspect: float) -> Array:
    """World points `T … 3`, one set per time, to the picture: `T … 3` with columns and rows in
    0 … 1 of the picture's width and height, and z-depth in meters. `aspect` is width over
    height. Points behind the camera get a position too; look at their depth."""
    lead = (len(points),) + (1,) * (points.ndim - 2)
    c2w = path.c2w.reshape(*lead, 3, 4)
    x, y, z = np.moveaxis(np.einsum("...w,...wc->...c", points - c2w[..., 3], c2w[..., :3]), -1, 0)
    ahead = np.where(np.abs(z) < 1e-9, 1e-9, z)
    focal = path.focal.reshape(lead)
    return np.stack((0.5 + focal * x / ahead, 0.5 + focal * aspect * y / ahead, z), axis=-1)


# --- Objects


def object_path(thing: Object, times: Times) -> ObjectPath:
    """The object at each time."""
    t = np.asarray(times, dtype=np.float64)
    yaw, roll = np.full(len(t), thing.heading), np.zeros(len(t))
    size = np.full(len(t), thing.size)
    center = np.tile(np.array((thing.x, thing.lift, thing.z)), (len(t), 1))
    albedo = np.tile(np.array(COLORS[thing.color].albedo), (len(t), 1))
    for event in thing.events:
        s = progress(t, event.start, event.end)
        center += s[:, None] * np.array(event.shift)
        yaw += event.spin * s
        size *= event.grow**s
        if event.height:
            cycle = (event.phase + s * (event.end - event.start) / event.period) % 1.0
            center[:, 1] += event.height * 4 * cycle * (1 - cycle)
        if event.fall:
            center[:, 1] -= event.fall * np.minimum(s / FALL_SHARE, 1.0) ** 2
        if event.circle:
            angle = event.bearing + event.turn * s
            center[:, 0] += event.circle * (np.cos(angle) - np.cos(event.bearing))
            center[:, 2] += event.circle * (np.sin(angle) - np.sin(event.bearing))
            yaw -= event.turn * s
            roll += abs(event.turn) * s * event.circle / (REST_HEIGHT[thing.shape] * size)
        if event.color:
            ramp = progress(s, 0.2, 0.8)[:, None]
            albedo += ramp * (np.array(COLORS[event.color].albedo) - albedo)
    center[:, 1] += REST_HEIGHT[thing.shape] * size
    return ObjectPath(center, _turned(thing.shape, yaw, roll), size, albedo)


def object_paths(scene: Scene, times: Times) -> list[ObjectPath]:
    return [object_path(thing, times) for thing in scene.objects]


def _turned(shape: str, yaw: Array, roll: Array) -> Array:
    """Rotations `T 3 3`: about the vertical by `yaw`, after rolling by `roll`: a ball towards its
    +z, a ring like a wheel towards its +x. Other shapes don't roll, they glide."""
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)
    sin, cos = np.sin(yaw), np.cos(yaw)
    about_y = np.stack((cos, zero, sin, zero, one, zero, -sin, zero, cos), axis=-1)
    about_y = about_y.reshape(-1, 3, 3)
    if shape not in ("ball", "ring") or not roll.any():
        return about_y
    sin, cos = np.sin(roll), np.cos(roll)
    if shape == "ball":
        own = np.stack((one, zero, zero, zero, cos, -sin, zero, sin, cos), axis=-1)
    else:
        own = np.stack((cos, sin, zero, -sin, cos, zero, zero, zero, one), axis=-1)
    return about_y @ own.reshape(-1, 3, 3)


def nothing(count: int) -> ObjectPath:
    """Poses that fill the place of an object that a scene does not have."""
    turn = np.broadcast_to(np.eye(3), (count, 3, 3))
    return ObjectPath(np.zeros((count, 3)), turn, np.ones(count), np.zeros((count, 3)))


# --- What can be heard


def impacts(thing: Object) -> list[Impact]:
    """When the object hits the ground, in order."""
    found = []
    for event in thing.events:
        if event.height:
            found += _bounce_impacts(event)
        if event.fall:
            lasts = FALL_SHARE * (event.end - event.start)
            found.append(Impact(event.start + lasts, 2 * event.fall / lasts))
    return sorted(found)


def _bounce_impacts(event: Event) -> list[Impact]:
    """The ends of the arcs, not the start of the first."""
    arcs = event.phase + (event.end - event.start) / event.period
    speed = 4 * event.height / event.period
    return [
        Impact(event.start + (k - event.phase) * event.period, speed)
        for k in range(1, int(arcs + 1e-9) + 1)
    ]


def ground_speed(thing: Object, times: Array) -> Array:
    """Meters a second along the ground at each time, from central differences."""
    step = 1e-3
    before, after = (object_path(thing, times + d).center[:, [0, 2]] for d in (-step, step))
    return np.hypot(*((after - before) / (2 * step)).T)


def spin_speed(thing: Object, times: Array) -> Array:
    """Radians a second about the vertical, by its own spinning, at each time."""
    speed = np.zeros(len(times))
    for event in thing.events:
        during = (times >= event.start) & (times < event.end)
        speed[during] += abs(event.spin) / (event.end - event.start)
    return speed
