"""Warping error and its optical flow, on pictures whose motion is known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vidgen.metrics.flickering import temporal_flickering
from vidgen.metrics.warping import flow, trusted_flow, warp, warping


def texture(h: int = 110, w: int = 130, seed: int = 0) -> torch.Tensor:
    """Smooth noise at two scales, `1 1 h w`, 0 … 1."""
    draw = torch.Generator().manual_seed(seed)
    fine, coarse = (
        F.interpolate(torch.rand(1, 1, h // k, w // k, generator=draw), (h, w), mode="bicubic")
        for k in (5, 20)
    )
    return (0.5 * fine + 0.5 * coarse).clamp(0, 1)


def moved(dx: int, dy: int, size: int = 72) -> tuple[torch.Tensor, torch.Tensor]:
    """Two views of one texture: what is at p in the first is at p + (dx, dy) in the second."""
    x = texture()
    return x[:, :, 16 : 16 + size, 16 : 16 + size], x[
        :, :, 16 - dy : 16 - dy + size, 16 - dx : 16 - dx + size
    ]


def clip(*pictures: torch.Tensor) -> torch.Tensor:
    """Gray pictures `1 1 h w` → uint8 `1 t h w 3`."""
    x = torch.cat([p[:, 0] for p in pictures])[None, ..., None]
    return (x * 255).round().to(torch.uint8).expand(-1, -1, -1, -1, 3).contiguous()


@pytest.mark.parametrize("dx, dy", [(0, 0), (1, 0), (-2, 3), (6, 4), (0, -9)])
def test_flow_of_a_shifted_picture_is_the_shift(dx: int, dy: int) -> None:
    a, b = moved(dx, dy)
    inner = flow(a, b)[0, :, 14:-14, 14:-14]
    apart = (inner - torch.tensor([dx, dy])[:, None, None]).norm(dim=0)
    assert float(apart.median()) < 0.05
    assert float(apart.flatten().quantile(0.95)) < 0.5


def test_flow_of_less_than_a_pixel() -> None:
    x = torch.arange(64.0)
    wave = torch.sin(x / 4)[:, None] * torch.cos(x / 5)
    later = torch.sin(x / 4)[:, None] * torch.cos((x - 0.3) / 5)
    found = flow(*(0.5 + 0.5 * v[None, None] for v in (wave, later)))[0, :, 10:-10, 10:-10]
    assert float(found[0].median()) == pytest.approx(0.3, abs=0.03)
    assert float(found[1].median()) == pytest.approx(0, abs=0.03)


def test_warp_by_whole_pixels_is_a_shift() -> None:
    x = torch.arange(30.0).reshape(1, 1, 5, 6)
    by = torch.zeros(1, 2, 5, 6)
    by[:, 0] = 2
    torch.testing.assert_close(warp(x, by)[..., :4], x[..., 2:])
    assert (warp(x, by)[..., 4:] == x[..., -1:]).all()  # the border continued


def test_a_moving_picture_has_little_error_and_a_flickering_one_its_variance() -> None:
    true = clip(*(0.9 * x for x in moved(3, -2)))
    assert float(warping(true, true)) < 2e-5
    made = true.clone()
    made[:, 1] += 10  # every pixel of the second frame, whatever moved
    assert float(warping(made, true)) == pytest.approx((10 / 255) ** 2, rel=0.03)


def test_without_the_motion_the_error_would_be_large() -> None:
    a, b = moved(3, -2)
    still = ((a - b) ** 2).mean()
    assert float(still) > 100 * float(warping(clip(a, b), clip(a, b)))


def test_what_is_uncovered_is_not_trusted() -> None:
    """A square over a still ground goes 6 to the right: what it covers has no place to go."""
    ground, square = texture(), texture(seed=1)
    a, b = ground.clone(), ground.clone()
    a[:, :, 30:80, 30:80] = square[:, :, :50, :50]
    b[:, :, 30:80, 36:86] = square[:, :, :50, :50]
    _, seen = trusted_flow(a, b)
    assert float(seen[0, 0, 5:20, 10:-10].mean()) == 1  # far from it
    assert float(seen[0, 0, 45:65, 45:65].mean()) > 0.9  # inside it
    assert float(seen[0, 0, 34:76, 81:85].mean()) < 0.3  # what it covers


def test_what_leaves_the_picture_is_not_trusted() -> None:
    _, seen = trusted_flow(*moved(6, 0))
    assert float(seen[0, 0, :, -5:].max()) == 0


def test_a_batch_is_its_clips() -> None:
    first, second = clip(*moved(2, 1)), clip(*moved(-1, 0))
    both = torch.cat([first, second])
    torch.testing.assert_close(
        warping(both, both), torch.cat([warping(first, first), warping(second, second)])
    )
    with pytest.raises(ValueError, match="one frame"):
        warping(first[:, :1], first[:, :1])


def test_temporal_flickering_in_closed_form() -> None:
    still = torch.full((1, 4, 6, 6, 3), 77, dtype=torch.uint8)
    assert float(temporal_flickering(still)) == 1
    blink = still.clone()
    blink[:, ::2], blink[:, 1::2] = 0, 255
    assert float(temporal_flickering(blink)) == 0
    step = still.clone()
    step[:, 2:, :, :, 0] += 51  # one of three steps, one of three channels
    assert float(temporal_flickering(step)) == pytest.approx(1 - 51 / 255 / 9)
