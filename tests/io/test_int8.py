"""Weights stored in eight bits are those that were stored, to half a step of their rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from vidgen.errors import InputError
from vidgen.io import int8
from vidgen.io.weights import load_safetensors, parameters


@given(
    seed=st.integers(0, 2**16), rows=st.integers(1, 9), columns=st.integers(1, 40),
    spread=st.floats(-12, 12), dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)  # fmt: skip
def test_no_number_is_further_than_half_a_step_of_its_row(seed, rows, columns, spread, dtype):
    draw = torch.Generator().manual_seed(seed)
    size = torch.rand((rows, 1, 1), generator=draw) * 10**spread
    weight = (torch.randn((rows, columns, 2), generator=draw) * size).to(dtype)
    again = int8.unpacked(int8.packed({"w": weight}))["w"]
    assert again.dtype == weight.dtype and again.shape == weight.shape
    wide, largest = weight.double(), weight.double().abs().amax(dim=(1, 2), keepdim=True)
    # Half a step; the scale's own rounding moves the largest by at most half a step more, and the
    # product is rounded to the dtype.
    eps = torch.finfo(dtype).eps
    allowed = largest / 254 * (1 + eps) + largest * eps + torch.finfo(dtype).tiny
    assert ((again.double() - wide).abs() <= allowed).all()


def test_of_normal_numbers_less_than_a_hundredth_is_lost():
    weight = torch.randn((256, 512), generator=torch.Generator().manual_seed(0))
    again = int8.unpacked(int8.packed({"w": weight}))["w"]
    # The largest of 512 is about 3.0: steps of 3.0 / 127, uniform error of a step / √12.
    assert (again - weight).norm() / weight.norm() == pytest.approx(3.0 / 127 / 12**0.5, rel=0.1)


def test_rows_have_scales_of_their_own_and_zeros_stay():
    weight = torch.tensor([[127.0, -3.0], [0.0, 0.0], [0.0127, 0.0001]])
    stored = int8.packed({"a.weight": weight})
    assert stored["a.weight"].tolist() == [[127, -3], [0, 0], [127, 1]]
    assert stored["a.weight_scale"].flatten().tolist() == pytest.approx([1.0, 1.0, 0.0001])
    assert torch.allclose(int8.unpacked(stored)["a.weight"], weight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_does_not_become_one(bad):
    weight = torch.tensor([[1.0, bad, 3.0], [1.0, 2.0, 3.0]])
    again = int8.unpacked(int8.packed({"w": weight}))["w"]
    assert again[0].isnan().all() and again[1].isfinite().all()


def test_what_is_no_matrix_stays_as_it_is():
    state = {
        "bias": torch.randn(7), "steps": torch.arange(6).reshape(2, 3), "one_scale": torch.ones(3),
    }  # fmt: skip
    for given_ in (int8.packed(state), int8.unpacked(state)):
        assert given_.keys() == state.keys()
        assert all(torch.equal(given_[name], x) for name, x in state.items())


def test_a_file_is_read_as_what_was_stored_and_its_numbers_counted(tmp_path):
    draw = torch.Generator().manual_seed(1)
    state = {"a": torch.randn((4, 6), generator=draw).bfloat16(), "b": torch.randn(5)}
    save_file(int8.packed(state), tmp_path / "w.safetensors")
    read = load_safetensors(tmp_path / "w.safetensors")
    assert read.keys() == state.keys() and read["a"].dtype == torch.bfloat16
    assert torch.equal(read["a"], int8.unpacked(int8.packed(state))["a"])
    assert parameters(tmp_path / "w.safetensors") == 29


def test_a_matrix_without_its_scale_is_refused(tmp_path):
    stored = int8.packed({"a": torch.ones(2, 2), "b": torch.ones(2, 2)})
    del stored["b_scale"]
    save_file(stored, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="lacks b_scale"):
        load_safetensors(tmp_path / "w.safetensors")
