"""Errors between camera paths: closed forms, invariances, and SciPy's rotations as oracle."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from vidgen.errors import InputError
from vidgen.io.camera_files import Trajectory, read_cameras
from vidgen.metrics.camera import (
    anchored,
    angle,
    best_scale,
    camera_errors,
    matched,
    resampled,
    umeyama,
)

CAMERAS = Path(__file__).parent.parent / "data" / "cameras"
SEEDS = st.integers(0, 2**32 - 1)


def path_of(seed: int, frames: int = 9) -> np.ndarray:
    """A random walk of a camera, c2w `T 3 4`."""
    rng = np.random.default_rng(seed)
    turned = Rotation.from_rotvec(np.cumsum(0.2 * rng.standard_normal((frames, 3)), 0)).as_matrix()
    return np.concatenate((turned, np.cumsum(rng.standard_normal((frames, 3, 1)), 0)), axis=2)


def moved(c2w: np.ndarray, seed: int, scale: float = 1.0) -> np.ndarray:
    """The same path in another world: turned, shifted, scaled."""
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=rng.integers(2**31)).as_matrix()
    where = scale * c2w[:, :, 3] @ turn.T + rng.standard_normal(3)
    return np.concatenate((turn @ c2w[:, :, :3], where[:, :, None]), axis=2)


@pytest.mark.parametrize("size", [0.0, 1e-8, 1e-6, 1e-3, 0.5, 2.0, 3.0, np.pi - 1e-6, np.pi])
def test_angles_are_exact_near_nothing_and_near_half_a_turn(size: float) -> None:
    for axis in (np.array((0.0, 0, 1)), np.array((0.6, 0, -0.8)), np.ones(3) / np.sqrt(3)):
        found = angle(Rotation.from_rotvec(size * axis).as_matrix()[None])[0]
        assert found == pytest.approx(size, abs=1e-12)
    if 0 < size < 1e-7:  # what arccos makes of it
        trace = np.trace(Rotation.from_rotvec((0, 0, size)).as_matrix())
        assert abs(np.arccos(np.clip((trace - 1) / 2, -1, 1)) - size) > 1e-9


def test_a_known_rotation_is_found_frame_by_frame() -> None:
    ref = path_of(0)
    for size in (1e-8, 1e-4, 0.3):
        turn = Rotation.from_rotvec((0, size, 0)).as_matrix()
        made = ref.copy()
        made[3:, :, :3] = ref[3:, :, :3] @ turn
        found = camera_errors(ref, made)
        assert found.rotation == pytest.approx(np.where(np.arange(9) < 3, 0, size), abs=1e-12)
        assert found.values["rotation_sum"] == pytest.approx(6 * size, abs=1e-11)
        assert found.values["rotation_mean"] == pytest.approx(6 / 8 * size, abs=1e-11)
        assert found.values["rotation_max_deg"] == pytest.approx(np.degrees(size), abs=1e-10)


@settings(max_examples=25)
@given(SEEDS, st.floats(0.01, 100))
def test_a_path_and_itself_in_another_world_and_scale(seed: int, scale: float) -> None:
    ref = path_of(seed)
    found = camera_errors(ref, moved(ref, seed + 1, scale))
    size = np.abs(anchored(ref)[:, :, 3]).max()
    for name in ("rotation_max", "translation_own_sum", "cammc_own", "rpe_rotation"):
        assert found.values[name] == pytest.approx(0, abs=1e-10), name
    for name in ("ate", "translation_scaled_sum", "rpe_translation"):
        assert found.values[name] == pytest.approx(0, abs=1e-9 * size), name
    assert found.scale == pytest.approx(1 / scale, rel=1e-9)


@settings(max_examples=25)
@given(SEEDS)
def test_another_world_changes_nothing(seed: int) -> None:
    ref, made = path_of(seed), path_of(seed + 1)
    before = camera_errors(ref, made).values
    after = camera_errors(ref, moved(made, seed + 2)).values
    assert after == pytest.approx(before, rel=1e-8, abs=1e-9)


def test_against_slow_loops() -> None:
    ref, made = path_of(1), path_of(2)
    found = camera_errors(ref, made)
    four = [
        np.concatenate((x, np.tile([[[0, 0, 0, 1.0]]], (len(x), 1, 1))), 1) for x in (ref, made)
    ]
    a, b = ([np.linalg.inv(x[0]) @ pose for pose in x] for x in four)
    far = [max(np.linalg.norm(pose[:3, 3]) for pose in x) for x in (a, b)]
    turns = [
        Rotation.from_matrix(x[:3, :3].T @ y[:3, :3]).magnitude() for x, y in zip(a, b, strict=True)
    ]
    own = [np.linalg.norm(x[:3, 3] / far[0] - y[:3, 3] / far[1]) for x, y in zip(a, b, strict=True)]
    raw = [np.linalg.norm(x[:3] - y[:3]) for x, y in zip(a, b, strict=True)]
    steps = [[np.linalg.inv(x[i]) @ x[i + 1] for i in range(8)] for x in (a, b)]
    rpe = [Rotation.from_matrix(x[:3, :3].T @ y[:3, :3]).magnitude() for x, y in zip(*steps)]  # noqa: B905
    assert found.rotation == pytest.approx(turns, abs=1e-12)
    assert found.values["translation_own_sum"] == pytest.approx(sum(own))
    assert found.values["cammc"] == pytest.approx(sum(raw))
    assert found.values["rpe_rotation"] == pytest.approx(np.sqrt(np.mean(np.square(rpe))))


def test_umeyama_finds_what_was_done_and_is_the_best() -> None:
    rng = np.random.default_rng(3)
    made = rng.standard_normal((12, 3))
    turn = Rotation.from_rotvec((0.3, -0.9, 1.7)).as_matrix()
    scale, turned, shift = umeyama(2.5 * made @ turn.T + (1, 2, 3), made)
    assert scale == pytest.approx(2.5)
    assert turned == pytest.approx(turn)
    assert shift == pytest.approx(np.array((1, 2, 3.0)))
    # With noise: SciPy's rotation without scale is the same one, and no neighbor is better.
    ref = made @ turn.T + 0.3 * rng.standard_normal((12, 3))
    scale, turned, shift = umeyama(ref, made)
    oracle, _ = Rotation.align_vectors(ref - ref.mean(0), made - made.mean(0))
    assert turned == pytest.approx(oracle.as_matrix(), abs=1e-9)
    left = np.square(ref - (scale * made @ turned.T + shift)).sum()
    for factor in (0.999, 1.001):
        assert np.square(ref - (factor * scale * made @ turned.T + shift)).sum() > left
    assert np.linalg.det(umeyama(made * (1, 1, -1), made)[1]) == pytest.approx(1)  # no mirror


def test_scale_by_least_squares_and_its_sign() -> None:
    rng = np.random.default_rng(4)
    ref, made = rng.standard_normal((2, 7, 3))
    oracle = np.linalg.lstsq(made.reshape(-1, 1), ref.reshape(-1), rcond=None)[0][0]
    assert best_scale(ref, made) == pytest.approx(oracle)
    assert best_scale(ref, -3 * ref) == pytest.approx(-1 / 3)


def test_ate_forgives_what_the_page_says_and_the_others_do_not() -> None:
    t = np.linspace(0, 1, 9)
    flat = np.stack((t, 0 * t, t**2), axis=-1)
    for there, back in ((flat[:, [0]] * [1.0, 0, 0], -flat[:, [0]] * [1.0, 0, 0]),
                        (flat, flat * [-1.0, 1, 1])):  # fmt: skip
        a, b = (np.concatenate((np.tile(np.eye(3), (9, 1, 1)), x[:, :, None]), 2)
                for x in (there, back))  # fmt: skip
        found = camera_errors(a, b).values
        assert found["ate"] < 1e-9
        assert found["translation_own_mean"] > 0.5 and found["translation_scaled_mean"] > 0.3
    assert camera_errors(a, a).values["translation_scaled_mean"] < 1e-12


def test_a_path_that_stands_still_has_no_scale() -> None:
    ref = path_of(5)
    still = ref.copy()
    still[:, :, 3] = ref[0, :, 3]
    for a, b, names in (
        (ref, still, ("made",)), (still, ref, ("reference",)),
        (still, still, ("reference", "made")),
    ):  # fmt: skip
        found = camera_errors(a, b)
        assert found.still == names
        assert found.translation_own is None and found.ate is None and found.scale is None
        assert np.isfinite(list(found.values.values())).all()
    assert camera_errors(ref, still).values["translation_sum"] > 0


def test_resampling_is_slerp() -> None:
    c2w, times = path_of(6), np.cumsum(np.random.default_rng(6).uniform(0.1, 1, 9))
    at = np.linspace(times[0], times[-1], 40)
    found = resampled(c2w, times, at)
    oracle = Slerp(times, Rotation.from_matrix(c2w[:, :, :3]))(at).as_matrix()
    assert found[:, :, :3] == pytest.approx(oracle, abs=1e-12)
    for i in range(3):
        assert found[:, i, 3] == pytest.approx(np.interp(at, times, c2w[:, i, 3]))
    assert resampled(c2w, times, times) == pytest.approx(c2w, abs=1e-12)


@pytest.mark.parametrize("size", [1e-9, 0.1, 3.0, np.pi - 1e-9])
def test_resampling_halves_any_turn(size: float) -> None:
    ends = Rotation.from_rotvec(np.array(((0.0, 0, 0), (0, size * 0.6, size * 0.8)))).as_matrix()
    c2w = np.concatenate((ends, np.zeros((2, 3, 1))), axis=2)
    half = resampled(c2w, np.array((0.0, 1)), np.array((0.5,)))
    assert angle(half[:, :, :3])[0] == pytest.approx(size / 2, abs=1e-12)


def trajectory(c2w: np.ndarray, times: np.ndarray | None = None) -> Trajectory:
    return Trajectory("clip", c2w, times, times is not None, "record")


def test_the_denser_path_is_brought_to_the_other() -> None:
    dense = np.linspace(0, 4, 49)
    c2w = resampled(path_of(7), np.linspace(0, 4, 9), dense)
    every = slice(None, None, 6)
    for first, second in (((c2w, dense), (c2w[every], dense[every])),
                          ((c2w[every], dense[every]), (c2w, dense))):  # fmt: skip
        for how in ("auto", "span", "seconds"):
            a, b, words = matched(trajectory(*first), trajectory(*second), how)  # type: ignore[arg-type]
            assert len(a) == len(b) == 9
            assert a == pytest.approx(b, abs=1e-9)
            assert words is not None and "9 moments" in words
    with pytest.raises(InputError, match="in order"):
        matched(trajectory(c2w), trajectory(c2w[every]), "order")
    with pytest.raises(InputError, match="without seconds"):
        matched(trajectory(c2w), trajectory(c2w[every]), "seconds")


def test_seconds_compare_what_both_last() -> None:
    c2w = path_of(8)
    long, short = np.arange(9.0), np.arange(5.0)
    a, b, _ = matched(trajectory(c2w, long), trajectory(c2w[:5], short), "seconds")
    assert len(a) == 5 and a == pytest.approx(b, abs=1e-12)
    a, b, _ = matched(trajectory(c2w, long), trajectory(c2w[:5], short), "span")
    assert np.abs(a - b).max() > 0.1


# --- files ----------------------------------------------------------------------------------------


def read(path: Path) -> Trajectory:
    (found,) = read_cameras(path)
    return found


def test_the_files_are_those_of_the_readme() -> None:
    readme = (CAMERAS.parent / "README.md").read_text(encoding="utf-8")
    listed = dict(
        re.findall(r"`cameras/(\w+\.txt)`, \d+ bytes, SHA-256\s+`([0-9a-f]{64})`", readme)
    )
    there = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in CAMERAS.iterdir()}
    assert there == listed


@pytest.mark.parametrize("file", sorted(CAMERAS.glob("*.txt")), ids=lambda p: p.stem)
def test_real_estate_files(file: Path) -> None:
    path = read(file)
    rows = np.loadtxt(file, skiprows=1)
    assert (path.id, path.format, path.seconds) == (file.stem, "RealEstate10K", True)
    assert path.times == pytest.approx(rows[:, 0] / 1e6)
    assert path.bent < 1e-6
    w2c = rows[:, 7:].reshape(-1, 3, 4)
    # A point of the world, seen by both.
    point = np.array((0.3, -2.0, 5.0))
    seen = w2c[:, :, :3] @ point + w2c[:, :, 3]
    back = np.einsum("tij,tj->ti", path.c2w[:, :, :3], seen) + path.c2w[:, :, 3]
    assert back == pytest.approx(np.tile(point, (len(rows), 1)), abs=1e-6)  # of nine digits


def write_colmap(file: Path, c2w: np.ndarray, names: list[str]) -> None:
    """As COLMAP writes them: in any order, each image followed by a line of points, or an empty
    one."""
    turns = Rotation.from_matrix(c2w[:, :, :3]).inv()
    shifts = -turns.apply(c2w[:, :, 3])
    lines = ["# Image list with two lines of data per image:", "#   IMAGE_ID, QW, QX, QY, QZ, …"]
    for i in np.random.default_rng(0).permutation(len(c2w)):
        x, y, z, w = turns[i].as_quat()
        numbers = " ".join(f"{v:.17g}" for v in (w, x, y, z, *shifts[i]))
        lines += [f"{i + 1} {numbers} 1 {names[i]}", "10.5 20.5 -1 3 4 7" if i % 2 else ""]
    file.write_text("\n".join(lines) + "\n")


def test_colmap_files(tmp_path: Path) -> None:
    c2w = path_of(9, 12)
    write_colmap(tmp_path / "images.txt", c2w, [f"frames 1/{8 + i}.png" for i in range(12)])
    path = read(tmp_path / "images.txt")
    assert path.c2w == pytest.approx(c2w, abs=1e-12)
    assert path.times is not None and path.times.tolist() == list(range(8, 20))
    assert not path.seconds
    # Frames at the ends that a reconstruction left out can't be told from none: it is said.
    _, _, words = matched(replace(path, c2w=path_of(9, 17), times=np.arange(17.0)), path)
    assert words is not None and "the COLMAP frames 8 … 19 are taken for the whole clip" in words


def test_tum_and_json_files(tmp_path: Path) -> None:
    c2w = path_of(10)
    quaternions = Rotation.from_matrix(c2w[:, :, :3]).as_quat()
    rows = np.concatenate((np.arange(9)[:, None] / 8, c2w[:, :, 3], quaternions), axis=1)
    np.savetxt(tmp_path / "tum.txt", rows, fmt="%.17g")
    found = read(tmp_path / "tum.txt")
    assert found.c2w == pytest.approx(c2w, abs=1e-12)
    assert found.times == pytest.approx(np.arange(9) / 8)
    whole = np.concatenate((c2w, np.tile([[[0, 0, 0, 1.0]]], (9, 1, 1))), axis=1)
    text = f'{{"imH": 40, "extrinsics": {np.linalg.inv(whole).tolist()}}}'
    (tmp_path / "camera_info.json").write_text(text)
    assert read(tmp_path / "camera_info.json").c2w == pytest.approx(c2w, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no camera"),
        ("https://example.org/video\n", "no camera"),
        ("1 2 3\n", "3 words are no camera"),
        ("https://x\n" + "0 " * 18 + "0\n", "not finite, or its axes"),
        ("https://x\n" + "0 " * 18 + "nan\n", "`nan` is no number"),
        ("0 .5 .5 .5 .5 0 0 1 0 0 0 0 1 0 0 0 0 1.1 0\n", "no rotation"),
        ("0 .5 .5 .5 .5 0 0 1 0 0 0 0 1 0 0 0 0 -1 0\n", "no rotation"),
        ("0 .5 .5 .5 .5 0 0 1 0 0 0 0 1 0 0 0 0 1 0\n" * 2, "don't rise"),
        ("0 1 2 3 0 0 0 2\n", "quaternion"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(InputError, match=words):
        read(tmp_path / "bad.txt")
