"""Film scenes: analytic ray casting in torch, many clips and frames at once.

A ray's direction is left with unit length along the camera's axis, so the ray parameter *is*
z-depth. The ground and the sky are computed for every ray; an object only for the rays inside the
picture's rectangle that holds it, and its shadow only inside the rectangle that holds that. Frames
go through in chunks that fit the processor's cache, scenes of the same shapes side by side.
All shading is in sRGB, so anti-aliasing is a plain mean of what a larger picture would show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from vidgen.errors import UsageError
from vidgen.world import motion, shapes
from vidgen.world.scene import Scene
from vidgen.world.vocabulary import GROUNDS

HORIZON = (0.74, 0.83, 0.93)
ZENITH = (0.46, 0.67, 0.90)
TILE = 0.8  # side of the ground's checks, meters
CONTRAST = 0.20  # of the checks, up and down
AMBIENT, DIFFUSE = 0.58, 0.50  # light from everywhere, light from the sun
HAZE_M = 45.0  # distance over which the ground fades into the horizon
CHECK_FADE_M = 10.0  # distance over which checks fade, before they get finer than pixels

RAYS_PER_CHUNK = {"cpu": 2**17, "cuda": 2**24}
XYZ = shapes.XYZ


@dataclass
class Render:
    """frames uint8 `b t h w 3`; depth float32 `b t h w`, z-depth in meters, sky +inf, or None."""

    frames: Tensor
    depth: Tensor | None = None


@dataclass
class Bodies:
    """One slot of objects for F frames; `shape` is None where a scene has fewer objects."""

    shape: list[str | None]
    center: np.ndarray  # F 3
    rotation: np.ndarray  # F 3 3
    size: np.ndarray  # F
    albedo: np.ndarray  # F 3


@dataclass
class Views:
    """All frames of all scenes, one after another: F = scenes × times. NumPy float32."""

    c2w: np.ndarray  # F 3 4
    focal: np.ndarray  # F, fx over width
    ground: np.ndarray  # F 3
    sun: np.ndarray  # F 3
    slots: list[Bodies]


def frame_times(num_frames: int, fps: float) -> list[float]:
    """Seconds of each frame."""
    return [i / fps for i in range(num_frames)]


@torch.no_grad()
def render(
    scenes: Sequence[Scene],
    *,
    num_frames: int = 17,
    fps: float = 8,
    times: Sequence[float] | None = None,
    height: int = 40,
    width: int = 64,
    antialias: int = 2,
    device: str | torch.device = "cpu",
    depth: bool = False,
) -> Render:
    """Pictures of scenes, on `device`.

    times      seconds of each frame; without it `num_frames` at `fps`
    antialias  rays per pixel along each side
    depth      also z-depth through each pixel's center

    A scene's picture does not depend on the scenes rendered with it. Raises `UsageError` for no
    scenes and for sizes below 1.
    """
    if times is None:
        times = frame_times(num_frames, fps)
    if not scenes or not len(times) or min(height, width, antialias) < 1:
        raise UsageError(
            f"nothing to render: {len(scenes)} scenes, {len(times)} frames, "
            f"{height}x{width} pixels, antialias {antialias}"
        )
    # Neighbors of the same shapes share chunks, and so share calls.
    order = sorted(range(len(scenes)), key=lambda i: [thing.shape for thing in scenes[i].objects])
    views = gather([scenes[i] for i in order], times)
    device = torch.device(device)
    colors, depths = [], []
    budget = RAYS_PER_CHUNK.get(device.type, 2**20)
    per_chunk = max(1, budget // (height * width * antialias**2))
    for first in range(0, len(views.focal), per_chunk):
        part = slice(first, first + per_chunk)
        color = _cast(views, part, height * antialias, width * antialias, device)[0]
        # Not a reduction: a fixed order of additions keeps frames independent of the batch.
        tiles = rearrange(color, "c f (h i) (w j) -> (i j) c f h w", i=antialias, j=antialias)
        mean = sum(tiles[1:], start=tiles[0]) * (255.0 / antialias**2)
        colors.append(rearrange(mean.round().to(torch.uint8), "c f h w -> f h w c"))
        if depth:
            depths.append(_cast(views, part, height, width, device, colored=False)[1])
    back = torch.tensor(np.argsort(order), device=device)
    frames = rearrange(torch.cat(colors), "(b t) h w c -> b t h w c", t=len(times))[back]
    if not depth:
        return Render(frames.contiguous())
    z = rearrange(torch.cat(depths), "(b t) h w -> b t h w", t=len(times))[back]
    return Render(frames.contiguous(), z.contiguous())


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
    return Views(
        c2w=np.concatenate([c.c2w for c in cameras]).astype(np.float32),
        focal=np.concatenate([c.focal for c in cameras]).astype(np.float32),
        ground=_each(np.array([GROUNDS[s.ground].albedo for s in scenes]), len(times)),
        sun=_each(np.array([s.sun for s in scenes]), len(times)),
        slots=slots,
    )


def _each(rows: np.ndarray, times: int) -> np.ndarray:
    return repeat(rows.astype(np.float32), "b c -> (b t) c", t=times)


def _cast(
    views: Views, part: slice, height: int, width: int, device: torch.device, colored: bool = True
) -> tuple[Tensor, Tensor]:
    """One ray through the middle of each of `height × width` cells of each frame of `part` →
    color `3 f h w` (zeros unless `colored`), z-depth `f h w`."""

    def put(x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(device)

    c2w, focal, sun = (put(x[part]) for x in (views.c2w, views.focal, views.sun))
    # Ray of column x, row y: right·x + down·y + forward, x and y in units of the focal length.
    column = (torch.arange(width, device=device) + 0.5) / width - 0.5
    row = ((torch.arange(height, device=device) + 0.5) / height - 0.5) * (height / width)
    x = column / focal[:, None]  # f w
    y = row / focal[:, None]  # f h

    def ray(axis: int) -> Tensor:
        a, b, c = c2w[:, axis, :3, None].unbind(1)
        return (a * x)[:, None, :] + (b * y + c)[:, :, None]  # f h w

    dx, dy, dz = ray(0), ray(1), ray(2)
    eye = c2w[:, :, 3]
    z = torch.where(dy < -1e-6, eye[:, 1, None, None] / -dy, torch.inf)
    seen = z.clamp(max=1e4)  # finite, for the sky's share of the arithmetic
    lit = torch.ones_like(z)
    areas = [_areas(views, part, slot, height, width) for slot in range(len(views.slots))]
    bodies = [
        (slot, shape, frames)
        for slot in range(len(views.slots))
        for shape, frames in _by_shape(views.slots[slot].shape[part])
    ]
    local = {}
    for slot, shape, frames in bodies:
        local[slot, shape] = into = _local(views.slots[slot], views, part, put)
        if not colored:
            continue
        at, frame = _cells(areas[slot].shadow, frames, height, width, device)
        if not len(at):
            continue
        o, d = _local_rays(into, frame, at, x, y, height, width)
        t = seen.view(-1)[at]
        toward_sun = shapes.pick(into.sun, frame)
        blocked = shapes.INTERSECT[shape](shapes.along(o, t, d), toward_sun)[0] < torch.inf
        lit.view(-1)[at] *= torch.where(blocked, 0.0, 1.0)

    color = torch.zeros((3, *z.shape), device=device)
    if colored:
        ground = put(views.ground[part])
        _paint_background(color, (dx, dy, dz), eye, sun, ground, z, seen, lit)
    for slot, shape, frames in bodies:
        at, frame = _cells(areas[slot].body, frames, height, width, device)
        if not len(at):
            continue
        into = local[slot, shape]
        o, d = _local_rays(into, frame, at, x, y, height, width)
        t, normal = shapes.INTERSECT[shape](o, d)
        before = z.view(-1)[at]
        hit = t < before
        z.view(-1)[at] = torch.where(hit, t, before)
        if not colored:
            continue
        t = torch.where(hit, t, 0.0)
        mark = shapes.marked(shapes.along(o, t, d))
        # The sun in units of the object's size: its length is 1 / size.
        light = shapes.dot(normal, shapes.pick(into.sun, frame)) * into.size[frame]
        light = light.clamp(min=0)
        # From above comes a little more light than from below.
        light = AMBIENT * (0.9 + 0.2 * normal[1]) + DIFFUSE * light
        flat = color.view(3, -1)
        for i in range(3):
            albedo = torch.where(mark, into.mark[i][frame], into.albedo[i][frame])
            flat[i, at] = torch.where(hit, (albedo * light).clamp(max=1), flat[i, at])
    return color, z


def _paint_background(
    color: Tensor, d: XYZ, eye: Tensor, sun: Tensor, ground: Tensor,
    z: Tensor, seen: Tensor, lit: Tensor,
) -> None:  # fmt: skip
    """Ground with checks, shadows and haze; sky with a gradient. Writes `color`, `3 f h w`."""
    dx, dy, dz = d
    parity = torch.floor((eye[:, 0, None, None] + seen * dx) * (1 / TILE))
    parity += torch.floor((eye[:, 2, None, None] + seen * dz) * (1 / TILE))
    parity -= 2 * torch.floor(parity * 0.5)  # 0 or 1
    fade = torch.exp(seen * (-1 / CHECK_FADE_M))
    tone = 1 + CONTRAST * (2 * parity - 1) * fade
    tone *= AMBIENT * 1.1 + DIFFUSE * sun[:, 1, None, None] * lit
    haze = 1 - torch.exp(seen * (-1 / HAZE_M))
    sky = z == torch.inf
    height = (dy * (1 / 0.45)).clamp(0, 1)
    for i in range(3):
        far, top = HORIZON[i], ZENITH[i]
        earth = tone * ground[:, i, None, None]
        earth += (far - earth) * haze
        torch.where(sky, far + (top - far) * height, earth, out=color[i])


@dataclass
class _Local:
    """Frames seen from an object's own axes, in units of its size: each entry is one number per
    frame. A camera ray is `right·x + down·y + forward` from `eye`."""

    eye: XYZ
    right: XYZ
    down: XYZ
    forward: XYZ
    sun: XYZ
    size: Tensor
    albedo: XYZ
    mark: XYZ


def _local(
    bodies: Bodies, views: Views, part: slice, put: Callable[[np.ndarray], Tensor]
) -> _Local:
    turn, size = bodies.rotation[part], bodies.size[part, None]
    c2w = views.c2w[part]

    def columns(v: np.ndarray) -> XYZ:
        x, y, z = put(v.T)
        return x, y, z

    def own(v: np.ndarray) -> XYZ:
        return columns(np.einsum("fwl,fw->fl", turn, v) / size)

    albedo = bodies.albedo[part]
    return _Local(
        eye=own(c2w[:, :, 3] - bodies.center[part]),
        right=own(c2w[:, :, 0]),
        down=own(c2w[:, :, 1]),
        forward=own(c2w[:, :, 2]),
        sun=own(views.sun[part]),
        size=put(bodies.size[part]),
        albedo=columns(albedo),
        mark=columns(mark_albedo(albedo)),
    )


def mark_albedo(albedo: np.ndarray) -> np.ndarray:
    """The mark is a much lighter tone of the object's color; on white, where there is none, a
    darker one. `… 3` → `… 3`."""
    lighter = albedo + 0.7 * (1 - albedo)
    white = albedo.min(axis=-1, keepdims=True) > 0.85
    return np.where(white, 0.55 * albedo, lighter).astype(albedo.dtype)


def _local_rays(
    into: _Local, frame: Tensor, at: Tensor, x: Tensor, y: Tensor, height: int, width: int
) -> tuple[XYZ, XYZ]:
    """Origins and directions of the rays of cells `at` (flat over f h w) in the object's axes."""
    rows = torch.div(at, width, rounding_mode="floor")  # f·h + row
    xs = x.view(-1)[at + (frame - rows) * width]
    ys = y.view(-1)[rows]
    right, down, forward = (
        shapes.pick(axis, frame) for axis in (into.right, into.down, into.forward)
    )
    d = shapes.along(shapes.along(forward, xs, right), ys, down)
    return shapes.pick(into.eye, frame), d


@dataclass
class _Areas:
    """Rectangles per frame, `f 4`: first row, last row + 1, first column, last column + 1."""

    body: np.ndarray
    shadow: np.ndarray


def _by_shape(names: list[str | None]) -> list[tuple[str, np.ndarray]]:
    """The shapes of a slot with the frames that have them."""
    kinds = sorted({name for name in names if name})
    return [(kind, np.array([i for i, n in enumerate(names) if n == kind])) for kind in kinds]


_AROUND = np.stack([f(np.arange(12) * (2 * np.pi / 12)) for f in (np.cos, np.sin)], axis=-1)
_CORNERS = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])


def _areas(views: Views, part: slice, slot: int, height: int, width: int) -> _Areas:
    """Where each frame's object and its shadow can be seen: bounds from the box about the
    bounding sphere, and from a twelve-sided figure about the sphere's shadow on the ground."""
    bodies = views.slots[slot]
    bound = np.array([shapes.BOUND[name] if name else 0.0 for name in bodies.shape[part]])
    radius = (bound * bodies.size[part])[:, None, None]
    center, sun = bodies.center[part][:, None], views.sun[part]
    c2w, focal = views.c2w[part], views.focal[part]
    # The sphere's box has the camera's axes: tight in the picture.
    body = center + radius * np.einsum("kc,fwc->fkw", _CORNERS, c2w[:, :, :3])
    # A sphere's shadow: an ellipse, radius across the light, radius / sin(elevation) along it.
    flat = np.hypot(sun[:, 0], sun[:, 2])[:, None]
    along = sun[:, [0, 2]] / np.maximum(flat, 1e-6)
    across = along[:, ::-1] * (1, -1)
    foot = center[:, 0, [0, 2]] - sun[:, [0, 2]] / sun[:, 1:2] * center[:, 0, 1:2]
    around = _AROUND / np.cos(np.pi / 12)
    ground = foot[:, None] + radius * (
        around[:, 0, None] * (along / sun[:, 1:2])[:, None] + around[:, 1, None] * across[:, None]
    )
    shadow = np.stack((ground[..., 0], np.zeros_like(ground[..., 0]), ground[..., 1]), axis=-1)
    return _Areas(*(_bounds(points, c2w, focal, height, width) for points in (body, shadow)))


def _bounds(
    points: np.ndarray, c2w: np.ndarray, focal: np.ndarray, height: int, width: int
) -> np.ndarray:
    """Rectangles `f 4` that hold the pictures of `f k 3` points; all of the picture if one of
    them is not in front of the camera."""
    seen = np.einsum("fkw,fwc->fkc", points - c2w[:, None, :, 3], c2w[:, :, :3])
    near = (seen[..., 2] < 0.1).any(axis=1)
    ahead = np.maximum(seen[..., 2], 0.1)
    scale = focal[:, None] * width / ahead
    column = seen[..., 0] * scale + width / 2
    row = seen[..., 1] * scale + height / 2
    edges = np.stack(
        (
            np.where(near, 0, row.min(axis=1)),
            np.where(near, height, row.max(axis=1) + 1),
            np.where(near, 0, column.min(axis=1)),
            np.where(near, width, column.max(axis=1) + 1),
        ),
        axis=-1,
    )
    behind = (seen[..., 2] < 0.1).all(axis=1)
    edges[behind] = 0
    return np.clip(np.floor(edges), 0, (height, height, width, width)).astype(np.int64)


def _cells(
    areas: np.ndarray, frames: np.ndarray, height: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The cells inside the rectangles of these frames: flat index over f h w, and frame."""
    top, bottom, left, right = areas[frames].T
    wide = np.maximum(right - left, 0)
    count = np.maximum(bottom - top, 0) * wide
    number = np.repeat(np.arange(len(frames)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(within, np.maximum(wide, 1)[number])
    frame = frames[number]
    flat = (frame * height + row + top[number]) * width + column + left[number]
    return torch.from_numpy(flat).to(device), torch.from_numpy(frame).to(device)
