"""Scenes: everything that decides a clip, drawn from one seed.

A `Scene` is plain numbers: where the camera is and what it does, where each object is and what it
does, the ground, the sun. `motion` turns it into poses at given times, `render` into pictures,
`captions` into words. World axes: right-handed, y up, meters, seconds, radians.

Splits, fixed for good: training scenes have seeds 0 … 2³¹−1, validation 2³¹ … 3·2³⁰−1, test
3·2³⁰ … 2³²−1. The combinations in `HELD_OUT` are never drawn from a training or validation seed;
test seeds draw them like any other, and `factors=` makes them on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from vidgen.errors import UsageError
from vidgen.world.vocabulary import BASIC, FULL

TRAIN_SEEDS = range(2**31)
VALIDATION_SEEDS = range(2**31, 3 * 2**30)
TEST_SEEDS = range(3 * 2**30, 2**32)

DURATION_S = 2.0

# Shape, color and motion that never occur together in training.
HELD_OUT = frozenset(
    {
        ("cylinder", "purple", "spins"),
        ("ball", "cyan", "comes closer"),
        ("cube", "yellow", "bounces"),
        ("ball", "green", "moves right"),
        ("cylinder", "orange", "moves away"),
        ("cube", "white", "moves left"),
    }
)

FACTORS: dict[str, tuple[str, ...]] = FULL

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Event:
    """What an object does from `start` to `end` (seconds). `motion` is its word; the numbers are
    its amounts over the whole event, zero where the motion has none."""

    motion: str
    start: float
    end: float
    shift: Vector = (0.0, 0.0, 0.0)  # straight way, meters
    spin: float = 0.0  # turn about the vertical, counter-clockwise from above
    height: float = 0.0  # of a bounce, meters
    period: float = 1.0  # of a bounce, seconds
    phase: float = 0.0  # of a bounce at `start`: 0 on the ground, ½ at the top
    circle: float = 0.0  # radius of a circle, meters
    turn: float = 0.0  # angle gone along the circle
    bearing: float = 0.0  # where on the circle it starts
    grow: float = 1.0  # final size over first size
    color: str = ""  # color at the end


@dataclass(frozen=True)
class Object:
    """One body. Its center is `size`-dependent: it stands on the ground at `x`, `z`, lifted by
    `lift`, with its mark turned to `heading` (0 = towards +z)."""

    shape: str
    color: str
    size: float  # meters; about the extent
    x: float
    z: float
    heading: float
    events: tuple[Event, ...]
    lift: float = 0.0

    @property
    def motion(self) -> str:
        return self.events[0].motion


@dataclass(frozen=True)
class CameraMove:
    """What the camera does from `start` to `end`; amounts over the whole move."""

    camera: str
    start: float
    end: float
    pan: float = 0.0  # to the right, radians
    tilt: float = 0.0  # up, radians
    zoom: float = 1.0  # final focal length over first
    shift: Vector = (0.0, 0.0, 0.0)  # meters in the world
    orbit: float = 0.0  # about `pivot`, counter-clockwise from above
    pivot: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Camera:
    """Where the camera is at the start, and its moves. Yaw 0 looks along −z, positive yaw turns
    right; positive pitch looks down. `focal` is fx over the picture's width."""

    position: Vector
    yaw: float
    pitch: float
    focal: float
    moves: tuple[CameraMove, ...]

    @property
    def camera(self) -> str:
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


def labels(scene: Scene) -> dict[str, str]:
    """The factors of a scene: those of its first object, its ground, its camera."""
    first = scene.objects[0]
    return {
        "shape": first.shape,
        "color": first.color,
        "ground": scene.ground,
        "motion": first.motion,
        "camera": scene.camera.camera,
    }


def sample_scene(
    seed: int, *, level: str = "basic", factors: Mapping[str, str] | None = None
) -> Scene:
    """Draw the scene of a seed.

    level    "basic" (one object, the words that world.md lists first) or "full"
    factors  some of `FACTORS`, set instead of drawn; the rest of the scene stays as the seed has it

    Raises `UsageError` for an unknown level, factor or value.
    """
    if level not in ("basic", "full"):
        raise UsageError(f"no world level `{level}`", why="there are: basic, full")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed {seed} is not in 0 … 2^32 − 1")
    rng = Random(seed)
    chosen = _draw_factors(rng, BASIC if level == "basic" else FULL, factors or {}, seed)
    camera = _camera(rng, chosen["camera"])
    thing = _object(rng, chosen, camera)
    elevation, azimuth = rng.uniform(0.65, 1.05), rng.uniform(0, 2 * math.pi)
    sun = (
        math.cos(elevation) * math.cos(azimuth),
        math.sin(elevation),
        math.cos(elevation) * math.sin(azimuth),
    )
    return Scene(seed, level, chosen["ground"], (thing,), camera, sun)


def _draw_factors(
    rng: Random, values: Mapping[str, tuple[str, ...]], given: Mapping[str, str], seed: int
) -> dict[str, str]:
    for name, value in given.items():
        if name not in FACTORS or value not in FACTORS[name]:
            known = FACTORS.get(name, tuple(FACTORS))
            raise UsageError(
                f"no world factor {name} = `{value}`", why=f"there are: {', '.join(known)}"
            )
    while True:
        drawn = {name: v[int(rng.random() * len(v))] for name, v in values.items()}
        drawn |= given
        free = seed >= TEST_SEEDS.start or {"shape", "color", "motion"} <= set(given)
        if free or (drawn["shape"], drawn["color"], drawn["motion"]) not in HELD_OUT:
            return drawn


def _right_and_forward(yaw: float) -> tuple[Vector, Vector]:
    """The camera's right and its forward laid on the ground."""
    return (math.cos(yaw), 0.0, math.sin(yaw)), (math.sin(yaw), 0.0, -math.cos(yaw))


def _times(k: float, v: Vector) -> Vector:
    return (k * v[0], k * v[1], k * v[2])


def _plus(a: Vector, b: Vector) -> Vector:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def _camera(rng: Random, name: str) -> Camera:
    position = (rng.uniform(-2, 2), rng.uniform(1.15, 1.35), rng.uniform(-2, 2))
    # Near one of the checker's axes: a ground seen at any angle would cost a small model much.
    yaw = rng.choice((0, 1, 2, 3)) * math.pi / 2 + rng.uniform(-0.35, 0.35)
    pitch = rng.uniform(0.12, 0.22)
    focal = rng.uniform(0.88, 1.04)  # horizontal field of view 59° … 51°
    pan = rng.uniform(0.28, 0.36)
    zoom = rng.uniform(1.45, 1.65)
    move = CameraMove(name, 0.0, DURATION_S)
    # Moves are centered on the middle of the clip, where the scene is composed.
    if name in ("pans left", "pans right"):
        pan = -pan if name == "pans left" else pan
        move = CameraMove(name, 0.0, DURATION_S, pan=pan)
        yaw -= pan / 2
    elif name in ("zooms in", "zooms out"):
        zoom = zoom if name == "zooms in" else 1 / zoom
        move = CameraMove(name, 0.0, DURATION_S, zoom=zoom)
        focal /= math.sqrt(zoom)
    return Camera(position, yaw, pitch, focal, (move,))


def _object(rng: Random, chosen: Mapping[str, str], camera: Camera) -> Object:
    motion, move = chosen["motion"], camera.moves[0]
    size = rng.uniform(0.8, 1.05)
    yaw = camera.yaw + move.pan / 2
    focal = camera.focal * math.sqrt(move.zoom)
    right, forward = _right_and_forward(yaw)
    depth = rng.uniform(2.9, 3.9)
    across = rng.uniform(-0.06, 0.06) if "pans" in move.camera else rng.uniform(-0.16, 0.16)
    travel = rng.uniform(0.32, 0.40)
    near, far = rng.uniform(2.3, 2.5), rng.uniform(4.1, 4.6)
    spin = rng.choice((-1, 1)) * rng.uniform(2.4, 3.2)
    heading = rng.uniform(0, 2 * math.pi)
    towards = rng.uniform(-0.4, 0.4)
    arcs = _bounce(rng)

    event = Event(motion, 0.0, DURATION_S)
    if motion in ("moves left", "moves right"):
        # `travel` is the share of the picture's width that the center crosses.
        across = across / 2
        sign = -1 if motion == "moves left" else 1
        shift = _times(sign * travel * depth / focal, right)
        event = Event(motion, 0.0, DURATION_S, shift=shift)
    elif motion in ("comes closer", "moves away"):
        depth, end = (far, near) if motion == "comes closer" else (near, far)
        # Along its line of sight, so that the way is only towards or from the camera.
        along = _plus(forward, _times(across / focal, right))
        event = Event(motion, 0.0, DURATION_S, shift=_times(end - depth, along))
    elif motion == "bounces":
        event = Event(motion, 0.0, DURATION_S, height=arcs[0], period=arcs[1], phase=arcs[2])
    elif motion == "spins":
        # The mark faces the camera, more or less, halfway through.
        event = Event(motion, 0.0, DURATION_S, spin=spin)
        heading = math.atan2(-forward[0], -forward[2]) + towards - spin / 2

    start = _plus(_times(depth, forward), _times(across * depth / focal, right))
    if motion in ("moves left", "moves right"):  # composed at half its way
        start = _plus(start, _times(-0.5, event.shift))
    x, z = camera.position[0] + start[0], camera.position[2] + start[2]
    return Object(chosen["shape"], chosen["color"], size, x, z, heading, (event,))


def _bounce(rng: Random) -> tuple[float, float, float]:
    """Height, period and phase of bounces that the five keyframes show both low and high."""
    while True:
        height, period, phase = rng.uniform(0.6, 0.85), rng.uniform(0.8, 1.1), rng.random()
        along = [(phase + 0.5 * i / period) % 1 for i in range(5)]
        levels = [4 * s * (1 - s) for s in along]
        if min(levels) < 0.15 and max(levels) > 0.85 and max(levels[:3]) - min(levels[:3]) > 0.5:
            return height, period, phase
