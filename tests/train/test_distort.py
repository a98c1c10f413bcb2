"""What is done to clips: each kind does what it says, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from vidgen.train.task import generator
from vidgen.train.tasks.distort import KINDS, TIMING, distort, distorted


@pytest.fixture
def clip() -> Tensor:
    """A smooth bright field that moves: `1 t h w 3`; frame and place can be read off it."""
    t, h, w = (torch.arange(n).float() for n in (16, 40, 64))
    waves = torch.sin(h[:, None, None] / 6) + torch.cos((w[:, None] + torch.arange(3)) / 8)
    moving = waves + 0.8 * torch.sin(t / 5)[:, None, None, None]
    return (128 + 30 * moving).to(torch.uint8)[None]


def order(changed: Tensor, clip: Tensor) -> list[int]:
    """Which frame of the clip each frame is."""
    return [
        next(i for i, frame in enumerate(clip[0]) if torch.equal(frame, seen))
        for seen in changed[0]
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_shape_and_draws(kind, clip) -> None:
    first = distort(clip, kind, 0.7, generator(1, kind))
    assert first.shape == clip.shape and first.dtype == torch.uint8
    assert torch.equal(first, distort(clip, kind, 0.7, generator(1, kind)))
    assert not torch.equal(first, clip)
    assert torch.equal(distort(clip, kind, 0.0, generator(1, kind)), clip)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in TIMING])
def test_stronger_is_further_from_the_clip(kind, clip) -> None:
    def error(strength: float) -> float:
        changed = distort(clip.repeat(8, 1, 1, 1, 1), kind, strength, generator(0, kind))
        return float((changed.float() - clip).square().mean())

    assert 0 < error(0.25) < error(0.5) < error(1.0)


def test_frames_are_moved_and_nothing_else(clip) -> None:
    assert order(distort(clip, "reverse", 1, generator(0)), clip) == list(range(15, -1, -1))
    shuffled = order(distort(clip, "shuffle", 1, generator(0)), clip)
    assert sorted(shuffled) == list(range(16)) and shuffled != list(range(16))
    near = order(distort(clip, "shuffle", 0.2, generator(0)), clip)
    assert sorted(near) == list(range(16))
    assert max(abs(i - place) for i, place in enumerate(near)) <= 4
    assert order(distort(clip, "freeze", 1, generator(0)), clip) == [0] * 16
    assert order(distort(clip, "freeze", 0.4, generator(0)), clip) == [*range(10), *[9] * 6]
    stuttered = order(distort(clip, "stutter", 0.6, generator(0)), clip)
    assert all(now in (before, i) for i, (before, now) in enumerate(pairwise(stuttered), start=1))
    assert len(set(stuttered)) < 16


def test_ghosts_are_means_of_neighbors(clip) -> None:
    changed = distort(clip, "ghost", 1, generator(0)).float()[0]
    x = clip.float()[0]
    guesses = [0.3 * x[5] + 0.35 * (x[5 - k] + x[5 + k]) for k in (1, 2)]
    assert min((changed[5] - guess).abs().max() for guess in guesses) <= 0.51


def test_warping_moves_pixels_as_far_as_it_says() -> None:
    ramp = torch.arange(64.0).expand(16, 40, 64)[None, ..., None].repeat(1, 1, 1, 1, 3) * 3
    inside = (slice(None), slice(None), slice(8, -8), slice(12, -12))
    moved = distort(ramp.to(torch.uint8).repeat(16, 1, 1, 1, 1), "warp", 1, generator(0))
    pixels = (moved.float() - ramp)[inside] / 3
    assert float(pixels.square().mean().sqrt()) == pytest.approx(0.06 * 40, rel=0.1)


def test_clips_of_a_batch_are_changed_one_by_one(clip) -> None:
    strengths = torch.zeros(3, len(KINDS))
    strengths[1, list(KINDS).index("blur")] = 0.5
    out = distorted(clip.repeat(3, 1, 1, 1, 1), strengths, generator(0))
    assert torch.equal(out[0], clip[0]) and torch.equal(out[2], clip[0])
    assert torch.equal(out[1], distort(clip, "blur", 0.5, generator(9))[0])
