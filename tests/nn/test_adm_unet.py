"""The U-Net of Snap Video's comparison: sizes, a silent start, what its parts may see."""

import pytest
import torch
import torch.nn.functional as F

from vidgen.nn.adm_unet import AdmUNet, AdmUNetConfig, Attention, Layer, ResBlock
from vidgen.systems.snap_video import UNETS

TINY = AdmUNetConfig(
    base=8, multipliers=(1, 2), attention=(False, True), blocks=1, head_dim=4, cond_dim=12,
    text_dim=6, dropout=0.0,
)  # fmt: skip


def inputs(b=2, frames=3):
    draw = torch.Generator().manual_seed(0)
    return {
        "z": torch.randn(b, 3, frames, 4, 6, generator=draw),
        "t": torch.randn(b, generator=draw),
        "text": torch.randn(b, 5, 6, generator=draw),
        "text_mask": torch.arange(5).expand(b, -1) < 4,
        "period": torch.rand(b, generator=draw),
    }


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = AdmUNet(TINY)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return network.eval()


@pytest.mark.parametrize(
    ("name", "counted", "paper"), [("unet-85m", 83.5, 85), ("unet-284m", 272.5, 284)]
)
def test_published_sizes(name, counted, paper):
    with torch.device("meta"):
        network = AdmUNet(UNETS[name])
    count = sum(p.numel() for p in network.parameters()) / 1e6
    assert count == pytest.approx(counted, abs=0.05)
    assert count == pytest.approx(paper, rel=0.05)


def test_a_new_network_returns_zero_and_learns_from_there():
    network = AdmUNet(TINY)
    out = network(**inputs())
    assert out.shape == (2, 3, 3, 4, 6) and not out.any()
    (out - 1).square().mean().backward()
    assert network.out.weight.grad.any()


@torch.no_grad()
def test_frames_meet_in_the_attention_over_time_alone(network):
    given = inputs()
    changed = given | {"z": given["z"].clone()}
    changed["z"][:, :, 2] += 1.0
    difference = (network(**changed) - network(**given)).abs().amax(dim=(0, 1, 3, 4))
    assert (difference > 1e-4).all()
    for part in network.modules():
        if isinstance(part, Attention) and part.text is None:
            part.out.weight.zero_()
            part.out.bias.zero_()
    difference = (network(**changed) - network(**given)).abs().amax(dim=(0, 1, 3, 4))
    assert difference[2] > 1e-4 and difference[:2].max() < 1e-6


@torch.no_grad()
def test_everything_given_matters_and_padding_of_text_does_not(network):
    given = inputs()
    out = network(**given)
    for name in ("t", "text", "period"):
        assert (network(**(given | {name: given[name] + 0.5})) - out).abs().max() > 1e-4, name
    longer = given | {
        "text": torch.cat([given["text"], torch.randn(2, 2, 6)], 1),
        "text_mask": F.pad(given["text_mask"], (0, 2)),
    }
    torch.testing.assert_close(network(**longer), out, rtol=1e-4, atol=1e-5)
    one = network(**{k: v[1:] for k, v in given.items()})
    torch.testing.assert_close(one, out[1:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_residual_block_scales_and_shifts_behind_its_second_norm():
    """Written out once more, with torch's functions."""
    torch.manual_seed(1)
    block = ResBlock(8, 16, TINY)
    for p in block.parameters():
        p.copy_(torch.randn_like(p) / 4)
    x, told = torch.randn(2, 8, 4, 4), torch.randn(2, 12)
    y = F.group_norm(x, 8, block.norm1.weight, block.norm1.bias)
    y = F.conv2d(F.silu(y), block.conv1.weight, block.conv1.bias, padding=1)
    emb = F.linear(F.silu(told), block.told.weight, block.told.bias)
    y = F.group_norm(y, 16, block.norm2.weight, block.norm2.bias)
    y = y * (1 + emb[:, :16, None, None]) + emb[:, 16:, None, None]
    y = F.conv2d(F.silu(y), block.conv2.weight, block.conv2.bias, padding=1)
    skip = F.conv2d(x, block.skip.weight, block.skip.bias)
    torch.testing.assert_close(block(x, told), skip + y)


def test_sizes_that_do_not_divide(network):
    with pytest.raises(ValueError, match="multiples of 2"):
        network(**(inputs() | {"z": torch.zeros(2, 3, 3, 5, 6)}))
    with pytest.raises(ValueError, match="one entry a level"):
        AdmUNetConfig(multipliers=(1, 2))
    for sizes, said in (
        ({"base": 9}, "base is 9, must be even and above 0"),
        ({"multipliers": (), "attention": ()}, "one at least, all above 0"),
        ({"head_dim": 5}, "heads of 5 don't divide a width of 16"),
    ):
        with pytest.raises(ValueError, match=said):
            AdmUNet(AdmUNetConfig(**(TINY.to_dict() | sizes)))


def test_what_repeats_is_all_but_the_ends(network):
    parts = [m for m in network.modules() if isinstance(m, Layer)]
    parts += [*network.shrink, *network.grow]
    assert {id(part) for part in network.blocks} == {id(part) for part in parts}
    assert len(network.blocks) == len(parts) == 1 + 1 + 2 + 2 + 2 + 1 + 1
