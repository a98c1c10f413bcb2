"""Truth agrees with itself: tracks with depth and cameras, flow with tracks, events with motion."""

import numpy as np
import pytest

from vidgen.world import motion
from vidgen.world.render import geometry
from vidgen.world.scene import sample_scene
from vidgen.world.truth import event_list, flow, truth

HEIGHT, WIDTH = 40, 64
TIMES = [0.0, 0.5, 1.0, 1.5, 2.0]


def clip(seed, **options):
    scene = sample_scene(seed, level="full", **options)
    return scene, truth(scene, TIMES, HEIGHT, WIDTH)


def reproject(found, depth, pixels, source, target):
    """Pixels (N 2) of frame `source`, of z-depth `depth` (N), seen in frame `target`, by the
    record's cameras alone: textbook pinhole, nothing of the package."""
    fx, fy, cx, cy = found.intrinsics[source].astype(np.float64)
    ray = np.stack(((pixels[:, 0] / WIDTH - cx) / fx, (pixels[:, 1] / HEIGHT - cy) / fy,
                    np.ones(len(pixels))), axis=-1)  # fmt: skip
    c2w = found.c2w.astype(np.float64)
    world = (ray * depth[:, None]) @ c2w[source, :, :3].T + c2w[source, :, 3]
    own = (world - c2w[target, :, 3]) @ c2w[target, :, :3]
    fx, fy, cx, cy = found.intrinsics[target].astype(np.float64)
    return np.stack((WIDTH * (cx + fx * own[:, 0] / own[:, 2]),
                     HEIGHT * (cy + fy * own[:, 1] / own[:, 2])), axis=-1)  # fmt: skip


@pytest.mark.parametrize("camera", ["pans left", "zooms in", "orbits right", "follows a path"])
def test_tracks_on_the_ground_agree_with_reprojection(camera):
    for seed in (0, 1):
        _, found = clip(seed, factors={"camera": camera})
        ground = found.track_owner == 0
        start = found.tracks[ground, 0]
        at = np.floor(start).astype(int)
        np.testing.assert_allclose(start - at, 0.5, atol=1e-3)
        depth = found.depth[0, at[:, 1], at[:, 0]]
        near = depth < 15
        for frame in range(1, len(TIMES)):
            there = reproject(found, depth[near], start[near], 0, frame)
            np.testing.assert_allclose(found.tracks[ground, frame][near], there, atol=0.05)


def test_a_seen_track_lies_on_the_surface_the_depth_camera_sees():
    """Cast the ray to the track itself: its depth is the picture's there, and its owner too."""
    checked = 0
    for seed in range(6):
        scene, found = clip(seed)
        _, owner = geometry(scene, TIMES, HEIGHT * 8, WIDTH * 8)
        for frame in range(len(TIMES)):
            seen = found.visibility[:, frame]
            at = np.floor(found.tracks[seen, frame] * 8).astype(int)
            assert (at >= 0).all() and (at < (WIDTH * 8, HEIGHT * 8)).all()
            same = owner[frame].numpy()[at[:, 1], at[:, 0]] == found.track_owner[seen]
            assert same.mean() > 0.9 if len(same) > 9 else True  # a track may sit on an edge
            checked += len(same)
    assert checked > 800


def test_tracks_are_hidden_by_what_is_in_front():
    """A turning body hides its far side, and a passing one what is behind it."""
    given = {"shape": "ball", "motion": "spins", "camera": "still"}
    scene = sample_scene(0, level="full", num_objects=1, num_events=1, factors=given)
    found = truth(scene, TIMES, HEIGHT, WIDTH, num_tracks=200)
    on_ball = found.track_owner == 1
    assert found.visibility[:, 0].mean() > 0.97  # where they start they are seen
    last = found.visibility[on_ball, -1]
    assert 0.02 < last.mean() < 0.6
    # By hand: a point of a sphere is seen if its normal looks at the camera.
    eye = found.c2w[-1, :, 3]
    path = motion.object_path(scene.objects[0], TIMES)
    at = found.tracks[on_ball, 0]
    z = found.depth[0, np.floor(at[:, 1]).astype(int), np.floor(at[:, 0]).astype(int)]
    fx, fy, cx, cy = found.intrinsics[0]
    own = np.stack(((at[:, 0] / WIDTH - cx) / fx * z, (at[:, 1] / HEIGHT - cy) / fy * z, z), -1)
    world = own @ found.c2w[0, :, :3].T + found.c2w[0, :, 3]
    normal = (world - path.center[0]) @ path.rotation[0] @ path.rotation[-1].T
    faces = (normal * (eye - path.center[-1] - normal)).sum(axis=-1)
    sure = np.abs(faces) > 0.05
    assert (last == (faces > 0))[sure].all()


def test_flow_agrees_with_tracks():
    checked = 0
    for seed in range(5):
        scene, _ = clip(seed)
        times = [0.5, 0.75]
        found = truth(scene, times, HEIGHT, WIDTH)
        moved, seen = flow(scene, times, HEIGHT, WIDTH)
        assert moved.shape == (1, HEIGHT, WIDTH, 2) and seen.shape == (1, HEIGHT, WIDTH)
        start = found.tracks[:, 0]
        at = np.floor(start).astype(int)
        np.testing.assert_allclose(
            moved[0, at[:, 1], at[:, 0]], found.tracks[:, 1] - start, atol=2e-3
        )
        assert (seen[0, at[:, 1], at[:, 0]] == found.visibility[:, 1]).all()
        checked += len(at)
    assert checked >= 300


def test_flow_of_the_sky_is_the_cameras_turn_alone():
    given = {"camera": "trucks left", "motion": "stays still"}
    scene = sample_scene(0, level="full", num_objects=1, factors=given)
    moved, seen = flow(scene, [0.0, 0.5])
    _, owner = geometry(scene, [0.0], HEIGHT, WIDTH)
    sky = owner[0].numpy() < 0
    assert np.abs(moved[0][sky]).max() < 1e-3
    assert seen[0][sky].mean() > 0.9
    given["camera"] = "pans left"
    scene = sample_scene(0, level="full", num_objects=1, factors=given)
    moved, _ = flow(scene, [0.0, 0.5])
    assert (moved[0][sky][:, 0] > 2).all()
    assert flow(scene, [0.0])[0].shape == (0, HEIGHT, WIDTH, 2)


def test_depth_shapes_and_units():
    _, found = clip(4, num_objects=2)
    assert found.depth.shape == found.owner.shape == (5, HEIGHT, WIDTH)
    assert found.depth.dtype == np.float32 and found.times.dtype == np.float64
    assert np.isinf(found.depth[found.owner < 0]).all()
    assert np.isfinite(found.depth[found.owner >= 0]).all()
    assert found.centers.shape == (2, 5, 3) and found.sizes.shape == (2, 5)
    assert found.rotations.shape == (2, 5, 3, 3) and found.tracks.shape == (64, 5, 2)
    # fx of a picture whose pixels are square, and a principal point in the middle.
    np.testing.assert_allclose(found.intrinsics[:, 1] / found.intrinsics[:, 0], WIDTH / HEIGHT)
    np.testing.assert_allclose(found.intrinsics[:, 2:], 0.5)
    # An object's picture is around its center's.
    for number in (1, 2):
        rows, columns = (found.owner[0] == number).nonzero()
        middle = found.image_centers[number - 1, 0]
        assert abs(columns.mean() + 0.5 - middle[0]) < 3 and abs(rows.mean() + 0.5 - middle[1]) < 3


def test_tracks_are_the_same_again_and_half_on_objects():
    _, one = clip(2)
    _, two = clip(2)
    np.testing.assert_array_equal(one.tracks, two.tracks)
    assert (one.track_owner > 0).sum() == 32


def test_events_come_in_order_of_time():
    acts = [(0.0, 1.0, "moves left"), (1.0, 2.0, "bounces"), (2.0, 3.0, "spins")]
    found = event_list(sample_scene(0, events=acts))
    times = [e.get("start", e.get("impact")) for e in found]
    assert times == sorted(times)
    assert [(e["start"], e["end"], e["motion"]) for e in found if "motion" in e] == acts
    assert all(1.0 < e["impact"] <= 2.0 for e in found if "impact" in e)
    for seed in range(80):
        found = event_list(sample_scene(seed, level="full"))
        times = [e.get("start", e.get("impact")) for e in found]
        assert times == sorted(times) and times[0] >= 0 and times[-1] <= 2


def test_impacts_are_when_the_body_is_lowest():
    for seed in range(6):
        for act in ("bounces", "falls"):
            given = {"motion": act, "camera": "still"}
            scene = sample_scene(seed, level="full", num_objects=1, num_events=1, factors=given)
            thing = scene.objects[0]
            hits = motion.impacts(thing)
            assert hits
            for hit in hits:
                around = motion.object_path(thing, hit.time + np.array([-0.02, 0.0, 0.02]))
                height = around.center[:, 1] - motion.REST_HEIGHT[thing.shape] * around.size
                assert height[1] == pytest.approx(0, abs=1e-9) and height[0] > 0.01
                assert hit.speed == pytest.approx(height[0] / 0.02, rel=0.1)
            # And at no other time does it come down.
            times = np.linspace(0, 2, 4001)
            y = motion.object_path(thing, times).center[:, 1]
            low = times[1:-1][(y[1:-1] <= y[:-2]) & (y[1:-1] < y[2:])]
            for t in low[1:] if act == "bounces" else []:
                assert min(abs(t - hit.time) for hit in hits) < 2e-3
