"""What a scene is made of: plain numbers, in meters, seconds and radians.

World axes: right-handed, y up, the ground is y = 0. A yaw of 0 looks along −z, a heading of 0
faces +z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Vector = tuple[float, float, float]

DURATION_S = 2.0

# Shapes of size 1, standing upright about their center.
BALL_RADIUS = 0.5
BOX_HALF = 0.42
CAN_RADIUS, CAN_HALF = 0.38, 0.5
CONE_RADIUS, CONE_HALF = 0.46, 0.5
RING_RADIUS, RING_TUBE = 0.36, 0.13  # of the circle inside the tube, of the tube
MARK_HALF = 0.15  # half the width of the mark

# How high the center of a shape of size 1 is above the ground it stands on.
REST_HEIGHT = {
    "ball": BALL_RADIUS,
    "cube": BOX_HALF,
    "cylinder": CAN_HALF,
    "cone": CONE_HALF,
    "ring": RING_RADIUS + RING_TUBE,
}
# Radius of a sphere about the center that holds a shape of size 1.
BOUND = {
    "ball": BALL_RADIUS,
    "cube": BOX_HALF * math.sqrt(3),
    "cylinder": math.hypot(CAN_RADIUS, CAN_HALF),
    "cone": math.hypot(CONE_RADIUS, CONE_HALF),
    "ring": RING_RADIUS + RING_TUBE,
}

FALL_SHARE = 0.8  # share of a fall's time until it lands


@dataclass(frozen=True)
class Event:
    """What an object does from `start` to `end` (seconds). `motion` is its word; the numbers are
    its amounts over the whole event, and change nothing where the motion has none."""

    motion: str
    start: float
    end: float
    shift: Vector = (0.0, 0.0, 0.0)  # straight way, at even speed
    spin: float = 0.0  # turn about the vertical, counter-clockwise from above
    height: float = 0.0  # of a bounce
    period: float = 1.0  # of a bounce, seconds
    phase: float = 0.0  # of a bounce at `start`: 0 on the ground, ½ at the top
    fall: float = 0.0  # way down, ever faster, landing after `FALL_SHARE` of it
    circle: float = 0.0  # radius of a circle that is gone along
    turn: float = 0.0  # angle gone along it, from +x towards +z
    bearing: float = 0.0  # where on it the object starts
    grow: float = 1.0  # last size over first size
    color: str = ""  # color at the end


@dataclass(frozen=True)
class Object:
    """One body. It starts above the ground's point `x`, `z`, lifted by `lift` over where it would
    stand, its mark turned to `heading`."""

    shape: str
    color: str
    size: float
    x: float
    z: float
    heading: float
    events: tuple[Event, ...]
    lift: float = 0.0

    @property
    def motion(self) -> str:
        """The first thing it does."""
        return self.events[0].motion


@dataclass(frozen=True)
class CameraMove:
    """What the camera does from `start` to `end`; amounts over the whole move."""

    camera: str
    start: float
    end: float
    pan: float = 0.0  # to the right
    tilt: float = 0.0  # up
    zoom: float = 1.0  # last focal length over first
    shift: Vector = (0.0, 0.0, 0.0)
    orbit: float = 0.0  # about `pivot`, counter-clockwise from above: the camera goes right
    pivot: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Poses:
    """A camera's way given pose by pose: `times` seconds, `c2w` 12 numbers each (rows of `3 4`,
    OpenCV axes), `focal` fx over width each. In between, positions and axes are interpolated."""

    times: tuple[float, ...]
    c2w: tuple[tuple[float, ...], ...]
    focal: tuple[float, ...]


@dataclass(frozen=True)
class Camera:
    """Where the camera is at the start, and its moves. Positive yaw turns right, positive pitch
    looks down, `focal` is fx over the picture's width. `poses`, if given, is used instead."""

    position: Vector
    yaw: float
    pitch: float
    focal: float
    moves: tuple[CameraMove, ...]
    poses: Poses | None = None

    @property
    def camera(self) -> str:
        """The word for what it does."""
        return self.moves[0].camera


@dataclass(frozen=True)
class Scene:
    """One clip's worth of world."""

    seed: int
    level: str
    ground: str
    objects: tuple[Object, ...]
    camera: Camera
    sun: Vector  # unit vector towards the sun
    duration_s: float = DURATION_S
