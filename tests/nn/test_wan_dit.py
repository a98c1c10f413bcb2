"""Wan's transformer computes what diffusers' does, on tiny random networks of every kind.

Measured on a CPU in float32: up to 3e-7, with gradients and without, which is by other kernels
(`vidgen.nn.fused`). The bound leaves room for others still.
"""

import warnings

import pytest
import torch

from vidgen.nn.wan_dit import WanConfig, WanDiT
from vidgen.nn.wan_keys import TRANSFORMER, released

with warnings.catch_warnings():
    # Its import warns about optional packages and its own old annotations; ours must not.
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")

SIZES = {"heads": 4, "head_dim": 12, "depth": 2, "mlp_dim": 96, "text_dim": 24, "level_dim": 32}
THEIRS = {
    "num_attention_heads": 4, "attention_head_dim": 12, "num_layers": 2, "ffn_dim": 96,
    "text_dim": 24, "freq_dim": 32,
}  # fmt: skip
CLIP = {"image_dim": 20}
VARIANTS = {  # ours, theirs
    "t2v": ({}, {}),
    "i2v 2.1": (
        {"in_channels": 36, **CLIP},
        {"in_channels": 36, "added_kv_proj_dim": 48, **CLIP},
    ),
    "first and last frame": (
        {"in_channels": 36, "image_positions": 14, **CLIP},
        {"in_channels": 36, "added_kv_proj_dim": 48, "pos_embed_seq_len": 14, **CLIP},
    ),
    "i2v 2.2": ({"in_channels": 36}, {"in_channels": 36}),
    "ti2v 2.2": ({"in_channels": 48, "out_channels": 48}, {"in_channels": 48, "out_channels": 48}),
}


def both(variant):
    """Theirs with random weights that leave nothing silent, and ours with the same."""
    own, other = VARIANTS[variant]
    torch.manual_seed(0)
    theirs = diffusers.WanTransformer3DModel(**THEIRS, **other).eval().requires_grad_(False)
    for p in theirs.parameters():
        p.add_(0.1 * torch.randn_like(p))
    ours = WanDiT(WanConfig(**SIZES, **own)).eval().requires_grad_(False)
    names, state = released(ours.state_dict(), TRANSFORMER), theirs.state_dict()
    assert sorted(names.values()) == sorted(state)
    ours.load_state_dict({own: state[name] for own, name in names.items()})
    return ours, theirs


def inputs(config, words=512):
    """Two samples of 3 × 6 × 8 latents: 36 tokens each."""
    torch.manual_seed(1)
    given = {
        "z": torch.randn(2, config.in_channels, 3, 6, 8),
        "t": torch.tensor([999.0, 372.0]),
        "text": torch.randn(2, words, 24),
    }
    if config.image_dim is not None:
        given["image"] = torch.randn(2, 14, config.image_dim)
    return given


def expected(theirs, z, t, text, image=None):
    if image is not None and theirs.config.pos_embed_seq_len:
        image = image.reshape(4, 7, -1)  # they get the two pictures as two samples
    return theirs(z, t, text, image, return_dict=False)[0]


def error(found, wanted):
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_as_diffusers(variant, gradients):
    ours, theirs = both(variant)
    given = inputs(ours.config)
    given["text"][:, 20:] = 0
    with torch.set_grad_enabled(gradients):
        assert error(ours(**given), expected(theirs, **given)) <= 1e-5
        given["t"] = 1000 * torch.rand(2, 36)  # a level for each token
        assert error(ours(**given), expected(theirs, **given)) <= 1e-5
        given["t"] = torch.tensor([700.0])  # one for both samples
        wanted = expected(theirs, **given | {"t": torch.tensor([700.0, 700.0])})
        assert error(ours(**given), wanted) <= 1e-5


def test_a_level_for_each_frame_is_one_for_each_of_its_tokens():
    ours, theirs = both("ti2v 2.2")
    given = inputs(ours.config)
    levels = torch.tensor([[0.0, 999.0, 500.0], [0.0, 250.0, 250.0]])
    found = ours(**given | {"t": levels})
    wanted = expected(theirs, **given | {"t": levels.repeat_interleave(12, dim=1)})
    assert error(found, wanted) <= 1e-5
    alike = ours(**given | {"t": torch.tensor([[7.0] * 3, [9.0] * 3])})
    torch.testing.assert_close(alike, ours(**given | {"t": torch.tensor([7.0, 9.0])}))


def test_text_of_any_length_beside_a_picture():
    """Theirs takes the last 512 tokens of both for the text; ours are told apart."""
    ours, _ = both("i2v 2.1")
    assert ours(**inputs(ours.config, words=5)).isfinite().all()


def test_probe_and_bias_go_to_the_self_attention_of_every_block():
    ours, _ = both("i2v 2.1")
    given, seen = inputs(ours.config), []
    plain = ours(**given, probe=lambda q, k: seen.append((q.shape, k.shape)))
    assert seen == [((2, 4, 36, 12), (2, 4, 36, 12))] * 2
    torch.testing.assert_close(ours(**given, bias=torch.zeros(36, 36)), plain, rtol=0, atol=1e-5)
    own_frame = torch.block_diag(*[torch.ones(12, 12)] * 3).bool()
    changed = given | {"z": given["z"].clone()}
    changed["z"][:, :, 2] += 1
    found, other = (ours(**g, bias=own_frame)[:, :, :2] for g in (given, changed))
    assert torch.equal(found, other)


def test_what_it_cannot_take():
    ours, _ = both("t2v")
    given = inputs(ours.config)
    with pytest.raises(ValueError, match="whole patches"):
        ours(**given | {"z": given["z"][..., :7]})
    with pytest.raises(ValueError, match="5 levels for 36 tokens"):
        ours(**given | {"t": torch.zeros(2, 5)})
    with pytest.raises(ValueError, match="takes none"):
        ours(**given, image=torch.zeros(2, 7, 20))
    pictured, _ = both("i2v 2.1")
    with pytest.raises(ValueError, match="needs a picture"):
        pictured(**inputs(pictured.config) | {"image": None})
    with pytest.raises(ValueError, match="without image_dim"):
        WanConfig(image_positions=514)
