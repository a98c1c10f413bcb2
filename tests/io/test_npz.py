"""NPZ: the same record for whoever has only NumPy."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
import torch

from vidgen.errors import InputError, UsageError
from vidgen.io.npz import read_npz, write_npz
from vidgen.io.record import Record
from vidgen.io.stream import read_stream, write_stream


def test_round_trip_and_what_numpy_sees(make, tmp_path):
    record = make().replace(tensors={"text.embeds": torch.tensor([1.0, -2.0]).bfloat16()})
    path = tmp_path / "a.npz"
    write_stream([record], path)
    again = read_npz(path)
    assert again.pack()[0] == record.pack()[0]
    assert again.torch("text.embeds").tolist() == [1, -2]
    assert again.last
    with np.load(path, allow_pickle=False) as arrays:
        assert np.array_equal(arrays["latents"], record.numpy("latents"))
        assert arrays["truth.count"].shape == ()
        assert arrays["text.embeds"].dtype == np.uint16
        assert b'"id":"a"' in arrays["vidgen"].tobytes()


def test_same_record_same_bytes(make):
    hashes = set()
    for _ in range(2):
        f = io.BytesIO()
        write_npz(make(), f)
        hashes.add(hashlib.sha256(f.getvalue()).digest())
    assert len(hashes) == 1


def test_streams_read_it_from_files_and_pipes(make, pack, tmp_path):
    write_stream([make()], tmp_path / "a.npz")
    (record,) = read_stream(tmp_path / "a.npz")
    assert pack([record]) == pack([make()])
    (record,) = read_stream(io.BytesIO((tmp_path / "a.npz").read_bytes()))
    assert pack([record]) == pack([make()])


def test_npz_of_others(tmp_path):
    path = tmp_path / "my arrays.npz"
    np.savez_compressed(path, x=np.arange(4, dtype=np.float32), y=np.asfortranarray(np.eye(3)))
    (record,) = read_stream(path)
    assert (record.kind, record.id, record.last) == ("features", "my-arrays", True)
    assert record.numpy("x").tolist() == [0, 1, 2, 3]
    assert np.array_equal(record.numpy("y"), np.eye(3))


def test_one_record_only(make, tmp_path):
    with pytest.raises(UsageError, match="holds one record"):
        write_stream([make("a"), make("b")], tmp_path / "a.npz")
    assert write_stream([make("a"), make("b")], tmp_path / "{id}.npz") == 2
    f = io.BytesIO()
    assert write_stream([make("a")], f, npz=True) == 1
    assert f.getvalue().startswith(b"PK")


def test_changed_arrays_are_noticed(make, tmp_path):
    path = tmp_path / "a.npz"
    write_npz(make(), path)
    with np.load(path) as arrays:
        changed = {**arrays, "latents": arrays["latents"] + 1}
    np.savez(path, **changed)
    with pytest.raises(InputError, match="digest mismatch"):
        read_npz(path)


@pytest.mark.parametrize("cut", [5, 100, 700, -30])
def test_cut_files(cut, make, tmp_path):
    f = io.BytesIO()
    write_npz(make(), f)
    (tmp_path / "a.npz").write_bytes(f.getvalue()[:cut])
    with pytest.raises(InputError):
        read_npz(tmp_path / "a.npz")


def test_arrays_with_no_place_in_a_record(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array(["text"]))
    with pytest.raises(InputError, match="no place"):
        read_npz(tmp_path / "a.npz")
    np.savez(
        tmp_path / "b.npz",
        **{"x": np.zeros(2), "vidgen.dtypes": np.frombuffer(b'{"x":"BF16"}', "u1")},
    )
    with pytest.raises(InputError, match="bits of BF16"):
        read_npz(tmp_path / "b.npz")


def test_kind_of_record_survives():
    f = io.BytesIO()
    write_npz(Record.make("report", "r", {}, {"score": 0.5}), f)
    record = read_npz(io.BytesIO(f.getvalue()), name="x")
    assert (record.kind, record.id, record.attrs) == ("report", "r", {"score": 0.5})
