"""Scenes: everything that decides a clip, drawn from one seed.

A `Scene` is plain numbers. `motion` turns it into poses at given times, `render` into pictures,
`captions` into words.

Splits, fixed for good: training scenes have seeds 0 … 2³¹−1, validation 2³¹ … 3·2³⁰−1, test
3·2³⁰ … 2³²−1. The combinations in `HELD_OUT` are never drawn from a training or validation seed;
test seeds draw them like any other, and `factors=` or `held_out=` makes them on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

from vidgen.errors import UsageError
from vidgen.world import draw
from vidgen.world.parts import (
    DURATION_S,
    Camera,
    CameraMove,
    Event,
    Object,
    Poses,
    Scene,
)
from vidgen.world.vocabulary import BASIC, FULL

__all__ = [
    "FACTORS", "FACTORS_FULL", "HELD_OUT", "TEST_SEEDS", "TRAIN_SEEDS", "VALIDATION_SEEDS",
    "Camera", "CameraMove", "Event", "Object", "Poses", "Scene",
    "labels", "sample_scene", "with_poses",
]  # fmt: skip

TRAIN_SEEDS = range(2**31)
VALIDATION_SEEDS = range(2**31, 3 * 2**30)
TEST_SEEDS = range(3 * 2**30, 2**32)

# Shape, color and motion that no object of a training or validation scene has together.
HELD_OUT = frozenset(
    {
        ("cylinder", "purple", "spins"),
        ("ball", "cyan", "comes closer"),
        ("cube", "yellow", "bounces"),
        ("ball", "green", "moves right"),
        ("cylinder", "orange", "moves away"),
        ("cube", "white", "moves left"),
        # The full world only.
        ("cone", "red", "spins"),
        ("ring", "blue", "moves left"),
        ("ball", "purple", "falls"),
        ("cube", "cyan", "rolls in a circle"),
    }
)

NONE = "none"  # the value of a factor of an object that is not there
OBJECT_FACTORS = ("shape", "color", "motion")

# Factor → values: of the first object, the ground and the camera.
FACTORS: dict[str, tuple[str, ...]] = FULL
# The same, and those of the second and third object ("shape_2", …), which may be "none".
FACTORS_FULL: dict[str, tuple[str, ...]] = FACTORS | {
    f"{name}_{n}": (NONE, *FACTORS[name]) for n in (2, 3) for name in OBJECT_FACTORS
}


def labels(scene: Scene) -> dict[str, str]:
    """The factors of a scene, as in `FACTORS_FULL`. An object's motion is the first it makes."""
    said = {"ground": scene.ground, "camera": scene.camera.camera}
    for n in range(1, 4):
        thing = scene.objects[n - 1] if n <= len(scene.objects) else None
        for name in OBJECT_FACTORS:
            key = name if n == 1 else f"{name}_{n}"
            said[key] = getattr(thing, name) if thing else NONE
    return said


def sample_scene(
    seed: int,
    *,
    level: str = "basic",
    factors: Mapping[str, str] | None = None,
    num_objects: int | None = None,
    num_events: int | None = None,
    events: Sequence[tuple[float, float, str]] | None = None,
    duration_s: float = DURATION_S,
    held_out: bool = False,
) -> Scene:
    """Draw the scene of a seed.

    level        "basic" (one object; three shapes, seven motions, five cameras) or "full"
    factors      some of `FACTORS_FULL`, set instead of drawn; values of the full world too
    num_objects  1 … 3; drawn in the full world, 1 in the basic one
    num_events   things that the first object does one after another; drawn in the full world
    events       (start, end, motion) of the first object, instead of that
    duration_s   of the clip; motions are spread over it
    held_out     draw the combinations in `HELD_OUT` too: always so for test seeds

    Raises `UsageError` for an unknown level, factor or value, and for events out of order.
    """
    if level not in ("basic", "full"):
        raise UsageError(f"no world level `{level}`", why="there are: basic, full")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed {seed} is not in 0 … 2^32 − 1")
    given = dict(factors or {})
    for name, value in given.items():
        if name not in FACTORS_FULL or value not in FACTORS_FULL[name]:
            known = FACTORS_FULL.get(name, tuple(FACTORS_FULL))
            raise UsageError(
                f"no world factor {name} = `{value}`", why=f"there are: {', '.join(known)}"
            )
    num_objects = _count_objects(given, num_objects)
    if num_events is not None and num_events < 1:
        raise UsageError(f"{num_events} events", why="an object does at least one thing")
    if duration_s <= 0:
        raise UsageError(f"a clip of {duration_s} s")
    if events is not None:
        duration_s = max(duration_s, _check_events(events))

    rng = Random(seed)
    values = BASIC if level == "basic" else FULL
    plan = draw.plan(
        rng,
        values,
        given,
        counts=(num_objects, num_events)
        if level == "full"
        else (num_objects or 1, num_events or 1),
        events=events,
        duration_s=duration_s,
        barred=frozenset() if held_out or seed >= TEST_SEEDS.start else HELD_OUT,
    )
    camera, stage = draw.camera(rng, plan)
    things = draw.objects(rng, plan, camera, stage)
    return Scene(seed, level, plan.ground, things, camera, draw.sun(rng), duration_s)


def _count_objects(given: Mapping[str, str], num_objects: int | None) -> int | None:
    """How many objects the factors and the caller ask for; None if neither does."""
    numbers = {
        n: [given[f"{name}_{n}"] for name in OBJECT_FACTORS if f"{name}_{n}" in given]
        for n in (2, 3)
    }
    there = [n for n, values in numbers.items() if any(v != NONE for v in values)]
    missing = [n for n, values in numbers.items() if NONE in values]
    least = max(there, default=1)
    most = min(missing, default=4) - 1
    if num_objects is not None and not 1 <= num_objects <= 3:
        raise UsageError(f"{num_objects} objects", why="a scene has 1, 2 or 3")
    if least > most or not least <= (num_objects or least) <= most:
        raise UsageError(
            f"{num_objects or least} objects, with factors of {least} and none from {most + 1} on"
        )
    return least if num_objects is None and (there or missing) else num_objects


def _check_events(events: Sequence[tuple[float, float, str]]) -> float:
    """The end of the last event."""
    now = 0.0
    for start, end, motion in events:
        if motion not in FACTORS["motion"]:
            raise UsageError(
                f"no motion `{motion}`", why=f"there are: {', '.join(FACTORS['motion'])}"
            )
        if not now <= start < end:
            raise UsageError(
                f"event `{motion}` from {start} s to {end} s, after one that ends at {now} s",
                why="events of one object follow each other",
            )
        now = end
    if not events:
        raise UsageError("no events", why="an object does at least one thing")
    return now


def with_poses(
    scene: Scene,
    times: Sequence[float],
    c2w: Sequence[Sequence[Sequence[float]]],
    focal: Sequence[float] | None = None,
) -> Scene:
    """The same scene seen by a camera that is at `c2w` (`n 3 4`, OpenCV axes) at `times`, with
    `focal` (fx over width; the scene's own at the start if None). Raises `UsageError` when the
    lengths differ or the times do not rise."""
    focal = [scene.camera.focal] * len(times) if focal is None else focal
    if not 0 < len(times) == len(c2w) == len(focal):
        raise UsageError(f"{len(times)} times, {len(c2w)} poses and {len(focal)} focal lengths")
    if any(b <= a for a, b in pairwise(times)):
        raise UsageError("the times of camera poses do not rise")
    rows = tuple(tuple(float(x) for row in pose for x in row) for pose in c2w)
    if any(len(row) != 12 for row in rows):
        raise UsageError("a camera pose has 3 rows of 4 numbers")
    poses = Poses(tuple(float(t) for t in times), rows, tuple(float(f) for f in focal))
    move = CameraMove("follows a path", 0.0, scene.duration_s)
    return replace(scene, camera=replace(scene.camera, moves=(move,), poses=poses))
