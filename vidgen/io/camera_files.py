"""Camera trajectories from the files that they come in; float64 all along.

    RealEstate10K .txt  a line of the video's address, then 19 numbers a frame: microseconds; fx,
                        fy, cx, cy by the picture's width and height; two zeros; world to camera
    COLMAP images.txt   two lines an image: id, quaternion w x y z and translation of world to
                        camera, the camera's id, a name; then its points
    TUM .txt            8 numbers a frame: seconds, position, quaternion x y z w, camera to world
    JSON                an object with `extrinsics`, world to camera, 3 × 4 or 4 × 4 a frame
    records and NPZ     `camera.c2w`, and `times` where there are any

Axes are OpenCV's: x right, y down, z forward.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidgen.errors import InputError

if TYPE_CHECKING:
    from numpy import ndarray

    from vidgen.io.record import Record

SQUARE = 1e-3  # how far, at most, the axes that a file gives may be from orthonormal
TEXT, JSON = (".txt",), (".json",)


@dataclass(frozen=True)
class Trajectory:
    """Where one camera was.

    id       the record's, or the file's name without its ending
    c2w      `T 3 4` float64, camera to world; the axes orthonormal
    times    `T` float64, rising: seconds, or numbers of frames; None: only the order is known
    seconds  whether `times` are seconds
    format   what it was read from: "RealEstate10K", …
    bent     how far the axes of the file were from orthonormal, at most; they were made so
    """

    id: str
    c2w: ndarray
    times: ndarray | None
    seconds: bool
    format: str
    bent: float = 0.0

    def __len__(self) -> int:
        return len(self.c2w)


def read_cameras(path: str | Path) -> Iterator[Trajectory]:
    """Every trajectory of a file: one of a text or JSON file, one a record of a stream.
    InputError for what holds none, or one that makes no sense."""
    path = Path(path)
    if path.suffix in TEXT:
        yield _of_text(path)
    elif path.suffix in JSON:
        yield _of_json(path)
    else:
        from vidgen.io.stream import read_stream

        for record in read_stream(path):
            yield camera_of(record)


def camera_of(record: Record) -> Trajectory:
    """The trajectory that a record carries. InputError if it carries none."""
    c2w = record.numpy("camera.c2w").astype(np.float64)
    times = record.numpy("times").astype(np.float64) if "times" in record else None
    if times is not None and times.shape != c2w.shape[:1]:
        times = None  # of frames that were made denser than the cameras
    return _made(record.id, f"record `{record.id}`", c2w, times, True, "record")


# --- text -----------------------------------------------------------------------------------------


def _of_text(path: Path) -> Trajectory:
    """RealEstate10K, COLMAP or TUM, whichever the first line with numbers tells."""
    lines = [
        (n, line.strip())
        for n, line in enumerate(_read(path).splitlines(), 1)
        if not line.lstrip().startswith("#")
    ]
    filled = [(n, line) for n, line in lines if line]
    if filled and len(filled[0][1].split()) == 1 and not _number(filled[0][1]):
        filled = filled[1:]  # the address of a RealEstate10K video
    if not filled:
        raise InputError(f"{path}: no camera in the file")
    words = filled[0][1].split()
    if len(words) == 19:
        return _real_estate(path, filled)
    if len(words) == 8:
        return _tum(path, filled)
    if len(words) >= 10 and all(map(_number, words[:9])):
        return _colmap(path, lines)
    raise InputError(
        f"{path}: line {filled[0][0]}: {len(words)} words are no camera",
        why="RealEstate10K has 19 numbers a line, TUM 8, COLMAP's images.txt 9 and a name",
    )


def _real_estate(path: Path, lines: Sequence[tuple[int, str]]) -> Trajectory:
    rows = np.array([_numbers(path, n, line, 19) for n, line in lines])
    w2c = rows[:, 7:].reshape(-1, 3, 4)
    return _made(path.stem, str(path), inverse(w2c), rows[:, 0] / 1e6, True, "RealEstate10K")


def _tum(path: Path, lines: Sequence[tuple[int, str]]) -> Trajectory:
    rows = np.array([_numbers(path, n, line, 8) for n, line in lines])
    turned = _of_quaternions(path, rows[:, [7, 4, 5, 6]])
    c2w = np.concatenate((turned, rows[:, 1:4, None]), axis=2)
    return _made(path.stem, str(path), c2w, rows[:, 0], True, "TUM")


def _colmap(path: Path, lines: Sequence[tuple[int, str]]) -> Trajectory:
    """Images by the last number in their names where all have one, each its own; else by name."""
    found: list[tuple[str, list[float]]] = []
    is_image = True
    for n, line in lines:
        if is_image and not line:
            continue  # at the end of the file
        if is_image:
            words = line.split(maxsplit=9)
            if len(words) < 10:
                raise InputError(f"{path}: line {n}: {len(words)} words, an image has 10")
            found.append((words[9], _numbers(path, n, " ".join(words[1:8]), 7)))
        is_image = not is_image  # behind each image comes a line of its points, often an empty one
    numbers = [re.findall(r"\d+", Path(name).stem)[-1:] for name, _ in found]
    numbered = all(numbers) and len({int(n[0]) for n in numbers}) == len(found)
    order = sorted(range(len(found)), key=lambda i: int(numbers[i][0]) if numbered else found[i][0])
    rows = np.array([found[i][1] for i in order])
    w2c = np.concatenate((_of_quaternions(path, rows[:, :4]), rows[:, 4:, None]), axis=2)
    times = np.array([float(numbers[i][0]) for i in order]) if numbered else None
    id = path.parent.name if path.name == "images.txt" else path.stem
    return _made(id or path.stem, str(path), inverse(w2c), times, False, "COLMAP")


# --- JSON -----------------------------------------------------------------------------------------


def _of_json(path: Path) -> Trajectory:
    try:
        value: Any = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    rows = value.get("extrinsics") if isinstance(value, dict) else None
    try:
        w2c = np.array(rows, dtype=np.float64)
        assert w2c.ndim == 3 and w2c.shape[1:] in ((3, 4), (4, 4))
    except (ValueError, TypeError, AssertionError):
        raise InputError(
            f"{path}: no `extrinsics` of 3 × 4 or 4 × 4 numbers a frame",
            why="cameras in JSON are read as AC3D's camera_info.json has them",
        ) from None
    return _made(path.stem, str(path), inverse(w2c[:, :3]), None, False, "JSON")


# --- what all have in common ----------------------------------------------------------------------


def inverse(pose: ndarray) -> ndarray:
    """Rigid poses `… 3 4` the other way round: camera to world for world to camera. The axes need
    not be orthonormal yet: they are inverted as they stand."""
    turned = np.linalg.inv(pose[..., :3]) if _regular(pose) else np.full_like(pose[..., :3], np.nan)
    return np.concatenate((turned, -turned @ pose[..., 3:]), axis=-1)


def _regular(pose: ndarray) -> bool:
    return bool(np.isfinite(pose).all() and (np.abs(np.linalg.det(pose[..., :3])) > 0.5).all())


def _made(
    id: str, where: str, c2w: ndarray, times: ndarray | None, seconds: bool, format: str
) -> Trajectory:
    """The trajectory, its axes made orthonormal. InputError unless they are nearly so."""
    if c2w.ndim != 3 or c2w.shape[1:] not in ((3, 4), (4, 4)) or not len(c2w):
        raise InputError(f"{where}: cameras are {list(c2w.shape)}, not [T, 3, 4]")
    c2w = c2w[:, :3]
    if not np.isfinite(c2w).all():
        raise InputError(f"{where}: a camera is not finite, or its axes can't be inverted")
    u, _, v = np.linalg.svd(c2w[:, :, :3])
    axes = u @ v
    bent = float(np.abs(axes - c2w[:, :, :3]).max())
    if bent > SQUARE or (np.linalg.det(axes) < 0).any():
        raise InputError(
            f"{where}: axes of a camera are no rotation, by {bent:.2g}",
            why="they are not orthonormal, or left-handed",
        )
    if times is not None and not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        raise InputError(f"{where}: the times of the cameras don't rise")
    return Trajectory(
        id, np.concatenate((axes, c2w[:, :, 3:]), axis=2), times, seconds, format, bent
    )


def _of_quaternions(path: Path, wxyz: ndarray) -> ndarray:
    """Rotations `T 3 3` of quaternions `T 4`, w first, made of unit length."""
    length = np.linalg.norm(wxyz, axis=1, keepdims=True)
    if (np.abs(length - 1) > 0.01).any():
        raise InputError(f"{path}: a quaternion is {float(length.min()):.3g} long, not 1")
    w, x, y, z = (wxyz / length).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _numbers(path: Path, n: int, line: str, count: int) -> list[float]:
    words = line.split()
    if len(words) != count or not all(map(_number, words)):
        bad = next((w for w in words if not _number(w)), None)
        said = f"{len(words)} words" if bad is None else f"`{bad[:40]}` is no number"
        raise InputError(f"{path}: line {n}: {said}, a camera has {count} numbers")
    return [float(w) for w in words]


def _number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as text: {error}") from None
