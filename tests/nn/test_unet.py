"""The FusionFrames U-Net as a whole: sizes, conditions, and what it must not depend on."""

from dataclasses import replace

import pytest
import torch

from vidgen.nn.unet import UNet, UNetConfig
from vidgen.nn.unet_config import VARIANTS

TINY = UNetConfig(
    in_channels=4, out_channels=4, variant="spatial", init_channels=8, widths=(8, 16),
    self_attention=(False, True), cross_attention=(False, True), blocks=2, head_dim=8, groups=4,
    time_dim=16, text_dim=12, level_scale=1000.0,
)  # fmt: skip
GROUPS = {
    "in_channels": 20, "out_channels": 12, "variant": "interpolation", "noise_embedding": "time",
    "skip_rows": 20,
}  # fmt: skip
CONFIGS = {name: replace(TINY, variant=name) for name in VARIANTS} | {
    "interpolation": replace(TINY, **GROUPS),
    "interpolation-1.1": replace(TINY, **GROUPS, lerp_attention=True, pooling_last=True),
    "keyframes-1.1": replace(
        TINY, variant="conv1d_attn1d_blocks", frame_embedding="all", noise_embedding="frames",
        motion=True, image_stem=True, context_dim=16, text_mean="padding_as_zeros",
    ),
}  # fmt: skip


def made(config):
    """A network away from its start, where gates are closed and norms neutral."""
    torch.manual_seed(0)
    network = UNet(config)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return network.eval()


@pytest.fixture(params=CONFIGS)
def network(request):
    return made(CONFIGS[request.param])


def inputs(config, height=4, width=6, b=2):
    draw = torch.Generator().manual_seed(1)
    told = {
        "z": torch.randn(b, config.in_channels, 3, height, width, generator=draw),
        "t": torch.rand(b, generator=draw),
        "text": torch.randn(b, 5, 12, generator=draw),
        "text_mask": torch.arange(5) < torch.tensor([5, 3])[:b, None],
        "times": torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.25, 0.5]])[:b],
    }
    if config.skip_rows:
        told["skip"] = torch.tensor([3, 1])[:b]
    if config.noise_embedding:
        told["noise_level"] = torch.tensor([0.0, 0.2])[:b]
    if config.motion:
        told["motion"] = torch.tensor([10.0, 1.0])[:b]
    return told


@torch.no_grad()
def test_a_batch_equals_its_singles(network):
    both = inputs(network.config)
    out = network(**both)
    assert out.shape == (2, network.config.out_channels, 3, 4, 6)
    singles = [network(**{k: v[i : i + 1] for k, v in both.items()}) for i in range(2)]
    torch.testing.assert_close(out, torch.cat(singles), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_every_input_matters_where_the_config_has_a_place_for_it(network):
    base = network(**inputs(network.config))
    unread = set() if network.config.has_frames else {"times"}
    for name, x in inputs(network.config).items():
        changed = inputs(network.config)
        changed[name] = ~x if x.dtype == torch.bool else x + 2 if x.dtype == torch.int64 else x + 1
        if name == "text_mask":
            changed[name] = torch.arange(5) < torch.tensor([[2], [1]])
        same = torch.allclose(network(**changed), base, atol=1e-4)
        assert same == (name in unread), name


@torch.no_grad()
def test_odd_sizes_are_padded_with_their_edge_and_cut_back(network):
    odd = inputs(network.config, 5, 7)
    even = dict(odd)
    tall, wide = -5 % network.config.stride, -7 % network.config.stride
    last = odd["z"][:, :, :, -1:].expand(-1, -1, -1, tall, -1)
    even["z"] = torch.cat((odd["z"], last), dim=3)
    last = even["z"][..., -1:].expand(*even["z"].shape[:-1], wide)
    even["z"] = torch.cat((even["z"], last), dim=4)
    out = network(**odd)
    assert out.shape[-2:] == (5, 7)
    torch.testing.assert_close(out, network(**even)[..., :5, :7])


@torch.no_grad()
def test_shipped_latents_go_through(network):
    assert network(**inputs(network.config, 5, 8)).shape[-2:] == (5, 8)


@torch.no_grad()
def test_bfloat16_stays_close(network):
    told = inputs(network.config)
    wanted = network(**told)
    out = network.bfloat16()(**told)
    assert out.dtype == torch.bfloat16
    assert (out - wanted).abs().mean() < 0.1 * wanted.abs().mean()


@torch.no_grad()
def test_the_spatial_network_takes_every_frame_alone():
    network, told = made(TINY), inputs(TINY)
    frames = [network(**told | {"z": told["z"][:, :, i : i + 1]}) for i in range(3)]
    torch.testing.assert_close(network(**told), torch.cat(frames, dim=2), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - {"spatial"}))
def test_the_others_see_frames_together(name):
    network, told = made(CONFIGS[name]), inputs(CONFIGS[name])
    base = network(**told)
    told["z"][:, :, 2] += 1
    assert not torch.allclose(network(**told)[:, :, 0], base[:, :, 0], atol=1e-4)


@torch.no_grad()
def test_padding_of_text_does_not_matter():
    network, told = made(TINY), inputs(TINY)
    base = network(**told)
    told["text"] = torch.cat((told["text"], torch.full((2, 4, 12), 9.0)), dim=1)
    told["text_mask"] = torch.cat((told["text_mask"], torch.zeros(2, 4).bool()), dim=1)
    told["text"][1, 3:] = -7.0  # behind the shorter text's last word
    torch.testing.assert_close(network(**told), base, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_row_without_a_word_is_the_null_text():
    network, told = made(TINY), inputs(TINY)
    told["text_mask"][1] = False
    out = network(**told)
    told["text"] = told["text_mask"] = None
    null = network(**told)
    torch.testing.assert_close(out[1], null[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(out[0], null[0], atol=1e-3)
    network.text.null.add_(1)
    assert not torch.allclose(network(**told), null, atol=1e-3)


@torch.no_grad()
def test_what_padding_does_to_the_mean_of_the_text():
    """Words 1 and 3 beside padding of 8: what the pooling asks with."""
    text, mask = torch.tensor([[[1.0], [3.0], [8.0], [8.0]]]), torch.tensor([[True, True, 0, 0]])
    text = text.expand(1, 4, 12)
    for mean, wanted in (("words", 2.0), ("padding_as_zeros", 1.0), ("padding_too", 5.0)):
        network = UNet(replace(TINY, text_mean=mean))
        seen = {}
        network.text.pool.q.register_forward_hook(lambda m, args, out, s=seen: s.update(q=args[0]))
        network.text(1, text, mask.bool())
        assert torch.equal(seen["q"], torch.full((1, 1, 12), wanted))
    network.text(1, None, None)
    assert torch.equal(seen["q"], network.text.null.expand(1, 1, -1))


@torch.no_grad()
def test_a_picture_takes_its_own_stem_and_no_temporal_part():
    config = CONFIGS["keyframes-1.1"]
    network, told = made(config), inputs(config)
    picture = UNet(config.of_pictures()).eval()
    state = network.state_dict()
    state |= {name: state[f"image_{name}"] for name in ("stem.weight", "stem.bias")}
    picture.load_state_dict({k: state[k] for k in picture.state_dict()})
    z = told["z"][:, :, :1]
    del told["noise_level"], told["motion"], told["times"]
    assert torch.equal(network(**told | {"z": z}), picture(**told | {"z": z}))


@torch.no_grad()
def test_a_network_without_text_takes_it_unread():
    config = replace(TINY, text_dim=0, cross_attention=(False, False))
    network, told = made(config), inputs(config)
    out = network(**told)
    assert torch.equal(network(told["z"], told["t"], pooled=torch.ones(2, 3)), out)


@torch.no_grad()
def test_pooled_text_joins_the_level():
    config = replace(TINY, pooled_dim=10)
    network, told = made(config), inputs(config)
    with pytest.raises(ValueError, match="pooled"):
        network(**told)
    one, other = (network(**told, pooled=torch.full((2, 10), x)) for x in (0.0, 1.0))
    assert not torch.allclose(one, other, atol=1e-3)


def test_a_condition_without_a_place_is_refused():
    network, told = UNet(TINY), inputs(TINY)
    for name in ("skip", "noise_level", "motion"):
        with pytest.raises(ValueError, match=name):
            network(**told, **{name: torch.ones(2).long()})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"variant": "conv2d"}, "variant is 'conv2d', must be one of"),
        ({"widths": (8, 16, 32)}, "must have the same levels"),
        ({"widths": (8, 20)}, "groups is 4, must divide 10 of level 1"),
        ({"head_dim": 5}, "head_dim is 5, must divide 8 of level 1"),
        ({"time_dim": 12}, "head_dim must divide time_dim"),
        ({"blocks": 0}, "blocks must be at least 1"),
        ({"text_dim": 0}, "cross_attention needs a text_dim"),
        ({"lerp_attention": True}, "lerp_attention is for"),
        ({"motion": True}, "need a variant with frames"),
    ],
)
def test_configs_that_build_nothing_are_refused(changes, why):
    with pytest.raises(ValueError, match=why):
        replace(TINY, **changes)


def test_a_config_comes_back_from_json():
    import json

    for config in CONFIGS.values():
        assert UNetConfig(**json.loads(json.dumps(config.to_dict()))) == config
