"""What is true of a clip: where everything is in every frame, and what a perfect tracker, depth
camera or observer would report. Computed from the scene, never from pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from einops import rearrange

from vidgen.world import captions, motion, shapes
from vidgen.world.motion import Array, CameraPath, ObjectPath
from vidgen.world.parts import Scene
from vidgen.world.render import GROUND, SKY, geometry

TRACKS = 64
NEAR_M = 0.05  # a point nearer to the camera's plane is not seen
SLACK = 2e-3  # share of its depth by which a point may lie behind a surface and still be on it


@dataclass
class Truth:
    """One clip's truth: T frames of `height × width` pixels, O objects, N tracks.

    times        `T` float64 s
    c2w          `T 3 4` float32, camera to world, OpenCV axes
    intrinsics   `T 4` float32, fx, fy, cx, cy by width and height
    depth        `T H W` float32, z-depth through pixel centers, m; sky +inf
    owner        `T H W` int8: −1 sky, 0 ground, 1 … O objects
    centers      `O T 3` float32, m
    rotations    `O T 3 3` float32, own axes to world
    sizes        `O T` float32, m
    image_centers `O T 3` float32: column and row in pixels, z-depth
    tracks       `N T 2` float32: column and row in pixels (the first pixel's middle is 0.5, 0.5)
    visibility   `N T` bool: in the picture, in front of the camera, nothing in between
    track_owner  `N` int8, as `owner`, of the surface that the track rides on
    events       dicts of object, motion, start, end, text; and impacts: object, impact, speed
    relations    (object, words, object) at the start, as captions say them
    """

    times: Array
    c2w: Array
    intrinsics: Array
    depth: Array
    owner: Array
    centers: Array
    rotations: Array
    sizes: Array
    image_centers: Array
    tracks: Array
    visibility: Array
    track_owner: Array
    events: list[dict[str, Any]] = field(default_factory=list)
    relations: list[tuple[int, str, int]] = field(default_factory=list)


def truth(
    scene: Scene,
    times: Sequence[float],
    height: int = 40,
    width: int = 64,
    *,
    num_tracks: int = TRACKS,
) -> Truth:
    """The truth of a scene at `times` (s). Half of the tracks start on objects, as far as objects
    are seen in the first frame, the others on the ground; at pixels drawn from the scene's seed."""
    t = np.asarray(times, dtype=np.float64)
    path, things = motion.camera_path(scene.camera, t), motion.object_paths(scene, t)
    depth, owner = (x.numpy() for x in geometry(scene, list(times), height, width))
    pixels = _starts(owner[0], num_tracks, scene.seed)
    rides = owner[0].reshape(-1)[pixels]
    finite = np.where(owner[:1] == SKY, 1.0, depth[:1])
    start = unproject(_at(path, 0), finite, width / height)[0].reshape(-1, 3)[pixels]
    points = carried(start, rides, things, 0)  # N T 3
    seen = motion.project(path, rearrange(points, "n t c -> t n c"), width / height)
    seen = rearrange(seen, "t n c -> n t c")
    tracks = seen[..., :2] * (width, height)
    centers = [motion.project(path, thing.center, width / height) for thing in things]
    return Truth(
        times=t,
        c2w=path.c2w.astype(np.float32),
        intrinsics=intrinsics(path, width / height),
        depth=depth,
        owner=owner.astype(np.int8),
        centers=np.stack([thing.center for thing in things]).astype(np.float32),
        rotations=np.stack([thing.rotation for thing in things]).astype(np.float32),
        sizes=np.stack([thing.size for thing in things]).astype(np.float32),
        image_centers=np.stack([c * (width, height, 1) for c in centers]).astype(np.float32),
        tracks=tracks.astype(np.float32),
        visibility=_visible(scene, path, things, points, seen),
        track_owner=rides.astype(np.int8),
        events=event_list(scene),
        relations=captions.relations(scene),
    )


def intrinsics(path: CameraPath, aspect: float) -> Array:
    """`T 4` float32: fx, fy, cx, cy by the picture's width and height."""
    half = np.full(len(path.focal), 0.5)
    return np.stack((path.focal, path.focal * aspect, half, half), axis=-1).astype(np.float32)


def event_list(scene: Scene) -> list[dict[str, Any]]:
    """What happens, by the time it starts: the objects' events and, among them, impacts."""
    found: list[dict[str, Any]] = []
    for number, thing in enumerate(scene.objects):
        for event in thing.events:
            found.append(
                {
                    "object": number,
                    "motion": event.motion,
                    "start": event.start,
                    "end": event.end,
                    "text": captions.event_caption(thing, event),
                }
            )
        for hit in motion.impacts(thing):
            if hit.time <= scene.duration_s:
                found.append(
                    {"object": number, "impact": round(hit.time, 6), "speed": round(hit.speed, 6)}
                )
    return sorted(found, key=lambda e: (e.get("start", e.get("impact")), e["object"]))


def flow(
    scene: Scene, times: Sequence[float], height: int = 40, width: int = 64
) -> tuple[Array, Array]:
    """Optical flow from each frame to the next: `T−1 H W 2` float32, how far what a pixel's middle
    shows goes, in pixels right and down; and `T−1 H W` bool, whether it is seen there in the next
    frame too. The sky is as far away as can be: it moves with the camera's turns alone."""
    t = np.asarray(times, dtype=np.float64)
    path, things = motion.camera_path(scene.camera, t), motion.object_paths(scene, t)
    depth, owner = (x.numpy() for x in geometry(scene, list(times), height, width))
    here = _pixel_grid(height, width)
    flows, kept = [], []
    for i in range(len(t) - 1):
        rides = owner[i].reshape(-1)
        finite = np.where(owner[i : i + 1] == SKY, 1.0, depth[i : i + 1])
        points = unproject(_at(path, i), finite, width / height)[0].reshape(-1, 3)
        points = carried(points, rides, things, i)[:, i + 1]
        # A direction is a point one meter away from wherever the camera is.
        step = path.c2w[i + 1, :, 3] - path.c2w[i, :, 3]
        points = np.where((rides == SKY)[:, None], points + step, points)
        after = _at(path, i + 1)
        seen = motion.project(after, points[None], width / height)
        moved = seen[0, :, :2] * (width, height) - here
        flows.append(moved.reshape(height, width, 2))
        now = [ObjectPath(*(x[i + 1 : i + 2] for x in thing)) for thing in things]
        visible = _visible(scene, after, now, points[:, None], rearrange(seen, "t n c -> n t c"))
        inside = ((seen[0, :, :2] >= 0) & (seen[0, :, :2] < 1)).all(-1) & (seen[0, :, 2] > 0)
        sky = _free(scene, after, now, points[:, None], np.inf)[:, 0] & inside
        kept.append(np.where(rides == SKY, sky, visible[:, 0]).reshape(height, width))
    if not flows:
        return np.zeros((0, height, width, 2), np.float32), np.zeros((0, height, width), bool)
    return np.stack(flows).astype(np.float32), np.stack(kept)


# --- Points


def _at(path: CameraPath, i: int) -> CameraPath:
    return CameraPath(path.c2w[i : i + 1], path.focal[i : i + 1])


def _pixel_grid(height: int, width: int) -> Array:
    """Middles of the pixels, column and row: `H·W 2`."""
    row, column = np.mgrid[:height, :width] + 0.5
    return np.stack((column, row), axis=-1).reshape(-1, 2)


def unproject(path: CameraPath, depth: Array, aspect: float) -> Array:
    """World points `T H W 3` that pixels of z-depth `T H W` show."""
    height, width = depth.shape[1:]
    x, y = np.moveaxis(_pixel_grid(height, width).reshape(height, width, 2), -1, 0)
    focal = path.focal[:, None, None]
    own = np.stack(
        (
            (x / width - 0.5) / focal * depth,
            (y / height - 0.5) / (focal * aspect) * depth,
            depth.astype(np.float64),
        ),
        axis=-1,
    )
    turned = np.einsum("tij,thwj->thwi", path.c2w[:, :, :3], own)
    return turned + path.c2w[:, None, None, :, 3]


def carried(points: Array, rides: Array, things: Sequence[ObjectPath], frame: int) -> Array:
    """Where surface points `N 3` of `frame`, each riding on its owner, are in all frames:
    `N T 3`. A point of an object keeps its place in the object's axes and size."""
    frames = len(things[0].size)
    out = np.repeat(points[:, None], frames, axis=1)
    for number, thing in enumerate(things, start=1):
        mine = rides == number
        own = (points[mine] - thing.center[frame]) @ thing.rotation[frame] / thing.size[frame]
        turned = np.einsum("tij,nj->nti", thing.rotation, own)
        out[mine] = thing.center + thing.size[:, None] * turned
    return out


def _starts(owner: Array, count: int, seed: int) -> Array:
    """Flat numbers of `count` pixels: half on objects, the rest on the ground, as far as there
    are any; a pixel may come twice when there are few."""
    rng = np.random.default_rng([seed, 0x7AC5])
    flat = owner.reshape(-1)
    on_objects, on_ground = np.flatnonzero(flat > GROUND), np.flatnonzero(flat == GROUND)
    if not len(on_objects) or not len(on_ground):
        pool = np.flatnonzero(flat != SKY)
        return rng.choice(pool, count) if len(pool) else np.zeros(0, np.int64)
    half = count // 2
    return np.concatenate((rng.choice(on_objects, half), rng.choice(on_ground, count - half)))


def _visible(
    scene: Scene, path: CameraPath, things: Sequence[ObjectPath], points: Array, seen: Array
) -> Array:
    """Whether surface points `N T 3`, projected to `seen` (`N T 3`: shares of the picture, depth),
    are in the picture and not behind anything: `N T`."""
    inside = ((seen[..., :2] >= 0) & (seen[..., :2] < 1)).all(axis=-1) & (seen[..., 2] > NEAR_M)
    return inside & _free(scene, path, things, points, 1 - SLACK)


def _free(
    scene: Scene, path: CameraPath, things: Sequence[ObjectPath], points: Array, limit: float
) -> Array:
    """Whether no object is met on the way from the camera to `limit` times the way to the points.
    `N T`. The ground hides nothing that is above it."""
    eye = path.c2w[:, :, 3]
    free = np.ones(points.shape[:2], dtype=bool)
    for body, thing in zip(scene.objects, things, strict=True):
        scaled = thing.rotation / thing.size[:, None, None]  # world to own, from the right
        o = np.einsum("tw,twl->tl", eye - thing.center, scaled)
        d = np.einsum("ntw,twl->ntl", points - eye, scaled)
        # One ray from the eye to each point: the point is at t = 1.
        t, _ = shapes.INTERSECT[body.shape](_columns(np.broadcast_to(o, d.shape)), _columns(d))
        free &= t.numpy() >= limit
    return free


def _columns(v: Array) -> shapes.XYZ:
    x, y, z = (torch.from_numpy(np.ascontiguousarray(v[..., i])) for i in range(3))
    return x, y, z
