"""Wan's autoencoder computes what diffusers' does, in one piece and chunk by chunk.

Measured on a CPU in float32, largest error over largest value: encoding 2.4e-7, decoding 1.6e-6,
chunks against one piece less.
"""

import warnings

import pytest
import torch

from vidgen.nn.causal_vae import CausalVAE, CausalVAEConfig
from vidgen.nn.wan_keys import autoencoder, released

with warnings.catch_warnings():
    # Its import warns about optional packages and its own old annotations; ours must not.
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")

NORMAL = {"latents_mean": (0.1, -0.2, 0.3, 0.0), "latents_std": (1.0, 2.0, 0.5, 1.5)}
VARIANTS = {  # ours, theirs
    "2.1": ({"width": 12, "decoder_width": 12}, {"base_dim": 12}),
    "2.2": (
        {"width": 8, "decoder_width": 12, "shortcuts": True, "patch": 2},
        {
            "base_dim": 8, "decoder_base_dim": 12, "is_residual": True, "patch_size": 2,
            "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16,
        },
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request):
    """Theirs with random weights that leave nothing silent, and ours with the same."""
    own, other = VARIANTS[request.param]
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKLWan(z_dim=4, **other).eval().requires_grad_(False)
    for p in theirs.parameters():
        p.add_(0.05 * torch.randn_like(p))
    theirs.decoder.conv_out.weight.mul_(0.3)  # so that little is cut off at ±1
    ours = CausalVAE(CausalVAEConfig(channels=4, **own, **NORMAL)).eval().requires_grad_(False)
    names, state = released(ours.state_dict(), autoencoder(ours.config)), theirs.state_dict()
    assert sorted(names.values()) == sorted(state)
    ours.load_state_dict({own: state[name] for own, name in names.items()})
    return ours, theirs


@pytest.fixture
def frames(pair):
    torch.manual_seed(1)
    stride = pair[0].config.stride
    return torch.rand(2, 3, 13, 2 * stride, 3 * stride) * 2 - 1


LATENTS = torch.randn(2, 4, 4, 2, 3, generator=torch.Generator().manual_seed(2))


def column(name):
    return torch.tensor(NORMAL[name])[:, None, None, None]


def error(found, wanted):
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_encode_as_diffusers(pair, frames, chunk):
    ours, theirs = pair
    wanted = theirs.encode(frames).latent_dist
    mean, logvar = ours.posterior(frames, chunk=chunk)
    assert error(mean, wanted.mean) <= 1e-5
    assert error(logvar, wanted.logvar) <= 1e-5
    normal = (wanted.mode() - column("latents_mean")) / column("latents_std")
    assert error(ours.encode(frames, chunk=chunk), normal) <= 1e-5


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_decode_as_diffusers(pair, chunk):
    ours, theirs = pair
    wanted = theirs.decode(LATENTS * column("latents_std") + column("latents_mean")).sample
    assert (wanted.abs() == 1).float().mean() < 0.2
    assert error(ours.decode(LATENTS, chunk=chunk), wanted) <= 1e-5


def test_chunks_are_the_whole(pair, frames):
    ours, _ = pair
    assert error(ours.encode(frames, chunk=2), ours.encode(frames)) <= 1e-5
    parts = list(ours.decoded(LATENTS, 2))
    assert [p.shape[2] for p in parts] == [5, 8]
    assert error(torch.cat(parts, dim=2), ours.decode(LATENTS)) <= 1e-5


def test_nothing_looks_ahead(pair, frames):
    ours, _ = pair
    later = frames.clone()
    later[:, :, 5:] *= -1
    found, other = ours.encode(frames), ours.encode(later)
    assert error(found[:, :, :2], other[:, :, :2]) <= 1e-5
    assert error(found[:, :, 2], other[:, :, 2]) > 1e-2
    later = LATENTS.clone()
    later[:, :, 2:] *= -1
    found, other = ours.decode(LATENTS), ours.decode(later)
    assert error(found[:, :, :5], other[:, :, :5]) <= 1e-5
    assert error(found[:, :, 5], other[:, :, 5]) > 1e-2


def test_a_picture_is_a_clip_of_one_frame(pair, frames):
    ours, theirs = pair
    picture = frames[:, :, :1]
    assert error(ours.posterior(picture)[0], theirs.encode(picture).latent_dist.mean) <= 1e-5
    assert ours.decode(LATENTS[:, :, :1]).shape == picture.shape


def test_sizes_that_no_latent_has(pair, frames):
    ours, _ = pair
    with pytest.raises(ValueError, match="12 frames: the nearest that it takes are 9, 13"):
        ours.encode(frames[:, :, :12])
    with pytest.raises(ValueError, match="don't divide by"):
        ours.encode(frames[..., 1:])
    with pytest.raises(ValueError, match="chunk is 0"):
        ours.encode(frames, chunk=0)
    with pytest.raises(ValueError, match="3 latents_mean of 4 channels"):
        CausalVAEConfig(channels=4, latents_mean=(0, 0, 0), latents_std=(1,) * 4)
    with pytest.raises(ValueError, match="4 levels"):
        CausalVAEConfig(time=(True,))
