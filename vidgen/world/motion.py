"""From a scene to poses at given times: cameras and objects as NumPy float64 arrays.

An object's pose is its first pose plus what each event has added by then; an event adds nothing
before it starts and keeps what it added after it ends. So events of any number and order compose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vidgen.world.scene import Camera, Object, Scene
from vidgen.world.shapes import REST_HEIGHT
from vidgen.world.vocabulary import COLORS

Array = np.ndarray


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


def progress(times: Array, start: float, end: float) -> Array:
    """How much of an event is over, 0 … 1."""
    return np.clip((times - start) / (end - start), 0.0, 1.0)


def camera_path(camera: Camera, times: Sequence[float]) -> CameraPath:
    """The camera at each time."""
    t = np.asarray(times, dtype=np.float64)
    yaw, pitch = np.full(len(t), camera.yaw), np.full(len(t), camera.pitch)
    focal = np.full(len(t), camera.focal)
    position = np.broadcast_to(np.array(camera.position), (len(t), 3)).copy()
    for move in camera.moves:
        s = progress(t, move.start, move.end)
        yaw += move.pan * s
        pitch -= move.tilt * s
        focal *= move.zoom**s
        position += s[:, None] * np.array(move.shift)
    zero = np.zeros_like(yaw)
    sin, cos, sin_p, cos_p = np.sin(yaw), np.cos(yaw), np.sin(pitch), np.cos(pitch)
    right = np.stack((cos, zero, sin), axis=-1)
    forward = np.stack((sin * cos_p, -sin_p, -cos * cos_p), axis=-1)
    down = np.cross(forward, right)
    return CameraPath(np.stack((right, down, forward, position), axis=-1), focal)


def object_path(thing: Object, times: Sequence[float]) -> ObjectPath:
    """The object at each time."""
    t = np.asarray(times, dtype=np.float64)
    yaw, size, lift = np.full(len(t), thing.heading), np.full(len(t), thing.size), thing.lift
    center = np.zeros((len(t), 3))
    center += (thing.x, lift, thing.z)
    albedo = np.broadcast_to(np.array(COLORS[thing.color].albedo), (len(t), 3)).copy()
    for event in thing.events:
        s = progress(t, event.start, event.end)
        center += s[:, None] * np.array(event.shift)
        yaw += event.spin * s
        if event.height:
            cycle = (event.phase + s * (event.end - event.start) / event.period) % 1.0
            center[:, 1] += event.height * 4 * cycle * (1 - cycle)
    center[:, 1] += REST_HEIGHT[thing.shape] * size
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)
    sin, cos = np.sin(yaw), np.cos(yaw)
    rotation = np.stack((cos, zero, sin, zero, one, zero, -sin, zero, cos), axis=-1)
    return ObjectPath(center, rotation.reshape(-1, 3, 3), size, albedo)


def object_paths(scene: Scene, times: Sequence[float]) -> list[ObjectPath]:
    return [object_path(thing, times) for thing in scene.objects]


def nothing(count: int) -> ObjectPath:
    """Poses that fill the place of an object that a scene does not have."""
    turn = np.broadcast_to(np.eye(3), (count, 3, 3))
    return ObjectPath(np.zeros((count, 3)), turn, np.ones(count), np.zeros((count, 3)))
