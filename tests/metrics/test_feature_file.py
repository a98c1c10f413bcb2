"""Feature files: what is written is read, and what was made differently is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from vidgen.errors import InputError
from vidgen.io.log import new_entry
from vidgen.io.record import Record
from vidgen.io.stream import write_stream
from vidgen.metrics.feature_file import (
    FeatureSet,
    is_feature_file,
    joined,
    pixel_digest,
    read_features,
    require_same,
    write_features,
)

ENTRY = new_entry("test", argv=["test"])


def features(n: int = 5, d: int = 3, *, first: int = 0, **changes) -> FeatureSet:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(first))
    ids = tuple(f"clip-{first + i}" for i in range(n))
    return FeatureSet(
        x, ids, tuple(f"digest of {id}" for id in ids),
        changes.get("extractor", {"extractor": "mean", "sha256": "ab"}),
        changes.get("sampling", {"num_frames": 16, "stride": 1}), changes.get("name", f"f{first}"),
    )  # fmt: skip


@pytest.fixture
def at(tmp_path: Path) -> Path:
    return tmp_path / "f.safetensors"


def test_what_is_written_is_read(at) -> None:
    written = features()
    write_features(at, written, ENTRY)
    read = read_features(at)
    assert torch.equal(read.features, written.features)
    assert dataclasses.replace(read, features=written.features, name="f0") == written
    assert read.sha256 == written.sha256
    assert is_feature_file(at)


def test_the_same_features_give_the_same_bytes(at) -> None:
    write_features(at, features(), ENTRY)
    before = at.read_bytes()
    write_features(at, features(), ENTRY, force=True)
    assert at.read_bytes() == before


def test_shards_in_any_order_are_the_same_clips() -> None:
    a, b = features(4), features(3, first=4)
    whole, other = joined([a, b]), joined([b, a])
    assert torch.equal(whole.features, torch.cat([a.features, b.features]))
    assert whole.ids == (*a.ids, *b.ids)
    assert whole.sha256 == other.sha256 != a.sha256


def test_shards_in_one_stream(at) -> None:
    records = []
    for k, part in enumerate((features(4), features(3, first=4))):
        one = at.with_name(f"{k}.safetensors")
        write_features(one, part, ENTRY)
        records.append(Record("features", f"shard-{k}", *_read(one)))
    write_stream(records, at)
    assert len(read_features(at)) == 7


def _read(path):
    from vidgen.io.stream import read_stream

    (record,) = read_stream(path)
    return record.tensors, record.attrs


def test_a_shard_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="`clip-0` is in it a second time"):
        joined([features(), features(name="again")])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extractor": {"extractor": "i3d", "sha256": "ab"}}, 'extractor: "mean" and "i3d"'),
        ({"extractor": {"extractor": "mean", "sha256": "cd"}}, 'sha256: "ab" and "cd"'),
        ({"sampling": {"num_frames": 8, "stride": 1}}, "num_frames: 16 and 8"),
    ],
)
def test_other_settings_are_refused_by_name_and_value(changes, words) -> None:
    with pytest.raises(InputError) as error:
        require_same(features(), features(first=9, **changes))
    assert words in str(error.value.why)


def test_another_number_of_features_is_refused() -> None:
    with pytest.raises(InputError, match="3 features a clip, f9 4"):
        require_same(features(), features(d=4, first=9))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_names_the_clip(value, at) -> None:
    x = features().features.clone()
    x[3, 1] = value
    with pytest.raises(InputError, match="clip-3"):
        dataclasses.replace(features(), features=x)
    record = Record.make("features", "features", {"features": x}, {
        "extractor": {"extractor": "mean"}, "sampling": {}, "clips": list(features().ids),
        "clip_sha256": list(features().digests),
    })  # fmt: skip
    write_stream([record], at)
    with pytest.raises(InputError, match="clip-3"):
        read_features(at)


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors"])
def test_plain_arrays_are_features_of_unknown_making(suffix, tmp_path) -> None:
    x = features().features.numpy()
    path = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(path, x)
    elif suffix == "npz":
        np.savez(path, anything=x)
    else:
        from safetensors.numpy import save_file

        save_file({"anything": x}, path)
    read = read_features(path)
    assert not read.known
    np.testing.assert_array_equal(read.features.numpy(), x)
    assert is_feature_file(path)
    with pytest.raises(InputError, match="nothing says how its features were made"):
        require_same(features(), read)


@pytest.mark.parametrize(
    "array", [np.zeros(3), np.zeros((2, 3), int), np.zeros((0, 3)), np.array([["a"]])]
)
def test_arrays_that_are_no_features(array, tmp_path) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match="not floats n d"):
        read_features(tmp_path / "x.npy")


def test_an_array_of_python_objects_is_not_loaded(tmp_path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="can't be read as an array"):
        read_features(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("key", "value"),
    [("sampling", None), ("clips", ["one"]), ("clip_sha256", "x"), ("extractor", 3)],
)
def test_damaged_attrs_are_refused(key, value, at) -> None:
    attrs = {
        "extractor": {"extractor": "mean"}, "sampling": {}, "clips": list(features().ids),
        "clip_sha256": list(features().digests), key: value,
    }  # fmt: skip
    x = {"features": features().features}
    write_stream([Record.make("features", "features", x, attrs)], at)
    with pytest.raises(InputError, match=key):
        read_features(at)


def test_frames_are_no_features(at) -> None:
    frames = {"frames": np.zeros((1, 2, 2, 3), np.uint8)}
    write_stream([Record.make("frames", "clip", frames)], at)
    assert not is_feature_file(at)
    assert not is_feature_file(at.with_name("missing"))
    with pytest.raises(InputError, match="holds frames, not features"):
        read_features(at)


def test_the_digest_is_of_shape_and_pixels() -> None:
    x = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    assert pixel_digest(x) == pixel_digest(x.copy())
    assert pixel_digest(x) != pixel_digest(x.reshape(4, 1, 4, 3))
    assert pixel_digest(x) != pixel_digest(x + 1)
