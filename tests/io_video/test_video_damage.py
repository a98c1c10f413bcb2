"""Damaged files are never shortened silently, and whole ones never called damaged."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from vidgen.errors import Exit, InputError
from vidgen.io.video import iter_frames, probe, read_video, write_video


def cut(source: Path, dest: Path, keep: float) -> Path:
    content = source.read_bytes()
    dest.write_bytes(content[: int(len(content) * keep)])
    return dest


def test_corrupted_mp4_says_how_many_frames_can_be_read(data: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_video(data / "corrupted.mp4")
    what = f"{data / 'corrupted.mp4'}: the video is damaged: the first 30 of 50 frames can be read"
    assert caught.value.what == what
    assert caught.value.exit_code == Exit.BAD_INPUT == 3


def test_the_frames_before_the_damage_can_be_had(data: Path) -> None:
    frames = read_video(data / "corrupted.mp4", num_frames=30)[0]
    assert frames.shape == (30, 720, 1280, 3)
    with pytest.raises(InputError, match="first 30 of 50"):
        read_video(data / "corrupted.mp4", num_frames=31)
    shown = []
    with pytest.raises(InputError, match="first 30 of 50"):
        shown.extend(frame.time for frame in iter_frames(data / "corrupted.mp4"))
    assert len(shown) == 30


def test_resampling_does_not_hide_damage(data: Path) -> None:
    with pytest.raises(InputError, match="damaged"):
        read_video(data / "corrupted.mp4", fps=2)


@pytest.mark.parametrize(
    ("name", "keep", "readable"),
    [
        ("fire2.mp4", 0.5, "first 6 of 25 frames"),  # its index is in front
        ("big_buck_bunny_432_433.webm", 0.9, "first 20 frames"),
        ("transparent.webm", 0.5, "first 63 frames"),
        ("circle.gif", 0.5, "first 15 of 16 frames"),
        ("pigs_in_a_polka.gif", 0.9, "first 28 frames"),
    ],
)
def test_cut_files(data: Path, tmp_path: Path, name: str, keep: float, readable: str) -> None:
    path = cut(data / name, tmp_path / name, keep)
    with pytest.raises(InputError, match=f"damaged: the {readable} can be read"):
        read_video(path)


def test_mp4_cut_between_two_frames(tmp_path: Path, patches: np.ndarray) -> None:
    """The last frame's bytes are gone entirely, so that no packet is broken."""
    import av

    whole = tmp_path / "whole.mp4"
    write_video(whole, patches, 8)
    with av.open(str(whole)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: max(places)])
    with pytest.raises(InputError, match=r"damaged: the first \d+ of 17 frames"):
        read_video(path)


def test_mp4_cut_before_its_index(data: Path, tmp_path: Path) -> None:
    path = cut(data / "nasa_13013.mp4", tmp_path / "cut.mp4", 0.9)
    with pytest.raises(InputError, match="can't be read as a video") as caught:
        probe(path)
    assert "cut before its index" in caught.value.why


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_in_h264(tmp_path: Path, data: Path, seed: int) -> None:
    """The decoder conceals such errors and goes on; we don't."""
    content = bytearray((data / "h264_10bits.mp4").read_bytes())
    for place in np.random.default_rng(seed).integers(8000, 28000, size=3):
        content[place] ^= 0xFF
    path = tmp_path / "flipped.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged: the first \d+ of 30 frames"):
        read_video(path)


def test_damaged_sound(data: Path, tmp_path: Path) -> None:
    import av

    with av.open(str(data / "nasa_13013.mp4")) as container:
        stream = container.streams.best("audio")
        packets = [(p.pos, p.size) for p in container.demux(stream) if p.size]
    content = bytearray((data / "nasa_13013.mp4").read_bytes())
    for place, size in itertools.islice(packets, 20, 40):
        content[place : place + size] = b"\xff" * size
    path = tmp_path / "sound.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"the audio is damaged: the first 1\.\d+ s"):
        read_video(path)


def test_a_frame_count_that_is_only_an_estimate_is_not_held_against_a_file(
    tmp_path: Path, patches: np.ndarray
) -> None:
    """An AVI header that claims more frames than there are, as recorders often leave it."""
    import av

    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height = 128, 80
        for picture in patches:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    content = bytearray(path.read_bytes())
    for header, offset in ((b"avih", 24), (b"strh", 40)):
        place = content.index(header) + offset
        assert content[place : place + 4] == (17).to_bytes(4, "little")
        content[place : place + 4] = (40).to_bytes(4, "little")
    path.write_bytes(content)
    assert probe(path).num_frames == 40
    frames, _, _, _, info = read_video(path)
    assert len(frames) == 17 and info.num_frames == 17
