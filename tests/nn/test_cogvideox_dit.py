"""CogVideoX's transformer: diffusers' outputs for every released kind, and its ports."""

import pytest
import torch

from tests import cogvideox_tiny as tiny
from vidgen.nn.cogvideox_config import transformer_config
from vidgen.nn.cogvideox_dit import CogVideoXConfig, CogVideoXDiT
from vidgen.nn.cogvideox_keys import released, transformer_keys

SAMPLE = (3, 8, 12)  # latents that the tiny networks' positions are made for
CASES = [
    ("2b", SAMPLE),
    ("2b", (2, 6, 10)),
    ("5b", SAMPLE),
    ("5b", (2, 10, 6)),  # taller than what was trained on
    ("5b", (2, 4, 12)),  # wider
    ("5b", (1, 2, 12)),  # one frame, one row of patches
    ("5b-i2v", SAMPLE),
    ("5b-i2v", (2, 8, 12)),  # no table for this number of frames: sinusoids
    ("1.5-5b", (4, 6, 10)),
    ("1.5-5b-i2v", (4, 6, 10)),
]


def ours(theirs) -> CogVideoXDiT:
    config = transformer_config(tiny.settings(theirs), "theirs")
    network = CogVideoXDiT(config).eval().requires_grad_(False)
    state, names = theirs.state_dict(), released(network.state_dict(), transformer_keys(config))
    network.load_state_dict({own: state[name] for name, own in names.items()})
    return network


def inputs(network, size):
    torch.manual_seed(2)
    z = torch.randn(2, 4, *size)
    text = torch.randn(2, tiny.TEXT_TOKENS, tiny.TEXT_DIM)
    image = torch.randn_like(z) if network.config.in_channels == 8 else None
    return {"z": z, "t": torch.tensor([999.0, 37.0]), "text": text, "image": image}


def theirs_on(network, z, t, text, image, dtype=torch.float32):
    seen = z if image is None else torch.cat((z, image), dim=1)
    out = network(
        seen.transpose(1, 2).to(dtype),
        text.to(dtype),
        t.long(),
        ofs=torch.full((1,), 2.0),
        image_rotary_emb=tiny.rotary(network, *z.shape[2:]),
        return_dict=False,
    )[0]
    return out.transpose(1, 2)


@pytest.mark.parametrize(("kind", "size"), CASES)
def test_it_is_diffusers(kind, size):
    """Measured: 0 to 1.3e-7, and without gradients, by other kernels, no more."""
    theirs = tiny.transformer(kind)
    network = ours(theirs)
    given = inputs(network, size)
    found = network(**given)
    assert found.shape == given["z"].shape
    with torch.no_grad():
        assert tiny.error(network(**given), theirs_on(theirs, **given)) < 1e-6
    assert tiny.error(found, theirs_on(theirs, **given)) < 1e-6


def test_a_mid_size_one_is_diffusers():
    """Heads of the released width, four layers, 226 tokens of T5-XXL's width. Measured: 3.0e-7."""
    torch.manual_seed(3)
    size = {"num_attention_heads": 8, "num_layers": 4, "sample_height": 16, "sample_width": 24}
    theirs = tiny.CogVideoXTransformer3DModel(**size | tiny.ROTARY).eval().requires_grad_(False)
    given = {
        "z": torch.randn(1, 16, 5, 16, 24), "t": torch.tensor([500.0]),
        "text": torch.randn(1, 226, 4096), "image": None,
    }  # fmt: skip
    assert tiny.error(ours(theirs)(**given), theirs_on(theirs, **given)) < 2e-6


def test_settings_that_no_released_config_varies():
    """Measured: 8.8e-8 and 9.4e-8."""
    more = {"norm_eps": 1e-2, "patch_bias": False, "time_embed_dim": 40, "out_channels": 6}
    scales = {"temporal_interpolation_scale": 3.0, "spatial_interpolation_scale": 0.7}
    for kind, other in (("2b", more | scales), ("5b", more | {"patch_size": 4})):
        theirs = tiny.transformer(kind, **other)
        network = ours(theirs)
        given = inputs(network, SAMPLE)
        assert tiny.error(network(**given), theirs_on(theirs, **given)) < 1e-6


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_it_is_diffusers_in_bfloat16(kind):
    """No part is kept in float32 that isn't there: the two differ by less than a quarter of what
    the dtype costs. Measured: 0 to 0.1 of it."""
    theirs = tiny.transformer(kind)
    network = ours(theirs)
    given = inputs(network, (4, 8, 12))
    exact = network(**given)
    expected = theirs_on(theirs.bfloat16(), **given, dtype=torch.bfloat16)
    found = network.bfloat16()(**given)
    assert found.dtype == torch.bfloat16
    assert tiny.error(found, expected) < tiny.error(expected, exact) / 4
    with torch.no_grad():  # by kernels that round less often
        assert tiny.error(network(**given), exact) < 1.25 * tiny.error(expected, exact)


def test_text_comes_first_where_attention_is_looked_into():
    network = ours(tiny.transformer("5b"))
    given = inputs(network, SAMPLE)
    seen = []
    found = network(**given, probe=lambda q, k: seen.append((q, k)))
    n = tiny.TEXT_TOKENS + 3 * 4 * 6
    assert [x.shape for pair in seen for x in pair] == [(2, 2, n, 16)] * 4

    # The same scores without text are those of patches alone.
    deaf = torch.zeros(n, n)
    deaf[:, : tiny.TEXT_TOKENS] = -torch.inf
    other = given | {"text": torch.randn_like(given["text"])}
    without = network(**given, bias=deaf)
    torch.testing.assert_close(without, network(**other, bias=deaf))
    assert tiny.error(without, found) > 1e-3  # with random weights, text says little


def test_text_does_not_turn():
    """q and k of text are the same wherever it stands; those of patches are not."""
    network = ours(tiny.transformer("5b"))
    with torch.no_grad():
        for x in network.blocks[0].self_attn.parameters():
            x.zero_()
        network.blocks[0].self_attn.q_norm.bias.fill_(1.0)
    seen = []
    network(**inputs(network, SAMPLE), probe=lambda q, k: seen.append(q))
    q = seen[0]
    assert (q[:, :, : tiny.TEXT_TOKENS] == 1).all()
    assert (q[:, :, tiny.TEXT_TOKENS :] - 1).abs().amax() > 0.5


def test_what_it_can_not_take():
    network = ours(tiny.transformer("1.5-5b"))
    with pytest.raises(ValueError, match=r"patches of 2×2×2 don't divide latents \[3, 8, 12\]"):
        network(**inputs(network, SAMPLE))
    network = ours(tiny.transformer("5b-i2v"))
    with pytest.raises(ValueError, match="learned for 5 text tokens and 4×6 patches, there are 5"):
        network(**inputs(network, (3, 6, 12)))
    short = inputs(network, SAMPLE)
    with pytest.raises(ValueError, match="there are 4 and 4×6"):
        network(**short | {"text": short["text"][:, :4]})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"positions": "none"}, "positions is 'none'"),
        ({"head_dim": 24}, "head_dim is 24"),
        ({"patch_frames": 2}, "rotary positions only"),
        ({"offset_dim": 256}, "offset_dim 256 is not time_dim 512"),
    ],
)
def test_configs_that_make_no_network(wrong, said):
    with pytest.raises(ValueError, match=said):
        CogVideoXConfig(**wrong)
