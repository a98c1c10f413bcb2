"""CogVideoX's autoencoder: diffusers' results in diffusers' chunks, and in others."""

import pytest
import torch

from tests import cogvideox_tiny as tiny
from vidgen.nn.cogvideox_config import vae_config
from vidgen.nn.cogvideox_keys import released, vae_keys
from vidgen.nn.cogvideox_vae import CogVideoXAutoencoder, CogVideoXVAEConfig


@pytest.fixture(scope="module")
def theirs():
    return tiny.autoencoder()


@pytest.fixture(scope="module")
def ours(theirs):
    config = vae_config(tiny.settings(theirs), "theirs")
    network = CogVideoXAutoencoder(config).eval().requires_grad_(False)
    state, names = theirs.state_dict(), released(network.state_dict(), vae_keys(config))
    network.load_state_dict({own: state[name] for name, own in names.items()})
    return network


@pytest.fixture
def whole(theirs):
    """diffusers' network, set to take everything at once."""
    before = theirs.num_latent_frames_batch_size, theirs.num_sample_frames_batch_size
    theirs.num_latent_frames_batch_size = theirs.num_sample_frames_batch_size = 1000
    yield theirs
    theirs.num_latent_frames_batch_size, theirs.num_sample_frames_batch_size = before


def frames(n):
    return torch.rand(2, 3, n, 16, 24, generator=torch.Generator().manual_seed(n)) * 2 - 1


def latents(n):
    return torch.randn(2, 4, n, 2, 3, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("n", [1, 4, 5, 8, 9, 13, 17, 21, 25])
def test_encode_is_diffusers(theirs, ours, n):
    """Measured: 0, to the bit."""
    expected = theirs.encode(frames(n)).latent_dist
    mean, std = ours.posterior(frames(n))
    assert mean.shape == (2, 4, (n + 3) // 4, 2, 3)
    assert tiny.error(mean, expected.mean) < 1e-6
    assert tiny.error(std, expected.std) < 1e-6
    torch.testing.assert_close(ours.encode(frames(n)), expected.mean * ours.config.scale)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7])
def test_decode_is_diffusers(theirs, ours, n):
    """Measured: 1.4e-7 to 1.8e-7."""
    z = latents(n)
    expected = theirs.decode(1 / ours.config.scale * z).sample
    found = ours.decode(z)
    assert found.shape == (2, 3, 4 * n - 3 * (n % 2), 16, 24)
    assert tiny.error(found, expected) < 1e-6


@pytest.mark.parametrize("n", [5, 6])
def test_all_at_once_is_diffusers_set_so_and_another_result(whole, ours, n):
    """Measured: 0 and 1.5e-7; chunks differ from the whole by 0.2 and more of it here, where
    weights are random."""
    z, x = latents(n), frames(4 * n - 3)
    decoded = ours.decode(z, at_once=None)
    assert tiny.error(decoded, whole.decode(1 / ours.config.scale * z).sample) < 1e-6
    assert tiny.error(ours.decode(z), decoded) > 1e-3
    mean, _ = ours.posterior(x, at_once=None)
    assert tiny.error(mean, whole.encode(x).latent_dist.mean) < 1e-6
    assert tiny.error(ours.posterior(x)[0], mean) > 1e-3


def test_chunks_of_another_size_are_diffusers_set_so(theirs, ours, monkeypatch):
    monkeypatch.setattr(theirs, "num_latent_frames_batch_size", 4)
    z = latents(11)  # 7, then 4
    expected = theirs.decode(1 / ours.config.scale * z).sample
    assert tiny.error(ours.decode(z, at_once=4), expected) < 1e-6
    assert [x.shape[2] for x in ours.decode_chunks(z, at_once=4)] == [25, 16]


@pytest.mark.parametrize("n", [7, 8])
def test_a_clip_begins_as_its_beginning_alone(ours, n):
    """To the bit: what comes later changes nothing, and the first chunk is the same."""
    z = latents(n)
    both = ours.decode(z)
    short = ours.decode(z[:, :, : n - 2])
    assert torch.equal(both[:, :, : short.shape[2]], short)
    x = frames(25)
    assert torch.equal(ours.encode(x)[:, :, :5], ours.encode(x[:, :, :17]))


def test_the_past_is_carried_over(ours):
    """The second chunk isn't what it would be as a clip of its own."""
    z = latents(4)
    alone = ours.decode(z[:, :, 2:])
    assert tiny.error(ours.decode(z)[:, :, 8:], alone) > 1e-3


def test_chunk_by_chunk_is_the_same(ours):
    z = latents(7)
    parts = list(ours.decode_chunks(z))
    assert [x.shape[2] for x in parts] == [9, 8, 8]
    assert torch.equal(torch.cat(parts, dim=2), ours.decode(z))


def test_latents_of_8n_plus_1_frames_decode_to_as_many(ours):
    for n in (1, 9, 17):
        assert ours.decode(ours.encode(frames(n))).shape == (2, 3, n, 16, 24)


def test_what_it_can_not_take(ours):
    with pytest.raises(ValueError, match="frames of 12x24 do not divide by 8"):
        ours.encode(frames(1)[..., :12, :])
    with pytest.raises(ValueError, match=r"7 frames are neither 4n nor 4n \+ 1"):
        ours.encode(frames(7))
    for at_once in (0, -2, 3):
        with pytest.raises(ValueError, match="at once, which is no multiple of 2"):
            ours.decode(latents(5), at_once)
    with pytest.raises(ValueError, match="6 at once, which is no multiple of 4"):
        ours.encode(frames(9), 6)
    with pytest.raises(ValueError, match="time_stride 3 of 4 levels"):
        CogVideoXVAEConfig(time_stride=3)
