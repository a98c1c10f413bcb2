"""Write the broken files beside this script: `python tests/hostile/make.py`.

Uses nothing of vidgen: the format is written here a second time, from man/vidgen-stream.5, so that
a fault common to our reader and writer shows. expected.tsv says what each file must be told.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
CHUNK = 1 << 20
ITEM = {"F64": 8, "F32": 4, "BF16": 2, "U8": 1, "BOOL": 1}

LATENTS = struct.pack("<6f", *range(6))
TIMES = struct.pack("<3d", 0, 0.5, 1)
MASK = bytes([1, 1, 0])
TENSORS = {
    "latents": ("F32", [1, 3, 1, 2], LATENTS),
    "times": ("F64", [3], TIMES),
    "text.mask": ("BOOL", [3], MASK),
}


def compact(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(tensors: dict) -> str:
    """The manifest's hash, a line for each tensor."""
    lines = []
    for name, (dtype, shape, data) in sorted(tensors.items()):
        chunks = (data[i : i + CHUNK] for i in range(0, len(data), CHUNK))
        tree = hashlib.sha256(b"".join(hashlib.sha256(c).digest() for c in chunks)).hexdigest()
        lines.append(f"{tree} {dtype} {','.join(map(str, shape))} {name}\n")
    return "tree-sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def meta(tensors: dict = TENSORS, **changes: object) -> dict:
    """The object under `vidgen`; a change to None leaves the key out."""
    value = {
        "schema": "vidgen.record/1", "kind": "latents", "id": "a", "attrs": {"seed": 7},
        "digest": digest(tensors), "last": True, "log": [], **changes,
    }  # fmt: skip
    return {k: v for k, v in value.items() if v is not None}


def header(tensors: dict = TENSORS, vidgen: bytes | None = None, **changes: object) -> dict:
    """The safetensors header as an object; `changes` go into the metadata."""
    text = (compact(meta(tensors, **changes)) if vidgen is None else vidgen).decode()
    out: dict = {"__metadata__": {"vidgen": text}}
    at = 0
    for name, (dtype, shape, data) in ordered(tensors):
        out[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return out


def ordered(tensors: dict) -> list:
    return sorted(tensors.items(), key=lambda item: (-ITEM[item[1][0]], item[0]))


def image(head: dict | bytes, data: bytes) -> bytes:
    """Length, header padded with spaces to a multiple of eight, data."""
    if isinstance(head, dict):
        head = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + data


def record(tensors: dict = TENSORS, **changes: object) -> bytes:
    data = b"".join(d for _, (_, _, d) in ordered(tensors))
    return image(header(tensors, **changes), data)


DATA = b"".join(d for _, (_, _, d) in ordered(TENSORS))


def moved(name: str, **fields: object) -> bytes:
    """A good record, but for some fields of one tensor's entry."""
    head = header()
    head[name] = {**head[name], **fields}
    return image(head, DATA)


def raw(text: bytes) -> bytes:
    """A header that is this text."""
    return image(text, b"")


def of(name: str, dtype: str, data: bytes) -> bytes:
    """A record of one flat tensor."""
    return record({name: (dtype, [len(data) // ITEM[dtype]], data)})


def claim(n: int) -> bytes:
    """A header that promises n bytes of data, and nothing behind it."""
    return image({"x": {"dtype": "U8", "shape": [n], "data_offsets": [0, n]}}, b"")


def flipped(data: bytes, at: int) -> bytes:
    """One bit the other way."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def npz(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), data)
    return out.getvalue()


def npy(descr: str, shape: str, data: bytes) -> bytes:
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


GOOD = record()
FIRST = record(last=False)  # the first of a stream of two
SECOND = record(id="b")
LENGTH = len(GOOD) - len(DATA)  # of everything before the data

NAN, INF = struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))
TWICE = json.dumps(header())[:-1] + ', "times": {"dtype": "F64"}}'
HALF = compact(meta()).replace(b'"seed"', b'"\\ud800"')

FILES = {
    # cut short, in each part of a record and between two
    "cut-empty": b"",
    "cut-length": GOOD[:5],
    "cut-header": GOOD[:100],
    "cut-before-data": GOOD[:LENGTH],
    "cut-data": GOOD[:-10],
    "cut-between": FIRST,
    "cut-second-length": FIRST + SECOND[:3],
    "cut-second-header": FIRST + SECOND[:30],
    "cut-second-data": FIRST + SECOND[:-1],
    # lengths
    "length-2-63": struct.pack("<Q", 1 << 63) + GOOD[8:],
    "length-over-cap": struct.pack("<Q", 100_000_001) + GOOD[8:],
    "length-zero": struct.pack("<Q", 0) + GOOD[8:],
    "data-2-40": claim(1 << 40),
    "data-over-cap": claim(1 << 60),
    "trailing-bytes": GOOD + b"more",
    # tensors that don't fit together
    "offsets-overlap": moved("latents", data_offsets=[16, 40]),
    "offsets-gap": moved("text.mask", data_offsets=[50, 53]),
    "offsets-past-end": moved("text.mask", data_offsets=[48, 53], shape=[5]),
    "offsets-backwards": moved("times", data_offsets=[24, 0]),
    "offsets-negative": moved("times", data_offsets=[-24, 0]),
    "offsets-fraction": moved("times", data_offsets=[0, 24.0]),
    "shape-mismatch": moved("times", shape=[4]),
    "shape-negative": moved("times", shape=[-3]),
    "shape-overflow": moved("times", shape=[1 << 62, 1 << 62]),
    "shape-long": moved("times", shape=[2] * 2000),
    "dtype-unknown": moved("times", dtype="F128"),
    "dtype-number": moved("times", dtype=64),
    "entry-incomplete": image({**header(), "times": {"dtype": "F64"}}, DATA),
    "name-control": of("line\nbreak", "U8", b"x"),
    "name-twice": raw(TWICE.encode()),
    # the header's text
    "json-bad": raw(b'{"x": }'),
    "json-list": raw(b"[]"),
    "json-nan": raw(b'{"x": NaN}'),
    "json-deep": raw(b'{"x":' + b"[" * 10_000),
    "json-not-utf8": raw(b'{"\xff": 1}'),
    "json-half-character": image(header(vidgen=HALF), DATA),
    "metadata-not-strings": image({**header(), "__metadata__": {"vidgen": 1}}, DATA),
    # what vidgen says of the record
    "vidgen-not-json": image(header(vidgen=b"{"), DATA),
    "vidgen-not-object": image(header(vidgen=b"[]"), DATA),
    "vidgen-key-twice": image(header(vidgen=b'{"id":"a","id":"b"}'), DATA),
    "schema-missing": record(schema=None),
    "schema-newer": record(schema="vidgen.record/2"),
    "kind-unknown": record(kind="movie"),
    "id-bad": record(id="no spaces"),
    "id-dots": record(id=".."),
    "id-long": record(id="x" * 129),
    "id-number": record(id=7),
    "id-twice": FIRST + GOOD,
    "attrs-list": record(attrs=[]),
    "last-missing": record(last=None),
    "last-string": record(last="true"),
    "log-object": record(log={}),
    "log-without-ids": record(log=[{"tool": "decode"}]),
    "digest-missing": record(digest=None),
    "digest-other": record(digest="tree-sha256:" + "0" * 64),
    # bytes of the data
    "data-bit-flipped": flipped(GOOD, len(GOOD) - 20),
    "dtype-changed": moved("text.mask", dtype="U8"),
    "latents-nan": of("latents", "F32", LATENTS[:8] + NAN),
    "latents-infinite": of("latents", "F32", LATENTS[:8] + INF),
    "text-nan-bf16": of("text.embeds", "BF16", LATENTS[:4] + b"\xc1\x7f"),
    "depth-nan": of("truth.depth", "F32", INF + NAN),
    "mask-not-boolean": of("text.mask", "BOOL", b"\1\2"),
    # other formats
    "other-gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\3" + bytes(20),
    "other-mp4": b"\0\0\0\x20ftypisom" + bytes(20),
    "other-text": b"a red ball bounces on sand ground\n",
    "npz-cut": npz(x=npy("<f4", "(6,)", LATENTS))[:-30],
    "npz-short-array": npz(x=npy("<f4", "(1000000000000,)", LATENTS)),
    "npz-pickle": npz(x=npy("|O", "(1,)", b"\x80\4N.")),
    "npz-no-array": npz(vidgen=b"{}"),
}  # fmt: skip


def main() -> None:
    for old in HERE.glob("*.vgs"):
        old.unlink()
    for name, data in FILES.items():
        (HERE / f"{name}.vgs").write_bytes(data)


if __name__ == "__main__":
    main()
