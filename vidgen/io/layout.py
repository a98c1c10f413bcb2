"""The safetensors image, its header only: written canonically, checked before it is believed.

An image is an 8-byte little-endian header length, a JSON header, and the data that the header
describes. The format is huggingface/safetensors'; man/vidgen-stream.5 says it in full.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from vidgen.errors import InputError

HEADER_CAP = 100_000_000  # bytes; the stock reader's own cap
DATA_CAP = 1 << 47  # bytes; what one process can address on today's machines
MAX_AXES = 64  # of a tensor; NumPy's own cap
ALIGN = 8  # the data section starts on a multiple of this, counted from the record's start

ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "C64": 8,
    "F32": 4, "I32": 4, "U32": 4,
    "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
    "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


class Slot(NamedTuple):
    """Where one tensor lies: bytes `begin` to `end` of the data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Place:
    """Where a record begins, for errors: the input's name, the record's number from 1, a byte."""

    name: str
    number: int = 1
    start: int = 0

    def fault(
        self, what: str, at: int = 0, *, why: str | None = None, next: str | None = None
    ) -> InputError:
        """An InputError that says which record and which byte (`at` counts from the record)."""
        if next is None:
            next = "make it again with the command that wrote it"
            if self.number > 1:
                next += "; the records before this one are whole"
        where = f"{self.name}: record {self.number}, byte {self.start + at}"
        return InputError(f"{where}: {what}", why=why, next=next)


def nbytes(dtype: str, shape: Iterable[int]) -> int:
    """Bytes of a tensor; the empty shape is one element."""
    return ITEM_BYTES[dtype] * prod(shape)


def canonical_json(value: Any) -> bytes:
    """One byte string for one value: sorted keys, no spaces, UTF-8. Raises ValueError or TypeError
    for what JSON can't say (NaN, lone surrogates, foreign objects)."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False,
        default=_plain,
    )  # fmt: skip
    return text.encode("utf-8")


def _plain(x: Any) -> Any:
    """NumPy and torch scalars, as Python's."""
    if getattr(x, "shape", None) == ():
        return x.item()
    raise TypeError(f"{type(x).__name__} has no JSON form")


def place_tensors(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[Slot]:
    """Tensors (name → dtype, shape) in canonical order: widest items first, so that every tensor
    is aligned when the data section is; then by name."""
    slots, at = [], 0
    for name in sorted(tensors, key=lambda n: (-ITEM_BYTES[tensors[n][0]], n)):
        dtype, shape = tensors[name]
        end = at + nbytes(dtype, shape)
        slots.append(Slot(name, dtype, shape, at, end))
        at = end
    return slots


def pack_header(slots: Iterable[Slot], metadata: Mapping[str, str]) -> bytes:
    """Length, JSON and padding: everything of the image that comes before its data."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for s in slots:
        header[s.name] = {"dtype": s.dtype, "shape": s.shape, "data_offsets": [s.begin, s.end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % ALIGN)
    return len(text).to_bytes(8, "little") + text


def header_length(prefix: bytes, place: Place) -> int:
    """The header's length in bytes from the record's first eight."""
    length = int.from_bytes(prefix, "little")
    if length > HEADER_CAP:
        raise place.fault(
            f"a header of {length} bytes, more than the {HEADER_CAP} allowed",
            why=looks_like(prefix) or f"a record can't begin with the bytes {prefix.hex(' ')}",
        )
    return length


def parse_header(raw: bytes, place: Place) -> tuple[list[Slot], dict[str, str]]:
    """The tensors in the order of their data, and the `__metadata__` strings.

    Raises InputError unless the tensors cover the data section exactly: no gap, no overlap, sizes
    that follow from dtype and shape.
    """
    header = parse_json(raw, place, 8, "the header")
    if not isinstance(header, dict):
        raise place.fault("the header is not a JSON object", 8)
    metadata = header.pop("__metadata__", {})
    if not _is_strings(metadata):
        raise place.fault("`__metadata__` is not an object of strings", 8)
    slots = sorted((_slot(n, v, place) for n, v in header.items()), key=lambda s: (s.begin, s.end))
    data, at, previous = 8 + len(raw), 0, ""
    for s in slots:
        if s.begin < at:
            raise place.fault(f"tensors `{previous}` and `{s.name}` overlap", data + s.begin)
        if s.begin > at:
            raise place.fault(
                f"{s.begin - at} bytes before tensor `{s.name}` belong to no tensor", data + at
            )
        at, previous = s.end, s.name
    if at > DATA_CAP:
        raise place.fault(f"{at} bytes of data, more than the {DATA_CAP} allowed", 8)
    return slots, metadata


def _slot(name: str, info: Any, place: Place) -> Slot:
    """One entry of the header, checked on its own."""
    if not name or any(c < " " for c in name):
        raise place.fault(f"tensor name {name!r} is empty or holds a control character", 8)
    if not isinstance(info, dict) or not {"dtype", "shape", "data_offsets"} <= info.keys():
        raise place.fault(f"tensor `{name}` has no dtype, shape and data_offsets", 8)
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise place.fault(f"tensor `{name}` is of unknown dtype {short(dtype)}", 8)
    if not _is_sizes(shape):
        raise place.fault(f"tensor `{name}` has the shape {short(shape)}", 8)
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise place.fault(f"tensor `{name}` has the offsets {short(offsets)}", 8)
    begin, end = offsets
    if (size := nbytes(dtype, shape)) != end - begin:
        raise place.fault(
            f"tensor `{name}`, {dtype} {shape}, takes {size} bytes; its offsets span {end - begin}",
            8,
        )
    return Slot(name, dtype, tuple(shape), begin, end)


def parse_json(raw: bytes, place: Place, at: int, what: str) -> Any:
    """Strict JSON: UTF-8, no repeated key, no NaN or Infinity. `at` is where `raw` begins."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise place.fault(f"{what} is not UTF-8", at + e.start) from None
    try:
        value = json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse)
        if "\\u" in text:  # an escaped half of a surrogate pair has no UTF-8
            canonical_json(value)
    except json.JSONDecodeError as e:
        where = at + len(text[: e.pos].encode("utf-8"))
        raise place.fault(f"{what} is not JSON: {e.msg.lower()}", where) from None
    except UnicodeEncodeError:
        raise place.fault(f"{what} is not UTF-8: it escapes half a character", at) from None
    except RecursionError:
        raise place.fault(f"{what} is not JSON that can be read: nested too deeply", at) from None
    except ValueError as e:
        raise place.fault(f"{what} is not valid JSON: {e}", at) from None
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [k for k, _ in pairs]
        twice = next(k for k in names if names.count(k) > 1)
        raise ValueError(f"the key `{twice}` appears twice")
    return out


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _is_sizes(x: Any) -> bool:
    """A list of counts, short and small enough that their product is computed at once."""
    return (
        isinstance(x, list)
        and len(x) <= MAX_AXES
        and all(type(n) is int and 0 <= n < 1 << 63 for n in x)
    )


def _is_strings(x: Any) -> bool:
    return isinstance(x, dict) and all(isinstance(v, str) for v in x.values())


def short(x: Any) -> str:
    text = json.dumps(x, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "..."


_MAGIC = {
    b"\x1f\x8b": "gzip data",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"\x89PNG": "a PNG image",
    b"\x93NUMPY": "an NPY array",
    b"\x1aE\xdf\xa3": "a WebM or Matroska video",
    b"\x80\x02": "a pickle", b"\x80\x04": "a pickle",
}  # fmt: skip


def looks_like(prefix: bytes) -> str | None:
    """What a record's first eight bytes seem to be, if they are not a record's."""
    if prefix[4:8] == b"ftyp":
        return "this looks like an mp4 video"
    for magic, what in _MAGIC.items():
        if prefix.startswith(magic):
            return f"this looks like {what}"
    if prefix and all(32 <= b < 127 or b in b"\t\r\n" for b in prefix):
        return f"this looks like text: {prefix.decode('ascii')!r}"
    return None
