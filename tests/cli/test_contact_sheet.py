"""`vidgen contact-sheet`: the right frames, at the right size, in one PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from clips import DATA, clip, save

from vidgen.cli.media import write_clip
from vidgen.io.image import read_png


def test_a_strip_for_each_clip(vidgen) -> None:
    write_clip(clip("a"), "a.mp4")
    save("two.vgs", clip("b"), clip("c"))
    one = vidgen("contact-sheet", "a.mp4", "-o", "one.png")
    assert (one.code, one.out, one.err) == (0, b"", "")
    assert vidgen("contact-sheet", "a.mp4", "two.vgs", "-o", "three.png").code == 0
    short, tall = read_png("one.png"), read_png("three.png")
    assert tall.shape[1] == short.shape[1] >= 5 * 160
    assert tall.shape[0] > 2.5 * short.shape[0]
    assert vidgen(
        "contact-sheet", "a.mp4", "two.vgs", "--columns", "3", "-o", "wide.png"
    ).code == 0  # fmt: skip
    assert read_png("wide.png").shape[1] > 2.9 * short.shape[1]


def test_frames_are_at_even_times_with_the_first_and_the_last(vidgen) -> None:
    save("a.vgs", clip())
    words = ("--frames", "3", "--scale", "1")
    assert vidgen("contact-sheet", "a.vgs", *words, "-o", "a.png").code == 0
    sheet, frames = read_png("a.png"), clip().numpy("frames")
    for frame in (0, 4, 8):
        assert contains(sheet, frames[frame])
    assert not contains(sheet, frames[1])


def contains(sheet: np.ndarray, tile: np.ndarray) -> bool:
    h, w, _ = tile.shape
    corners = np.argwhere((sheet == tile[0, 0]).all(axis=-1))
    return any(np.array_equal(sheet[y : y + h, x : x + w], tile) for y, x in corners)


def test_a_prompt_is_the_label(vidgen) -> None:
    save("a.vgs", clip())
    save("b.vgs", clip().replace(attrs={"prompt": "something else"}))
    sheets = [vidgen("contact-sheet", name).out for name in ("a.vgs", "b.vgs", "a.vgs")]
    assert sheets[0] == sheets[2] != sheets[1]


def test_real_videos_of_many_sizes(vidgen) -> None:
    paths = [str(DATA / n) for n in ("video_90.mov", "circle.gif", "bitmap.mp4")]
    assert vidgen("contact-sheet", *paths, "-o", "a.png").code == 0
    assert read_png("a.png").shape[1] >= 4 * 128


def test_standard_streams(vidgen) -> None:
    data = Path(save("a.vgs")).read_bytes()
    ran = vidgen("contact-sheet", stdin=data)
    assert ran.out.startswith(b"\x89PNG")
    refused = vidgen("contact-sheet", "a.vgs", terminal=("stdout",))
    assert (refused.code, refused.out) == (2, b"")


def test_faults(vidgen) -> None:
    assert vidgen("contact-sheet", str(DATA / "corrupted.mp4"), "-o", "a.png").code == 3
    assert vidgen("contact-sheet", "missing.vgs", "-o", "a.png").code == 2
    assert not Path("a.png").exists()
    save("a.vgs")
    assert "one sheet" in vidgen("contact-sheet", "a.vgs", "-o", "{id}.png").err
    Path("b.png").write_bytes(b"")
    assert vidgen("contact-sheet", "a.vgs", "-o", "b.png").code == 2
    assert vidgen("contact-sheet", "a.vgs", "-f", "-o", "b.png").code == 0
