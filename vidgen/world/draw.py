"""Drawing a scene: first the plan (who is there and does what), then where, how far, how fast.

Scenes are composed for the middle of the clip: the "stage" is where the camera is by then, objects
are placed by what share of the picture's width they are off its center, and every motion and
camera move is centered on that moment. Amounts are chosen to be plain to see at 64 pixels' width
and in the five frames 0, 0.5 … 2 s.

The order of draws is part of the seeds' meaning. The basic world's is frozen: models have been
trained on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random

import numpy as np

from vidgen.world import motion
from vidgen.world.parts import BOUND, Camera, CameraMove, Event, Object, Vector
from vidgen.world.vocabulary import COLORS

Act = tuple[float, float, str]  # start, end, motion
Triple = tuple[str, str, str]  # shape, color, motion

ASPECT = 1.6  # width over height, for what counts as in view
TRIES = 60  # at placing objects side by side; then the last attempt is taken as it is


@dataclass(frozen=True)
class Role:
    """An object before it has a place."""

    shape: str
    color: str
    acts: tuple[Act, ...]


@dataclass(frozen=True)
class Plan:
    """What a scene is about."""

    roles: tuple[Role, ...]
    ground: str
    camera: str
    duration_s: float

    @property
    def plain(self) -> bool:
        """One object that does one thing: always in view, so placed without a second look."""
        return len(self.roles) == 1 and len(self.roles[0].acts) == 1


@dataclass(frozen=True)
class Stage:
    """The camera halfway through the clip."""

    position: Vector
    yaw: float
    focal: float

    @property
    def right(self) -> Vector:
        return (math.cos(self.yaw), 0.0, math.sin(self.yaw))

    @property
    def forward(self) -> Vector:
        """Laid on the ground."""
        return (math.sin(self.yaw), 0.0, -math.cos(self.yaw))

    def spot(self, depth: float, across: float) -> Vector:
        """From the camera to what is `depth` m ahead, `across` widths right of the middle."""
        return add(scale(depth, self.forward), scale(across * depth / self.focal, self.right))


def scale(k: float, v: Vector) -> Vector:
    return (k * v[0], k * v[1], k * v[2])


def add(a: Vector, b: Vector) -> Vector:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def sign(rng: Random) -> int:
    return rng.choice((-1, 1))


# --- The plan


def plan(
    rng: Random,
    values: Mapping[str, tuple[str, ...]],
    given: Mapping[str, str],
    *,
    counts: tuple[int | None, int | None],
    events: Sequence[Act] | None,
    duration_s: float,
    barred: frozenset[Triple],
) -> Plan:
    """Factors of the scene. `counts`: objects and events, drawn where None; `barred`: shape, color
    and motion that may not come together, unless all three are given."""

    def pick(name: str) -> str:
        return values[name][int(rng.random() * len(values[name]))]

    while True:
        first = {name: pick(name) for name in values} | dict(given)
        asked = {"shape", "color", "motion"} <= set(given)
        if asked or (first["shape"], first["color"], first["motion"]) not in barred:
            break
    num_objects, num_events = counts
    if num_objects is None:
        num_objects = _count(rng, (0.4, 0.8))
    if num_events is None:
        num_events = 1 if num_objects > 1 else _count(rng, (0.7, 0.93))
    acts: tuple[Act, ...] = ((0.0, duration_s, first["motion"]),)
    if events is not None:
        acts = tuple(events)
    elif num_events > 1:
        looks = (first["shape"], first["color"])
        acts = _sequence(rng, values["motion"], acts[0][2], num_events, duration_s, looks, barred)
    roles = [Role(first["shape"], first["color"], acts)]
    for n in range(2, num_objects + 1):
        fixed = {name: given[f"{name}_{n}"] for name in ("shape", "color", "motion")
                 if given.get(f"{name}_{n}", "none") != "none"}  # fmt: skip
        while True:
            other = {name: pick(name) for name in ("shape", "color", "motion")} | fixed
            looks = (other["shape"], other["color"])
            # A caption must be able to tell them apart.
            alike = any(looks == (role.shape, role.color) for role in roles)
            if len(fixed) == 3 or (not alike and (*looks, other["motion"]) not in barred):
                break
        roles.append(Role(*looks, ((0.0, duration_s, other["motion"]),)))
    return Plan(tuple(roles), first["ground"], first["camera"], duration_s)


def _count(rng: Random, shares: tuple[float, float]) -> int:
    """1, 2 or 3, with these cumulative probabilities of 1 and of 1 or 2."""
    u = rng.random()
    return 1 + sum(u > share for share in shares)


def _sequence(
    rng: Random,
    motions: Sequence[str],
    first: str,
    count: int,
    duration_s: float,
    looks: tuple[str, str],
    barred: frozenset[Triple],
) -> tuple[Act, ...]:
    """Motions that can follow each other, of about equal length."""
    cuts = [0.0]
    for i in range(1, count):
        cuts.append(round(duration_s * (i + rng.uniform(-0.15, 0.15)) / count, 3))
    cuts.append(duration_s)
    done = [first]
    while len(done) < count:
        name = motions[int(rng.random() * len(motions))]
        lifted = "rises" in done and "falls" not in done[done.index("rises") :]
        fits = name in ("falls", "spins", "stays still") if lifted else name != "falls"
        if fits and name != done[-1] and (*looks, name) not in barred:
            done.append(name)
    return tuple(zip(cuts, cuts[1:], done, strict=False))


# --- The camera


def camera(rng: Random, plan: Plan) -> tuple[Camera, Stage]:
    """The camera of a plan, and the stage it sets."""
    name, end = plan.camera, plan.duration_s
    position = (rng.uniform(-2, 2), rng.uniform(1.15, 1.35), rng.uniform(-2, 2))
    # Near one of the checker's axes: a ground seen at any angle would cost a small model much.
    yaw = rng.choice((0, 1, 2, 3)) * math.pi / 2 + rng.uniform(-0.35, 0.35)
    pitch = rng.uniform(0.12, 0.22)
    focal = rng.uniform(0.88, 1.04)  # horizontal field of view 59° … 51°
    pan, zoom = rng.uniform(0.28, 0.36), rng.uniform(1.45, 1.65)
    stage = Stage(position, yaw, focal)
    move = CameraMove(name, 0.0, end)
    if name in ("pans left", "pans right"):
        move = replace(move, pan=-pan if name == "pans left" else pan)
    elif name in ("zooms in", "zooms out"):
        move = replace(move, zoom=zoom if name == "zooms in" else 1 / zoom)
    elif name in ("tilts up", "tilts down"):
        tilt = rng.uniform(0.20, 0.26)
        move = replace(move, tilt=tilt if name == "tilts up" else -tilt)
    elif name in ("orbits left", "orbits right"):
        orbit = rng.uniform(0.6, 0.8)
        pivot = add(position, stage.spot(3.5, 0.0))
        move = replace(move, orbit=-orbit if name == "orbits left" else orbit, pivot=pivot)
    elif name in ("dollies in", "dollies out"):
        way = rng.uniform(1.0, 1.3)
        move = replace(move, shift=scale(way if name == "dollies in" else -way, stage.forward))
    elif name in ("trucks left", "trucks right"):
        way = rng.uniform(1.0, 1.3)
        move = replace(move, shift=scale(-way if name == "trucks left" else way, stage.right))
    elif name == "follows a path":
        return _bent_path(rng, stage, pitch, end), stage

    back = motion.orbited(np.array([position]), np.array([-move.orbit / 2]), move.pivot)[0]
    start = add((float(back[0]), float(back[1]), float(back[2])), scale(-0.5, move.shift))
    return Camera(
        position=start,
        yaw=yaw - move.pan / 2 + move.orbit / 2,
        pitch=pitch + move.tilt / 2,
        focal=focal / math.sqrt(move.zoom),
        moves=(move,),
    ), stage


def _bent_path(rng: Random, stage: Stage, pitch: float, end: float) -> Camera:
    """Two straight pieces with some turning, that meet at the stage."""

    def piece(start: float, end: float) -> CameraMove:
        across = scale(rng.uniform(-0.7, 0.7), stage.right)
        ahead = scale(rng.uniform(-0.6, 0.6), stage.forward)
        shift = add(add(across, ahead), (0.0, rng.uniform(-0.25, 0.25), 0.0))
        pan, tilt = rng.uniform(-0.18, 0.18), rng.uniform(-0.07, 0.07)
        return CameraMove("follows a path", start, end, pan=pan, tilt=tilt, shift=shift)

    first, second = piece(0.0, end / 2), piece(end / 2, end)
    return Camera(
        position=add(stage.position, scale(-1, first.shift)),
        yaw=stage.yaw - first.pan,
        pitch=pitch + first.tilt,
        focal=stage.focal,
        moves=(first, second),
    )


def sun(rng: Random) -> Vector:
    """Unit vector towards the sun, 37° … 60° high."""
    elevation, azimuth = rng.uniform(0.65, 1.05), rng.uniform(0, 2 * math.pi)
    flat = math.cos(elevation)
    return (flat * math.cos(azimuth), math.sin(elevation), flat * math.sin(azimuth))


# --- The objects


def objects(rng: Random, plan: Plan, camera: Camera, stage: Stage) -> tuple[Object, ...]:
    """The objects of a plan: in view, and not inside each other, if tries enough are made."""
    count = len(plan.roles)
    for _ in range(TRIES):
        lanes = rng.sample(range(count), count) if count > 1 else [0]
        things = tuple(
            _object(rng, role, plan, stage, lane)
            for role, lane in zip(plan.roles, lanes, strict=True)
        )
        if plan.plain or _fits(things, camera, plan.duration_s):
            break
    return things


def _fits(things: Sequence[Object], camera: Camera, duration_s: float) -> bool:
    """Centers in view and bodies apart, at nine moments of the clip."""
    times = np.linspace(0, duration_s, 9)
    path = motion.camera_path(camera, times)
    paths = [motion.object_path(thing, times) for thing in things]
    for p in paths:
        seen = motion.project(path, p.center, ASPECT)
        inside = (seen[:, :2] > 0.0) & (seen[:, :2] < 1.0)
        if seen[:, 2].min() < 1.5 or not inside.all():
            return False
    for (a, p), (b, q) in combinations(zip(things, paths, strict=True), 2):
        apart = np.hypot(*(p.center - q.center)[:, [0, 2]].T)
        if (apart < 0.85 * (BOUND[a.shape] * p.size + BOUND[b.shape] * q.size)).any():
            return False
    return True


@dataclass(frozen=True)
class _Luck:
    """Draws that every object makes, whatever it does."""

    travel: float  # widths crossed by a way left or right
    near: float
    far: float
    spin: float
    arcs: tuple[float, float, float]  # height, period and phase of bounces


def _object(rng: Random, role: Role, plan: Plan, stage: Stage, lane: int) -> Object:
    count = len(plan.roles)
    size = rng.uniform(0.8, 1.05)
    depth = rng.uniform(2.9, 3.9)
    sideways = any(word in plan.camera for word in ("pans", "trucks", "orbits", "path"))
    across = rng.uniform(-0.06, 0.06) if sideways else rng.uniform(-0.16, 0.16)
    luck = _Luck(
        travel=rng.uniform(0.32, 0.40),
        near=rng.uniform(2.3, 2.5),
        far=rng.uniform(4.1, 4.6),
        spin=sign(rng) * rng.uniform(2.4, 3.2),
        arcs=(0.0, 0.0, 0.0),
    )
    heading = rng.uniform(0, 2 * math.pi)
    towards = rng.uniform(-0.4, 0.4)
    luck = replace(luck, arcs=_bounce(rng))
    if count > 1:
        # Side by side, smaller and further away, and with shorter ways.
        size *= (0.82, 0.74)[count - 2]
        depth += (0.4, 0.8)[count - 2]
        across = (lane - (count - 1) / 2) * (0.40, 0.29)[count - 2] + 0.3 * across
        luck = replace(luck, travel=0.6 * luck.travel, near=luck.near + 0.7, far=luck.far + 0.3)

    names = {name for _, _, name in role.acts}
    if names & {"moves left", "moves right"} and count == 1:
        across /= 2
    if names & {"comes closer", "moves away"} and len(role.acts) == 1:
        depth = (luck.near + luck.far) / 2
    if role.acts[0][2] == "spins":
        # The mark faces the camera, more or less, halfway through.
        back = scale(-1, stage.forward)
        heading = math.atan2(back[0], back[2]) + towards - luck.spin / 2
    elif "grows" in names or "shrinks" in names:
        size *= 0.8
    line = stage.spot(1.0, across)  # the line of sight, which ways closer and away follow
    color, events, facing = role.color, [], heading
    for start, end, name in role.acts:
        # A ring rolls along its own x axis, everything else goes where its mark faces.
        ahead = facing + math.pi / 2 if role.shape == "ring" else facing
        event = _event(
            rng, Event(name, start, end), luck, stage, line, depth, ahead, len(role.acts)
        )
        if name == "changes colour":
            color = _other_color(rng, color, {r.color for r in plan.roles})
            event = replace(event, color=color)
        facing += event.spin - event.turn
        events.append(event)
    middle = add(stage.position, scale(depth, line))
    return _placed(role, size, heading, tuple(events), middle)


def _event(
    rng: Random, event: Event, luck: _Luck, stage: Stage, line: Vector, depth: float,
    ahead: float, num_events: int,
) -> Event:  # fmt: skip
    """The amounts of an event. One that is shorter than 2 s goes less far."""
    length = event.end - event.start
    less = max(0.6, min(1.0, length / 2))
    name = event.motion
    if name in ("moves left", "moves right"):
        way = (-1 if name == "moves left" else 1) * luck.travel * less * depth / stage.focal
        return replace(event, shift=scale(way, stage.right))
    if name in ("comes closer", "moves away"):
        way = (luck.far - luck.near) * (1.0 if num_events == 1 else 0.5)
        return replace(event, shift=scale(-way if name == "comes closer" else way, line))
    if name == "bounces":
        height, period, phase = luck.arcs
        if num_events > 1:  # whole arcs, from the ground to the ground
            period, phase = length / max(1, round(length / period)), 0.0
        return replace(event, height=height, period=period, phase=phase)
    if name == "spins":
        return replace(event, spin=luck.spin * length / 2)
    if name == "rises":
        return replace(event, shift=(0.0, rng.uniform(0.6, 0.85), 0.0))
    if name == "falls":
        return replace(event, fall=rng.uniform(0.6, 0.85))
    if name == "rolls in a circle":
        turn = sign(rng) * rng.uniform(5.0, 6.1) * less
        # The way starts out in the direction `ahead`.
        bearing = -ahead if turn > 0 else math.pi - ahead
        return replace(event, circle=rng.uniform(0.42, 0.55), turn=turn, bearing=bearing)
    if name in ("grows", "shrinks"):
        factor = rng.uniform(1.7, 1.95)
        return replace(event, grow=factor if name == "grows" else 1 / factor)
    return event


def _other_color(rng: Random, color: str, taken: set[str]) -> str:
    """A color that no object has and that cannot be mistaken for this one."""
    far = [
        name
        for name, word in COLORS.items()
        if name not in taken and math.dist(word.albedo, COLORS[color].albedo) > 0.6
    ]
    return rng.choice(far)


def _placed(
    role: Role, size: float, heading: float, events: tuple[Event, ...], middle: Vector
) -> Object:
    """Put the object where its way, its circle and its growth have their middle at `middle`."""
    way, height, lowest = (0.0, 0.0, 0.0), 0.0, 0.0
    for event in events:
        way = add(way, event.shift)
        height += event.shift[1] - event.fall
        lowest = min(lowest, height)
        size /= math.sqrt(event.grow)
    start = add(middle, scale(-0.5, way))
    for event in events:
        out = (math.cos(event.bearing), 0.0, math.sin(event.bearing))
        start = add(start, scale(event.circle, out))
    return Object(role.shape, role.color, size, start[0], start[2], heading, events, lift=-lowest)


def _bounce(rng: Random) -> tuple[float, float, float]:
    """Height, period and phase of bounces that the five keyframes show both low and high."""
    while True:
        height, period, phase = rng.uniform(0.6, 0.85), rng.uniform(0.8, 1.1), rng.random()
        along = [(phase + 0.5 * i / period) % 1 for i in range(5)]
        levels = [4 * s * (1 - s) for s in along]
        if min(levels) < 0.15 and max(levels) > 0.85 and max(levels[:3]) - min(levels[:3]) > 0.5:
            return height, period, phase
