"""Every motion and every camera does to the picture what its word says, plainly at 40 × 64."""

import numpy as np
import pytest
import torch

from vidgen.world import motion
from vidgen.world.render import geometry, render
from vidgen.world.scene import sample_scene
from vidgen.world.truth import truth
from vidgen.world.vocabulary import FULL

TIMES = [0.0, 0.5, 1.0, 1.5, 2.0]
SEEDS = range(3)


def film(seed, **factors):
    """Truth of a clip of one object that does one thing, at the five keyframes."""
    given = {"camera": "still", "motion": "stays still"} | factors
    scene = sample_scene(seed, level="full", num_objects=1, num_events=1, factors=given)
    return scene, truth(scene, TIMES, num_tracks=2)


def area(found):
    """Pixels of the object in each frame."""
    return (found.owner == 1).sum(axis=(1, 2))


def column(found):
    return found.image_centers[0, :, 0]


def row(found):
    return found.image_centers[0, :, 1]


def rises(x, least):
    """Goes up in every step, by `least` in all."""
    steps = np.diff(np.asarray(x, dtype=float))
    return (steps > 0).all() and steps.sum() > least


def falls(x, least):
    return rises(-np.asarray(x, dtype=float), least)


MOTIONS = {
    "moves left": lambda f: falls(column(f), 18),
    "moves right": lambda f: rises(column(f), 18),
    "comes closer": lambda f: rises(np.log(area(f)), np.log(1.7)),
    "moves away": lambda f: falls(np.log(area(f)), np.log(1.7)),
    # Down and up at the keyframes themselves, and more than once.
    "bounces": lambda f: np.ptp(row(f)) > 5 and (np.diff(np.sign(np.diff(row(f)))) != 0).any(),
    "stays still": lambda f: np.ptp(f.image_centers[0], axis=0).max() == 0,
    "spins": lambda f: np.ptp(f.image_centers[0], axis=0).max() == 0 and 2.3 < turned(f) < 3.3,
    "rises": lambda f: falls(row(f), 6),
    "falls": lambda f: rises(row(f), 6),
    "rolls in a circle": lambda f: np.ptp(column(f)) > 8 and np.ptp(f.image_centers[0, :, 2]) > 0.4,
    "grows": lambda f: rises(np.log(area(f)), np.log(2)),
    "shrinks": lambda f: falls(np.log(area(f)), np.log(2)),
    "changes colour": lambda f: np.ptp(f.image_centers[0], axis=0).max() == 0,
}


def turned(found):
    """Angle turned about the vertical in all, radians."""
    x, z = found.rotations[0, :, 0, 2], found.rotations[0, :, 2, 2]
    return np.ptp(np.unwrap(np.arctan2(x, z)))


@pytest.mark.parametrize("name", FULL["motion"])
def test_motions_do_what_they_are_called(name):
    for seed in SEEDS:
        _, found = film(seed, motion=name)
        assert MOTIONS[name](found), (name, seed)


CAMERAS = {
    "still": lambda f: np.ptp(f.c2w, axis=0).max() == 0 and np.ptp(column(f)) == 0,
    "pans left": lambda f: rises(column(f), 14),
    "pans right": lambda f: falls(column(f), 14),
    "zooms in": lambda f: rises(np.log(area(f)), np.log(1.6)) and rises(f.intrinsics[:, 0], 0.3),
    "zooms out": lambda f: falls(np.log(area(f)), np.log(1.6)) and falls(f.intrinsics[:, 0], 0.3),
    "tilts up": lambda f: rises(row(f), 8),
    "tilts down": lambda f: falls(row(f), 8),
    "orbits left": lambda f: own_way(f)[0] < -1.2 and np.ptp(column(f)) < 16,
    "orbits right": lambda f: own_way(f)[0] > 1.2 and np.ptp(column(f)) < 16,
    "dollies in": lambda f: rises(np.log(area(f)), np.log(1.3)) and own_way(f)[2] > 0.9,
    "dollies out": lambda f: falls(np.log(area(f)), np.log(1.3)) and own_way(f)[2] < -0.9,
    "trucks left": lambda f: rises(column(f), 12) and own_way(f)[0] < -0.9,
    "trucks right": lambda f: falls(column(f), 12) and own_way(f)[0] > 0.9,
    "follows a path": lambda f: (np.abs(np.diff(f.c2w[:, :, 3], axis=0)).max(axis=1) > 1e-3).all(),
}


def own_way(found):
    """The camera's way in its first axes: right, down, ahead; meters."""
    return (found.c2w[-1, :, 3] - found.c2w[0, :, 3]) @ found.c2w[0, :, :3]


@pytest.mark.parametrize("name", FULL["camera"])
def test_cameras_do_what_they_are_called(name):
    for seed in SEEDS:
        _, found = film(seed, camera=name)
        assert CAMERAS[name](found), (name, seed)


def test_cameras_are_rotations_in_opencv_axes():
    for seed in range(20):
        path = motion.camera_path(sample_scene(seed, level="full").camera, TIMES)
        turn = path.c2w[:, :, :3]
        np.testing.assert_allclose(
            turn @ turn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turn.shape), atol=1e-12
        )
        np.testing.assert_allclose(np.linalg.det(turn), 1)
        assert (turn[:, 1, 1] < -0.8).all()  # the camera's y goes down
        np.testing.assert_allclose(turn[:, 1, 0], 0, atol=1e-12)  # and its x is level


@pytest.mark.parametrize("shape", FULL["shape"])
def test_spinning_shows_in_the_picture_and_resting_does_not(shape):
    """A mark must be seen to turn even where the outline can't."""
    given = {"shape": shape, "camera": "still", "color": "red"}
    for seed in SEEDS:
        scenes = [
            sample_scene(
                seed, level="full", num_objects=1, num_events=1, factors=given | {"motion": act}
            )
            for act in ("spins", "stays still", "changes colour")
        ]
        frames = render(scenes, times=TIMES).frames.float()
        _, owner = geometry(scenes[0], TIMES, 40, 64)
        body = (owner == 1).all(dim=0)
        moved = frames.diff(dim=1).abs().amax(dim=-1)[:, :, body]  # b t pixels
        assert (moved[0] > 25).float().mean(dim=1).min() > 0.04
        assert moved[1].max() == 0
        assert moved[2].amax(dim=0).float().mean() > 10


def test_a_ball_rolls_without_slipping():
    """Where a rolling ball touches the ground, its surface stands still."""
    given = {"shape": "ball", "motion": "rolls in a circle", "camera": "still"}
    for shape in ("ball", "ring"):
        scene = sample_scene(
            1, level="full", num_objects=1, num_events=1, factors=given | {"shape": shape}
        )
        step = 1e-4
        path = motion.object_path(scene.objects[0], [0.7 - step, 0.7, 0.7 + step])
        way = (path.center[2] - path.center[0]) / (2 * step)
        turn = (path.rotation[2] - path.rotation[0]) / (2 * step) @ path.rotation[1].T
        touch = np.array((0.0, -path.center[1, 1], 0.0))
        assert np.linalg.norm(way) > 0.5
        # Steering turns it about the vertical through that point, which moves nothing there.
        np.testing.assert_allclose(way + turn @ touch, 0, atol=1e-3 * np.linalg.norm(way) + 1e-4)


def test_objects_stand_on_the_ground():
    for seed in range(60):
        scene = sample_scene(seed, level="full")
        for thing in scene.objects:
            path = motion.object_path(thing, np.linspace(0, 2, 21))
            bottom = path.center[:, 1] - motion.REST_HEIGHT[thing.shape] * path.size
            assert bottom.min() > -1e-9
            if not {"rises", "falls"} & {e.motion for e in thing.events}:
                assert bottom.min() < 0.2


def test_pictures_do_not_move_when_nothing_does():
    scene = sample_scene(0, factors={"motion": "stays still", "camera": "still"})
    frames = render([scene], times=TIMES).frames
    assert torch.equal(frames[:, 1:], frames[:, :-1])
