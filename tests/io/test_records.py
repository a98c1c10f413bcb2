"""Records: tensors in and out, the law that bytes are kept, and what stock readers say."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from vidgen.errors import InputError, UsageError, VidgenError
from vidgen.io import layout
from vidgen.io.record import Blob, Record, human_bytes
from vidgen.io.stream import read_stream, write_stream

NUMPY = ["f8", "f4", "f2", "c8", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
ONLY_TORCH = [
    torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
]  # fmt: skip

arrays = hnp.arrays(
    dtype=st.sampled_from([np.dtype(c) for c in NUMPY]),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)
names = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3),
    max_leaves=8,
)  # fmt: skip


def image(record: Record, *, last: bool = True) -> bytes:
    header, blobs = record.pack(last=last)
    return header + b"".join(b.data for b in blobs)


def read_one(data: bytes) -> Record:
    (record,) = read_stream(io.BytesIO(data))
    return record


@settings(max_examples=150)
@given(st.dictionaries(names.map("x.".__add__), arrays, max_size=4), json_values)
def test_what_is_written_is_read_and_written_again_as_the_same_bytes(tensors, value):
    record = Record.make("features", "a", tensors, {"value": value})
    data = image(record)
    again = read_one(data)
    assert image(again) == data
    assert (again.attrs, again.digest) == (record.attrs, record.digest)
    for name, x in tensors.items():
        y = again.numpy(name)
        assert (y.dtype, y.shape) == (x.dtype, x.shape)
        assert y.tobytes() == x.tobytes()
        assert torch.equal(again.torch(name).isnan(), torch.tensor(x).isnan())
        assert again.torch(name).nan_to_num().equal(torch.tensor(x).nan_to_num())


@pytest.mark.parametrize("dtype", ONLY_TORCH, ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)], ids=str)
def test_dtypes_that_numpy_lacks(dtype, shape):
    x = torch.arange(int(np.prod(shape))).reshape(shape).to(torch.float32).to(dtype)
    record = Record.make("features", "a", {"x": x})
    y = read_one(image(record)).torch("x")
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    assert y.reshape(-1).view(torch.uint8).tolist() == x.reshape(-1).view(torch.uint8).tolist()
    with pytest.raises(TypeError, match=r"use \.torch\(\)"):
        record.numpy("x")


def test_strided_big_endian_and_conjugate_views_are_written_as_they_look():
    x = torch.arange(6.0).reshape(2, 3)
    z = torch.tensor([1 + 2j]).conj()
    big = np.arange(3, dtype=">f4")
    record = Record.make("features", "a", {"t": x.T, "n": x.numpy()[:, ::-1], "z": z, "big": big})
    again = read_one(image(record))
    assert torch.equal(again.torch("t"), x.T)
    assert again.numpy("n").tolist() == x.numpy()[:, ::-1].tolist()
    assert again.torch("z").tolist() == [1 - 2j]
    assert again.numpy("big").tolist() == [0, 1, 2]


def test_blobs_share_memory_and_arrays_are_read_only():
    x = torch.zeros(4)
    blob = Blob.of(x)
    assert blob.torch().data_ptr() == x.data_ptr()
    assert blob.numpy().ctypes.data == x.data_ptr()
    with pytest.raises(ValueError, match="read-only"):
        blob.numpy()[0] = 1
    frozen = np.zeros(4)
    frozen.flags.writeable = False
    Blob.of(frozen).torch()[0] = 1  # torch knows no read-only tensors: it gets a copy
    assert frozen[0] == 0


def test_tensors_behind_a_record_of_odd_length_are_aligned(make, tmp_path):
    odd = Record.make("frames", "odd", {"frames": np.zeros(5, np.uint8)})
    write_stream([odd, make("b")], tmp_path / "s.vgs")
    _, second = read_stream(tmp_path / "s.vgs")
    x = second.torch("latents")
    assert x.data_ptr() % 4 == 0
    assert torch.equal(x, make("b").torch("latents"))


def test_same_bytes_in_another_process(make, tmp_path):
    """Law L6, under another hash seed, from arrays and from a file."""
    here = image(make())
    script = (
        f"import sys; sys.path[:0] = [{os.path.dirname(__file__)!r}]\n"
        "from conftest import latents_record, stream_bytes\n"
        "from vidgen.io.stream import read_stream\n"
        "made = stream_bytes([latents_record()])\n"
        f"assert made == stream_bytes(read_stream({str(tmp_path / 'a.vgs')!r}))\n"
        "sys.stdout.buffer.write(made)"
    )
    (tmp_path / "a.vgs").write_bytes(here)
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert run.stdout == here


def test_order_of_making_does_not_show():
    a, b = np.arange(3.0), np.arange(2, dtype=np.uint8)
    one = Record.make("features", "a", {"a": a, "b": b}, {"x": 1, "y": 2})
    two = Record.make("features", "a", {"b": b, "a": a}, {"y": 2, "x": 1})
    assert image(one) == image(two)


def test_data_is_aligned_widest_items_first(make):
    header, blobs = make().pack()
    assert len(header) % layout.ALIGN == 0
    widths = [layout.ITEM_BYTES[b.dtype] for b in blobs]
    assert widths == sorted(widths, reverse=True)


def test_digest_is_of_names_shapes_and_bytes_alone():
    x = np.arange(6, dtype=np.float32)
    base = Record.make("features", "a", {"x": x})
    assert base.digest == Record.make("report", "b", {"x": torch.arange(6.0)}, {"k": 1}).digest
    others = [{"y": x}, {"x": x.reshape(2, 3)}, {"x": x.view(np.int32)}, {"x": x + 1}, {}]
    digests = {Record.make("features", "a", t).digest for t in others}
    assert len(digests | {base.digest}) == 6


def test_digest_of_more_than_one_chunk_by_hand():
    x = np.random.default_rng(0).integers(0, 256, (5 << 20) // 2, dtype=np.uint8)  # 2.5 MiB
    chunks = [x.tobytes()[i : i + (1 << 20)] for i in range(0, x.size, 1 << 20)]
    tree = hashlib.sha256(b"".join(hashlib.sha256(c).digest() for c in chunks)).hexdigest()
    line = f"{tree} U8 {x.size} x\n"
    record = Record.make("features", "a", {"x": x})
    assert record.digest == "tree-sha256:" + hashlib.sha256(line.encode()).hexdigest()


def test_stock_safetensors_reads_ours(make, tmp_path):
    record = make()
    record = record.replace(tensors={"text.embeds": torch.randn(2, 3).bfloat16()})
    write_stream([record], tmp_path / "a.safetensors")
    loaded = load_torch(tmp_path / "a.safetensors")
    assert loaded.keys() == record.tensors.keys()
    for name, x in loaded.items():
        assert torch.equal(x, record.torch(name))
    with safe_open(tmp_path / "a.safetensors", "pt") as f:
        assert list(f.metadata()) == ["vidgen"]
        assert json.loads(f.metadata()["vidgen"])["id"] == "a"
        assert torch.equal(f.get_slice("latents")[1:2], record.torch("latents")[1:2])


def test_we_read_stock_safetensors(tmp_path):
    path = tmp_path / "my model.safetensors"
    save_torch({"w": torch.ones(2, 2).half(), "b": torch.zeros(3)}, path, {"format": "pt"})
    (record,) = read_stream(path)
    assert (record.kind, record.id, record.last) == ("features", "my-model", True)
    assert record.attrs == {"format": "pt"}
    assert record.torch("w").tolist() == [[1, 1], [1, 1]]
    save_file({"n": np.zeros(3, np.uint16)}, path)
    assert next(read_stream(path)).numpy("n").dtype == np.uint16


def test_ours_written_again_by_stock_safetensors_still_has_its_digest(make, tmp_path):
    ours, theirs = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_stream([make()], ours)
    with safe_open(ours, "np") as f:
        save_file(load_file(ours), theirs, f.metadata())
    assert next(read_stream(theirs)).digest == make().digest


def test_a_reader_of_ten_lines(make, tmp_path):
    write_stream([make()], tmp_path / "a.safetensors")
    with open(tmp_path / "a.safetensors", "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        data = f.read()
    about = json.loads(header.pop("__metadata__")["vidgen"])
    begin, end = header["latents"]["data_offsets"]
    latents = np.frombuffer(data[begin:end], np.float32).reshape(header["latents"]["shape"])
    assert np.array_equal(latents, make().numpy("latents"))
    assert about["attrs"]["seed"] == 7


def test_replace_merges_drops_and_logs(make):
    old = make()
    new = old.replace(
        kind="frames", tensors={"frames": np.zeros((1, 2, 2, 3), np.uint8), "times": np.zeros(1)},
        drop=["text.*", "latents"], attrs={"fps": 16.0}, entry={"tool": "decode"},
    )  # fmt: skip
    assert sorted(new.tensors) == ["events.spans", "frames", "times", "truth.count", "truth.depth"]
    assert (new.kind, new.id, new.attrs["fps"], new.attrs["seed"]) == ("frames", "a", 16.0, 7)
    assert [e["tool"] for e in new.log] == ["sample-keyframes", "decode"]
    assert new.log[1]["previous"] == new.log[0]["id"]
    assert "latents" in old and old.attrs["fps"] == 8.0 and len(old.log) == 1


def test_attrs_are_what_the_next_process_would_see():
    attrs = {"size": (40, np.int64(64)), "scale": np.float32(0.5), "by": {3: torch.tensor(True)}}
    record = Record.make("report", "a", {}, attrs)
    assert record.attrs == {"size": [40, 64], "scale": 0.5, "by": {"3": True}}
    assert read_one(image(record)).attrs == record.attrs


@pytest.mark.parametrize("bad", [float("nan"), "\ud800", {1, 2}, np.zeros(2)], ids=repr)
def test_attrs_that_json_cannot_say(bad):
    with pytest.raises(UsageError, match="JSON"):
        Record.make("report", "a", {}, {"x": bad})


@pytest.mark.parametrize("id", ["", ".", "..", "a b", "a/b", "ä", "x" * 129, "a\n"])
def test_bad_ids(id):
    with pytest.raises(UsageError, match="id"):
        Record.make("report", id, {})


def test_bad_kind_name_and_dtype():
    with pytest.raises(UsageError, match="kind"):
        Record.make("movie", "a", {})
    with pytest.raises(UsageError, match="name"):
        Record.make("report", "a", {"__metadata__": np.zeros(1)})
    with pytest.raises(TypeError, match="no place"):
        Record.make("report", "a", {"x": np.array(["text"])})
    with pytest.raises(TypeError, match="no place"):
        Record.make("report", "a", {"x": torch.zeros(1, dtype=torch.complex128)})


def test_a_missing_tensor_says_what_there_is(make):
    with pytest.raises(InputError, match="no tensor `frames`") as e:
        make().torch("frames")
    assert "latents" in e.value.why


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16,
                                   torch.complex64, *ONLY_TORCH], ids=str)  # fmt: skip
def test_nan_is_refused_where_networks_read_it(dtype):
    x = torch.tensor([1.0, float("nan")]).to(dtype)
    with pytest.raises(VidgenError, match=r"`text\.embeds` holds a NaN"):
        Record.make("text", "a", {"text.embeds": x}).check_values()
    Record.make("text", "a", {"text.embeds": x[:1], "truth.tracks": x}).check_values()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_depth_may_be_infinite_but_not_nan(dtype):
    inf = float("inf")
    for value, fine in ((inf, True), (-inf, False), (float("nan"), False), (1e3, True)):
        record = Record.make("frames", "a", {"truth.depth": torch.tensor([1, value]).to(dtype)})
        if fine:
            record.check_values()
        else:
            with pytest.raises(VidgenError, match="depth"):
                record.check_values()


def test_repr_is_a_table(make):
    text = repr(make("red-ball"))
    assert text.splitlines()[0] == "red-ball  latents  231 B"
    assert "latents       F32   4 3 2 2  192 B" in text
    assert "truth.count   I64   scalar  8 B" in text
    assert "prompt: a red ball “bounces”" in text
    assert text.endswith("made by: sample-keyframes")


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (6400, "6.4 kB"), (999_960, "1.0 MB"), (5e15, "5000.0 TB")],
)
def test_human_bytes(n, text):
    assert human_bytes(int(n)) == text
