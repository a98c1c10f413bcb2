"""Each protocol's pixels, against closed forms and against loops that go pixel by pixel."""

from __future__ import annotations

from math import floor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vidgen.metrics import preprocess


def clips(t: int, h: int, w: int, b: int = 1) -> Tensor:
    made = torch.Generator().manual_seed(h * w)
    return torch.randint(0, 256, (b, t, h, w, 3), dtype=torch.uint8, generator=made)


def ramp(h: int, w: int) -> Tensor:
    """Brightness 2x + y."""
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return (2 * x + y).to(torch.uint8)[None, None, :, :, None].expand(1, 1, h, w, 3)


# By one pixel at a time, float64, c h w arrays.


def slow_tf1(x: np.ndarray, height: int, width: int) -> np.ndarray:
    _, h, w = x.shape
    out = np.zeros((len(x), height, width))
    for i in range(height):
        for j in range(width):
            y, z = i * h / height, j * w / width
            a, c = floor(y), floor(z)
            b, d = min(a + 1, h - 1), min(c + 1, w - 1)
            u, v = y - a, z - c
            top = (1 - v) * x[:, a, c] + v * x[:, a, d]
            bottom = (1 - v) * x[:, b, c] + v * x[:, b, d]
            out[:, i, j] = (1 - u) * top + u * bottom
    return out


def slow_half_pixel(x: np.ndarray, height: int, width: int) -> np.ndarray:
    _, h, w = x.shape
    out = np.zeros((len(x), height, width))
    for i in range(height):
        for j in range(width):
            y, z = max((i + 0.5) * h / height - 0.5, 0), max((j + 0.5) * w / width - 0.5, 0)
            a, c = floor(y), floor(z)
            b, d = min(a + 1, h - 1), min(c + 1, w - 1)
            u, v = y - a, z - c
            top = (1 - v) * x[:, a, c] + v * x[:, a, d]
            bottom = (1 - v) * x[:, b, c] + v * x[:, b, d]
            out[:, i, j] = (1 - u) * top + u * bottom
    return out


@pytest.mark.parametrize(
    ("h", "w", "height", "width"), [(7, 11, 20, 9), (30, 17, 12, 17), (5, 5, 5, 5)]
)
def test_tf1_bilinear_against_a_loop(h: int, w: int, height: int, width: int) -> None:
    x = torch.rand(2, 3, h, w, generator=torch.Generator().manual_seed(0)) * 255
    made = preprocess.tf1_bilinear(x, height, width)
    for one, said in zip(x, made, strict=True):
        expected = torch.from_numpy(slow_tf1(one.double().numpy(), height, width))
        torch.testing.assert_close(said.double(), expected, atol=1e-3, rtol=0)


def test_tf1_bilinear_of_a_ramp() -> None:
    """Place i reads i·h/n: no half pixel; past the last pixel's place nothing grows."""
    made = preprocess.google(ramp(28, 112))
    assert made.shape == (1, 3, 1, 224, 224)
    i, j = torch.arange(224.0)[:, None], torch.arange(224.0)[None]
    expected = 2 * (j / 2).clamp(max=111) + (i / 8).clamp(max=27)
    torch.testing.assert_close(made[0, 1, 0], 2 * expected / 255 - 1, atol=1e-6, rtol=0)
    half = preprocess.tats(ramp(28, 112))
    inside = (slice(8, -8), slice(8, -8))  # there the two differ by half a pixel each way
    shifted = 2 * ((j + 0.5) / 2 - 0.5) + (i + 0.5) / 8 - 0.5
    torch.testing.assert_close(
        half[0, 0, 0][inside], (2 * shifted / 255 - 1)[inside], atol=1e-6, rtol=0
    )


def test_of_the_networks_size_nothing_changes() -> None:
    x = clips(2, 224, 224)
    expected = 2 * x.permute(0, 4, 1, 2, 3).float() / 255 - 1
    for prepare in (preprocess.google, preprocess.tats, preprocess.stylegan_v, preprocess.videogpt):
        torch.testing.assert_close(prepare(x), expected, atol=1e-6, rtol=0)


def test_half_pixels_against_a_loop() -> None:
    x = clips(1, 40, 57)
    pixels = x[0, 0].permute(2, 0, 1).double().numpy()
    made = preprocess.tats(x)[0, :, 0].double()
    expected = torch.from_numpy(slow_half_pixel(pixels, 224, 224))
    torch.testing.assert_close(made, 2 * expected / 255 - 1, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("h", "w"), [(40, 57), (57, 40), (300, 401), (224, 224)])
def test_videogpt_is_torch_and_a_crop(h: int, w: int) -> None:
    x = clips(2, h, w, b=2)
    made = preprocess.videogpt(x)
    assert made.shape == (2, 3, 2, 224, 224)
    long = -(-max(h, w) * 224 // min(h, w))
    size = (224, long) if h < w else (long, 224)
    frames = x[1].permute(0, 3, 1, 2).float() / 255
    whole = F.interpolate(frames, size, mode="bilinear", align_corners=False)
    at = (long - 224) // 2
    cut = whole[..., at : at + 224] if h < w else whole[..., at : at + 224, :]
    torch.testing.assert_close(made[1].transpose(0, 1), 2 * cut - 1, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("h", "w"), [(31, 50), (50, 31)])
def test_stylegan_v_sees_the_middle_only(h: int, w: int) -> None:
    x = clips(2, h, w)
    at = (50 - 31) // 2
    square = x[..., at : at + 31, :] if h < w else x[..., at : at + 31, :, :]
    assert torch.equal(preprocess.stylegan_v(x), preprocess.tats(square))
    assert not torch.equal(preprocess.stylegan_v(x), preprocess.tats(x))


@pytest.mark.parametrize("resolution", [128, 256])
def test_cd_fvd_in_two_steps(resolution: int) -> None:
    x = clips(1, 180, 320)
    made = preprocess.cd_fvd(x, resolution)
    frames = x[0].permute(0, 3, 1, 2).float() / 255
    wide = -(-320 * resolution // 180)
    small = F.interpolate(
        frames, (resolution, wide), mode="bilinear", align_corners=False, antialias=True
    )
    at = (wide - resolution) // 2
    bytes_ = (small[..., at : at + resolution] * 255).byte()  # cut, not rounded
    assert torch.equal(made, preprocess.tats(bytes_.permute(0, 2, 3, 1)[None]))
    rounded = (small[..., at : at + resolution] * 255).round().byte()
    assert not torch.equal(bytes_, rounded)


def test_tgan2_has_blue_first_and_aligned_corners() -> None:
    x = clips(16, 30, 41)
    offset = torch.tensor([-90.0, -100.0, -110.0]).view(3, 1, 1, 1)
    made = preprocess.tgan2(x, offset)
    assert made.shape == (1, 3, 16, 112, 112)
    for i, j in ((0, 0), (-1, 0), (0, -1), (-1, -1)):
        expected = x[0, :, i, j].float().flip(-1) + offset.flatten()
        torch.testing.assert_close(made[0, :, :, i, j].T, expected)


def test_what_is_no_clip() -> None:
    for bad in (clips(1, 8, 8).float(), clips(1, 8, 8)[0], clips(1, 8, 8)[..., :1]):
        with pytest.raises(ValueError, match="not uint8"):
            preprocess.google(bad)
