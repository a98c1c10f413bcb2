"""PNG in and out, and contact sheets."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidgen.errors import InputError
from vidgen.io.image import contact_sheet, encode_png, read_image, read_png, write_png


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (80, 128), (33, 5)])
def test_png_is_read_back_by_pillow_and_by_us(tmp_path: Path, size: tuple[int, int]) -> None:
    y, x = np.mgrid[: size[0], : size[1]]
    smooth = np.stack([x, y, x + y], axis=-1).astype(np.uint8)
    for picture in (noise(*size, 3), smooth):
        write_png(tmp_path / "picture.png", picture)
        with Image.open(tmp_path / "picture.png") as opened:
            assert opened.mode == "RGB" and (np.asarray(opened) == picture).all()
        assert (read_png(tmp_path / "picture.png") == picture).all()


def test_png_filters_make_it_small() -> None:
    """All five filters win somewhere; together they beat none by far on a smooth picture."""
    y, x = np.mgrid[:200, :300]
    smooth = np.stack([x + y, x // 2 + y, 255 - x // 2], axis=-1).astype(np.uint8)
    assert len(encode_png(smooth)) < 4000
    assert encode_png(smooth) == encode_png(smooth.copy())


def test_png_to_a_file_object() -> None:
    file = io.BytesIO()
    write_png(file, noise(4, 5, 3))
    file.seek(0)
    assert (read_image(file) == noise(4, 5, 3)).all()


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_picture(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a picture is"):
        encode_png(bad)


def test_other_kinds_of_picture(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2, 4), (200, 100, 50, 51), np.uint8)).save(tmp_path / "alpha.png")
    assert read_image(tmp_path / "alpha.png")[0, 0].tolist() == [40, 20, 10]
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(tmp_path / "sixteen.png")
    assert read_image(tmp_path / "sixteen.png")[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]
    Image.new("P", (3, 2)).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == (2, 3, 3)
    turned = Image.fromarray(noise(4, 6, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    assert (read_image(tmp_path / "turned.png") == np.rot90(noise(4, 6, 3), -1)).all()


def test_damaged_picture(tmp_path: Path) -> None:
    write_png(tmp_path / "whole.png", noise(40, 40, 3))
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    for name in ("cut.png", "missing.png"):
        with pytest.raises(InputError, match=name):
            read_image(tmp_path / name)


def test_contact_sheet_shows_first_and_last_frames_where_expected() -> None:
    clips = [np.full((17, 20, 30, 3), value, np.uint8) for value in (50, 100, 150)]
    for t in range(17):
        clips[0][t] = 10 * t
    sheet = contact_sheet(clips, ["one", "two", "three"], columns=2, frames_per_clip=5, scale=2)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    strip = 5 * 60 + 4 * 4
    assert sheet.shape[1] == 4 + 2 * (strip + 4)
    # Rows of the first clip's first frame (0, black) and, 4 frames on, of its second (40).
    column = sheet[:, 4 + 30].max(axis=1)
    rows = np.flatnonzero(column == 0)
    assert len(rows) == 40 and (np.diff(rows) == 1).all()
    for i, value in enumerate((0, 40, 80, 120, 160)):
        assert (sheet[rows, 4 + 64 * i : 4 + 64 * i + 60] == value).all()
    second = 4 + strip + 4
    assert (sheet[rows, second : second + 60] == 100).all()
    assert (sheet == 150).all(axis=2).sum() == 5 * 40 * 60  # the third, a row below


def test_labels_are_legible_and_wrapped() -> None:
    clip = np.zeros((2, 40, 64, 3), np.uint8)
    blank = contact_sheet([clip], [""], frames_per_clip=2)
    short = contact_sheet([clip], ["red ball"], frames_per_clip=2)
    long = contact_sheet([clip], ["a red ball bounces on sand ground " * 9], frames_per_clip=2)
    ink = [(sheet > 150).any(axis=2) for sheet in (blank, short, long)]
    assert not ink[0].any() and ink[1].sum() > 60
    assert blank.shape == short.shape and long.shape[0] > short.shape[0]
    rows = np.flatnonzero(ink[1].any(axis=1))
    assert 7 <= np.ptp(rows) <= 16  # the height of its letters
    assert long.shape[1] == short.shape[1] and not ink[2][:, -2:].any()  # nothing is cut off


def test_any_text_and_any_clip_fits() -> None:
    clips = [noise(1, 8, 8, 3), noise(3, 50, 20, 3)]
    labels = ["日本語 é 🏐 ", "x" * 300]
    sheet = contact_sheet(clips, labels, columns=3, frames_per_clip=4, scale=0.5)
    assert sheet.shape[0] > 25
    with pytest.raises(ValueError, match="one label a clip"):
        contact_sheet(clips, ["one"])
