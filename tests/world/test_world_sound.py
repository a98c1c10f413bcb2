"""Sound: silence where nothing sounds, impacts when bodies land, pitch by size."""

from dataclasses import replace

import numpy as np
import pytest

from vidgen.world import motion
from vidgen.world.scene import sample_scene
from vidgen.world.sound import SAMPLE_RATE, impact_sound, sound


def scene(act, seed=0, **factors):
    given = {"motion": act, "camera": "still"} | factors
    return sample_scene(seed, level="full", num_objects=1, num_events=1, factors=given)


def resized(made, size):
    thing = replace(made.objects[0], size=size)
    return replace(made, objects=(thing,))


def loudness(x, width=160):
    """Root mean square of stretches of 10 ms."""
    return np.sqrt((x[: len(x) // width * width].reshape(-1, width) ** 2).mean(axis=1))


def peak_hz(x):
    spectrum = np.abs(np.fft.rfft(x * np.hanning(len(x))))
    return spectrum.argmax() * SAMPLE_RATE / len(x)


@pytest.mark.parametrize("act", ["stays still", "rises", "grows", "shrinks", "changes colour"])
def test_still_objects_are_silent(act):
    assert not sound(scene(act)).any()


@pytest.mark.parametrize("act", ["moves left", "comes closer", "bounces", "spins", "falls",
                                 "rolls in a circle"])  # fmt: skip
def test_what_moves_is_heard(act):
    made = sound(scene(act))
    assert made.shape == (1, 2 * SAMPLE_RATE) and made.dtype == np.float32
    assert 0.02 < np.abs(made).max() <= 1.0
    assert 1e-3 < loudness(made[0]).mean() < 0.5


@pytest.mark.parametrize("shape", ["ball", "cube", "cylinder", "cone", "ring"])
def test_impacts_are_heard_when_bodies_land(shape):
    for seed in (0, 1):
        made = scene("bounces", seed, shape=shape)
        audio = sound(made)[0].astype(np.float64)
        times = [hit.time for hit in motion.impacts(made.objects[0]) if hit.time < 1.95]
        # The sound's energy jumps at an impact: the largest jumps are at the impacts.
        level = np.log(loudness(audio, 80) + 1e-5)
        jumps = np.concatenate(([0.0], np.diff(level, prepend=level[0])[1:]))
        found = np.sort(np.argsort(jumps)[-len(times) :]) * 80 / SAMPLE_RATE
        np.testing.assert_allclose(found, times, atol=0.012)
        before = audio[: int(times[0] * SAMPLE_RATE)]
        assert not before.any()


def test_a_fall_is_silent_until_it_lands():
    made = scene("falls")
    landing = motion.impacts(made.objects[0])[0].time
    audio = sound(made)[0]
    first = np.flatnonzero(audio)[0] / SAMPLE_RATE
    assert first == pytest.approx(landing, abs=2e-3) and landing == pytest.approx(1.6)


@pytest.mark.parametrize("shape", ["cube", "ring"])
def test_pitch_follows_size(shape):
    """Twice the size, half the pitch: of impacts and of the hum."""
    for act in ("falls", "spins"):
        small, large = (resized(scene(act, shape=shape), size) for size in (0.5, 1.0))
        start = SAMPLE_RATE * 16 // 10 + 100 if act == "falls" else 0
        low, high = (peak_hz(sound(s)[0][start:]) for s in (large, small))
        assert high / low == pytest.approx(2, rel=0.06)


def test_timbre_follows_material():
    tones = {peak_hz(impact_sound(resized(scene("falls", shape=s), 1.0).objects[0], 32000)[25700:])
             for s in ("ball", "cube", "cylinder", "ring")}  # fmt: skip
    assert len(tones) == 4


def test_nearer_is_louder():
    audio = sound(scene("comes closer"))[0]
    assert loudness(audio[-8000:]).mean() > 1.3 * loudness(audio[2000:10000]).mean()


def test_the_same_again_and_longer():
    made = scene("moves left")
    np.testing.assert_array_equal(sound(made), sound(made))
    longer = sound(made, 3.0)
    assert longer.shape == (1, 3 * SAMPLE_RATE)
    np.testing.assert_allclose(longer[:, :31_000], sound(made)[:, :31_000], atol=1e-6)
    assert not np.array_equal(sound(made), sound(scene("moves left", seed=1)))


def test_objects_add_up():
    given = {"motion": "stays still", "motion_2": "spins", "shape_2": "cube"}
    both = sample_scene(0, level="full", factors=given)
    alone = replace(both, objects=(both.objects[0],))
    assert not sound(alone).any() and sound(both).any()
