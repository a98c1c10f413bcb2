"""Colors against an independent conversion written from the standards, in floating point."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from einops import rearrange, repeat

from vidgen.errors import InputError
from vidgen.io import video_color
from vidgen.io.video import iter_frames, probe, read_video, write_video

# Luma weights of red and blue: ITU-R BT.709-6 §3.2, BT.601-7 §2.5.1, BT.2020-2 table 4.
WEIGHTS = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114), "bt2020": (0.2627, 0.0593)}


def yuv_planes(frame: Any, bits: int = 8) -> list[np.ndarray]:
    """The three planes as integers, chroma repeated to the size of luma."""
    planes = []
    for plane in frame.planes:
        row = np.frombuffer(plane, dtype="<u2" if bits > 8 else "u1")
        pixels = rearrange(row, "(h w) -> h w", h=plane.height)[:, : plane.width]
        by = -(-frame.height // plane.height)
        pixels = repeat(pixels, "h w -> (h y) (w x)", y=by, x=-(-frame.width // plane.width))
        planes.append(pixels[: frame.height, : frame.width].astype(float))
    return planes


def reference_rgb(planes: list[np.ndarray], matrix: str, full: bool, bits: int = 8) -> np.ndarray:
    """Y'CbCr → R'G'B' in 0…255, [H, W, 3] float (BT.709-6 §3, table 3 for the ranges)."""
    red, blue = WEIGHTS[matrix]
    green = 1 - red - blue
    y, u, v = planes
    unit = 2 ** (bits - 8)
    low, luma, chroma = (
        (0, 2**bits - 1, 2**bits - 1) if full else (16 * unit, 219 * unit, 224 * unit)
    )
    y, u, v = (y - low) / luma, (u - 128 * unit) / chroma, (v - 128 * unit) / chroma
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / green
    return np.clip(255 * np.stack([r, g, b], axis=-1), 0, 255)


def smooth(planes: list[np.ndarray]) -> np.ndarray:
    """[H, W] true where chroma doesn't change nearby, so that its interpolation can't matter."""
    flat = np.ones(planes[0].shape, bool)
    for plane in planes[1:]:
        for shift in itertools.product(range(-3, 4), repeat=2):
            flat &= np.roll(plane, shift, axis=(0, 1)) == plane
    return flat


@pytest.mark.parametrize(
    ("name", "matrix", "stated", "full", "bits"),
    [
        ("bt709_full_range.mp4", "bt709", True, True, 8),
        ("video_90.mov", "bt709", True, False, 8),
        ("nasa_13013.mp4", "bt709", True, False, 8),
        ("h264_10bits.mp4", "bt601", False, False, 10),
        ("h265_video.mp4", "bt601", False, False, 8),
        ("big_buck_bunny_432_433.webm", "bt601", True, False, 8),
        ("fire2.mp4", "bt709", False, False, 8),  # untagged and 1280 wide
        ("bitmap.mp4", "bt601", False, False, 8),
    ],
)
def test_decoded_colors(
    data: Path, name: str, matrix: str, stated: bool, full: bool, bits: int
) -> None:
    import av

    info = probe(data / name)
    assert (info.matrix, info.matrix_stated, info.full_range) == (matrix, stated, full)
    with av.open(str(data / name)) as container:
        stream = container.streams.best("video")
        planes = yuv_planes(next(container.decode(stream)), bits)
    expected = np.rot90(reference_rgb(planes, matrix, full, bits), -(info.rotation // 90))
    difference = next(iter_frames(data / name)).rgb - expected
    even = np.rot90(smooth(planes), -(info.rotation // 90))
    if even.any():
        assert np.abs(difference[even]).max() < 2
    assert np.abs(difference.mean(axis=(0, 1))).max() < 1  # no cast over the whole picture


def test_the_wrong_matrix_or_range_would_be_noticed(data: Path) -> None:
    """The test above can fail: swapped settings are off by much more than it allows."""
    import av

    with av.open(str(data / "bt709_full_range.mp4")) as container:
        planes = yuv_planes(next(container.decode(video=0)))
    ours = next(iter_frames(data / "bt709_full_range.mp4")).rgb
    even = smooth(planes)
    for matrix, full in (("bt601", True), ("bt709", False)):
        assert np.abs(ours - reference_rgb(planes, matrix, full))[even].max() > 8


def test_written_mp4_holds_bt709_limited_range(tmp_path: Path, patches: np.ndarray) -> None:
    """What another program decodes by the tags is what went in."""
    import av

    path = tmp_path / "patches.mp4"
    write_video(path, patches, 8, crf=10)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        tags = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        frame = next(container.decode(video=0))
        planes = yuv_planes(frame)
    assert tags == (1, 1, 1, 1) and frame.format.name == "yuv420p"
    centers = [(y, x) for y in (15, 62) for x in (12, 38, 90, 115)]
    expected = reference_rgb(planes, "bt709", full=False)
    error = np.array([expected[at] - patches[0][at] for at in centers])
    assert np.abs(error).mean() < 1
    wrong = reference_rgb(planes, "bt601", full=False)
    assert np.abs([wrong[at] - patches[0][at] for at in centers]).max() > 10


@pytest.mark.parametrize("format", ["mp4", "webm", "mkv"])
def test_write_then_read_keeps_colors(tmp_path: Path, patches: np.ndarray, format: str) -> None:
    path = tmp_path / f"patches.{format}"
    write_video(path, patches, 8, crf=10)
    frames, _, _, _, info = read_video(path)
    assert (info.matrix, info.matrix_stated, info.full_range) == ("bt709", True, False)
    inside = np.zeros(patches.shape[1:3], bool)
    for y in (4, 50):
        for x in range(5):
            inside[y : y + 24, round(25.6 * x) + 5 : round(25.6 * x) + 20] = True
    error = np.abs(frames[:, inside].astype(int) - patches[:, inside])
    assert error.mean() < 0.5 and error.max() <= 16  # the largest is what coding leaves by edges


def test_gray_ramp_neither_lifts_black_nor_clips_white(tmp_path: Path) -> None:
    ramp = repeat(np.arange(256, dtype=np.uint8), "w -> t h w c", t=3, h=16, c=3)
    write_video(tmp_path / "ramp.mp4", ramp, 8, crf=1)
    frames = read_video(tmp_path / "ramp.mp4")[0].astype(int)
    assert np.abs(frames - ramp).max() <= 2
    assert frames[..., 0, :].max() <= 1 and frames[..., -1, :].min() >= 254


def test_alpha_is_composited_on_black(data: Path) -> None:
    """The VP9 file holds a red disc on transparency; libavcodec's own decoder drops the alpha."""
    info = probe(data / "transparent.webm")
    assert info.pix_fmt == "yuva420p"
    frame = next(iter_frames(data / "transparent.webm")).rgb
    red = frame[..., 0] > 200
    assert 0.002 < red.mean() < 0.05
    assert frame[frame.max(axis=2) < 10].max() <= 1 and (frame.max(axis=2) < 10).mean() > 0.9
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 51], [200, 100, 50, 0]]], np.uint8)
    assert video_color.over_black(rgba).tolist() == [[[200, 100, 50], [40, 20, 10], [0, 0, 0]]]


def hdr_frame(transfer: int) -> Any:
    import av

    frame = av.VideoFrame(16, 16, "yuv420p10le")
    frame.color_trc = transfer
    return frame


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused(transfer: int, name: str) -> None:
    from av.video.reformatter import VideoReformatter

    with pytest.raises(InputError, match=f"HDR, transfer {name}"):
        video_color.to_rgb(hdr_frame(transfer), VideoReformatter())


def test_unknown_matrix_is_refused_and_unstated_guessed_by_size() -> None:
    import av

    frame = av.VideoFrame(16, 16, "yuv420p")
    frame.colorspace = 8  # YCgCo
    with pytest.raises(InputError, match="color matrix 8"):
        video_color.matrix_of(frame)
    assert video_color.matrix_of(av.VideoFrame(854, 480, "yuv420p")) == ("bt601", False)
    assert video_color.matrix_of(av.VideoFrame(1280, 720, "yuv420p")) == ("bt709", False)
    assert video_color.matrix_of(av.VideoFrame(720, 1280, "yuv420p")) == ("bt709", False)


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("mirror", [False, True])
def test_all_eight_orientations(turn: int, mirror: bool) -> None:
    """A display matrix maps (x, y) to (x, y) @ matrix; each pixel must land there."""
    matrix = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), turn)
    if mirror:
        matrix = np.array([[-1, 0], [0, 1]]) @ matrix
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    shown = video_color.orient(image, matrix)
    places = np.array([(x, y) for y in range(2) for x in range(3)]) @ matrix
    places -= places.min(axis=0)
    for (x, y), (new_x, new_y) in zip(
        [(x, y) for y in range(2) for x in range(3)], places, strict=True
    ):
        assert (shown[new_y, new_x] == image[y, x]).all()
    if not mirror:
        assert video_color.clockwise_degrees(matrix) == 90 * turn
