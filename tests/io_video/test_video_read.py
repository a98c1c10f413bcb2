"""Reading real videos: sizes, times, rotation, resampling, audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidgen.errors import InputError, UsageError
from vidgen.io.video import iter_frames, probe, read_video, write_video

# name: frames, height, width, fps, seconds, rotation
REAL = {
    "nasa_13013.mp4": (390, 270, 480, 30000 / 1001, 13.013, 0),
    "bt709_full_range.mp4": (30, 720, 1280, 30, 1.0, 0),
    "h264_10bits.mp4": (30, 200, 200, 30, 1.0, 0),
    "h265_video.mp4": (10, 128, 128, 10, 1.0, 0),
    "fire2.mp4": (25, 720, 1280, 750000 / 71393, 2.379767, 180),
    "big_buck_bunny_432_433.webm": (24, 720, 1280, 24, 0.999, 0),
    "no_duration.webm": (74, 720, 1280, 15000 / 1001, 4.938, 0),
    "transparent.webm": (150, 200, 200, 30, 5.0, 0),
    "pigs_in_a_polka.gif": (30, 273, 314, 10, 3.0, 0),
    "circle.gif": (30, 128, 128, 100 / 7, 2.1, 0),
    "bitmap.mp4": (5, 1, 1, 1, 5.0, 0),
    "video_90.mov": (3, 568, 320, 30, 0.1, 90),
}


@pytest.mark.parametrize("name", REAL)
def test_size_rate_duration_rotation(data: Path, name: str) -> None:
    count, height, width, fps, duration, rotation = REAL[name]
    frames, times, _, _, info = read_video(data / name)
    assert frames.shape == (count, height, width, 3)
    assert frames.dtype == np.uint8 and times.dtype == np.float64
    assert (info.num_frames, info.height, info.width) == (count, height, width)
    assert info.fps == pytest.approx(fps, rel=1e-6)
    assert info.duration_s == pytest.approx(duration, abs=1e-4)
    assert info.rotation == rotation
    assert times[0] == 0 and (np.diff(times) > 0).all() and times[-1] < info.duration_s


@pytest.mark.parametrize("name", REAL)
def test_probe_agrees_with_reading_where_the_container_says(data: Path, name: str) -> None:
    count, height, width, _, duration, _ = REAL[name]
    info = probe(data / name)
    assert (info.height, info.width) == (height, width)
    assert info.num_frames in (count, None)
    if name == "no_duration.webm":
        assert info.duration_s is None and info.num_frames is None
    else:
        assert info.duration_s == pytest.approx(duration, abs=2e-3)


def test_rotation_shows_the_picture_upright(data: Path) -> None:
    """video_90.mov is stored lying on its left side: the stored top row is the right column."""
    import av

    with av.open(str(data / "video_90.mov")) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="gray").astype(int)
    upright = next(iter_frames(data / "video_90.mov")).rgb.astype(int).mean(axis=2)
    clockwise = np.rot90(stored, -1)
    assert upright.shape == clockwise.shape
    assert np.corrcoef(upright.ravel(), clockwise.ravel())[0, 1] > 0.99
    assert np.corrcoef(upright.ravel(), clockwise[::-1, ::-1].ravel())[0, 1] < 0.5


def test_half_turn(data: Path) -> None:
    import av

    with av.open(str(data / "fire2.mp4")) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="gray").astype(int)
    upright = next(iter_frames(data / "fire2.mp4")).rgb.astype(int).mean(axis=2)
    assert np.corrcoef(upright.ravel(), stored[::-1, ::-1].ravel())[0, 1] > 0.99


def test_variable_rate_gives_the_files_own_times(data: Path) -> None:
    _, times, _, _, info = read_video(data / "fire2.mp4")
    steps = np.diff(np.append(times, info.duration_s)) * 90_000
    assert set(np.rint(steps).astype(int)) >= {7199, 9000}  # the stored 90 kHz steps
    assert info.duration_s == pytest.approx(214179 / 90_000, abs=1e-9)


@pytest.mark.parametrize("fps", [1, 5, 8, 24, 29.97])
@pytest.mark.parametrize(("name", "tick_s"), [("fire2.mp4", 1 / 90_000), ("circle.gif", 0.01)])
def test_resampling_takes_the_last_frame_begun_and_keeps_the_duration(
    data: Path, name: str, tick_s: float, fps: float
) -> None:
    originals = list(iter_frames(data / name))
    begins = [frame.time for frame in originals]
    duration = originals[-1].time + originals[-1].duration
    resampled = list(iter_frames(data / name, fps=fps))
    assert abs(len(resampled) / fps - duration) < 1 / fps
    for k, frame in enumerate(resampled):
        assert frame.time == pytest.approx(k / fps) and frame.duration == pytest.approx(1 / fps)
        grace = min(tick_s / 2, 0.1 / fps) + 1e-9
        begun = np.searchsorted(begins, k / fps + grace, side="right") - 1
        assert np.array_equal(frame.rgb, originals[begun].rgb), k


def test_resampling_to_its_own_rate_changes_nothing_despite_a_millisecond_clock(
    data: Path,
) -> None:
    """In webm 1/24 s is stored as 0.042: taken literally, frame 0 would be shown twice."""
    path = data / "big_buck_bunny_432_433.webm"
    stored = [frame.rgb.tobytes() for frame in iter_frames(path)]
    resampled = [frame.rgb.tobytes() for frame in iter_frames(path, fps=24)]
    assert len(stored) == 24 and resampled == stored


def test_a_stretch_is_the_same_as_that_stretch_of_the_whole(data: Path) -> None:
    path = data / "nasa_13013.mp4"
    frames, times, audio, rate, _ = read_video(path)
    part, part_times, part_audio, _, info = read_video(path, start=100, num_frames=20)
    assert (part == frames[100:120]).all() and (part_times == times[100:120]).all()
    assert info.num_frames == 20 and info.duration_s == pytest.approx(20 * 1001 / 30000)
    first = round(times[100] * rate)
    assert part_audio.shape == (2, round(info.duration_s * rate))
    assert (part_audio == audio[:, first : first + part_audio.shape[1]]).all()


def test_audio_is_float_in_range_and_as_long_as_stated(data: Path) -> None:
    _, _, audio, rate, info = read_video(data / "nasa_13013.mp4")
    assert info.has_audio and rate == 16000 and info.channels == 2
    assert audio.dtype == np.float32 and audio.shape == (2, round(13.056 * 16000))
    assert 0.1 < np.abs(audio).max() <= 1
    assert read_video(data / "h264_10bits.mp4")[2:4] == (None, None)


def test_frames_come_one_by_one(data: Path) -> None:
    """Nothing past the second frame is decoded into memory."""
    frames = iter_frames(data / "nasa_13013.mp4")
    assert next(frames).time == 0 and next(frames).time == pytest.approx(1001 / 30000)
    frames.close()


def test_more_frames_than_there_are(data: Path) -> None:
    with pytest.raises(InputError, match="only 5 of the 20 frames asked for from frame 25 on"):
        read_video(data / "h264_10bits.mp4", start=25, num_frames=20)
    with pytest.raises(InputError, match="has no frame 99"):
        read_video(data / "h264_10bits.mp4", start=99)


@pytest.mark.parametrize("bad", [{"start": -1}, {"num_frames": 0}, {"fps": 0}, {"fps": -8.0}])
def test_nonsense_ranges(data: Path, bad: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        iter_frames(data / "circle.gif", **bad)  # before anything is read


def test_what_is_no_video(tmp_path: Path, data: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        probe(tmp_path / "missing.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(InputError, match=r"text\.mp4: can't be read as a video"):
        read_video(text)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with pytest.raises(InputError, match="can't be read"):
        read_video(empty)
    with pytest.raises(InputError, match="has no pictures"):
        probe(tmp_path)


def test_sound_without_pictures_has_no_video_stream(tmp_path: Path) -> None:
    import wave

    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", "NONE"))
        file.writeframes(bytes(1600))
    with pytest.raises(InputError, match="has no video stream"):
        probe(path)


def annex_b(path: Path) -> bytes:
    """The H.264 stream inside a file, without container and so without times."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        to_stream = av.BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = (packet if packet.size else None for packet in container.demux(stream))
        return b"".join(bytes(ready) for packet in packets for ready in to_stream.filter(packet))


def test_a_stream_without_times_gets_them_from_its_rate(
    tmp_path: Path, patches: np.ndarray
) -> None:
    write_video(tmp_path / "clip.mp4", patches, 8)
    (tmp_path / "clip.h264").write_bytes(annex_b(tmp_path / "clip.mp4"))
    frames, times, _, _, info = read_video(tmp_path / "clip.h264")
    assert (frames == read_video(tmp_path / "clip.mp4")[0]).all()
    assert len(times) == 17 and np.allclose(times, np.arange(17) / info.fps)


def test_a_picture_that_changes_size_is_refused(tmp_path: Path, patches: np.ndarray) -> None:
    """Two H.264 streams of different sizes, back to back."""
    write_video(tmp_path / "tall.mp4", patches, 8)
    write_video(tmp_path / "flat.mp4", patches[:, :40], 8)
    both = tmp_path / "both.h264"
    both.write_bytes(annex_b(tmp_path / "tall.mp4") + annex_b(tmp_path / "flat.mp4"))
    with pytest.raises(InputError, match=r"changes size .* from 128x80 to 128x40"):
        read_video(both)
