"""The MoVQ decoder: published sizes, its norm in plain words, and what time adds to a picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from vidgen.nn.autoencoder import AutoencoderConfig, VideoAutoencoder
from vidgen.nn.movq import CONFIGS, MoVQConfig, MoVQDecoder
from vidgen.nn.movq_blocks import Attention, Gated, GroupNorm, SpatialNorm, TimeAttention, TimeConv

TINY = MoVQConfig(widths=(8, 16), blocks=1, attention=(1,), groups=4)
OPTIONS = [
    (temporal, attention)
    for temporal in ("none", "conv1d", "conv3d", "resnet", "inflate")
    for attention in (False, True)
]


def of(temporal: str, attention: bool, config: MoVQConfig = TINY) -> MoVQConfig:
    return replace(config, temporal=temporal, temporal_attention=attention)


def filled(config: MoVQConfig, seed: int = 0) -> MoVQDecoder:
    """No weight as it was when new, gates open."""
    torch.manual_seed(seed)
    decoder = MoVQDecoder(config).eval().requires_grad_(False)
    for p in decoder.parameters():
        p.add_(0.2 * torch.randn_like(p) if p.numel() > 1 else torch.full_like(p, 0.3))
    return decoder


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("temporal", "attention", "millions"),
    [
        ("none", False, 161), ("conv1d", False, 203), ("conv3d", False, 539),
        ("conv1d", True, 220), ("conv3d", True, 556), ("resnet", True, 220),
        ("inflate", False, 419),
    ],
)  # fmt: skip
def test_the_published_counts(temporal, attention, millions):
    """Table 4 of the paper, in whole millions, rounded down: the decoder without its encoder."""
    with torch.device("meta"):
        decoder = MoVQDecoder(of(temporal, attention, CONFIGS["paper"]))
        assert sum(p.numel() for p in decoder.parameters()) // 10**6 == millions
        assert decoder(torch.empty(1, 4, 2, 8, 8)).shape == (1, 3, 2, 64, 64)
    assert decoder.config.stride == 8


def flops(call, *args) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(*args)
    return counter.get_total_flops()


def test_ours_is_small_and_about_as_fast_as_the_image_decoder():
    """Shapes and budget of the shipped latents: 10 × 16 for 80 × 128 pixels."""
    with torch.device("meta"):
        latents = torch.empty(1, 8, 5, 10, 16)
        image, video = VideoAutoencoder(AutoencoderConfig()), MoVQDecoder(CONFIGS["world"])
        assert video(latents).shape == (1, 3, 5, 80, 128)
        assert 2e6 < sum(p.numel() for p in video.parameters()) < 3e6
        assert flops(video, latents) < 1.3 * flops(image.decode, latents)
        assert video.config.stride == image.config.stride


def test_configs_survive_json_and_refuse_nonsense():
    config = CONFIGS["world"]
    assert MoVQConfig(**{k: list(v) if isinstance(v, tuple) else v
                         for k, v in config.to_dict().items()}) == config  # fmt: skip
    with pytest.raises(ValueError, match="temporal is '4d'"):
        MoVQConfig(temporal="4d")  # type: ignore[arg-type]


# --- parts ----------------------------------------------------------------------------------------


def test_spatial_norm_is_what_the_paper_writes():
    """Latents enlarged first, convolved then: slower, the same."""
    torch.manual_seed(0)
    norm = SpatialNorm(8, 3, 2)
    for p in norm.parameters():
        torch.nn.init.normal_(p)
    x, z = torch.randn(2, 8, 6, 4), torch.randn(2, 3, 3, 2)
    groups = x.reshape(2, 2, -1)
    mean, var = groups.mean(-1, keepdim=True), groups.var(-1, keepdim=True, unbiased=False)
    h = ((groups - mean) / (var + 1e-6).sqrt()).reshape(x.shape)
    h = h * norm.norm.weight[:, None, None] + norm.norm.bias[:, None, None]
    large = z.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = h * norm.scale(large) + norm.shift(large)
    torch.testing.assert_close(norm(x, z), expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_a_norm_alone():
    """Of an input that wants none, channels last, which ends torch 2.13 with a fault on a CPU."""
    torch.manual_seed(0)
    norm, x = GroupNorm(8, 2), torch.randn(3, 8, 4, 4)
    grads = []
    for layout in (torch.contiguous_format, torch.channels_last):
        norm.zero_grad()
        norm(x.contiguous(memory_format=layout)).square().mul(x).mean().backward()
        grads.append((norm.weight.grad.clone(), norm.bias.grad.clone()))
    torch.testing.assert_close(grads[0], grads[1])
    assert not x.requires_grad


def test_a_convolution_over_time_is_a_3d_one():
    torch.manual_seed(0)
    conv = TimeConv(4)
    x = torch.randn(2 * 5, 4, 3, 6)
    clip = x.reshape(2, 5, 4, 3, 6).transpose(1, 2)  # b c t h w
    expected = F.conv3d(clip, conv.weight[..., None], conv.bias, padding=(1, 0, 0))
    made = conv(x, 5).reshape(2, 5, 4, 3, 6).transpose(1, 2)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def test_attention_over_pixels_and_over_time_by_loops():
    torch.manual_seed(0)
    b, t, c, h, w = 2, 3, 4, 2, 2
    x, z = torch.randn(b * t, c, h, w), torch.randn(b * t, 3, 1, 1)

    def by_hand(part, normed, sets):
        q, k, v = (getattr(part, n)(normed) for n in "qkv")
        mixed = torch.zeros_like(q)
        for places in sets:  # of (n, y, x)
            for at in places:
                scores = torch.stack([(q[at[0], :, at[1], at[2]] * k[o[0], :, o[1], o[2]]).sum()
                                      for o in places]) / c**0.5  # fmt: skip
                values = torch.stack([v[o[0], :, o[1], o[2]] for o in places])
                mixed[at[0], :, at[1], at[2]] = scores.softmax(0) @ values
        return x + part.out(mixed)

    pixels = [(i, j) for i in range(h) for j in range(w)]
    space, time = Attention(c, 3, 2), TimeAttention(c, 2)
    torch.nn.init.normal_(time.out.weight)
    with torch.no_grad():
        sets = [[(n, *p) for p in pixels] for n in range(b * t)]
        expected = by_hand(space, space.norm(x, z), sets)
        torch.testing.assert_close(space(x, z, t), expected, rtol=1e-4, atol=1e-5)
        sets = [[(i * t + f, *p) for f in range(t)] for i in range(b) for p in pixels]
        expected = by_hand(time, time.norm(x), sets)
        torch.testing.assert_close(time(x, z, t), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["conv1d", "conv3d"])
def test_a_gate_that_starts_at_zero_with_its_kernel_still_learns(kind):
    """Equation 3 as it is written would not: both gradients would be zero for ever."""
    torch.manual_seed(0)
    layer = Gated(4, kind)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    x, target = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    for _ in range(2):
        optimizer.zero_grad()
        (layer(x, 3) - target).square().mean().backward()
        optimizer.step()
    assert layer.gate.item() != 0 and layer.conv.weight.abs().max() > 0


# --- a video decoder and its image decoder --------------------------------------------------------


@pytest.mark.parametrize(("temporal", "attention"), OPTIONS)
def test_a_new_video_decoder_equals_its_image_decoder(temporal, attention):
    image = filled(TINY)
    video = MoVQDecoder(of(temporal, attention)).eval()
    video.begin(image.state_dict())
    latents = torch.randn(2, 4, 3, 4, 6)
    with torch.no_grad():
        made, expected = video(latents), image(latents)
    if temporal == "inflate":  # another kernel of torch, which sums in another order
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
        video, image = video.double(), image.double()
        with torch.no_grad():
            made, expected = video(latents.double()), image(latents.double())
        torch.testing.assert_close(made, expected, rtol=1e-11, atol=1e-11)
    else:
        assert torch.equal(made, expected)
    with torch.no_grad():
        frame = filled(of(temporal, attention))(latents)[:, :, :1]
        alone = filled(of(temporal, attention))(latents[:, :, :1])
    sees_others = temporal != "none" or attention
    assert torch.allclose(frame, alone, rtol=1e-4, atol=1e-4) != sees_others


def test_a_decoder_begins_with_another_of_its_own_kind_too():
    first = filled(of("conv3d", True))
    second = MoVQDecoder(first.config)
    second.begin(first.state_dict())
    assert all(torch.equal(x, first.state_dict()[k]) for k, x in second.state_dict().items())
    first = filled(of("inflate", False))
    second = MoVQDecoder(first.config)
    second.begin(first.state_dict())
    assert all(torch.equal(x, first.state_dict()[k]) for k, x in second.state_dict().items())


def test_a_decoder_of_other_sizes_is_no_beginning():
    with pytest.raises(ValueError, match="of another decoder"):
        MoVQDecoder(TINY).begin(MoVQDecoder(replace(TINY, blocks=2)).state_dict())
    with pytest.raises(ValueError, match="of another decoder"):  # which would lose its time
        MoVQDecoder(TINY).begin(MoVQDecoder(of("conv1d", False)).state_dict())
    with pytest.raises(ValueError, match="not \\["):
        MoVQDecoder(TINY).begin(MoVQDecoder(replace(TINY, channels=3)).state_dict())


@pytest.mark.parametrize(("temporal", "attention"), OPTIONS)
def test_time_parameters_are_what_the_image_decoder_lacks(temporal, attention):
    with torch.device("meta"):
        video, image = MoVQDecoder(of(temporal, attention)), MoVQDecoder(TINY)
    added = sum(p.numel() for p in video.time_parameters())
    if temporal == "inflate":
        assert added == (sum(p.numel() for m in video.modules() if isinstance(m, TimeAttention)
                             for p in m.parameters()))  # fmt: skip
    else:
        assert added == sum(p.numel() for p in video.parameters()) - sum(
            p.numel() for p in image.parameters()
        )


@pytest.mark.parametrize("temporal", ["none", "conv1d", "conv3d", "resnet", "inflate"])
def test_reach_is_how_far_a_latent_is_seen(temporal):
    """In float64, where even the farthest frame's faint trace shows; beyond it there is none."""
    decoder = filled(of(temporal, False)).double()
    reach = decoder.config.reach
    assert reach == (0 if temporal == "none" else 8)
    total = 2 * reach + 5
    latents = torch.randn(1, 4, total, 2, 2, dtype=torch.float64)
    changed = latents.clone()
    changed[:, :, reach + 2] += 1
    seen = (decoder(changed) - decoder(latents)).abs().amax(dim=(0, 1, 3, 4)) > 0
    assert seen.tolist() == [abs(t - reach - 2) <= reach for t in range(total)]
