"""What a renderer needs to know of scenes, frame by frame: poses, stacked, and which cells of a
picture can show an object or its shadow at all. NumPy float32; F = scenes × times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidgen.world import motion
from vidgen.world.parts import BOUND, Scene
from vidgen.world.vocabulary import GROUNDS

NEAR = 0.1  # meters; what is nearer to the camera's plane has no rectangle


@dataclass
class Bodies:
    """One slot of objects; `shape` is None where a scene has fewer objects."""

    shape: list[str | None]
    center: np.ndarray  # F 3
    rotation: np.ndarray  # F 3 3
    size: np.ndarray  # F
    albedo: np.ndarray  # F 3

    def part(self, part: slice) -> Bodies:
        arrays = (x[part] for x in (self.center, self.rotation, self.size, self.albedo))
        return Bodies(self.shape[part], *arrays)

    def by_shape(self) -> list[tuple[str, np.ndarray]]:
        """The shapes there are, with the numbers of their frames."""
        kinds = sorted({name for name in self.shape if name})
        return [(k, np.array([i for i, n in enumerate(self.shape) if n == k])) for k in kinds]


@dataclass
class Views:
    """All frames of all scenes, one after another."""

    c2w: np.ndarray  # F 3 4
    focal: np.ndarray  # F, fx over width
    ground: np.ndarray  # F 3
    sun: np.ndarray  # F 3
    slots: list[Bodies]

    def part(self, part: slice) -> Views:
        c2w, focal, ground, sun = (x[part] for x in (self.c2w, self.focal, self.ground, self.sun))
        return Views(c2w, focal, ground, sun, [bodies.part(part) for bodies in self.slots])


def gather(scenes: Sequence[Scene], times: Sequence[float]) -> Views:
    """The poses of everything in every frame."""
    cameras = [motion.camera_path(scene.camera, times) for scene in scenes]
    things = [motion.object_paths(scene, times) for scene in scenes]
    nothing = motion.nothing(len(times))
    slots = []
    for slot in range(max(len(paths) for paths in things)):
        paths = [p[slot] if slot < len(p) else nothing for p in things]
        names = [s.objects[slot].shape if slot < len(s.objects) else None for s in scenes]
        stacked = (np.concatenate(x).astype(np.float32) for x in zip(*paths, strict=True))
        slots.append(Bodies([name for name in names for _ in times], *stacked))

    def each(rows: list[tuple[float, float, float]]) -> np.ndarray:
        return np.repeat(np.array(rows, dtype=np.float32), len(times), axis=0)

    return Views(
        c2w=np.concatenate([c.c2w for c in cameras]).astype(np.float32),
        focal=np.concatenate([c.focal for c in cameras]).astype(np.float32),
        ground=each([GROUNDS[s.ground].albedo for s in scenes]),
        sun=each([s.sun for s in scenes]),
        slots=slots,
    )


_CORNERS = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
_AROUND = np.stack([f(np.arange(12) * (2 * np.pi / 12)) for f in (np.cos, np.sin)], axis=-1)
_AROUND /= np.cos(np.pi / 12)  # a twelve-sided figure about the unit circle


def body_areas(views: Views, slot: int, height: int, width: int) -> np.ndarray:
    """Rectangles `F 4` (first row, last row + 1, first column, last column + 1) of a picture of
    `height × width` cells that hold the bodies of a slot: about the box, turned with the camera,
    about their bounding spheres."""
    bodies = views.slots[slot]
    corners = np.einsum("kc,fwc->fkw", _CORNERS, views.c2w[:, :, :3])
    return _bounds(bodies.center[:, None] + _radius(bodies) * corners, views, height, width)


def shadow_areas(views: Views, slot: int, height: int, width: int) -> np.ndarray:
    """The same for their shadows on the ground. A sphere's is an ellipse: the sphere's radius
    across the light, and that over the sine of the sun's height along it."""
    bodies, sun = views.slots[slot], views.sun
    along = sun[:, [0, 2]] / np.maximum(np.hypot(sun[:, 0], sun[:, 2])[:, None], 1e-6)
    across = along[:, ::-1] * (1, -1)
    foot = bodies.center[:, [0, 2]] - sun[:, [0, 2]] / sun[:, 1:2] * bodies.center[:, 1:2]
    ellipse = np.einsum("ka,fa...->fk...", _AROUND, np.stack((along / sun[:, 1:2], across), axis=1))
    flat = foot[:, None] + _radius(bodies) * ellipse
    points = np.stack((flat[..., 0], np.zeros_like(flat[..., 0]), flat[..., 1]), axis=-1)
    return _bounds(points, views, height, width)


def _radius(bodies: Bodies) -> np.ndarray:
    """Of the bounding spheres, `F 1 1`."""
    bound = np.array([BOUND[name] if name else 0.0 for name in bodies.shape])
    return (bound * bodies.size)[:, None, None]


def _bounds(points: np.ndarray, views: Views, height: int, width: int) -> np.ndarray:
    """Rectangles that hold the pictures of points `F k 3`: all of the picture if some of them are
    behind the camera, nothing of it if all are."""
    path = motion.CameraPath(views.c2w, views.focal)
    column, row, z = np.moveaxis(motion.project(path, points, width / height), -1, 0)
    column, row = column * width, row * height
    edges = (row.min(axis=1), row.max(axis=1) + 1, column.min(axis=1), column.max(axis=1) + 1)
    whole = np.array((0, height, 0, width))
    some, all_ = (z < NEAR).any(axis=1), (z < NEAR).all(axis=1)
    found = np.where(some[:, None], whole, np.stack(edges, axis=-1))
    found[all_] = 0
    return np.clip(np.floor(found), 0, (height, height, width, width)).astype(np.int64)


def cells(
    areas: np.ndarray, frames: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The cells in the rectangles of these frames: flat index over f h w, and frame."""
    top, bottom, left, right = areas[frames].T
    wide = np.maximum(right - left, 0)
    count = np.maximum(bottom - top, 0) * wide
    number = np.repeat(np.arange(len(frames)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(within, np.maximum(wide, 1)[number])
    frame = frames[number]
    return (frame * height + row + top[number]) * width + column + left[number], frame
