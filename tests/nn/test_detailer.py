"""The convolutional head: a silent start, across the seams of tokens, and frame by frame."""

from dataclasses import replace

import pytest
import torch

from vidgen.nn.detailer import Detailer
from vidgen.nn.dit import DiTConfig, VideoDiT, grown
from vidgen.nn.group_dit import GroupDiT, GroupDiTConfig

PATCH = (1, 2, 4)
TINY = DiTConfig(
    dim=32, depth=1, heads=2, text_dim=12, pooled_dim=10, rope_dims=(4, 6, 6), patch=PATCH
)


def awake(module):
    """Away from its start, where everything that is added is zero."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=draw))
    return module.eval()


@pytest.fixture
def head():
    return awake(Detailer(32, 8, 6, PATCH, 16))


def given(rows=3, columns=3, frames=2):
    draw = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, frames * rows * columns, 32, generator=draw),
        torch.randn(2, 8, frames, 2 * rows, 4 * columns, generator=draw),
        torch.randn(2, 32, generator=draw),
    )


def test_a_new_head_adds_nothing_and_learns():
    head = Detailer(32, 8, 6, PATCH, 16)
    out = head(*given())
    assert out.shape == (2, 6, 2, 6, 12) and not out.any()
    (out - 1).square().mean().backward()
    assert head.conv_out.weight.grad.abs().max() > 0


def test_every_input_matters_and_a_batch_equals_its_singles(head):
    inputs = given()
    base = head(*inputs)
    for i in range(3):
        changed = list(inputs)
        changed[i] = 1.5 * changed[i] + 0.1
        assert not torch.allclose(head(*changed), base, atol=1e-3), i
    alone = torch.cat([head(*(x[i : i + 1] for x in inputs)) for i in range(2)])
    torch.testing.assert_close(alone, base, rtol=1e-4, atol=1e-5)


def test_what_a_token_says_goes_over_its_seams_within_its_frame(head):
    tokens, z, cond = given()
    base = head(tokens, z, cond)
    changed = tokens.clone()
    changed[:, 4] += torch.randn(32, generator=torch.Generator().manual_seed(2))  # first frame's
    moved = (head(changed, z, cond) - base).abs().amax(dim=(0, 1))  # t h w
    assert moved[0, :2, :4].max() > 1e-4  # a corner's token, of which nothing changed
    assert moved[1].max() == 0


def test_a_token_is_drawn_where_it_was_taken_from():
    """Convolutions that hand on their centre: what is drawn changes in the token's patch alone."""
    head = Detailer(32, 8, 6, PATCH, 16)
    torch.nn.init.normal_(head.conv_out.weight)
    head.conv_out.weight.data[..., [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
    torch.nn.init.zeros_(head.up.weight)
    head.norm_out.norm = torch.nn.Identity()  # statistics are of the whole frame
    tokens, z, cond = given()
    base = head(tokens, z, cond)
    tokens[:, 9 + 5] += 1  # second frame, second row, third column
    moved = (head(tokens, z, cond) - base).abs().amax(dim=(0, 1)) > 1e-6
    where = torch.zeros(2, 6, 12, dtype=torch.bool)
    where[1, 2:4, 8:] = True
    assert torch.equal(moved, where)


def test_odd_sizes_come_back(head):
    odd = awake(Detailer(32, 8, 6, (1, 1, 1), 16))
    draw = torch.Generator().manual_seed(3)
    tokens, z = torch.randn(1, 35, 32, generator=draw), torch.randn(1, 8, 1, 5, 7, generator=draw)
    assert odd(tokens, z, torch.randn(1, 32, generator=draw)).shape == (1, 6, 1, 5, 7)


def test_a_transformer_grows_a_head_and_computes_the_same():
    plain = awake(VideoDiT(TINY))
    draw = torch.Generator().manual_seed(4)
    told = {
        "z": torch.randn(2, 8, 2, 4, 8, generator=draw),
        "t": torch.rand(2, generator=draw),
        "text": torch.randn(2, 3, 12, generator=draw),
        "pooled": torch.randn(2, 10, generator=draw),
    }
    own = grown(plain, replace(TINY, detailer=16))
    assert torch.equal(own(**told), plain(**told))
    own(**told).square().mean().backward()
    assert own.detailer.conv_out.weight.grad.abs().max() > 0
    assert torch.equal(grown(awake(own), own.config)(**told), own(**told))
    for other in (TINY, replace(TINY, detailer=8)):
        with pytest.raises(ValueError, match="can't become"):
            grown(own, other)


def test_groups_have_it_too_and_sizes_a_patch_does_not_divide():
    config = GroupDiTConfig(
        in_channels=20, out_channels=12, patch=(2, 4), dim=32, depth=1, heads=2,
        rope_dims=(4, 6, 6), skip_rows=4,
    )  # fmt: skip
    plain = awake(GroupDiT(config))
    own = GroupDiT(replace(config, detailer=16))
    own.load_state_dict(plain.state_dict(), strict=False)
    draw = torch.Generator().manual_seed(5)
    told = {
        "z": torch.randn(2, 20, 3, 5, 7, generator=draw),
        "t": torch.rand(2, generator=draw),
        "times": torch.arange(3.0).expand(2, -1) / 2,
        "skip": torch.tensor([1, 3]),
    }
    assert torch.equal(own(**told), plain(**told))
    assert not torch.allclose(awake(own)(**told), plain(**told), atol=1e-3)
