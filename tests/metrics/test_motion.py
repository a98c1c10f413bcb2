"""Motion: fidelity of tracks by its laws and by slow loops, points followed against true ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidgen.metrics.motion import Tracks, by_place, ditflow, dynamic_degree, fidelity, smoothness
from vidgen.metrics.tracks import follow, grid_points
from vidgen.world.clips import clip_record
from vidgen.world.scene import TEST_SEEDS, sample_scene

SEEDS = st.integers(0, 2**31)


def tracks_of(seed: int, n: int = 6, t: int = 9, hidden: float = 0.0) -> Tracks:
    rng = np.random.default_rng(seed)
    at = torch.from_numpy(np.cumsum(3 * rng.standard_normal((n, t, 2)), axis=1))
    return Tracks(at, torch.from_numpy(rng.random((n, t)) >= hidden))


def straight(ways: list[tuple[float, float]], t: int = 5) -> Tracks:
    at = torch.tensor(ways, dtype=torch.float64)[:, None] * torch.arange(t)[None, :, None]
    return Tracks(at, torch.ones(at.shape[:2], dtype=torch.bool))


def slow(source: Tracks, made: Tracks) -> float:
    """The mean over made tracks of the best mean cosine, in loops; all seen, none at rest."""
    best = []
    for y in made.at.numpy():
        values = []
        for x in source.at.numpy():
            cosines = []
            for i in range(len(x) - 1):
                a, b = x[i + 1] - x[i], y[i + 1] - y[i]
                cosines.append(float(a @ b / math.hypot(*a) / math.hypot(*b)))
            values.append(sum(cosines) / len(cosines))
        best.append(max(values))
    return sum(best) / len(best)


def test_against_slow_loops() -> None:
    a, b = tracks_of(0), tracks_of(1, n=9)
    found = fidelity(a, b, 0)
    assert found is not None
    assert found.forward == pytest.approx(slow(a, b))
    assert found.back == pytest.approx(slow(b, a))
    assert found.both == pytest.approx((slow(a, b) + slow(b, a)) / 2)


@settings(max_examples=30)
@given(SEEDS, st.floats(0, 0.6))
def test_a_clip_moves_as_it_does(seed: int, hidden: float) -> None:
    tracks = tracks_of(seed, hidden=hidden)
    found = fidelity(tracks, tracks)
    if found is not None:
        assert found.forward == pytest.approx(1) and found.back == pytest.approx(1)


@settings(max_examples=20)
@given(SEEDS, st.floats(1.5, 50))
def test_size_and_place_do_not_count(seed: int, scale: float) -> None:
    a, b = tracks_of(seed), tracks_of(seed + 1)
    larger = Tracks(b.at * scale + 7, b.seen)
    assert fidelity(a, larger, 0).forward == pytest.approx(fidelity(a, b, 0).forward)  # type: ignore[union-attr]


def test_reversed_motion_is_negative() -> None:
    a = straight([(1, 0), (1, 0.2), (2, -0.1)])
    reverse = Tracks(a.at.flip(1), a.seen)
    found = fidelity(a, reverse)
    assert found is not None and found.forward < -0.9 and found.back < -0.9


def test_tracks_at_rest_are_left_out_and_counted() -> None:
    a, b = straight([(1, 0), (0, 0)]), straight([(1, 0), (0, 0), (0.01, 0)])
    found = fidelity(a, b)
    assert found is not None
    assert (found.forward, found.tracks, found.still_source, found.still_made) == (1, 1, 1, 2)
    nothing = straight([(0, 0), (0, 0)])
    assert fidelity(nothing, nothing) is None
    for one, other in ((a, nothing), (nothing, a)):
        found = fidelity(one, other)
        assert found is not None and found.forward == found.back == 0


def test_rests_within_a_track_agree_with_rests_only() -> None:
    go = torch.tensor([[[0.0, 0], [1, 0], [1, 0], [2, 0], [3, 0]]], dtype=torch.float64)
    a = Tracks(go, torch.ones(1, 5, dtype=torch.bool))
    assert fidelity(a, a).forward == pytest.approx(1)  # type: ignore[union-attr]
    assert fidelity(a, straight([(1, 0)])).forward == pytest.approx(3 / 4)  # type: ignore[union-attr]


def test_what_is_hidden_does_not_count() -> None:
    a = straight([(1, 0)])
    wild = a.at.clone()
    wild[0, 3] = torch.tensor((-50.0, 80.0))
    seen = a.seen.clone()
    seen[0, 3] = False
    assert fidelity(a, Tracks(wild, seen)).forward == pytest.approx(1)  # type: ignore[union-attr]
    assert fidelity(a, Tracks(wild, a.seen)).forward < 1  # type: ignore[union-attr]
    never = Tracks(a.at, torch.zeros_like(a.seen))
    assert fidelity(a, never) is None
    # Two steps of four along with a source track are enough, one isn't.
    for frames, alone in ((3, 0), (2, 1)):
        part = Tracks(a.at, torch.arange(5)[None] < frames)
        found = fidelity(part, Tracks(torch.cat((a.at, a.at)), a.seen.expand(2, 5)))
        assert (found is None) == bool(alone)


def test_the_best_of_many_is_lenient_and_the_one_at_the_same_point_is_not() -> None:
    begin = torch.tensor([[0.0, 0], [40, 0], [0, 40], [40, 40]]).double()
    way = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]).double()  # as about a point

    def go(sign: int, size: float = 1) -> Tracks:
        at = size * (begin[:, None] + sign * way[:, None] * torch.arange(5)[None, :, None])
        return Tracks(at, torch.ones(4, 5, dtype=torch.bool))

    there, back = go(1), go(-1)
    assert fidelity(there, back).both == pytest.approx(1)  # type: ignore[union-attr]
    assert by_place(there, back) == pytest.approx(-1)
    assert by_place(there, there) == by_place(there, go(1, 2), scale=(2, 2)) == pytest.approx(1)
    assert by_place(there, go(1, 2)) is None  # other points
    assert by_place(there, Tracks(there.at[:3], there.seen[:3])) is None
    rest = Tracks(begin[:, None].expand(4, 5, 2), there.seen)
    assert by_place(there, rest) == by_place(rest, there) == 0
    assert by_place(rest, rest) is None
    # Where one is not seen nothing is told; three points of four are the same, one the opposite.
    seen = there.seen.clone()
    seen[1, 1:] = False
    assert by_place(there, Tracks(back.at, seen)) == pytest.approx(-1)
    mixed = torch.cat((there.at[:3], back.at[3:]))
    assert by_place(there, Tracks(mixed, there.seen)) == pytest.approx(0.5)
    assert by_place(there, Tracks(mixed, seen)) == pytest.approx(1 / 3)
    assert Tracks(mixed, seen).followed == pytest.approx(12 / 16)


def test_longer_clips_are_cut() -> None:
    a, b = tracks_of(2, t=9), tracks_of(2, t=9)
    assert fidelity(a, b.cut(5)).forward == fidelity(a.cut(5), b.cut(5)).forward  # type: ignore[union-attr]


def test_as_the_published_code_computes_it() -> None:
    a, b = tracks_of(3), tracks_of(4)

    def unit(x: np.ndarray) -> np.ndarray:
        step = np.diff(x, axis=1)
        return step / np.linalg.norm(step, axis=2, keepdims=True)

    table = np.array([[(x * y).sum(1).mean() for y in unit(b.at.numpy())] for x in unit(a.at.numpy())])  # fmt: skip  # noqa: E501
    assert ditflow(a, b) == pytest.approx((table - np.eye(6)).max(axis=0).mean())
    assert ditflow(a, a) < 1  # type: ignore[operator]
    assert ditflow(a, straight([(0, 0)] * 6, 9)) is None
    assert ditflow(a, tracks_of(5, n=7)) is None


# --- pixels ---------------------------------------------------------------------------------------


def picture(height: int = 48, width: int = 64) -> torch.Tensor:
    """A smooth random texture, uint8 `h w 3`."""
    noise = torch.rand(1, 3, height // 6, width // 6, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")
    return (large[0].permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8)


def sliding(pixels: int, frames: int = 5) -> torch.Tensor:
    wide = picture(48, 64 + pixels * frames)
    return torch.stack([wide[:, pixels * i : pixels * i + 64] for i in range(frames)])


@pytest.mark.parametrize("pixels", [0, 1, 3])
def test_points_of_a_sliding_picture(pixels: int) -> None:
    points = torch.tensor([[30.0, 20.0], [40.0, 30.0], [50.5, 12.5]])
    at, known = follow(sliding(pixels), points)
    assert known.all()
    expected = points[:, None] - torch.arange(5)[None, :, None] * torch.tensor((float(pixels), 0))
    assert (at - expected).norm(dim=-1).max() < 0.1


def test_points_without_texture_or_outside_are_lost() -> None:
    flat = torch.full((3, 48, 64, 3), 128, dtype=torch.uint8)
    assert not follow(flat, grid_points(48, 64, 4))[1].any()
    at, known = follow(sliding(3, 9), torch.tensor([[4.0, 20.0]]))
    assert known[0, 0] and not known[0, -1]
    assert at.isfinite().all()


def test_grids() -> None:
    points = grid_points(40, 64, 16)
    assert points.shape == (160, 2)
    assert points[0].tolist() == [2, 2] and points[-1].tolist() == [62, 38]


def test_points_of_rendered_clips_against_their_true_tracks() -> None:
    """Measured on six test clips of 40 × 64: median 0.42 px, nine of ten within 2.2 px; the points
    move 4.8 px on average; half of the true positions are followed."""
    apart, found, there = [], 0, 0
    for seed in (TEST_SEEDS.start, TEST_SEEDS.start + 1):
        record = clip_record(sample_scene(seed, level="basic"), num_frames=9)
        true, seen = record.torch("truth.tracks"), record.torch("truth.visibility")
        at, known = follow(record.torch("frames"), true[:, 0])
        both = (known & seen)[:, 1:]
        apart.append((at - true)[:, 1:].norm(dim=-1)[both])
        found, there = found + int(both.sum()), there + int(seen[:, 1:].sum())
    assert float(torch.cat(apart).median()) < 0.6
    assert found > 0.25 * there


def test_dynamic_degree_and_speed() -> None:
    assert dynamic_degree(sliding(0)).speed < 1e-6 and not dynamic_degree(sliding(0)).dynamic
    fast = dynamic_degree(sliding(3))
    assert fast.dynamic and fast.speed == pytest.approx(3 / 48, rel=0.35)
    assert not dynamic_degree(sliding(1)).dynamic  # 1 of 48 is less than 6 of 256
    assert dynamic_degree(sliding(1, 9), stride=3).dynamic
    with pytest.raises(ValueError):
        dynamic_degree(sliding(1, 1))


def test_smoothness_falls_with_judder() -> None:
    assert smoothness(sliding(0)) == pytest.approx(1, abs=1e-6)
    smooth = sliding(2, 9)
    judder = smooth[torch.tensor([0, 2, 1, 4, 3, 6, 5, 8, 7])]
    assert smoothness(smooth) > smoothness(judder) + 0.01
    assert smoothness(smooth) > 0.985
    with pytest.raises(ValueError):
        smoothness(smooth[:2])
