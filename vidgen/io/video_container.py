"""What libavformat doesn't say about a file: whether it was cut off, and where a GIF's comment is.

libavformat reads a Matroska or GIF file that ends too early as if it were a shorter one. Both
formats say where they should end, so a cut can be told from a short video by reading a few bytes.
(MP4 needs nothing here: its index is compared with what is decoded.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_GIF_TRAILER, _GIF_EXTENSION, _GIF_IMAGE, _GIF_COMMENT = b"\x3b", b"\x21", b"\x2c", 0xFE


def cut_off(path: Path) -> str | None:
    """Why the file must have been cut off, or None where it is whole or the format can't tell."""
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic == _EBML.to_bytes(4, "big"):
            missing = _matroska_end(file) - path.stat().st_size
            return f"the file lacks its last {missing} bytes" if missing > 0 else None
        if magic == b"GIF8" and all(kind != "end" for kind, _ in _gif_blocks(file)):
            return "the file ends before the GIF's end mark"
    return None


def _matroska_end(file: BinaryIO) -> int:
    """The byte at which the segment says it ends; 0 where it doesn't say (a live recording)."""
    for _ in range(8):  # EBML header, perhaps Void elements, then the segment
        name, _known = _ebml_number(file, keep_marker=True)
        size, known = _ebml_number(file)
        if name == _SEGMENT:
            return file.tell() + size if known else 0
        file.seek(size, os.SEEK_CUR)
    return 0


def _ebml_number(file: BinaryIO, *, keep_marker: bool = False) -> tuple[int, bool]:
    """A variable-length integer (RFC 8794 §4) and whether it isn't the reserved "unknown"."""
    first = file.read(1)
    if not first or not first[0]:
        return 0, False
    length = 9 - first[0].bit_length()
    raw = first + file.read(length - 1)
    value, marker = int.from_bytes(raw, "big"), 1 << (7 * length)
    if keep_marker:
        return value, True
    return value - marker, value - marker != marker - 1


def gif_comment(path: Path) -> str | None:
    """The text of the last comment extension, or None. Bytes that aren't UTF-8 are replaced."""
    with path.open("rb") as file:
        comments = [data for kind, data in _gif_blocks(file) if kind == "comment"]
    return comments[-1].decode("utf-8", errors="replace") if comments else None


def with_gif_comment(gif: bytes, comment: str) -> bytes:
    """The same GIF with a comment extension before its end (GIF89a §24)."""
    data = comment.encode()
    chunks = (data[i : i + 255] for i in range(0, len(data), 255))
    body = b"".join(bytes([len(chunk)]) + chunk for chunk in chunks)
    extension = _GIF_EXTENSION + bytes([_GIF_COMMENT]) + body + b"\0"
    return gif.removesuffix(_GIF_TRAILER) + extension + _GIF_TRAILER


def _gif_blocks(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """("image" | "comment" | "extension" | "end", data) in file order; stops early if cut."""
    head = file.read(13)
    if len(head) < 13:
        return
    file.seek(_gif_table_bytes(head[10]), os.SEEK_CUR)
    while (introducer := file.read(1)) in (_GIF_EXTENSION, _GIF_IMAGE, _GIF_TRAILER):
        if introducer == _GIF_TRAILER:
            yield "end", b""
            return
        if introducer == _GIF_IMAGE:
            kind, descriptor = "image", file.read(9)
            if len(descriptor) < 9:
                return
            file.seek(_gif_table_bytes(descriptor[8]) + 1, os.SEEK_CUR)  # +1: LZW code size
        else:
            label = file.read(1)
            kind = "comment" if label == bytes([_GIF_COMMENT]) else "extension"
        data = _gif_sub_blocks(file, keep=kind == "comment")
        if data is None:
            return
        yield kind, data


def _gif_table_bytes(packed: int) -> int:
    """The size of a color table, from the packed field of a screen or image descriptor."""
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _gif_sub_blocks(file: BinaryIO, *, keep: bool) -> bytes | None:
    """The joined sub-blocks (empty unless `keep`), or None if the file ends among them."""
    parts = []
    while (size := file.read(1)) != b"\0":
        if not size:
            return None
        part = file.read(size[0])
        if len(part) < size[0]:
            return None
        if keep:
            parts.append(part)
    return b"".join(parts)
