"""Temporal parts: against slow independent versions, how they start, and what then trains."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vidgen.nn.unet import UNet, UNetConfig, temporal_parameters
from vidgen.nn.unet_blocks import Cond, HeadAttention
from vidgen.nn.unet_temporal import (
    LerpConv,
    TimeAttentionBlock,
    TimeConv,
    TimeResBlock,
    over_time,
    squeezed,
)

SPATIAL = UNetConfig(
    in_channels=4, out_channels=4, variant="spatial", init_channels=8, widths=(8, 16),
    self_attention=(True, True), cross_attention=(False, True), blocks=1, head_dim=8, groups=4,
    time_dim=16, text_dim=12, level_scale=1000.0,
)  # fmt: skip
BLOCKS = ("conv1d_attn1d_blocks", "conv3d_attn1d_blocks", "conv1d_attn3d_blocks")


def cond(frames=3, b=2, dim=16, **more):
    draw = torch.Generator().manual_seed(2)
    rows = [torch.randn(n, dim, generator=draw) for n in (b, b * frames, b)]
    return Cond(frames, *rows, **more)


def rows(channels, frames=3, b=2, h=4, w=6):
    return torch.randn(b * frames, channels, h, w, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize(("k", "spatial"), [(1, False), (3, False), (3, True)])
def test_a_convolution_over_time_is_a_3d_one(k, spatial):
    conv, x = TimeConv(6, 5, k, spatial=spatial), rows(6)
    clip = x.unflatten(0, (2, 3)).transpose(1, 2)  # b c t h w
    wanted = F.conv3d(clip, conv.weight, conv.bias, padding=conv.padding)
    torch.testing.assert_close(conv(x, 3), wanted.transpose(1, 2).flatten(0, 1))


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 2])
def test_attention_over_time_is_within_a_window_and_all_frames(window):
    attention, x = HeadAttention(16, 8), rows(16)
    found = over_time(attention, x, 3, window)
    for clip in range(2):
        for top in range(0, 4, window):
            for left in range(0, 6, window):
                part = x[3 * clip : 3 * clip + 3, :, top : top + window, left : left + window]
                tokens = part.permute(0, 2, 3, 1).reshape(1, -1, 16)
                wanted = attention(tokens).reshape(3, window, window, 16).permute(0, 3, 1, 2)
                out = found[3 * clip : 3 * clip + 3, :, top : top + window, left : left + window]
                torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_frame_positions_enter_the_norm_before_temporal_attention_alone():
    block, x = TimeAttentionBlock(16, 16, 4, 8, 4), rows(16)
    for p in block.parameters():
        p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    told = cond()
    attended = []
    block.ff.register_forward_hook(lambda m, args, out: attended.append(args[0]))
    block.attention.register_forward_hook(lambda m, args, out: torch.zeros_like(out))
    one = block(x, told)
    other = block(x, told._replace(time_attn=told.time_attn + 1))
    assert torch.equal(one, other)  # with the attention silenced, nothing of it is left
    assert torch.equal(attended[0], attended[1])
    assert not torch.allclose(block(x, told._replace(time=told.time + 1)), one, atol=1e-3)


@pytest.mark.parametrize("hidden", [192, 384, 768, 1536])
def test_large_kernels_cost_what_small_ones_do(hidden):
    with torch.device("meta"):
        flat, cubic = (TimeResBlock(2 * hidden, 1536, 32, spatial=s) for s in (False, True))

    def convs(block):
        weights = [c.weight for c in (*block.convs, block.squeeze, block.restore) if c is not None]
        return sum(w.numel() for w in weights)

    assert convs(cubic) == pytest.approx(convs(flat), rel=0.1)
    assert squeezed(hidden, 32) % 32 == 0


def pair(variant, **more):
    """A spatial network away from its start, and one with its weights and new temporal parts."""
    torch.manual_seed(0)
    spatial = UNet(SPATIAL)
    with torch.no_grad():
        for p in spatial.parameters():
            p.add_(0.2 * torch.randn_like(p))
    network = UNet(replace(SPATIAL, variant=variant, **more))
    found = network.load_state_dict(spatial.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert set(found.missing_keys) == set(temporal_parameters(network))
    return spatial.eval(), network.eval()


def call(network):
    draw = torch.Generator().manual_seed(4)
    z, text = torch.randn(2, 4, 3, 4, 8, generator=draw), torch.randn(2, 5, 12, generator=draw)
    return network(z, torch.tensor([0.2, 0.9]), text=text)


@torch.no_grad()
@pytest.mark.parametrize(
    ("variant", "more"),
    [
        ("conv1d_attn1d_layers", {}),
        ("interpolation", {"noise_embedding": "time", "skip_rows": 20}),
        ("interpolation", {"lerp_attention": True}),
    ],
)
def test_new_temporal_layers_change_nothing(variant, more):
    spatial, network = pair(variant, **more)
    torch.testing.assert_close(call(network), call(spatial), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("variant", BLOCKS)
def test_new_temporal_blocks_change_nothing_but_by_their_feed_forward_part(variant):
    spatial, network = pair(variant)
    assert not torch.allclose(call(network), call(spatial), atol=1e-3)
    for module in network.modules():
        if isinstance(module, TimeAttentionBlock):
            module.ff[2].weight.zero_()
    torch.testing.assert_close(call(network), call(spatial), rtol=1e-4, atol=1e-5)


def test_the_spatial_part_can_be_frozen():
    _, network = pair("conv1d_attn1d_blocks")
    temporal = temporal_parameters(network)
    for name, p in network.named_parameters():
        p.requires_grad_(name in temporal)
    call(network).square().mean().backward()
    trained = {n for n, p in network.named_parameters() if p.grad is not None}
    assert trained == set(temporal)
    assert any(p.grad.abs().max() > 0 for p in temporal.values())
    assert all("time" in name or name.startswith("frame_embed") for name in temporal)
    assert temporal_parameters(UNet(SPATIAL)) == {}


def test_the_gate_trains_from_its_start_and_the_convolution_after_it():
    layer, x = LerpConv(16), rows(16).requires_grad_()
    layer(x, cond()).square().mean().backward()
    assert layer.gate.grad.abs() > 0
    assert layer.conv.weight.grad.abs().max() == 0
    with torch.no_grad():
        layer.gate.sub_(0.1 * layer.gate.grad.sign())
    layer(x, cond()).square().mean().backward()
    assert layer.conv.weight.grad.abs().max() > 0


def test_as_the_paper_writes_it_nothing_would_train():
    """Eq. 3, out + alpha · conv(out), with both at zero: why `LerpConv` is written as it is."""
    layer, x = LerpConv(16), rows(16)
    (x + layer.gate * layer.conv(x, 3)).square().mean().backward()
    assert layer.gate.grad.abs().max() == 0
    assert layer.conv.weight.grad.abs().max() == 0


@torch.no_grad()
def test_the_interpolation_mixes_groups_of_one_clip_and_not_frames_or_clips():
    """The middle of three groups reaches its neighbors; another clip, and the channels that are a
    group's three frames, are not what the kernel runs along."""
    layer, x = LerpConv(6), torch.zeros(6, 6, 2, 2)
    layer.gate.fill_(0.5)
    layer.conv.weight.copy_(torch.eye(6)[:, :, None, None, None].expand(-1, -1, 3, 1, 1))
    x[1, 4] = 1.0  # clip 0, group 1, a channel of its second frame
    out = layer(x, cond(frames=3))
    wanted = torch.zeros_like(x)
    wanted[0, 4], wanted[1, 4], wanted[2, 4] = 0.5, 1.0, 0.5
    torch.testing.assert_close(out, wanted)


@torch.no_grad()
def test_a_closed_clip_sees_no_other_group():
    spatial, network = pair("interpolation", lerp_attention=True)
    for name, p in network.named_parameters():
        if "time_" in name:
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    z = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(6))
    t = torch.tensor([0.2, 0.9])
    out, plain = network(z, t, temporal=torch.tensor([1.0, 0.0])), spatial(z, t)
    torch.testing.assert_close(out[1], plain[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(out[0], plain[0], atol=1e-3)
