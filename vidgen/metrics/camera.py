"""How far one camera's path is from another's: rotations, translations, and both. NumPy, float64.

Poses are c2w `T 3 4` with OpenCV axes. Both paths begin at the origin: each is first seen from its
own first camera (`anchored`). Papers print different numbers under one name; these are

    rotation            angle of R_ref^T R_made of each frame, rad (CameraCtrl's RotErr is the sum)
    translation         |t_ref − t_made|, in the units of the two
    translation_own     the same after each path is divided by its own largest |t| (of CamI2V)
    translation_scaled  the same after the made path is multiplied by the one number that fits best
                        and isn't negative: 0 where it goes the opposite way
    ate                 root of the mean square of what is left between positions after the best
                        rotation, scale and shift (Umeyama 1991), in the reference's units; near 0
                        also for a straight path the opposite way, and a flat one mirrored
    rpe_…               the same of the steps from each frame to the next: angle, and length after
                        Umeyama's scale
    cammc, cammc_own    Frobenius norm of the difference of the 3 × 4 poses (CamI2V), raw and with
                        each path by its own largest |t|
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy import ndarray

from vidgen.errors import InputError
from vidgen.io.camera_files import Trajectory

Match = Literal["auto", "order", "span", "seconds"]
STILL = 1e-9  # of the reference's own numbers: a path that goes no farther stands still


def angle(rotation: ndarray) -> ndarray:
    """Angles of rotations `… 3 3`, rad, 0 … π. arccos of the trace alone would lose half of the
    digits near 0 and near π; the antisymmetric part has them near 0."""
    r = rotation
    axis = np.stack(
        (
            r[..., 2, 1] - r[..., 1, 2],
            r[..., 0, 2] - r[..., 2, 0],
            r[..., 1, 0] - r[..., 0, 1],
        ),
        axis=-1,
    )
    return np.arctan2(np.linalg.norm(axis, axis=-1), np.trace(r, axis1=-2, axis2=-1) - 1)


def anchored(c2w: ndarray) -> ndarray:
    """The path as its first camera sees it: c2w_0^-1 c2w_i."""
    back = c2w[0, :, :3].T
    turned = back @ c2w[:, :, :3]
    shifted = np.einsum("ij,tj->ti", back, c2w[:, :, 3] - c2w[0, :, 3])
    return np.concatenate((turned, shifted[:, :, None]), axis=2)


def resampled(c2w: ndarray, times: ndarray, at: ndarray) -> ndarray:
    """The path at other times, within the first and the last: positions on straight lines,
    rotations turned evenly about one axis (slerp) from each neighbor to the next."""
    after = np.clip(np.searchsorted(times, at, side="right"), 1, len(times) - 1)
    before = after - 1
    share = np.clip((at - times[before]) / (times[after] - times[before]), 0.0, 1.0)
    first, second = c2w[before], c2w[after]
    step = np.swapaxes(first[:, :, :3], 1, 2) @ second[:, :, :3]
    turned = first[:, :, :3] @ _rotation(_vector(step) * share[:, None])
    shifted = first[:, :, 3] + share[:, None] * (second[:, :, 3] - first[:, :, 3])
    return np.concatenate((turned, shifted[:, :, None]), axis=2)


def matched(
    ref: Trajectory, made: Trajectory, how: Match = "auto"
) -> tuple[ndarray, ndarray, str | None]:
    """Poses of the two at the same moments, frame by frame, and what was done to them, in words;
    None if nothing.

    order    the first with the first, and so on; InputError unless there are as many
    span     both last from 0 to 1, whatever their times
    seconds  from each one's first frame on, as long as both last; InputError unless both say
    auto     order if there are as many, else span

    Where the moments differ, the denser path is brought to those of the other: less is guessed.
    """
    names = f"{ref.id}: {len(ref)} reference frames and {len(made)}"
    if min(len(ref), len(made)) < 2:
        raise InputError(f"{names}: a path needs two frames")
    if how == "auto":
        how = "order" if len(ref) == len(made) else "span"
    if how == "order":
        if len(ref) != len(made):
            raise InputError(f"{names} can't be matched in order", next="--match span")
        return ref.c2w, made.c2w, None
    clocks = [_clock(x, how) for x in (ref, made)]
    end = min(c[-1] for c in clocks)
    sparse = clocks[0] if len(ref) <= len(made) else clocks[1]
    at = sparse[sparse <= end * (1 + 1e-9)]
    if len(at) < 2:
        raise InputError(f"{names}: fewer than two frames within {end:.3g} s", next="--match span")
    words = f"{names}, compared at {len(at)} moments, by {how}"
    for path in (ref, made):
        if how == "span" and path.times is not None and not path.seconds:
            words += (
                f"; the {path.format} frames {path.times[0]:g} … {path.times[-1]:g} are taken"
                " for the whole clip"
            )
    return resampled(ref.c2w, clocks[0], at), resampled(made.c2w, clocks[1], at), words


def _clock(path: Trajectory, how: str) -> ndarray:
    """Times from 0 on: seconds, or shares of the whole."""
    times = np.arange(len(path), dtype=np.float64) if path.times is None else path.times
    if how == "seconds" and not (path.seconds and path.times is not None):
        raise InputError(f"{path.id}: a {path.format} path without seconds", next="--match span")
    clock = times - times[0]
    return clock / clock[-1] if how == "span" else clock


def best_scale(ref: ndarray, made: ndarray) -> float:
    """The number that, multiplied to positions `T 3` of `made`, leaves the least squares to those
    of `ref`; negative where the two go opposite ways."""
    return float((ref * made).sum() / (made * made).sum())


def umeyama(ref: ndarray, made: ndarray) -> tuple[float, ndarray, ndarray]:
    """Scale s, rotation `3 3` and shift `3` that bring positions `made` nearest to `ref`
    (s·R·made + shift; Umeyama 1991, Eq. 40–42)."""
    middle, other = ref.mean(0), made.mean(0)
    a, b = ref - middle, made - other
    u, d, v = np.linalg.svd(a.T @ b / len(ref))
    sign = np.array((1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))))
    turned = (u * sign) @ v
    scale = float((d * sign).sum() / (b * b).sum(1).mean())
    return scale, turned, middle - scale * turned @ other


@dataclass(frozen=True)
class CameraErrors:
    """One path against another; per frame unless said.

    still    which of "reference", "made" stand still: of these no score that is divided by how far
             they go can be told, and those are None
    """

    rotation: ndarray
    translation: ndarray
    cammc: ndarray
    rpe_rotation: ndarray
    still: tuple[str, ...] = ()
    translation_own: ndarray | None = None
    cammc_own: ndarray | None = None
    scale: float | None = None
    translation_scaled: ndarray | None = None
    ate: float | None = None
    rpe_translation: ndarray | None = None
    values: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _summary(self))


def camera_errors(ref: ndarray, made: ndarray) -> CameraErrors:
    """c2w `T 3 4` of the reference and of what was made, frame by frame, T at least 2."""
    if ref.shape != made.shape or ref.shape[1:] != (3, 4) or len(ref) < 2:
        raise ValueError(f"paths of {list(ref.shape)} and {list(made.shape)}")
    spans = [_span(x) for x in (ref, made)]
    ref, made = anchored(ref), anchored(made)
    p, q = ref[:, :, 3], made[:, :, 3]
    far = [float(np.linalg.norm(x, axis=1).max()) for x in (p, q)]
    still = tuple(
        name
        for name, length, span in zip(("reference", "made"), far, spans, strict=True)
        if length <= STILL * span
    )
    between = np.swapaxes(ref[:, :, :3], 1, 2) @ made[:, :, :3]
    steps = [_steps(x) for x in (ref, made)]
    turned = np.swapaxes(steps[0][:, :, :3], 1, 2) @ steps[1][:, :, :3]
    parts: dict[str, object] = {
        "rotation": angle(between),
        "translation": np.linalg.norm(p - q, axis=1),
        "cammc": np.linalg.norm(ref - made, axis=(1, 2)),
        "rpe_rotation": angle(turned),
        "still": still,
    }
    if not still:
        own = [
            np.concatenate((x[:, :, :3], x[:, :, 3:] / length), axis=2)
            for x, length in zip((ref, made), far, strict=True)
        ]
        scale = best_scale(p, q)
        factor, turn, shift = umeyama(p, q)
        left = p - (factor * q @ turn.T + shift)
        parts |= {
            "translation_own": np.linalg.norm(own[0][:, :, 3] - own[1][:, :, 3], axis=1),
            "cammc_own": np.linalg.norm(own[0] - own[1], axis=(1, 2)),
            "scale": scale,
            "translation_scaled": np.linalg.norm(p - max(scale, 0.0) * q, axis=1),
            "ate": float(np.sqrt((left**2).sum(1).mean())),
            "rpe_translation": np.linalg.norm(
                steps[0][:, :, 3] - factor * steps[1][:, :, 3], axis=1
            ),
        }
    return CameraErrors(**parts)  # type: ignore[arg-type]


def _summary(e: CameraErrors) -> dict[str, float]:
    """Names of scores and their values. The first frame's errors are 0 by construction: sums are
    over all frames, means over those behind it."""
    found = {
        "rotation_sum": float(e.rotation.sum()),
        "rotation_mean": float(e.rotation[1:].mean()),
        "rotation_max": float(e.rotation.max()),
        "rotation_mean_deg": float(np.degrees(e.rotation[1:].mean())),
        "rotation_max_deg": float(np.degrees(e.rotation.max())),
        "translation_sum": float(e.translation.sum()),
        "translation_mean": float(e.translation[1:].mean()),
        "cammc": float(e.cammc.sum()),
        "rpe_rotation": float(np.sqrt((e.rpe_rotation**2).mean())),
    }
    for name in ("translation_own", "translation_scaled"):
        if (each := getattr(e, name)) is not None:
            found[f"{name}_sum"] = float(each.sum())
            found[f"{name}_mean"] = float(each[1:].mean())
    if e.cammc_own is not None:
        found["cammc_own"] = float(e.cammc_own.sum())
    if e.scale is not None and e.ate is not None and e.rpe_translation is not None:
        found["scale"] = e.scale
        found["ate"] = e.ate
        found["rpe_translation"] = float(np.sqrt((e.rpe_translation**2).mean()))
    return found


def _span(c2w: ndarray) -> float:
    """What rounding is measured by: the largest number among the positions, at least 1e-3."""
    return max(1e-3, float(np.abs(c2w[:, :, 3]).max()))


def _steps(c2w: ndarray) -> ndarray:
    """Each camera as the one before sees it: `T−1 3 4`."""
    back = np.swapaxes(c2w[:-1, :, :3], 1, 2)
    shifted = back @ (c2w[1:, :, 3:] - c2w[:-1, :, 3:])
    return np.concatenate((back @ c2w[1:, :, :3], shifted), axis=2)


def _vector(rotation: ndarray) -> ndarray:
    """Rotations `n 3 3` as axis times angle `n 3`, by way of quaternions, which stand every angle:
    of the four ways to one the one is taken that divides by the largest number."""
    r = rotation
    m = [[r[:, i, j] for j in range(3)] for i in range(3)]
    four = np.stack(
        (
            1 + m[0][0] + m[1][1] + m[2][2],
            m[2][1] - m[1][2],
            m[0][2] - m[2][0],
            m[1][0] - m[0][1],
            1 + m[0][0] - m[1][1] - m[2][2],
            m[0][1] + m[1][0],
            m[0][2] + m[2][0],
            1 - m[0][0] + m[1][1] - m[2][2],
            m[1][2] + m[2][1],
            1 - m[0][0] - m[1][1] + m[2][2],
        ),
        axis=-1,
    )
    rows = four[:, [[0, 1, 2, 3], [1, 4, 5, 6], [2, 5, 7, 8], [3, 6, 8, 9]]]
    best = rows[np.arange(len(r)), np.argmax(four[:, [0, 4, 7, 9]], axis=1)]
    best = best / np.linalg.norm(best, axis=1, keepdims=True)
    best = np.where(best[:, :1] < 0, -best, best)
    sine = np.linalg.norm(best[:, 1:], axis=1)
    # Near 0 the angle is twice the sine; 0/0 is 2 there.
    ratio = np.divide(
        2 * np.arctan2(sine, best[:, 0]), sine, out=np.full(len(r), 2.0), where=sine > 0
    )
    return best[:, 1:] * ratio[:, None]


def _rotation(vector: ndarray) -> ndarray:
    """Axis times angle `n 3` → rotations `n 3 3` (Rodrigues), exact near 0."""
    theta = np.linalg.norm(vector, axis=1)[:, None, None]
    x, y, z = vector.T
    zero = np.zeros_like(x)
    k = np.stack((zero, -z, y, z, zero, -x, -y, x, zero), axis=-1).reshape(-1, 3, 3)
    half = np.sinc(theta / (2 * np.pi))  # sin(θ/2)/(θ/2)
    return np.eye(3) + np.sinc(theta / np.pi) * k + 0.5 * half**2 * (k @ k)
