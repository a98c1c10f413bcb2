"""Between decoded pictures (any YUV or RGB layout) and full-range sRGB uint8, both ways.

Everything about colour is said explicitly to swscale, because its defaults are silent traps: it
takes BT.601 for a matrix it isn't told, drops odd chroma columns without `FULL_CHR_H_INT`, and
differs between processors without `BITEXACT`.

What is assumed when a file says nothing:

- range: limited for YUV (every player does this), full for `yuvj*` and RGB;
- matrix: BT.709 from 1280 × 720 upwards, BT.601 below, as mpv and VLC do. (ffmpeg itself always
  takes BT.601; for untagged HD video that is nearly always wrong.)

Gamma is left alone: BT.709 and sRGB video are shown alike by players, so no tool converts between
them. PQ and HLG (HDR) aren't alike at all and are refused.

Transparency is composited on black, which is what a player with a black window shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange

from vidgen.errors import InputError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter

# AVColorSpace (ITU-T H.273 MatrixCoefficients) → our name for it.
MATRICES = {
    1: "bt709",
    4: "fcc",
    5: "bt601",
    6: "bt601",
    7: "smpte240m",
    9: "bt2020",
    10: "bt2020",
}
# Our name → swscale's SWS_CS_* number, which is a different numbering.
_SWS_MATRIX = {"rgb": 5, "bt709": 1, "fcc": 4, "bt601": 5, "smpte240m": 7, "bt2020": 9}
_UNSTATED_MATRIX = (0, 2, 3)  # "identity" (on a YUV picture: nonsense), "unspecified", "reserved"
_LIMITED, _FULL = 1, 2  # AVColorRange
_BT709 = 1  # the same number for matrix, primaries and transfer
_HDR_TRANSFERS = {16: "PQ (SMPTE 2084)", 18: "HLG (ARIB STD-B67)"}


def matrix_of(frame: VideoFrame) -> tuple[str, bool]:
    """The name of the YUV matrix to undo, and whether the file states it (else it's a guess)."""
    if frame.format.is_rgb:
        return "rgb", True
    code = int(frame.colorspace)
    if code in _UNSTATED_MATRIX:
        return "bt709" if frame.width >= 1280 or frame.height >= 720 else "bt601", False
    if code not in MATRICES:
        raise InputError(
            f"color matrix {code} (ITU-T H.273) is not one that can be converted",
            next=f"ffmpeg -i IN -vf colorspace=all=bt709 OUT; known: {', '.join(_SWS_MATRIX)}",
        )
    return MATRICES[code], True


def is_full_range(frame: VideoFrame) -> bool:
    """Whether 0 is black and 255 white (true), or 16 and 235 (false)."""
    if frame.format.is_rgb or frame.format.name.startswith("yuvj"):
        return True
    return int(frame.color_range) == _FULL


def to_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """One decoded picture as [H, W, 3] uint8 sRGB full range, not yet rotated.

    Bit depths above 8 are rounded. `reformatter` is reused over the frames of a video, so that
    its tables are built once. Raises `InputError` for HDR transfers and unknown matrices.
    """
    transfer = int(frame.color_trc)
    if transfer in _HDR_TRANSFERS:
        raise InputError(
            f"the video is HDR, transfer {_HDR_TRANSFERS[transfer]}; only SDR is read",
            why="shown as if it were SDR it would be flat and grey",
            next="ffmpeg -i IN -vf zscale=t=linear,tonemap=hable,zscale=t=bt709:m=bt709 OUT.mp4",
        )
    has_alpha = any(component.is_alpha for component in frame.format.components)
    converted = reformatter.reformat(
        frame,
        format="rgba" if has_alpha else "rgb24",
        src_colorspace=_SWS_MATRIX[matrix_of(frame)[0]],
        src_color_range=_FULL if is_full_range(frame) else _LIMITED,
        dst_color_range=_FULL,
        interpolation=_flags(),
        threads=1,
    )
    pixels = converted.to_ndarray()
    return over_black(pixels) if has_alpha else pixels


def over_black(rgba: np.ndarray) -> np.ndarray:
    """[H, W, 4] uint8 with straight alpha → [H, W, 3] uint8 as seen on black."""
    color, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    return ((color * alpha + 127) // 255).astype(np.uint8)


def rgb_frame(rgb: np.ndarray) -> VideoFrame:
    """[H, W, 3] uint8 → a picture in libav's rgb24, sharing nothing."""
    import av

    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")


class RgbToYuv:
    """Turns [H, W, 3] uint8 sRGB into yuv420p pictures: BT.709, limited range, tagged so."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def __call__(self, rgb: np.ndarray) -> VideoFrame:
        yuv = self._reformatter.reformat(
            rgb_frame(rgb),
            format="yuv420p",
            src_color_range=_FULL,
            dst_colorspace=_SWS_MATRIX["bt709"],
            dst_color_range=_LIMITED,
            interpolation=_flags(),
            threads=1,
        )
        tag_bt709(yuv)
        return yuv


def tag_bt709(target: Any) -> None:
    """Marks a frame or a codec context as BT.709 limited range, in all four fields."""
    target.color_range = _LIMITED
    target.colorspace = _BT709
    target.color_primaries = _BT709
    target.color_trc = _BT709


def orientation(frame: VideoFrame) -> np.ndarray:
    """The display matrix's linear part as a signed permutation, [2, 2] int; identity if absent.

    Row vectors, as in ISO/IEC 14496-12 §8.3.2: (x', y') = (x, y) @ matrix, y downwards. Raises
    `InputError` for a rotation that isn't a multiple of 90 degrees.
    """
    linear = _display_matrix(frame)
    if linear is None:
        return np.eye(2, dtype=int)
    scaled = linear / (np.abs(linear).max() or 1)
    unit = np.rint(scaled).astype(int)
    permutes = (np.abs(unit).sum(0) == 1).all() and (np.abs(unit).sum(1) == 1).all()
    if not permutes or not np.allclose(scaled, unit, atol=1e-3):
        raise InputError(
            f"the video is to be shown turned by {-frame.rotation} degrees",
            why="only multiples of 90 degrees can be applied without resampling",
            next="ffmpeg -i IN OUT.mp4 (which applies the rotation)",
        )
    return unit


def _display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """The display matrix without its shift, [2, 2], to some scale; None if absent."""
    try:
        side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV can't list side data of kinds it doesn't know; mirroring is lost
        angle = np.radians(-frame.rotation)
        turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        return np.array(turn)
    if side_data is None:
        return None
    words = np.frombuffer(bytes(side_data), dtype="<i4")
    return rearrange(words, "(row column) -> row column", row=3)[:2, :2]


def orient(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """[H, W, 3] → the image the right way up, contiguous (see `orientation`)."""
    if is_transposed(matrix):
        image = rearrange(image, "h w c -> w h c")
        flip_x, flip_y = matrix[1, 0] < 0, matrix[0, 1] < 0
    else:
        flip_x, flip_y = matrix[0, 0] < 0, matrix[1, 1] < 0
    if flip_x:
        image = image[:, ::-1]
    if flip_y:
        image = image[::-1]
    return np.ascontiguousarray(image)


def is_transposed(matrix: np.ndarray) -> bool:
    """Whether width and height change places."""
    return matrix[0, 0] == 0


def clockwise_degrees(matrix: np.ndarray) -> int:
    """0, 90, 180 or 270: how far the stored picture is turned clockwise to be shown."""
    return round(float(np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0])))) % 360


def _flags() -> int:
    from av.video.reformatter import Interpolation

    return (
        Interpolation.BILINEAR
        | Interpolation.FULL_CHR_H_INT
        | Interpolation.FULL_CHR_H_INP
        | Interpolation.ACCURATE_RND
        | Interpolation.BITEXACT
    )
