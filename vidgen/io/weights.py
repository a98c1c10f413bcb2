"""Weight files: mapped into tensors, hashed once, and given names that say what is in them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen.errors import InputError, UsageError
from vidgen.io import int8
from vidgen.io.files import atomic_write
from vidgen.io.layout import canonical_json
from vidgen.io.stream import read_stream

if TYPE_CHECKING:
    from torch import Tensor

    from vidgen.io.record import Blob

Shape = tuple[int, ...]

INDEX = ".safetensors.index.json"
SETTLED_S = 2.0  # a file younger than this may still change without its time telling


def cache_folder() -> Path:
    """Where vidgen remembers what it can find out again: `$XDG_CACHE_HOME/vidgen`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vidgen"


def load_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of all shards of a `*.safetensors.index.json`.

    They are windows into the file's memory map: read when used, and written to privately. Those
    that are stored in eight bits (`vidgen.io.int8`) are multiplied out.
    InputError for a file that is damaged, several records, or an index whose shards lack a tensor.
    """
    path = Path(path)
    if path.name.endswith(INDEX):
        return _load_shards(path)
    try:
        return int8.unpacked({name: blob.torch() for name, blob in blobs(path).items()})
    except KeyError as lacking:
        raise InputError(f"{path}: lacks {lacking.args[0]}", next="fetch the file again") from None


def blobs(path: str | Path) -> dict[str, Blob]:
    """What the header of a safetensors file says of its tensors. InputError for one that is
    damaged, or whose data is cut."""
    try:
        records = list(read_stream(path, verify=False))
    except (InputError, UsageError) as error:
        what = error.what.replace(": record 1, byte ", ": byte ")
        raise InputError(what, why=error.why, next="fetch the file again") from None
    if len(records) != 1:
        raise InputError(f"{path}: holds {len(records)} records, weights are one")
    return dict(records[0].tensors)


def parameters(path: str | Path) -> int:
    """How many numbers a file's weights are, by its header: scales don't count. InputError as
    above."""
    found = blobs(path)
    scales = int8.scale_names({name: "F" in blob.dtype for name, blob in found.items()})
    return sum(math.prod(blob.shape) for name, blob in found.items() if name not in scales)


def require_whole(path: str | Path) -> None:
    """InputError for a safetensors file that is damaged, or whose data is cut, by its header. It is
    read once, as long as the file stays as it is."""
    try:
        seen = Path(path).stat()
    except OSError as e:
        raise InputError(f"{path}: can't be read: {(e.strerror or str(e)).lower()}") from None
    _look(str(path), seen.st_size, seen.st_mtime_ns)


@lru_cache(maxsize=1024)
def _look(path: str, size: int, mtime_ns: int) -> None:
    blobs(path)


def _load_shards(index: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    expected = weight_map(index)
    for shard in sorted(set(expected.values())):
        tensors |= load_safetensors(index.parent / shard)
    if missing := sorted(expected.keys() - tensors.keys()):
        raise InputError(
            f"{index}: its shards lack `{missing[0]}` and {len(missing) - 1} more",
            next="fetch the model again",
        )
    return {name: tensors[name] for name in expected}


def weight_map(index: str | Path) -> dict[str, str]:
    """Tensor name → shard file name, as a diffusers or transformers index has it. InputError for
    names that lead out of the index's folder."""
    try:
        found = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
        if all(isinstance(v, str) and Path(v).name == v for v in found.values()):
            return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(
        f"{index}: is not an index of shards",
        why="it should be JSON with a `weight_map` from tensors to files beside it",
    )


def sha256(path: str | Path) -> str:
    """The hex SHA-256 of a file's bytes, remembered under its real path, size and time.

    A file changed within the last two seconds is hashed again next time, since its time need not
    change when its bytes do.
    """
    real = Path(os.path.realpath(path))
    try:
        before = real.stat()
        note = _note(real)
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(note.read_text(encoding="utf-8"))
            if (known["size"], known["mtime_ns"]) == (before.st_size, before.st_mtime_ns):
                return str(known["sha256"])
        with real.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise InputError(f"{path}: can't be read: {(e.strerror or str(e)).lower()}") from None
    if time.time() - before.st_mtime > SETTLED_S:
        _remember(note, real, before, digest)
    return digest


def _note(real: Path) -> Path:
    """One small file for each weight file, so that processes needn't wait for each other."""
    key = hashlib.sha256(os.fsencode(real)).hexdigest()[:32]
    return cache_folder() / "weights" / f"{key}.json"


def _remember(note: Path, real: Path, seen: os.stat_result, digest: str) -> None:
    """A cache that can't be written is no error: the hash is computed again."""
    known = {"path": os.fspath(real), "size": seen.st_size, "mtime_ns": seen.st_mtime_ns}
    with suppress(Exception):
        note.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(note, force=True) as f:
            f.write(canonical_json({**known, "sha256": digest}))


def combined_sha256(paths: Sequence[str | Path]) -> str:
    """One hash for several weight files: of one file its own SHA-256, of several the SHA-256 of
    their names and hashes, a line each as `sha256sum` prints, in the order of the names."""
    ordered = sorted((Path(p) for p in paths), key=lambda p: p.name)
    with ThreadPoolExecutor(min(8, max(1, len(ordered)))) as pool:
        digests = list(pool.map(sha256, ordered))
    if len(digests) == 1:
        return digests[0]
    lines = "".join(f"{d}  {p.name}\n" for d, p in zip(digests, ordered, strict=True))
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()


def content_id(name: str, config: Mapping[str, Any], weights_sha256: str) -> str:
    """`name@` and 12 hex digits for what a component computes: its config and its weights.

    This is the latent space id of an autoencoder and the id of a text encoder. Config keys that
    begin with an underscore (who saved it, with which version) don't count.
    """
    settings = {k: v for k, v in config.items() if not k.startswith("_")}
    content = canonical_json([settings, weights_sha256])
    return f"{name}@{hashlib.sha256(content).hexdigest()[:12]}"


def mismatches(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> list[str]:
    """How the tensors of a file differ from a network's, by name and shape; at most one line for
    each kind of difference."""
    lines = []
    if missing := [key for key in expected if key not in found]:
        lines.append(f"lacks {some(missing)} of the network")
    if extra := [key for key in found if key not in expected]:
        lines.append(f"holds {some(extra)} that the network hasn't")
    other = [key for key in expected if key in found and found[key] != expected[key]]
    if other:
        a, b = (shown(side[other[0]]) for side in (found, expected))
        lines.append(f"the shape of {some(other)} is {a}, the network's is {b}")
    return lines


def some(names: list[str]) -> str:
    """The first of several names, and how many more there are."""
    return f"`{names[0]}`" + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def shown(shape: Shape) -> str:
    """`8×64×3`"""
    return "×".join(map(str, shape)) or "a single number"
