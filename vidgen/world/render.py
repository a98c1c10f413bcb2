"""Film scenes: analytic ray casting in torch, many clips and frames at once.

A ray's direction is left with unit length along the camera's axis, so the ray parameter *is*
z-depth. The ground and the sky are computed for every ray; an object only for the rays inside the
picture's rectangle that holds it, and its shadow only inside the rectangle that holds that. Frames
go through in chunks that fit the processor's cache, scenes of the same shapes side by side.
All shading is in sRGB, so anti-aliasing is a plain mean of what a larger picture would show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vidgen.errors import UsageError
from vidgen.world import shapes
from vidgen.world.parts import Scene
from vidgen.world.views import Bodies, Views, body_areas, cells, gather, shadow_areas

# Raise it whenever pictures of the same seed change, by the scene or by the shading: what was made
# of them and kept on disk is named for it.
RENDERER = 1

HORIZON = (0.74, 0.83, 0.93)
ZENITH = (0.46, 0.67, 0.90)
TILE = 0.8  # side of the ground's checks, meters
CONTRAST = 0.20  # of the checks, up and down
AMBIENT, DIFFUSE = 0.58, 0.50  # light from everywhere, light from the sun
HAZE_M = 45.0  # distance over which the ground fades into the horizon
CHECK_FADE_M = 10.0  # distance over which checks fade, before they get finer than pixels

SKY, GROUND = -1, 0  # owners of a pixel; the objects are 1, 2, 3

RAYS_PER_CHUNK = {"cpu": 2**17, "cuda": 2**24}
XYZ = shapes.XYZ


@dataclass
class Render:
    """frames uint8 `b t h w 3`; depth float32 `b t h w`, z-depth in meters, sky +inf, or None."""

    frames: Tensor
    depth: Tensor | None = None


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
    times = frame_times(num_frames, fps) if times is None else times
    if not scenes or not len(times) or min(height, width, antialias) < 1:
        raise UsageError(
            f"nothing to render: {len(scenes)} scenes, {len(times)} frames, "
            f"{height}x{width} pixels, antialias {antialias}"
        )
    colors, depths = [], []
    # Neighbors of the same shapes share chunks, and so share calls.
    order = sorted(range(len(scenes)), key=lambda i: [thing.shape for thing in scenes[i].objects])
    rays = height * width * antialias**2
    for views in _chunks(gather([scenes[i] for i in order], times), rays, torch.device(device)):
        color = _Chunk(views, height * antialias, width * antialias, device).picture()
        # Not a reduction: a fixed order of additions keeps frames independent of the batch.
        tiles = rearrange(color, "c f (h i) (w j) -> (i j) c f h w", i=antialias, j=antialias)
        mean = sum(tiles[1:], start=tiles[0]) * (255.0 / antialias**2)
        colors.append(rearrange(mean.round().to(torch.uint8), "c f h w -> f h w c"))
        if depth:
            depths.append(_Chunk(views, height, width, device).find().z)
    back = torch.tensor(np.argsort(order), device=device)
    frames = rearrange(torch.cat(colors), "(b t) h w c -> b t h w c", t=len(times))[back]
    if not depth:
        return Render(frames.contiguous())
    z = rearrange(torch.cat(depths), "(b t) h w -> b t h w", t=len(times))[back]
    return Render(frames.contiguous(), z.contiguous())


@torch.no_grad()
def geometry(
    scene: Scene, times: Sequence[float], height: int, width: int
) -> tuple[Tensor, Tensor]:
    """What each pixel's center shows: z-depth `t h w`, and its owner, int64 `t h w`: `SKY`,
    `GROUND`, or 1 + the object's place in the scene."""
    found = [
        _Chunk(views, height, width, "cpu").find()
        for views in _chunks(gather([scene], times), height * width, torch.device("cpu"))
    ]
    return torch.cat([chunk.z for chunk in found]), torch.cat([chunk.owner for chunk in found])


def _chunks(views: Views, rays: int, device: torch.device) -> Iterator[Views]:
    """A few frames at a time, of `rays` each."""
    step = max(1, RAYS_PER_CHUNK.get(device.type, 2**20) // rays)
    for first in range(0, len(views.focal), step):
        yield views.part(slice(first, first + step))


class _Chunk:
    """A few frames of `height × width` cells, one ray through the middle of each, and what has
    been found along the rays so far: z-depth and owner, both `f h w`."""

    def __init__(self, views: Views, height: int, width: int, device: str | torch.device) -> None:
        self.views, self.height, self.width = views, height, width
        self.device = torch.device(device)
        focal, c2w = self._put(views.focal), self._put(views.c2w)
        # Ray of column x, row y: right·x + down·y + forward, x and y in units of the focal length.
        column = (torch.arange(width, device=self.device) + 0.5) / width - 0.5
        row = (torch.arange(height, device=self.device) + 0.5) / height - 0.5
        self.x = column / focal[:, None]  # f w
        self.y = row * (height / width) / focal[:, None]  # f h
        self.eye = c2w[:, :, 3]
        self.d = self._ray(c2w[:, 0]), self._ray(c2w[:, 1]), self._ray(c2w[:, 2])
        up = self.d[1]
        self.z = torch.where(up < -1e-6, self.eye[:, 1, None, None] / -up, torch.inf)
        self.owner = torch.where(self.z < torch.inf, GROUND, SKY)
        self.local = {
            (slot, shape): _Local.of(bodies, views, self._put)
            for slot, bodies in enumerate(views.slots)
            for shape, _ in bodies.by_shape()
        }

    def _put(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(self.device)

    def _ray(self, row: Tensor) -> Tensor:
        """One coordinate of all rays, from a row of c2w, `f 4` → `f h w`."""
        right, down, forward, _ = row[..., None].unbind(1)
        return (right * self.x)[:, None, :] + (down * self.y + forward)[:, :, None]

    def _visits(
        self, areas: Callable[[Views, int, int, int], np.ndarray]
    ) -> Iterator[tuple[int, str, _Local, Tensor, Tensor]]:
        """Slot, shape, the frames in the object's axes, and the cells worth a look (flat index
        over f h w, and frame), for each shape of each slot."""
        for slot, bodies in enumerate(self.views.slots):
            rectangles = areas(self.views, slot, self.height, self.width)
            for shape, frames in bodies.by_shape():
                at, frame = cells(rectangles, frames, self.height, self.width)
                if len(at):
                    yield slot, shape, self.local[slot, shape], self._put(at), self._put(frame)

    def _local_ray(self, into: _Local, at: Tensor, frame: Tensor) -> tuple[XYZ, XYZ]:
        """Origins and directions of the rays of some cells in the object's axes."""
        rows = torch.div(at, self.width, rounding_mode="floor")  # f·h + row
        x = self.x.view(-1)[at + (frame - rows) * self.width]
        y = self.y.view(-1)[rows]
        right, down, forward = (
            shapes.pick(axis, frame) for axis in (into.right, into.down, into.forward)
        )
        d = shapes.along(shapes.along(forward, x, right), y, down)
        return shapes.pick(into.eye, frame), d

    def find(self, paint: Callable[..., None] | None = None) -> _Chunk:
        """Meet the objects. `paint(shape, into, at, frame, hit, point, normal)` for each."""
        for slot, shape, into, at, frame in self._visits(body_areas):
            o, d = self._local_ray(into, at, frame)
            t, normal = shapes.INTERSECT[shape](o, d)
            before = self.z.view(-1)[at]
            hit = t < before
            self.z.view(-1)[at] = torch.where(hit, t, before)
            if paint:
                point = shapes.along(o, torch.where(hit, t, 0.0), d)
                paint(shape, into, at, frame, hit, point, normal)
            else:
                self.owner.view(-1)[at[hit]] = slot + 1
        return self

    def picture(self) -> Tensor:
        """Colors `3 f h w`, sRGB 0 … 1."""
        color = self._background(self._shadows())
        flat = color.view(3, -1)

        def paint(
            shape: str,
            into: _Local,
            at: Tensor,
            frame: Tensor,
            hit: Tensor,
            point: XYZ,
            normal: XYZ,
        ) -> None:
            # The sun in units of the object's size: its length is 1 / size.
            sun = shapes.dot(normal, shapes.pick(into.sun, frame)) * into.size[frame]
            # From above comes a little more light than from below.
            light = AMBIENT * (0.9 + 0.2 * normal[1]) + DIFFUSE * sun.clamp(min=0)
            mark = shapes.marked(shape, point)
            for i in range(3):
                albedo = torch.where(mark, into.mark[i][frame], into.albedo[i][frame])
                flat[i, at] = torch.where(hit, (albedo * light).clamp(max=1), flat[i, at])

        self.find(paint)
        return color

    def _shadows(self) -> Tensor:
        """1 where the sun reaches the ground, else 0; `f h w`."""
        lit = torch.ones_like(self.z)
        for _, shape, into, at, frame in self._visits(shadow_areas):
            o, d = self._local_ray(into, at, frame)
            ground = shapes.along(o, self.z.view(-1)[at].clamp(max=1e4), d)
            t, _ = shapes.INTERSECT[shape](ground, shapes.pick(into.sun, frame))
            lit.view(-1)[at] *= torch.where(t < torch.inf, 0.0, 1.0)
        return lit

    def _background(self, lit: Tensor) -> Tensor:
        """Ground with checks, shadows and haze; sky with a gradient. `3 f h w`."""
        ground, sun = self._put(self.views.ground), self._put(self.views.sun)
        seen = self.z.clamp(max=1e4)  # finite, for the sky's share of the arithmetic
        dx, dy, dz = self.d
        parity = torch.floor((self.eye[:, 0, None, None] + seen * dx) * (1 / TILE))
        parity += torch.floor((self.eye[:, 2, None, None] + seen * dz) * (1 / TILE))
        parity -= 2 * torch.floor(parity * 0.5)  # 0 or 1
        fade = torch.exp(seen * (-1 / CHECK_FADE_M))
        tone = 1 + CONTRAST * (2 * parity - 1) * fade
        tone *= AMBIENT * 1.1 + DIFFUSE * sun[:, 1, None, None] * lit
        haze = 1 - torch.exp(seen * (-1 / HAZE_M))
        sky = self.z == torch.inf
        height = (dy * (1 / 0.45)).clamp(0, 1)
        color = torch.empty((3, *self.z.shape), device=self.device)
        for i in range(3):
            far, top = HORIZON[i], ZENITH[i]
            earth = tone * ground[:, i, None, None]
            earth += (far - earth) * haze
            torch.where(sky, far + (top - far) * height, earth, out=color[i])
        return color


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

    @classmethod
    def of(cls, bodies: Bodies, views: Views, put: Callable[[np.ndarray], Tensor]) -> _Local:
        def columns(v: np.ndarray) -> XYZ:
            x, y, z = put(v.T)
            return x, y, z

        def own(v: np.ndarray) -> XYZ:
            return columns(np.einsum("fwl,fw->fl", bodies.rotation, v) / bodies.size[:, None])

        return cls(
            eye=own(views.c2w[:, :, 3] - bodies.center),
            right=own(views.c2w[:, :, 0]),
            down=own(views.c2w[:, :, 1]),
            forward=own(views.c2w[:, :, 2]),
            sun=own(views.sun),
            size=put(bodies.size),
            albedo=columns(bodies.albedo),
            mark=columns(mark_albedo(bodies.albedo)),
        )


def mark_albedo(albedo: np.ndarray) -> np.ndarray:
    """The mark is a much lighter tone of the object's color; on white, where there is none, a
    darker one. `… 3` → `… 3`."""
    lighter = albedo + 0.7 * (1 - albedo)
    white = albedo.min(axis=-1, keepdims=True) > 0.85
    return np.where(white, 0.55 * albedo, lighter).astype(albedo.dtype)
