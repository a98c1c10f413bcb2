"""`attend` against plain tensor operations; rotary positions against their defining properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidgen.nn.attention import CrossAttention, SelfAttention, attend, attend_reference, kernel
from vidgen.nn.rope import axial_angles, grid_positions, rotate


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bias", [None, "bool", "float"])
def test_attend_is_softmax_attention(bias):
    q, k, v = randn(2, 3, 5, 8), randn(2, 3, 7, 8, seed=1), randn(2, 3, 7, 8, seed=2)
    if bias == "bool":
        bias = torch.arange(7)[None, :] <= torch.arange(5)[:, None]
    elif bias == "float":
        bias = randn(5, 7, seed=3)
    torch.testing.assert_close(
        attend(q, k, v, bias=bias), attend_reference(q, k, v, bias=bias), rtol=1e-5, atol=1e-6
    )


def test_probe_sees_what_the_scores_are_made_of():
    seen = []
    layer = SelfAttention(16, heads=2)
    angles = randn(1, 6, 4)
    layer(randn(1, 6, 16), angles, probe=lambda q, k: seen.append((q, k)))
    ((q, k),) = seen
    assert q.shape == k.shape == (1, 2, 6, 8)
    seen.clear()
    layer(randn(1, 6, 16), None, probe=lambda q, k: seen.append((q, k)))
    assert not torch.allclose(q, seen[0][0])  # after the rotation, not before it


def test_cross_attention_ignores_masked_words():
    layer = CrossAttention(16, 12, heads=2)
    x, words = randn(2, 5, 16), randn(2, 4, 12, seed=1)
    padded = torch.cat((words, 100 * randn(2, 3, 12, seed=2)), dim=1)
    mask = torch.arange(7).expand(2, -1) < 4
    torch.testing.assert_close(layer(x, padded, mask), layer(x, words), rtol=1e-5, atol=1e-6)


@settings(max_examples=20)
@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(-20, 20))
def test_rotary_scores_depend_on_distance_alone(m, n, shift):
    q, k = randn(1, 1, 1, 16).double(), randn(1, 1, 1, 16, seed=1).double()

    def score(a, b):
        turn = [axial_angles(torch.tensor([[[p, 0.5 * p]]]), (8, 8)).double() for p in (a, b)]
        return (rotate(q, turn[0]) * rotate(k, turn[1])).sum()

    torch.testing.assert_close(score(m, n), score(m + shift, n + shift), rtol=0, atol=2e-4)


def test_rotation_keeps_lengths_and_position_zero_is_the_identity():
    x = randn(2, 3, 5, 16)
    angles = axial_angles(10 * randn(2, 5, 2), (8, 8))
    torch.testing.assert_close(rotate(x, angles).norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(rotate(x, torch.zeros_like(angles)), x)


def test_grid_counts_from_the_middle_in_seconds_rows_columns():
    grid = grid_positions(torch.tensor([[0.0, 0.5]]), 3, 4)
    assert grid.shape == (1, 24, 3)
    assert grid[0, 0].tolist() == [0.0, -1.0, -1.5]
    assert grid[0, -1].tolist() == [0.5, 1.0, 1.5]


def test_the_kernel_that_was_used_is_told():
    q = randn(1, 2, 8, 16)
    with kernel("auto") as used:
        assert not used
        attend(q, q, q)
    assert used == {"flash"}  # which torch takes on a CPU
    with kernel("math") as used:
        attend(q, q, q)
        attend(q, q, q, bias=torch.ones(8, 8, dtype=torch.bool))
    assert used == {"math"}
    attend(q, q, q)  # outside of it nothing is added
    assert used == {"math"}


def test_flash_attention_3_is_on_in_its_context_alone(monkeypatch):
    """Its kernels are for Hopper GPUs: here a stand-in is registered in their place."""
    from torch.nn.attention import _registry, current_flash_attention_impl

    removed = []

    class Handle:
        def remove(self):
            removed.append(True)

    monkeypatch.setitem(_registry._FLASH_ATTENTION_IMPLS, "FA3", Handle)
    q = randn(1, 2, 8, 16)
    with kernel("fa3") as used:
        assert current_flash_attention_impl() == "FA3"
        attend(q, q, q)
    assert used == {"flash"}  # it has nothing for a CPU
    assert current_flash_attention_impl() is None and removed == [True]
    with kernel("flash"):
        assert current_flash_attention_impl() is None
