"""The autoencoder: sizes, locality, and the scale of its latents."""

import pytest
import torch

from vidgen.nn.autoencoder import AutoencoderConfig, PixelNorm, VideoAutoencoder

TINY = AutoencoderConfig(
    channels=4, encoder_widths=(8, 12, 16), decoder_widths=(8, 12, 16),
    encoder_blocks=1, decoder_blocks=1,
)  # fmt: skip


@pytest.fixture
def vae():
    torch.manual_seed(0)
    vae = VideoAutoencoder(TINY).eval().requires_grad_(False)
    for p in vae.parameters():
        p.add_(0.05 * torch.randn_like(p))
    return vae


def test_shapes(vae):
    frames = torch.rand(2, 3, 3, 16, 24) * 2 - 1
    latents = vae.encode(frames)
    assert latents.shape == (2, 4, 3, 2, 3)
    assert vae.decode(latents).shape == frames.shape
    assert TINY.stride == 8


def test_sizes_that_do_not_divide_are_refused(vae):
    with pytest.raises(ValueError, match="do not divide by 8"):
        vae.encode(torch.zeros(1, 3, 1, 20, 24))


def test_frames_do_not_see_each_other(vae):
    """Chunks of a clip decode to what the whole clip decodes to."""
    latents = torch.randn(1, 4, 5, 2, 3)
    whole = vae.decode(latents)
    parts = torch.cat([vae.decode(latents[:, :, :2]), vae.decode(latents[:, :, 2:])], dim=2)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


def test_far_away_pixels_do_not_matter(vae):
    """No statistic over the picture: a change at one end leaves the other end as it was."""
    frames = torch.rand(1, 3, 1, 16, 256) * 2 - 1
    changed = frames.clone()
    changed[..., 200:] *= -1
    a, b = vae.encode(frames), vae.encode(changed)
    torch.testing.assert_close(a[..., :12], b[..., :12], rtol=0, atol=1e-6)
    assert not torch.allclose(a[..., -4:], b[..., -4:], atol=1e-3)


def test_statistics_of_the_latents_are_undone_by_decoding(vae):
    frames = torch.rand(1, 3, 1, 16, 16) * 2 - 1
    made = vae.decode(vae.encode(frames))
    raw = vae.encode(frames)
    vae.latents_mean.copy_(torch.randn(4))
    vae.latents_std.copy_(torch.rand(4) + 0.5)
    scaled = (raw - vae.latents_mean[:, None, None, None]) / vae.latents_std[:, None, None, None]
    torch.testing.assert_close(vae.encode(frames), scaled)
    torch.testing.assert_close(vae.decode(vae.encode(frames)), made, rtol=1e-4, atol=1e-5)


def test_pixel_norm_is_scale_free():
    x = torch.randn(2, 8, 4, 4)
    norm = PixelNorm(8)
    torch.testing.assert_close(norm(100 * x), norm(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm(x).square().mean(dim=1), torch.ones(2, 4, 4))
