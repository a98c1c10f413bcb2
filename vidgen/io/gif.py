"""GIF: encoding with one good palette, and the parts that libavformat can't do.

Those are the comment extension, where vidgen's log goes, and noticing that a file was cut off.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vidgen.io import video_color

if TYPE_CHECKING:
    from av import VideoFrame

_MAGIC = b"GIF8"
_TRAILER, _EXTENSION, _IMAGE, _COMMENT = b"\x3b", b"\x21", b"\x2c", 0xFE


def encode_gif(frames: Iterable[np.ndarray], rate: Fraction, comment: str | None = None) -> bytes:
    """Frames [H, W, 3] uint8 (at least one) → a looping GIF.

    One palette for all frames, so that still areas don't flicker; error diffusion (Sierra) only
    where the picture changes. Delays are hundredths of a second: at 8 fps 12 and 13 by turns.
    """
    import av

    file = io.BytesIO()
    frames = iter(frames)
    first = next(frames)
    height, width, _ = first.shape
    with av.open(
        file, "w", format="gif", options={"fflags": "+bitexact", "loop": "0"}
    ) as container:
        stream = container.add_stream("gif", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        stream.codec_context.time_base = 1 / rate
        graph = _palette_graph(width, height, rate)
        for index, picture in enumerate(chain([first], frames)):
            frame = video_color.rgb_frame(picture)
            frame.pts, frame.time_base = index, 1 / rate
            graph.push(frame)
        graph.push(None)
        for frame in _pulled(graph):
            frame.duration = 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = file.getvalue()
    return data if comment is None else with_comment(data, comment)


def _palette_graph(width: int, height: int, rate: Fraction) -> Any:
    """split → palettegen → paletteuse, as ffmpeg's own advice for GIFs has it."""
    from av.filter import Graph

    graph: Any = Graph()
    source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=1 / rate)
    split = graph.add("split")
    palette = graph.add("palettegen", "reserve_transparent=0:stats_mode=full")
    use = graph.add("paletteuse", "dither=sierra2_4a:diff_mode=rectangle")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph


def _pulled(graph: Any) -> Iterator[VideoFrame]:
    import av

    while True:
        try:
            yield graph.pull()
        except (av.error.EOFError, av.error.BlockingIOError):
            return


# --- blocks (GIF89a, appendix A) ----------------------------------------------------------------


def is_whole(path: Path) -> bool:
    """Whether the file isn't a GIF, or is one up to its end mark."""
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            return True
        file.seek(0)
        return any(kind == "end" for kind, _ in _blocks(file))


def read_comment(path: Path) -> str | None:
    """The text of a GIF's last comment extension, or None. Bytes that aren't UTF-8 are replaced."""
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            return None
        file.seek(0)
        comments = [data for kind, data in _blocks(file) if kind == "comment"]
    return comments[-1].decode("utf-8", errors="replace") if comments else None


def with_comment(gif: bytes, comment: str) -> bytes:
    """The same GIF with a comment extension before its end (GIF89a §24)."""
    data = comment.encode()
    chunks = (data[i : i + 255] for i in range(0, len(data), 255))
    body = b"".join(bytes([len(chunk)]) + chunk for chunk in chunks)
    extension = _EXTENSION + bytes([_COMMENT]) + body + b"\0"
    return gif.removesuffix(_TRAILER) + extension + _TRAILER


def _blocks(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """("image" | "comment" | "extension" | "end", data) in file order; stops early if cut."""
    head = file.read(13)
    if len(head) < 13:
        return
    file.seek(_table_bytes(head[10]), os.SEEK_CUR)
    while (introducer := file.read(1)) in (_EXTENSION, _IMAGE, _TRAILER):
        if introducer == _TRAILER:
            yield "end", b""
            return
        if introducer == _IMAGE:
            kind, descriptor = "image", file.read(9)
            if len(descriptor) < 9:
                return
            file.seek(_table_bytes(descriptor[8]) + 1, os.SEEK_CUR)  # +1: LZW code size
        else:
            label = file.read(1)
            kind = "comment" if label == bytes([_COMMENT]) else "extension"
        data = _sub_blocks(file, keep=kind == "comment")
        if data is None:
            return
        yield kind, data


def _table_bytes(packed: int) -> int:
    """The size of a color table, from the packed field of a screen or image descriptor."""
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0


def _sub_blocks(file: BinaryIO, *, keep: bool) -> bytes | None:
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
