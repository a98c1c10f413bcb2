"""What is checked about a tensor's bytes: their digest, and that they are numbers.

The digest of a tensor is a two-level tree, so that several cores can work on one large tensor:
the SHA-256 of the SHA-256s of its 1 MiB chunks. The digest of a record is the SHA-256 of a
manifest with one line for each tensor. man/vidgen-stream.5 defines both to the byte.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from vidgen.io.record import Blob

CHUNK = 1 << 20  # bytes hashed at a time; part of the format
PREFIX = "tree-sha256:"
UNKNOWN = PREFIX + "0" * 64  # keeps the place of a digest

Visit = Callable[[int, int, memoryview], None]

# What these hold goes into networks, where one NaN spoils the whole clip. Tensors named otherwise
# (truth, features of foreign files) may hold any bits.
FINITE = ("latents", "times", "audio", "text.*", "camera.*", "motion.*", "events.*")
DEPTH = ("depth", "*.depth")  # +inf: the ray meets nothing


def tree_sha256(buffers: Sequence[memoryview], also: Visit | None = None) -> list[str]:
    """Hex digest of each buffer: SHA-256 over the SHA-256s of its chunks, hashed in parallel.

    `also(buffer, start, chunk)` is called for each chunk right after it is hashed, while it is
    still in the processor's cache, by the same thread.
    """
    places = [(k, i) for k, b in enumerate(buffers) for i in range(0, len(b), CHUNK)]

    def visit(place: tuple[int, int]) -> bytes:
        k, start = place
        chunk = buffers[k][start : start + CHUNK]
        digest = hashlib.sha256(chunk).digest()
        if also:
            also(k, start, chunk)
        return digest

    threads = min(8, os.cpu_count() or 1, sum(map(len, buffers)) // CHUNK)
    hashes = iter(_map(visit, places, threads))
    return [
        hashlib.sha256(b"".join(next(hashes) for _ in range(0, len(b), CHUNK))).hexdigest()
        for b in buffers
    ]


def _map(
    visit: Callable[[tuple[int, int]], bytes], places: list[tuple[int, int]], threads: int
) -> list[bytes]:
    """hashlib lets go of the interpreter lock, so threads are enough. They take the next chunk
    from one queue, which costs less than a future each; and they end with the call, since a pool
    that outlives it would hang in a forked worker."""
    out = [b""] * len(places)
    queue = deque(enumerate(places))

    def work() -> None:
        while True:
            try:
                n, place = queue.popleft()
            except IndexError:
                return
            out[n] = visit(place)

    if threads < 2:
        work()
        return out
    with ThreadPoolExecutor(threads - 1) as pool:
        running = [pool.submit(work) for _ in range(threads - 1)]
        try:
            work()
        finally:
            queue.clear()  # after an error here the others stop too
    for r in running:
        r.result()
    return out


def record_digest(tensors: Mapping[str, Blob]) -> str:
    """The digest of a record's tensors: names, dtypes, shapes and bytes, in no matter which order
    they lie in the file."""
    missing = [b for b in tensors.values() if b.sha256 is None]
    for blob, digest in zip(missing, tree_sha256([b.data for b in missing]), strict=True):
        blob.sha256 = digest
    lines = [
        f"{blob.sha256} {blob.dtype} {','.join(map(str, blob.shape))} {name}\n"
        for name, blob in sorted(tensors.items())
    ]
    return PREFIX + hashlib.sha256("".join(lines).encode("utf-8")).hexdigest()


def bad_value(name: str, blob: Blob) -> tuple[int, str] | None:
    """The byte (within the tensor) and the words for the first value that may not be there."""
    if blob.dtype == "BOOL":
        return _bad_bool(blob.data)
    if any(fnmatchcase(name, p) for p in DEPTH):
        return _bad_float(blob, infinity=True)
    if any(fnmatchcase(name, p) for p in FINITE):
        return _bad_float(blob, infinity=False)
    return None


def _bad_bool(data: memoryview) -> tuple[int, str] | None:
    odd = bytes(data).translate(None, b"\0\1")
    if not odd:
        return None
    return bytes(data).index(odd[0]), f"the byte {odd[0]}, neither false (0) nor true (1)"


def _bad_float(blob: Blob, *, infinity: bool) -> tuple[int, str] | None:
    if blob.dtype not in _STORED_AS:
        return None
    import numpy as np

    values = np.frombuffer(blob.data, _STORED_AS[blob.dtype])
    for start in range(0, len(values), CHUNK):  # a part at a time: the mask stays in the cache
        wrong = _wrong(values[start : start + CHUNK], blob.dtype, infinity)
        if wrong.any():
            at = (start + int(wrong.argmax())) * values.itemsize
            return at, "a NaN" if infinity else "a NaN or an infinity"
    return None


# How NumPy reads the bytes of each float dtype; the short ones it doesn't know, as integers.
_STORED_AS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "C64": "<f4", "BF16": "<u2",
    "F8_E5M2": "u1", "F8_E4M3": "u1", "F8_E8M0": "u1", "F8_E4M3FNUZ": "u1", "F8_E5M2FNUZ": "u1",
}  # fmt: skip
_NAN_BYTES = {
    "F8_E4M3": (0x7F, 0xFF), "F8_E8M0": (0xFF,),
    "F8_E4M3FNUZ": (0x80,), "F8_E5M2FNUZ": (0x80,),
}  # fmt: skip


def _wrong(values: np.ndarray, dtype: str, infinity: bool) -> np.ndarray:
    """A mask of what may not be there: NaN and −inf, and +inf unless `infinity`."""
    import numpy as np

    if dtype in _NAN_BYTES:  # these formats have no infinity
        return np.isin(values, _NAN_BYTES[dtype])
    if dtype == "BF16":  # the upper half of a float32
        values = (values.astype("<u4") << 16).view("<f4")
    if dtype == "F8_E5M2":  # the upper half of a float16
        values = (values.astype("<u2") << 8).view("<f2")
    return np.isnan(values) | np.isneginf(values) if infinity else ~np.isfinite(values)
