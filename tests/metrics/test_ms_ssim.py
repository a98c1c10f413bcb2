"""MS-SSIM: closed forms, and scikit-image scale by scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidgen.metrics.ms_ssim import SMALLEST, WEIGHTS, ms_ssim


def pair(h: int = 176, w: int = 192, t: int = 1, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """A smooth clip and a noisy, darker one of it."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    shade = np.stack([np.sin(x / 9 + c) + np.cos(y / (7 + 5 * c)) for c in range(3)], -1)
    true = np.broadcast_to(128 + 50 * shade, (1, t, h, w, 3))
    made = 0.9 * true + draw.normal(0, 12, true.shape)
    return tuple(torch.from_numpy(v.clip(0, 255).astype(np.uint8)) for v in (made, true))


def test_equal_clips_are_1_and_it_is_symmetric() -> None:
    made, true = pair(t=2)
    torch.testing.assert_close(ms_ssim(true, true), torch.ones(1, 2, dtype=torch.float64))
    torch.testing.assert_close(ms_ssim(made, true), ms_ssim(true, made))
    assert 0.3 < float(ms_ssim(made, true).mean()) < 0.99


def test_flat_pictures_differ_in_the_luminance_of_the_last_scale_alone() -> None:
    made = torch.full((1, 1, SMALLEST, SMALLEST, 3), 200, dtype=torch.uint8)
    true = torch.full_like(made, 100)
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 200 * 100 + c1) / (200**2 + 100**2 + c1)
    assert float(ms_ssim(made, true)) == pytest.approx(luminance ** WEIGHTS[-1], abs=1e-9)


def test_an_inverted_picture_is_0() -> None:
    _, true = pair()
    assert float(ms_ssim(255 - true, true)) == 0


@pytest.mark.parametrize("size", [(176, 192), (161, 163)])
def test_is_what_scikit_image_says_scale_by_scale(size: tuple[int, int]) -> None:
    """Contrast times structure is SSIM divided by luminance: with K1 so large that luminance is 1
    everywhere, scikit-image returns it alone."""
    metrics = pytest.importorskip("skimage.metrics")
    made, true = pair(*size)
    words = {
        "data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False,
    }  # fmt: skip
    channels = []
    for c in range(3):
        x, y = (v[0, 0, :, :, c].numpy().astype(float) for v in (made, true))
        product = 1.0
        for scale, weight in enumerate(WEIGHTS):
            if scale:
                x, y = (np.pad(v, [(0, n % 2) for n in v.shape], mode="edge") for v in (x, y))
                x, y = (
                    v.reshape(v.shape[0] // 2, 2, v.shape[1] // 2, 2).mean((1, 3)) for v in (x, y)
                )
            last = scale == len(WEIGHTS) - 1
            value = metrics.structural_similarity(x, y, K1=0.01 if last else 1e6, **words)
            product *= value**weight
        channels.append(product)
    assert float(ms_ssim(made, true)) == pytest.approx(np.mean(channels), abs=1e-6)


def test_the_smallest_size() -> None:
    made, true = pair(SMALLEST, SMALLEST)
    assert SMALLEST == 161
    ms_ssim(made, true)
    with pytest.raises(ValueError, match="160 × 161, sides are 161 or more"):
        ms_ssim(made[:, :, 1:], true[:, :, 1:])
