"""A video decoder that begins as the decoder of an autoencoder: the same pixels, whatever is over
time, and with training the latents and the neighbors count."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vidgen.nn.autoencoder import AutoencoderConfig, VideoAutoencoder
from vidgen.nn.movq import CONFIGS, MoVQConfig, MoVQDecoder, image_decoder
from vidgen.nn.movq_blocks import SpatialNorm
from vidgen.stages.chunks import Chunks, in_chunks
from vidgen.systems.base import ModelFolder
from vidgen.systems.world import load_autoencoder

SMALL = AutoencoderConfig(
    channels=3, encoder_widths=(4, 4, 4), decoder_widths=(6, 8, 10), encoder_blocks=1,
    decoder_blocks=1,
)  # fmt: skip
OVER_TIME = ("conv1d", "conv3d", "resnet", "inflate")
LEVELS = (None, (2,), (0, 1))


def autoencoder(seed: int = 0) -> VideoAutoencoder:
    """No weight as it was when new."""
    torch.manual_seed(seed)
    vae = VideoAutoencoder(SMALL).eval().requires_grad_(False)
    for p in vae.parameters():
        p.add_(0.2 * torch.randn_like(p))
    vae.latents_mean.normal_()
    vae.latents_std.uniform_(0.5, 2)
    return vae


def begun(vae: VideoAutoencoder, **sizes) -> MoVQDecoder:
    image = image_decoder(vae)
    decoder = MoVQDecoder(replace(image.config, **sizes)).eval().requires_grad_(False)
    decoder.begin(image.state_dict())
    return decoder


@pytest.fixture(scope="module")
def shipped() -> VideoAutoencoder:
    return load_autoencoder(ModelFolder.find("world")).float()


@pytest.mark.parametrize("frames", [1, 2, 5, 17])
def test_the_shipped_recipe_begins_as_the_shipped_decoder(shipped, frames):
    config = CONFIGS["world"]
    decoder = begun(shipped, temporal=config.temporal, temporal_levels=config.temporal_levels)
    assert decoder.config == config
    torch.manual_seed(frames)
    latents = torch.randn(2, 8, frames, 5, 3)
    with torch.no_grad():
        torch.testing.assert_close(decoder(latents), shipped.decode(latents), rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("temporal", OVER_TIME)
def test_it_begins_as_its_equal_in_one_piece_and_in_chunks(temporal, levels):
    vae = autoencoder()
    decoder = begun(vae, temporal=temporal, temporal_levels=levels)
    latents = torch.randn(1, 3, 40, 2, 3)
    expected = vae.decode(latents)
    torch.testing.assert_close(decoder(latents), expected, rtol=0, atol=1e-5)
    chunks = Chunks(2 * decoder.config.reach + 3, decoder.config.reach)
    pieces = list(in_chunks(latents[0], lambda z: decoder(z[None])[0], chunks))
    assert len(pieces) > 1
    torch.testing.assert_close(torch.cat(pieces, 1), expected[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("temporal", ["none", *OVER_TIME])
def test_reach_counts_the_levels_that_see_time(temporal, levels):
    """In float64, with weights as none begin: beyond the reach there is no trace of a frame."""
    decoder = begun(autoencoder(), temporal=temporal, temporal_levels=levels).double()
    torch.manual_seed(1)
    for p in decoder.parameters():
        p.add_(0.2 * torch.randn_like(p) if p.numel() > 1 else torch.full_like(p, 0.3))
    reach = decoder.config.reach
    blocks = {None: 4, (2,): 2, (0, 1): 2}[levels]  # one a level, and one more at the coarsest
    assert reach == (0 if temporal == "none" else 2 * blocks)
    latents = torch.randn(1, 3, 2 * reach + 3, 2, 2, dtype=torch.float64)
    changed = latents.clone()
    changed[:, :, reach + 1] += 1
    seen = (decoder(changed) - decoder(latents)).abs().amax(dim=(0, 1, 3, 4)) > 0
    assert seen.tolist() == [abs(t - reach - 1) <= reach for t in range(2 * reach + 3)]


def test_what_is_made_of_a_region_does_not_depend_on_the_picture_around_it():
    """Norms are over channels alone, so only convolutions see farther."""
    decoder = begun(autoencoder(), temporal="conv1d")
    latents = torch.randn(1, 3, 2, 4, 24)
    whole, part = decoder(latents), decoder(latents[..., :14])
    torch.testing.assert_close(whole[..., :32], part[..., :32], rtol=1e-4, atol=1e-5)


def test_its_norms_do_not_look_at_the_latents_until_they_learn_to():
    decoder = begun(autoencoder())
    norms = [m for m in decoder.modules() if isinstance(m, SpatialNorm)]
    assert len(norms) == 5  # four blocks and the last
    x, z = torch.randn(1, 6, 8, 8), torch.randn(1, 3, 2, 2)
    assert torch.equal(norms[-1](x, z), norms[-1].norm(x))
    decoder.requires_grad_(True)
    decoder(torch.randn(1, 3, 2, 2, 2)).square().mean().backward()
    for norm in norms:
        assert norm.scale.weight.grad.abs().max() > 0 and norm.shift.weight.grad.abs().max() > 0


def test_bodies_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="body is 'unet'"):
        MoVQConfig(body="unet")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="of another decoder"):
        MoVQDecoder(MoVQConfig(widths=(6, 8, 10), blocks=1, groups=2)).begin(
            image_decoder(autoencoder()).state_dict()
        )
