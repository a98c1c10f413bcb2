"""What a scene sounds like: impacts, rolling, and the hum of spinning; mono, 16 kHz.

An object's pitch follows its size: all its frequencies are divided by it. Its timbre follows its
material, which is its shape's: balls are rubber, cubes wood, cylinders tin, cones clay, rings
steel. What stays still, rises, grows or changes color is silent. Loudness falls with the distance
from the camera. All choices here are ours; nothing is measured from real objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidgen.world import motion
from vidgen.world.parts import Object, Scene

SAMPLE_RATE = 16_000
CONTROL_RATE = 200  # at which speeds are computed

Array = np.ndarray


@dataclass(frozen=True)
class Material:
    """Modes of a struck body of size 1: frequency (Hz), loudness, decay (1/s)."""

    modes: tuple[tuple[float, float, float], ...]
    rough: float  # of rolling: the noise's band, Hz
    hum: tuple[float, ...]  # of spinning: loudness of harmonics


HUM_HZ = 110.0  # of a body of size 1

MATERIALS = {
    "ball": Material(((150, 1.0, 22), (290, 0.35, 35)), 300, (1.0, 0.2)),
    "cube": Material(((320, 1.0, 38), (810, 0.5, 55), (1490, 0.25, 80)), 900, (1.0, 0.0, 0.33)),
    "cylinder": Material(
        ((520, 0.8, 9), (1130, 0.6, 12), (1870, 0.5, 16), (3050, 0.3, 22)), 2200,
        (1.0, 0.5, 0.33, 0.25, 0.2),
    ),
    "cone": Material(((430, 1.0, 26), (1180, 0.4, 40)), 1300, (1.0, 0.0, 0.11, 0.0, 0.04)),
    "ring": Material(((880, 0.8, 4), (2230, 0.6, 5), (3620, 0.4, 7)), 3000, (1.0, 0.8, 0.6, 0.4)),
}  # fmt: skip


def sound(scene: Scene, duration_s: float | None = None) -> Array:
    """The scene's sound, float32 `1 S` in −1 … 1, S = 16 000 × `duration_s` (the scene's own
    length if None). The same scene sounds the same, whatever the duration."""
    duration_s = scene.duration_s if duration_s is None else duration_s
    count = round(duration_s * SAMPLE_RATE)
    mix = np.zeros(count)
    # Noise is drawn in one piece per object, so that a longer clip begins like a shorter one.
    for number, thing in enumerate(scene.objects):
        near = _nearness(scene, thing, count)
        rng = np.random.default_rng([scene.seed, number])
        mix += near * (
            impact_sound(thing, count) + _rolling(thing, count, rng) + _spinning(thing, count)
        )
    return np.tanh(mix).astype(np.float32)[None]


def impact_sound(thing: Object, count: int) -> Array:
    """Struck modes that ring out, one set for each time the object hits the ground."""
    out = np.zeros(count)
    material = MATERIALS[thing.shape]
    for hit in motion.impacts(thing):
        first = int(np.ceil(hit.time * SAMPLE_RATE))
        if first >= count:
            continue
        t = np.arange(first, count) / SAMPLE_RATE - hit.time
        size = float(motion.object_path(thing, [hit.time]).size[0])
        for hertz, loud, decay in material.modes:
            ring = np.exp(-decay * t) * np.sin(2 * np.pi * hertz / size * t)
            out[first:] += 0.25 * hit.speed / 4 * loud * ring
    return out


def _rolling(thing: Object, count: int, rng: np.random.Generator) -> Array:
    """Noise, louder with speed, in a band that follows size and material; only on the ground."""
    times = _control_times(count)
    path = motion.object_path(thing, times)
    bottom = path.center[:, 1] - motion.REST_HEIGHT[thing.shape] * path.size
    speed = motion.ground_speed(thing, times) * (bottom < 0.02)
    if speed.max(initial=0.0) < 1e-3:
        return np.zeros(count)
    # A one-pole low pass as a short convolution; the noise's strength does not depend on the band.
    band = MATERIALS[thing.shape].rough / thing.size
    kernel = np.exp(-2 * np.pi * band / SAMPLE_RATE * np.arange(256))
    kernel /= np.sqrt((kernel**2).sum())
    noise = np.convolve(rng.standard_normal(count), kernel)[:count]
    return 0.06 * _at_audio_rate(np.minimum(speed, 3.0), count) * noise


def _spinning(thing: Object, count: int) -> Array:
    """A hum of harmonics, louder when spinning faster, that pulses once a half turn."""
    times = _control_times(count)
    speed = motion.spin_speed(thing, times)
    if not speed.any():
        return np.zeros(count)
    size = motion.object_path(thing, times).size
    phase = 2 * np.pi * np.cumsum(_at_audio_rate(HUM_HZ / size, count)) / SAMPLE_RATE
    fast = _at_audio_rate(speed, count)
    pulse = 1 + 0.4 * np.cos(2 * np.cumsum(fast) / SAMPLE_RATE)
    tone = sum(
        loud * np.sin(k * phase) for k, loud in enumerate(MATERIALS[thing.shape].hum, start=1)
    )
    return 0.05 * fast * pulse * tone


def _nearness(scene: Scene, thing: Object, count: int) -> Array:
    """Loudness by distance from the camera: 1 at 3 m, falling as 1 / distance."""
    times = _control_times(count)
    eye = motion.camera_path(scene.camera, times).c2w[:, :, 3]
    apart = np.linalg.norm(motion.object_path(thing, times).center - eye, axis=-1)
    return _at_audio_rate(3.0 / np.maximum(apart, 0.5), count)


def _control_times(count: int) -> Array:
    return np.arange(count * CONTROL_RATE // SAMPLE_RATE + 2) / CONTROL_RATE


def _at_audio_rate(x: Array, count: int) -> Array:
    return np.interp(np.arange(count) / SAMPLE_RATE, np.arange(len(x)) / CONTROL_RATE, x)
