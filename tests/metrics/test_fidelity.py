"""Measures of pixels: closed forms, and what scikit-image says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vidgen.metrics.fidelity import error_change, flicker, psnr, ssim
from vidgen.metrics.frechet import frechet_distance


def clip(seed: int, *shape: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(256, (*shape, 3), generator=draw, dtype=torch.uint8)


def pair(b: int = 2, t: int = 3, h: int = 23, w: int = 17) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth clip and a noisy one of it: ssim is neither 0 nor 1."""
    rows, columns = torch.arange(h)[:, None, None], torch.arange(w)[None, :, None]
    shade = (rows * 5 + columns * 3 + torch.tensor([0, 40, 90])).float()
    true = shade.expand(b, t, h, w, 3).to(torch.uint8)
    noise = 20 * torch.randn(true.shape, generator=torch.Generator().manual_seed(1))
    return (true + noise).clamp(0, 255).to(torch.uint8), true


def test_psnr_of_a_constant_error_is_known() -> None:
    true = torch.full((1, 2, 8, 8, 3), 100, dtype=torch.uint8)
    made = true.clone()
    made[:, 0] += 1
    found = psnr(made, true)
    assert found.shape == (1, 2)
    assert float(found[0, 0]) == pytest.approx(48.1308, abs=1e-4)
    assert math.isinf(found[0, 1])


def test_psnr_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    made, true = pair()
    found = psnr(made, true)
    for i, j in np.ndindex(*found.shape):
        theirs = metrics.peak_signal_noise_ratio(
            true[i, j].numpy(), made[i, j].numpy(), data_range=255
        )
        assert float(found[i, j]) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("kind", ["noise", "shades"])
def test_ssim_is_that_of_scikit_image(kind: str) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    made, true = (clip(0, 2, 2, 24, 31), clip(1, 2, 2, 24, 31)) if kind == "noise" else pair()
    found = ssim(made, true)
    for i, j in np.ndindex(*found.shape):
        theirs = metrics.structural_similarity(
            made[i, j].numpy(), true[i, j].numpy(), channel_axis=-1, data_range=255,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        assert float(found[i, j]) == pytest.approx(theirs, abs=1e-6)


def test_ssim_of_known_pairs() -> None:
    made, true = pair()
    assert torch.allclose(ssim(true, true), torch.ones(2, 3, dtype=torch.float64))
    assert torch.allclose(ssim(made, true), ssim(true, made))
    black = torch.zeros(1, 1, 11, 11, 3, dtype=torch.uint8)
    c1 = 0.01**2
    assert float(ssim(black, black + 255)) == pytest.approx(c1 / (1 + c1), rel=1e-9)


def test_flicker_looks_where_nothing_moves() -> None:
    true = torch.zeros(1, 4, 4, 4, 3, dtype=torch.uint8)
    true[0, :, 0, 0] = torch.arange(4, dtype=torch.uint8)[:, None]  # one pixel moves
    made = true.clone() + 50
    assert float(flicker(made, true)) == 0  # wrong, but steady
    made[0, ::2] += 6  # every pixel, by turns: 3 levels of spread
    assert float(flicker(made, true)) == pytest.approx(3)
    moving = clip(0, 1, 4, 4, 4)
    assert flicker(made, moving).isnan().all()


def test_error_change_is_zero_for_a_steady_error_and_sees_moving_pixels() -> None:
    true = clip(0, 2, 3, 4, 4) // 2
    made = true + 9
    assert error_change(made, true).tolist() == [0, 0]
    made[1, 1] += 4
    assert error_change(made, true).tolist() == pytest.approx([0, 4])


def test_clips_are_measured_one_by_one() -> None:
    made, true = pair()
    made[1] = clip(3, 3, 23, 17)
    for measure in (psnr, ssim, flicker, error_change):
        both = measure(made, true)
        torch.testing.assert_close(both[1], measure(made[1:], true[1:])[0])


def test_what_is_refused() -> None:
    made, true = pair()
    with pytest.raises(ValueError, match="not uint8"):
        psnr(made.float(), true)
    with pytest.raises(ValueError, match="clips of"):
        ssim(made[:, :2], true)
    with pytest.raises(ValueError, match="window"):
        ssim(made[:, :, :10], true[:, :, :10])
    with pytest.raises(ValueError, match="one frame"):
        error_change(made[:, :1], true[:, :1])


def features(seed: int, n: int, d: int, shift: float) -> torch.Tensor:
    r = np.random.default_rng(seed)
    m = r.standard_normal((d, d)) / np.sqrt(d)
    return torch.from_numpy(r.standard_normal((n, d)) @ m + shift)


def test_frechet_distance_of_fewer_samples_than_dimensions() -> None:
    x, y = features(31, 20, 64, 0.0), features(32, 24, 64, 0.5)
    assert frechet_distance(x, y) == pytest.approx(94.7775048917, abs=1e-8)


def test_frechet_distance_of_a_shift() -> None:
    x = features(1, 50, 8, 0.0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(x, x + 0.5) == pytest.approx(8 * 0.25)
    assert frechet_distance(2 * x, 2 * x + 1) == pytest.approx(8)


def test_frechet_distance_is_that_of_the_matrix_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    x, y = features(1, 80, 5, 0.0), features(2, 70, 5, 0.3)
    cx, cy = np.cov(x.numpy().T), np.cov(y.numpy().T)
    gap = float((x.mean(0) - y.mean(0)).square().sum())
    theirs = gap + np.trace(cx + cy - 2 * linalg.sqrtm(cx @ cy).real)
    assert frechet_distance(x, y) == pytest.approx(theirs, rel=1e-7)
