"""Weight files: mapped, hashed once, named for their content."""

from __future__ import annotations

import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import save_file

from vidgen.errors import InputError
from vidgen.io import weights

OLD = 1_700_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vidgen" / "weights"


def old_file(path, data: bytes):
    path.write_bytes(data)
    os.utime(path, (OLD, OLD))
    return path


def plain(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_weights_are_mapped(tmp_path):
    made = {"w": torch.randn(3, 4).bfloat16(), "b": torch.zeros(2)}
    save_file(made, tmp_path / "m.safetensors")
    loaded = weights.load_safetensors(tmp_path / "m.safetensors")
    assert loaded.keys() == made.keys()
    assert all(torch.equal(loaded[k], made[k]) for k in made)
    loaded["w"].zero_()  # private: the file keeps its own
    assert torch.equal(weights.load_safetensors(tmp_path / "m.safetensors")["w"], made["w"])


def test_shards(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "m-1.safetensors")
    save_file({"b": torch.zeros(2)}, tmp_path / "m-2.safetensors")
    index = tmp_path / "m.safetensors.index.json"
    where = {"a": "m-1.safetensors", "b": "m-2.safetensors"}
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert weights.load_safetensors(index).keys() == {"a", "b"}
    index.write_text(json.dumps({"weight_map": {**where, "c": "m-2.safetensors"}}))
    with pytest.raises(InputError, match="lack `c`"):
        weights.load_safetensors(index)
    for bad in ("{", "[]", json.dumps({"weight_map": {"a": "../../etc/passwd"}})):
        index.write_text(bad)
        with pytest.raises(InputError, match="index of shards"):
            weights.load_safetensors(index)


def test_damaged_weights(tmp_path):
    save_file({"a": torch.ones(9)}, tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "m.safetensors").write_bytes(data[:-4])
    with pytest.raises(InputError, match="ends inside the data"):
        weights.load_safetensors(tmp_path / "m.safetensors")


def test_hash_is_remembered_by_place_size_and_time(tmp_path, cache):
    path = old_file(tmp_path / "w", b"one")
    assert weights.sha256(path) == plain(b"one")
    (note,) = cache.iterdir()
    note.write_text(note.read_text().replace(plain(b"one"), "f" * 64))
    assert weights.sha256(path) == "f" * 64  # so it was not read again
    (tmp_path / "link").symlink_to(path)
    assert weights.sha256(tmp_path / "link") == "f" * 64
    old_file(path, b"three")  # another size
    assert weights.sha256(path) == plain(b"three")
    path.write_bytes(b"seven")
    os.utime(path, (OLD, OLD + 1))  # another time
    assert weights.sha256(path) == plain(b"seven")


def test_a_file_just_written_is_not_remembered(tmp_path, cache):
    (tmp_path / "w").write_bytes(b"new")
    assert weights.sha256(tmp_path / "w") == plain(b"new")
    assert not cache.exists()


def test_a_broken_or_forbidden_cache_is_no_error(tmp_path, cache, monkeypatch):
    path = old_file(tmp_path / "w", b"one")
    weights.sha256(path)
    for note in cache.iterdir():
        note.write_text("{")
    assert weights.sha256(path) == plain(b"one")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert weights.sha256(path) == plain(b"one")
    with pytest.raises(InputError, match="can't be read"):
        weights.sha256(tmp_path / "none")


def test_hash_of_several_files(tmp_path):
    one, two = old_file(tmp_path / "1", b"one"), old_file(tmp_path / "2", b"two")
    assert weights.combined_sha256([one]) == plain(b"one")
    lines = f"{plain(b'one')}  1\n{plain(b'two')}  2\n"
    assert weights.combined_sha256([two, one]) == plain(lines.encode())


def test_names_for_content():
    config = {"channels": 8, "stride": 8, "_diffusers_version": "0.42"}
    name = weights.content_id("world-vae", config, "ab")
    assert name.startswith("world-vae@") and len(name) == len("world-vae@") + 12
    assert name == weights.content_id("world-vae", {"stride": 8, "channels": 8}, "ab")
    assert name != weights.content_id("world-vae", {**config, "stride": 4}, "ab")
    assert name != weights.content_id("world-vae", config, "ac")
