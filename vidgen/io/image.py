"""Still pictures: PNG out, any common picture in, and contact sheets of clips."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from einops import rearrange

from vidgen.errors import InputError

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BACKGROUND, _INK, _GAP = 24, 230, 4


def write_png(dest: str | Path | BinaryIO, rgb: np.ndarray) -> None:
    """Writes [H, W, 3] uint8 as an 8-bit sRGB PNG: the same pixels give the same bytes.

    (As long as zlib is the same: other builds of it may compress differently.)
    """
    data = encode_png(rgb)
    if isinstance(dest, str | Path):
        Path(dest).write_bytes(data)
    else:
        dest.write(data)


def encode_png(rgb: np.ndarray) -> bytes:
    """[H, W, 3] uint8 → the bytes of a PNG (ISO/IEC 15948)."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"a picture is [H, W, 3] uint8, this is {list(rgb.shape)} {rgb.dtype}")
    height, width, _ = rgb.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, truecolor
    pixels = zlib.compress(_filter_rows(rgb).tobytes(), 6)
    chunks = [(b"IHDR", header), (b"sRGB", b"\0"), (b"IDAT", pixels), (b"IEND", b"")]
    return _PNG_SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _filter_rows(rgb: np.ndarray) -> np.ndarray:
    """Each row with the PNG filter that leaves the smallest residues, its number in front.

    The standard's own heuristic (§12.8): the least sum of residues taken as signed bytes.
    Returns [H, 1 + 3 W] uint8.
    """
    x = np.pad(rgb.astype(np.int16), ((1, 0), (1, 0), (0, 0)))
    here, left, up, corner = x[1:, 1:], x[1:, :-1], x[:-1, 1:], x[:-1, :-1]
    guess = left + up - corner
    to_left, to_up, to_corner = abs(guess - left), abs(guess - up), abs(guess - corner)
    paeth = np.where(
        (to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner)
    )
    predictions = [np.zeros_like(here), left, up, (left + up) // 2, paeth]
    residues = np.stack([(here - prediction).astype(np.uint8) for prediction in predictions])
    residues = rearrange(residues, "filter h w c -> filter h (w c)")
    best = np.abs(residues.view(np.int8).astype(np.int16)).sum(axis=2).argmin(axis=0)
    rows = residues[best, np.arange(len(best))]
    return np.concatenate([best[:, None].astype(np.uint8), rows], axis=1)


def read_image(path: str | Path) -> np.ndarray:
    """Any picture Pillow knows → [H, W, 3] uint8, upright (EXIF), alpha composited on black."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I;16") or upright.mode == "I":
                return _gray_16(np.asarray(upright))
            if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
                upright = upright.convert("RGBA")
                black = Image.new("RGBA", upright.size, (0, 0, 0, 255))
                upright = Image.alpha_composite(black, upright)
            return np.array(upright.convert("RGB"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: can't be read as a picture", why=str(error)) from error


def read_png(path: str | Path) -> np.ndarray:
    """A PNG as [H, W, 3] uint8 (see `read_image`, which this is)."""
    return read_image(path)


def _gray_16(gray: np.ndarray) -> np.ndarray:
    """[H, W] of 0…65535 → [H, W, 3] uint8, rounded."""
    eight = ((np.clip(gray, 0, 65535).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return np.repeat(eight[..., None], 3, axis=2)


def contact_sheet(
    clips: Sequence[np.ndarray],
    labels: Sequence[str],
    columns: int = 1,
    frames_per_clip: int = 5,
    scale: float = 1.0,
) -> np.ndarray:
    """Many clips on one picture: each a strip of frames with its label above.

    Args:
        clips: each [T, H, W, 3] uint8; sizes and lengths may differ.
        labels: one a clip, wrapped to the strip's width (three lines at most).
        columns: strips side by side.
        frames_per_clip: frames of a strip, evenly spaced from the first to the last one.
        scale: size of a frame on the sheet; whole numbers above 1 repeat pixels exactly.

    Returns:
        [H, W, 3] uint8.
    """
    if len(clips) != len(labels) or not clips:
        raise ValueError(f"{len(clips)} clips, {len(labels)} labels: one label a clip is needed")
    from PIL import ImageFont

    strips = [_strip(clip, frames_per_clip, scale) for clip in clips]
    font = ImageFont.load_default(13)
    width = max(strip.shape[1] for strip in strips)
    titles = [_wrap(label, font, width) for label in labels]
    rows = [
        _row(strips[i : i + columns], titles[i : i + columns], font, width, columns)
        for i in range(0, len(strips), columns)
    ]
    sheet = np.concatenate(rows, axis=0)
    return np.pad(
        sheet, ((_GAP, 0), (_GAP, 0), (0, 0)), mode="constant", constant_values=_BACKGROUND
    )


def _strip(clip: np.ndarray, count: int, scale: float) -> np.ndarray:
    """`count` frames of [T, H, W, 3] side by side with gaps, [h, w, 3]."""
    from PIL import Image

    chosen = np.rint(np.linspace(0, len(clip) - 1, min(count, len(clip)))).astype(int)
    height, width = (max(1, round(side * scale)) for side in clip.shape[1:3])
    exact = scale >= 1 and float(scale).is_integer()
    resample = Image.Resampling.NEAREST if exact else Image.Resampling.LANCZOS
    tiles = [
        np.asarray(Image.fromarray(np.ascontiguousarray(clip[i])).resize((width, height), resample))
        for i in chosen
    ]
    gap = np.full((height, _GAP, 3), _BACKGROUND, np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)


def _row(
    strips: list[np.ndarray],
    titles: list[list[str]],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
    columns: int,
) -> np.ndarray:
    """Strips side by side, titles above them, a gap to the right of each and below."""
    from PIL import Image, ImageDraw

    line_height = _line_height(font)
    title_height = max(len(lines) for lines in titles) * line_height + 2
    height = title_height + max(strip.shape[0] for strip in strips) + 2 * _GAP
    row = Image.new("RGB", (columns * (width + _GAP), height), (_BACKGROUND,) * 3)
    draw: ImageDraw.ImageDraw = ImageDraw.Draw(row)
    for column, (strip, lines) in enumerate(zip(strips, titles, strict=True)):
        x = column * (width + _GAP)
        for i, line in enumerate(lines):
            draw.text((x, i * line_height), line, fill=(_INK,) * 3, font=font)
        row.paste(Image.fromarray(strip), (x, title_height))
    return np.array(row)


def _line_height(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return int(font.getbbox("Ag")[3]) + 3


def _wrap(
    label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int, most: int = 3
) -> list[str]:
    """The label in lines no wider than `width` pixels; what doesn't fit ends in '...'."""
    lines = [""]
    for word in label.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]} ..."]
    return [_shorten(line, font, width) for line in lines]


def _shorten(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    line = line.removesuffix(" ...")
    while line and font.getlength(line + "...") > width:
        line = line[:-1]
    return line + "..."
