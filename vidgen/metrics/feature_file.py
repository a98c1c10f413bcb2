"""Features of clips and all that decided them, in a file: what a distance is computed from.

A file is a stream of records of kind `features`: tensor `features` `n d`, and attrs
`extractor` (its settings), `sampling` (which frames were taken), `clips` (ids), `clip_sha256` (of
the pixels that were taken) and `seen` (how many clips there are of each size and rate). Features of
other settings are never compared or put together.

Plain arrays `n d` (.npy, .npz, .safetensors) are read too. Nothing is known of their making, so
they are compared with each other only.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidgen.errors import InputError, UsageError
from vidgen.io.record import Record
from vidgen.io.stream import read_stream, write_stream
from vidgen.metrics.report import setting_differences


@dataclass(frozen=True)
class FeatureSet:
    """Features of one side of a comparison.

    features   `n d` float32; of plain arrays, float64 where they are
    ids        of the clips
    digests    of each clip's pixels; of its features, where nothing else is known
    extractor  its settings; empty: not known
    sampling   which frames were taken
    name       for messages: the files they come from
    seen       "sizes" and "rates" → clips of each; empty: not known
    """

    features: Tensor
    ids: tuple[str, ...]
    digests: tuple[str, ...]
    extractor: dict[str, Any]
    sampling: dict[str, Any]
    name: str
    seen: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """InputError that names the first clip whose features are not finite."""
        bad = torch.nonzero(~self.features.isfinite().all(dim=1))
        if len(bad):
            raise InputError(
                f"{self.name}: the features of `{self.ids[int(bad[0])]}` hold a NaN or an infinity",
                why=f"{len(bad)} of {len(self.ids)} clips" if len(bad) > 1 else None,
                next="look at the clip and at the weights; no distance can be computed with it",
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def known(self) -> bool:
        return bool(self.extractor)

    @property
    def sha256(self) -> str:
        """Of the clips, in whatever order and in however many files they came."""
        return hashlib.sha256("\n".join(sorted(self.digests)).encode()).hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        return {"extractor": self.extractor, "sampling": self.sampling}


def write_features(
    path: str | Path, features: FeatureSet, entry: dict[str, Any], *, force: bool = False
) -> None:
    """The set as a file of one record. `entry`: what the log is to say of its making."""
    attrs = {
        **features.settings, "clips": list(features.ids), "clip_sha256": list(features.digests),
        **({"seen": features.seen} if features.seen else {}),
    }  # fmt: skip
    record = Record.make("features", "features", {"features": features.features}, attrs, [entry])
    write_stream([record], path, force=force)


def is_feature_file(path: str | Path) -> bool:
    """Whether it is one, by its ending or its first header."""
    path = Path(path)
    if not path.is_file():
        return False
    if path.suffix.lower() == ".npy":
        return True
    try:
        record = next(read_stream(path, verify=False), None)
    except InputError:
        return False
    return record is not None and record.kind == "features"


def read_features(path: str | Path) -> FeatureSet:
    """All features of a file. InputError for what isn't one, or holds NaN."""
    if Path(path).suffix.lower() == ".npy":
        return _plain(_npy(path), str(path))
    return joined([_of_record(record, str(path)) for record in read_stream(path)])


def joined(parts: Sequence[FeatureSet]) -> FeatureSet:
    """Several sets (shards) as one. InputError if they were made differently, or a clip is in it
    twice."""
    first = parts[0]
    for part in parts[1:]:
        require_same(first, part)
    ids = tuple(id for part in parts for id in part.ids)
    origin: dict[tuple[str, str], str] = {}
    for part in parts:
        for id, digest in zip(part.ids, part.digests, strict=True):
            if (id, digest) in origin:
                raise InputError(
                    f"{part.name}: the clip `{id}` is in it a second time",
                    why=f"it was in {origin[id, digest]} before",
                    next="name each shard once",
                )
            origin[id, digest] = part.name
    seen: dict[str, Counter[str]] = {}
    for part in parts:
        for what, counts in part.seen.items():
            seen.setdefault(what, Counter()).update(counts)
    names = list(dict.fromkeys(part.name for part in parts))
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return FeatureSet(
        torch.cat([part.features for part in parts]), ids,
        tuple(digest for part in parts for digest in part.digests),
        first.extractor, first.sampling, names[0] + more,
        {what: dict(counts) for what, counts in seen.items()},
    )  # fmt: skip


def require_same(a: FeatureSet, b: FeatureSet) -> None:
    """InputError, which names the first setting that differs and both values, unless the two can
    be compared."""
    apart = next(iter(setting_differences(a.settings, b.settings)), None)
    if a.known != b.known:
        unknown, known = (a, b) if b.known else (b, a)
        raise InputError(
            f"{unknown.name}: nothing says how its features were made, and {known.name} does",
            next="compare plain arrays with plain arrays, or make both with --save-real"
            " and --save-fake",
        )
    if apart is not None:
        raise InputError(
            f"{a.name} and {b.name}: features of other settings are not compared",
            why=apart,
            next="make both with the same extractor and the same sampling",
        )
    if a.features.shape[1] != b.features.shape[1]:
        raise InputError(
            f"{a.name} has {a.features.shape[1]} features a clip, {b.name} {b.features.shape[1]}"
        )


def pixel_digest(frames: np.ndarray) -> str:
    """SHA-256 of a clip's shape and pixels."""
    shape = ",".join(map(str, frames.shape))
    return hashlib.sha256(shape.encode() + np.ascontiguousarray(frames).data).hexdigest()


def _of_record(record: Record, path: str) -> FeatureSet:
    name = path if record.id == "features" else f"{path}: record `{record.id}`"
    if record.kind != "features":
        raise InputError(f"{name} holds {record.kind}, not features")
    if "extractor" not in record.attrs:
        tensors = [n for n, blob in record.tensors.items() if len(blob.shape) == 2]
        if len(tensors) != 1:
            raise InputError(f"{path}: holds {len(tensors)} arrays of two axes, one is needed")
        return _plain(record.numpy(tensors[0]), path)
    blob = record["features"]
    if blob.dtype not in ("F32", "F64") or len(blob.shape) != 2:
        raise InputError(
            f"{name}: its features are {blob.dtype} {list(blob.shape)}, not F32 or F64 n d"
        )
    attrs = record.attrs
    extractor = _checked(attrs, "extractor", dict, name)
    sampling = _checked(attrs, "sampling", dict, name)
    ids, digests = (_texts(attrs, key, blob.shape[0], name) for key in ("clips", "clip_sha256"))
    seen = attrs.get("seen", {})
    if not isinstance(seen, dict) or not all(_counts(of) for of in seen.values()):
        raise InputError(f"{name}: its attr `seen` doesn't count clips: {str(seen)[:60]}")
    found = record.torch("features").clone()
    return FeatureSet(found, ids, digests, extractor, sampling, name, seen)


def _counts(found: Any) -> bool:
    return isinstance(found, dict) and all(type(n) is int and n > 0 for n in found.values())


def _checked(attrs: dict[str, Any], key: str, kind: type, name: str) -> Any:
    if not isinstance(attrs.get(key), kind):
        raise InputError(
            f"{name}: has no attr `{key}` as it should be",
            next="make it again with --save-real or --save-fake",
        )
    return attrs[key]


def _texts(attrs: dict[str, Any], key: str, count: int, name: str) -> tuple[str, ...]:
    found = _checked(attrs, key, list, name)
    if len(found) != count or not all(isinstance(text, str) for text in found):
        raise InputError(f"{name}: has features of {count} clips, and {len(found)} `{key}`")
    return tuple(found)


def _npy(path: str | Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: can't be read as an array: {error}") from None


def _plain(array: np.ndarray, path: str) -> FeatureSet:
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        raise InputError(f"{path}: holds {array.dtype} {list(array.shape)}, not floats n d")
    rows = np.ascontiguousarray(array)
    ids = tuple(f"row {i}" for i in range(len(rows)))
    digests = tuple(_row_digests(rows))
    exact = rows.astype(np.float32 if rows.dtype.itemsize <= 4 else np.float64)
    return FeatureSet(torch.from_numpy(exact), ids, digests, {}, {}, path)


def _row_digests(rows: np.ndarray) -> Iterable[str]:
    return (hashlib.sha256(row.tobytes()).hexdigest() for row in rows)
