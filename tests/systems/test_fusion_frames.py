"""FusionFrames: the published sizes, and how an interpolation starts from a picture network."""

from dataclasses import replace

import pytest
import torch

from vidgen.errors import InputError
from vidgen.nn.unet import UNet, temporal_parameters
from vidgen.systems.fusion_frames import PAPER, PRESETS, WORLD, widened

# Billions: the count derived from the paper's and the releases' tables, without the text
# projection; and what a README says, where it says it of that network.
DERIVED = {
    "pictures": 3.04, "keyframes-1.0": 4.14, "keyframes-1.1": 4.15,
    "interpolation-1.0": 3.87, "interpolation-1.1": 3.98,
}  # fmt: skip
README = {"pictures": 3.0, "keyframes-1.1": 4.15, "interpolation-1.1": 4.0}


def billions(parameters):
    return sum(p.numel() for p in parameters) / 1e9


@pytest.mark.parametrize("name", PAPER)
def test_published_networks_build_with_their_published_sizes(name):
    with torch.device("meta"):
        network = UNet(PAPER[name])
    named = dict(network.named_parameters())
    counted = billions(p for n, p in named.items() if not n.startswith("text.project"))
    assert round(counted, 2) == DERIVED[name]
    assert counted == pytest.approx(README.get(name, counted), rel=0.015)
    if name == "keyframes-1.0":
        assert round(billions(temporal_parameters(network).values()), 2) == 1.11


def test_variants_of_the_keyframes_are_of_one_size():
    """§3.2: squeezed 3×3×3 kernels stay comparable, 3-D attention adds nothing."""
    with torch.device("meta"):
        counts = {
            v: billions(UNet(replace(PAPER["keyframes-1.0"], variant=v)).parameters())
            for v in ("conv1d_attn1d_blocks", "conv3d_attn1d_blocks", "conv1d_attn3d_blocks")
        }
    assert counts["conv1d_attn3d_blocks"] == counts["conv1d_attn1d_blocks"]
    assert counts["conv3d_attn1d_blocks"] == pytest.approx(counts["conv1d_attn1d_blocks"], rel=0.05)


@pytest.mark.parametrize("name", WORLD)
def test_world_sizes_fit_two_cores(name):
    with torch.device("meta"):
        network = UNet(WORLD[name])
    assert 0.5e-3 < billions(network.parameters()) < 3e-3
    assert PRESETS[f"world-{name}"] is WORLD[name]


@pytest.fixture(scope="module")
def pictures():
    """A text-to-image network away from its start, of the world's parts in a smaller size."""
    torch.manual_seed(0)
    network = UNet(small("pictures"))
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return network.eval()


def small(name, **more):
    sizes = {"init_channels": 16, "widths": (16, 16), "head_dim": 8, "groups": 4, "time_dim": 16}
    return replace(WORLD[name], **sizes, text_dim=12, **more)


def started(pictures, name, **more):
    config = small(name, **more)
    network = UNet(config)
    network.load_state_dict(widened(pictures.state_dict(), config))
    return network.eval()


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("more", [{}, {"lerp_attention": True}])
def test_an_interpolation_starts_with_three_times_the_picture(pictures, more):
    network, z, t = started(pictures, "interpolation", **more), draw(2, 40, 3, 4, 6), torch.rand(2)
    out = network(z, t, skip=torch.tensor([3, 1]), noise_level=torch.tensor([0.0, 0.2]))
    wanted = pictures(z[:, 8:16], t)  # the first noisy frame, behind the left keyframe
    for part in out.split(8, dim=1):
        torch.testing.assert_close(part, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("name", "channels"), [("upsampler", 16), ("masked", 17)])
def test_new_channels_of_others_start_unread(pictures, name, channels):
    network, z, t = started(pictures, name), draw(2, channels, 1, 4, 6), torch.rand(2)
    out = network(z, t)
    z[:, 8:] += 1
    assert torch.equal(network(z, t), out)
    z[:, :8] += 1
    assert not torch.allclose(network(z, t), out, atol=1e-3)


@torch.no_grad()
def test_the_stem_for_pictures_starts_as_the_pictures_own(pictures):
    network = started(pictures, "keyframes", image_stem=True, in_channels=17)
    z, t = draw(2, 17, 1, 4, 6), torch.rand(2)
    torch.testing.assert_close(network(z, t), pictures(z[:, :8], t), rtol=1e-4, atol=1e-5)


def test_weights_of_another_network_do_not_fit(pictures):
    state = pictures.state_dict()
    with pytest.raises(InputError, match=r"lacks `down\.0\.pairs\.1\.res_in"):
        widened(state, small("interpolation", blocks=2))
    with pytest.raises(InputError, match=r"the shape of `stem\.weight` is 16×8×3×3"):
        widened(state, small("interpolation", in_channels=12))
    with pytest.raises(InputError, match=r"the shape of `out\.weight` and 1 more is 8×16×3×3"):
        widened(state, small("interpolation", out_channels=20))
    with pytest.raises(InputError, match=r"lacks `stem\.weight`"):
        widened({}, small("interpolation"))
