"""A video is read once, and gives what reading it a time for each question gives."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from clips import DATA

from vidgen.cli.eval_clip import Clip, Sampling, of_video
from vidgen.cli.media import history_of, write_clip
from vidgen.errors import InputError, VidgenError
from vidgen.io import video_read
from vidgen.io.record import Record
from vidgen.io.video import iter_frames, open_video, probe, read_video_metadata, write_video
from vidgen.io.video_file import VideoFile

SAMPLINGS = [
    Sampling(4),
    Sampling(3, 4),
    Sampling(4, 2, start="middle"),
    Sampling(5, start="random", seed=3),
    Sampling(4, fps=7.0, start="random"),
    Sampling(3, fps=50.0, start="middle"),
]
LARGE = [  # of 720 lines, which take their time: a sampling each
    "big_buck_bunny_432_433.webm", "bt709_full_range.mp4", "corrupted.mp4", "fire2.mp4",
    "no_duration.webm", "nasa_13013.mp4",
]  # fmt: skip
SMALL = sorted(
    p.name for p in DATA.iterdir()
    if p.suffix in (".mp4", ".mov", ".webm", ".gif") and p.name not in LARGE
)  # fmt: skip


def decoded(path: str) -> tuple[int, float]:
    """Frames and seconds of all of a video or a folder."""
    if Path(path).is_dir():
        moments = list(iter_frames(path))
    else:
        with av.open(path, metadata_errors="replace") as container:
            moments = [m._replace(picture=None) for m in VideoFile(Path(path), container).moments()]
    return len(moments), moments[-1].time + moments[-1].duration


def question_by_question(path: str, sampling: Sampling) -> tuple[str, np.ndarray, list[float]]:
    """Id, frames and times as `of_video` has them, from openings of their own."""
    id = (history_of(path) or {}).get("id") or Path(path).stem
    probe(path)
    span, start = sampling.span, 0
    there, end = decoded(path)
    if sampling.fps is not None:
        there = max(1, int(end * sampling.fps + 1e-6))
    if span is not None and sampling.start != "first":
        start = sampling.first(there, id)
    found = list(
        iter_frames(path, start=start, num_frames=span, fps=sampling.fps, exact=False)
    )[:: sampling.stride]  # fmt: skip
    if len(found) < (sampling.num_frames or 0):
        raise InputError("too short")
    return id, np.stack([f.rgb for f in found]), [f.time for f in found]


def same(path: str, sampling: Sampling) -> Clip | None:
    """Hold one to the other: what comes out, or that it is too short, or what is said."""
    try:
        id, frames, times = question_by_question(path, sampling)
    except VidgenError as error:
        with pytest.raises(type(error)) as caught:
            of_video(path, sampling)
        if error.what == "too short":
            assert "are needed" in caught.value.what
        else:
            assert str(caught.value) == str(error)
        return None
    found = of_video(path, sampling)
    assert found.id == id
    assert found.times.tolist() == times
    np.testing.assert_array_equal(found.frames, frames)
    assert found.rate == (sampling.fps or probe(path).fps) / sampling.stride
    return found


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The paths that were opened as videos."""
    paths: list[str] = []
    open_ = av.open
    monkeypatch.setattr(av, "open", lambda *a, **k: (paths.append(str(a[0])), open_(*a, **k))[1])
    return paths


@pytest.mark.parametrize(
    ("name", "sampling"),
    [*itertools.product(SMALL, SAMPLINGS), *zip(LARGE, SAMPLINGS, strict=True)],
    ids=str,
)
def test_every_video(name, sampling) -> None:
    same(str(DATA / name), sampling)


def test_whole_clips() -> None:
    for name in ("circle.gif", "transparent.webm", "video_90.mov"):
        assert same(str(DATA / name), Sampling(5000)) is None
        found = same(str(DATA / name), Sampling(None))
        assert found is not None
        assert len(found.frames) == decoded(str(DATA / name))[0]


@pytest.mark.parametrize("sampling", [Sampling(4), Sampling(4, start="middle")], ids=str)
@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("fire2.mp4", 0.5),
        ("nasa_13013.mp4", 0.9),  # its index is gone
        ("big_buck_bunny_432_433.webm", 0.9),
        ("transparent.webm", 0.5),
        ("circle.gif", 0.5),
        ("circle.gif", 0.05),
    ],
)
def test_cut_videos(name, keep, sampling, tmp_path) -> None:
    content = (DATA / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: int(len(content) * keep)])
    assert same(str(path), sampling) is None


@pytest.mark.parametrize("name", ["h264_10bits.mp4", "transparent.webm", "circle.gif"])
def test_flipped_bytes(name, tmp_path) -> None:
    content = (DATA / name).read_bytes()
    r = np.random.default_rng(len(name))
    said = 0
    for turn in range(6):
        bad = bytearray(content)
        for place in r.integers(len(bad) // 5, len(bad), size=3):
            bad[place] ^= 0xFF
        path = tmp_path / f"{turn}-{name}"
        path.write_bytes(bad)
        said += same(str(path), Sampling(4, start="random", seed=turn)) is None
    assert said or name != "h264_10bits.mp4"  # the others say nothing of it


def counting(num_frames: int, **attrs) -> Record:
    frames = np.zeros((num_frames, 8, 8, 3), np.uint8)
    frames += (5 * np.arange(num_frames)).astype(np.uint8)[:, None, None, None]
    return Record.make("frames", "n", {"frames": frames}, {"fps": 8, **attrs})


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("form", ["c.mp4", "c.webm", "c.gif", "c"])
def test_what_is_written_here(form, sampling, tmp_path, opened) -> None:
    path = str(tmp_path / form)
    write_clip(counting(40), path + "/" * (form == "c"))
    assert same(path, sampling) is not None
    opened.clear()
    found = of_video(path, sampling)
    assert found.record.log == (history_of(path) or {"log": []})["log"]
    if form == "c.mp4":  # it says how many frames it has
        assert opened == [path] * 2  # `history_of` is the second


def test_a_length_that_is_not_so(tmp_path, monkeypatch, opened) -> None:
    """The frames taken are those that a count of the frames gives, whatever is said of it."""
    path = str(tmp_path / "c.mp4")
    write_clip(counting(40), path)
    sampling = Sampling(4, start="middle")
    said = VideoFile.info
    for lie, openings in ((None, 1), (40, 1), (41, 1), (0, 2), (7, 2), (1000, 2)):
        monkeypatch.setattr(
            VideoFile, "info", lambda self, lie=lie: replace(said(self), num_frames=lie)
        )
        assert same(path, sampling) is not None
        opened.clear()
        of_video(path, sampling)
        assert opened == [path] * openings


@pytest.mark.parametrize("lie", [1e20, float("inf"), -1e20])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_a_duration_that_is_not_so(sampling, lie, tmp_path, monkeypatch) -> None:
    """Matroska has it in a tag, in words, of any length."""
    path = str(tmp_path / "c.mp4")
    write_clip(counting(40), path)
    said = VideoFile.info
    monkeypatch.setattr(
        VideoFile, "info", lambda self: replace(said(self), num_frames=None, duration_s=lie)
    )
    assert same(path, sampling) is not None


def test_a_folder_that_states_no_rate_has_the_one_asked_for(tmp_path) -> None:
    """So that its last frames can be taken, too."""
    frames = counting(40).numpy("frames")
    write_video(f"{tmp_path}/c/", frames, 8)
    (tmp_path / "c" / "video.json").unlink()
    found = of_video(str(tmp_path / "c"), Sampling(40, fps=8, start="middle"))
    np.testing.assert_array_equal(found.frames, frames)


def test_a_picture_that_is_skipped_and_broken(tmp_path) -> None:
    write_video(f"{tmp_path}/c/", counting(9).numpy("frames"), 8)
    (tmp_path / "c" / "000007.png").write_bytes(b"\x89PNG")
    for sampling in (Sampling(4), Sampling(2, 2), Sampling(2, fps=4.0), Sampling(1)):
        assert same(str(tmp_path / "c"), sampling) is None


def test_one_opening_tells_what_many_do(opened) -> None:
    path = DATA / "nasa_13013.mp4"
    with open_video(path) as video:
        metadata, info = video.metadata, video.info
        taken, length = video.stretch(2, 9, every=3)
    assert opened == [str(path)]
    assert (metadata, info) == (read_video_metadata(path), probe(path))
    assert (video.num_frames, video.end_s) == decoded(str(path))
    assert length == 9
    expected = list(iter_frames(path, start=2, num_frames=9))[::3]
    assert [f[:2] for f in taken] == [f[:2] for f in expected]
    for a, b in zip(taken, expected, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)


def test_only_what_is_taken_becomes_rgb(monkeypatch) -> None:
    made = []
    to_rgb = VideoFile.to_rgb
    monkeypatch.setattr(VideoFile, "to_rgb", lambda s, p: (made.append(p), to_rgb(s, p))[1])
    found = of_video(str(DATA / "nasa_13013.mp4"), Sampling(3, 4, start="middle"))
    assert len(made) == len(found.frames) == 3


def test_damage_is_said_before_what_may_come_from_it(tmp_path, monkeypatch) -> None:
    def fails(*_: object) -> None:
        raise InputError("the picture changes size")

    monkeypatch.setattr(video_read._Rgb, "__call__", fails)
    with pytest.raises(InputError, match="first 30 of 50 frames can be read"):
        of_video(str(DATA / "corrupted.mp4"), Sampling(4))
    with pytest.raises(InputError, match="changes size"):
        of_video(str(DATA / "nasa_13013.mp4"), Sampling(4))
