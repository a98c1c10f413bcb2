"""What libavformat doesn't say about a file: whether it was cut off.

libavformat reads a Matroska or GIF file that ends too early as if it were a shorter one. Both
formats say where they should end, so a cut can be told from a short video by reading a few bytes.
(MP4 needs nothing here: its index is compared with what is decoded.)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from vidgen.io import gif

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067


def cut_off(path: Path) -> str | None:
    """Why the file must have been cut off, or None where it is whole or the format can't tell."""
    with path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic == _EBML.to_bytes(4, "big"):
            missing = _matroska_end(file) - path.stat().st_size
            return f"the file lacks its last {missing} bytes" if missing > 0 else None
    return None if gif.is_whole(path) else "the file ends before the GIF's end mark"


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
