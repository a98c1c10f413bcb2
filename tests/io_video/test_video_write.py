"""Writing: durations, sizes, tags, sound, determinism, pipes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vidgen.errors import InputError, UsageError
from vidgen.io.video import (
    FORMATS,
    format_of,
    iter_frames,
    probe,
    read_video,
    read_video_metadata,
    write_video,
)
from vidgen.io.video_write import exact_rate

LOG = json.dumps(
    {"prompt": "a réd ball 🏐", "log": [{"id": i, "x": "y" * 40} for i in range(8000)]}
)


def boxes(content: bytes) -> list[str]:
    """The names of an MP4's top-level boxes."""
    names, place = [], 0
    while place < len(content):
        names.append(content[place + 4 : place + 8].decode())
        place += int.from_bytes(content[place : place + 4], "big")
    return names


@pytest.mark.parametrize("fps", [8, 12.5, 23.976, 25, 29.97, Fraction(60000, 1001), 0.5])
@pytest.mark.parametrize("count", [1, 2, 17])
def test_mp4_lasts_exactly_frames_over_fps(
    tmp_path: Path, patches: np.ndarray, fps: float, count: int
) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, patches[:count], fps)
    info = probe(path)
    expected = float(count / exact_rate(fps))
    assert info.duration_s == pytest.approx(expected, abs=1e-6)
    assert info.num_frames == count
    assert info.fps == pytest.approx(float(exact_rate(fps)), rel=1e-9)
    _, times, _, _, read = read_video(path)
    assert read.duration_s == pytest.approx(expected, abs=1e-4)
    assert np.allclose(times, np.arange(count) / float(exact_rate(fps)), atol=1e-4)


@pytest.mark.parametrize("format", ["mkv", "webm", "gif", "nut"])
def test_other_formats_keep_count_order_and_duration(
    tmp_path: Path, patches: np.ndarray, format: str
) -> None:
    path = tmp_path / f"clip.{format}"
    write_video(path, patches, 8)
    frames, times, _, _, info = read_video(path)
    assert frames.shape == patches.shape
    # a gif's clock has hundredths of a second, matroska's thousandths
    assert np.allclose(times, np.arange(17) / 8, atol={"gif": 0.0051}.get(format, 0.00051))
    assert info.duration_s == pytest.approx(17 / 8, abs=0.006)
    for t in (0, 8, 16):  # the square is where it was
        square = np.abs(frames[t].astype(int) - (90, 60, 30)).max(axis=2)[33:43] < 40
        assert square[:, 4 * t + 4 : 4 * t + 12].mean() > 0.9


@pytest.mark.parametrize(("height", "width"), [(273, 314), (80, 127), (79, 127), (1, 1), (2, 3)])
@pytest.mark.parametrize("format", ["mp4", "webm", "gif", "nut"])
def test_any_size(tmp_path: Path, format: str, height: int, width: int) -> None:
    y, x = np.mgrid[:height, :width]
    gray = (x * 120 // width + y * 120 // height).astype(np.uint8)
    # Half as many chroma samples can't hold the colors of two by three pixels: those are gray.
    blue = 1 if height < 4 else 2
    picture = gray[..., None] // np.array([1, 1, blue], np.uint8)
    path = tmp_path / f"odd.{format}"
    write_video(path, picture[None].repeat(3, axis=0), 8, crf=4)
    frames, *_, info = read_video(path)
    assert frames.shape == (3, height, width, 3)
    assert (info.height, info.width) == (height, width) == (probe(path).height, probe(path).width)
    assert np.abs(frames[0].astype(int) - picture).mean() < 4


def test_odd_mp4_is_padded_by_repeating_and_says_so(tmp_path: Path, patches: np.ndarray) -> None:
    """A player shows one more row, equal to the last; nothing is scaled."""
    import av

    path = tmp_path / "odd.mp4"
    write_video(path, patches[:, :79], 8, metadata={"comment": "kept"})
    assert read_video_metadata(path)["description"] == "padded from 128x79"
    assert read_video_metadata(path)["comment"] == "kept"
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="gray").astype(int)
    assert frame.shape == (80, 128)
    assert np.abs(frame[79] - frame[78]).mean() < 4


@pytest.mark.parametrize("format", ["mp4", "mkv", "webm", "gif"])
def test_the_log_comes_back(tmp_path: Path, patches: np.ndarray, format: str) -> None:
    assert len(LOG) > 400_000
    path = tmp_path / f"clip.{format}"
    write_video(path, patches[:3], 8, metadata={"comment": LOG})
    assert read_video_metadata(path)["comment"] == LOG
    assert read_video(path)[0].shape == (3, 80, 128, 3)


def test_a_file_without_tags_has_no_comment(data: Path) -> None:
    assert "comment" not in read_video_metadata(data / "circle.gif")
    assert read_video_metadata(data / "nasa_13013.mp4")["major_brand"] == "isom"


def test_mp4_starts_with_its_index_and_holds_no_date(tmp_path: Path, patches: np.ndarray) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, patches, 8)
    content = path.read_bytes()
    assert boxes(content)[:2] == ["ftyp", "moov"] and "mdat" in boxes(content)
    for header in (b"mvhd", b"tkhd", b"mdhd"):  # version and flags, creation, modification
        place = content.index(header) + 8
        assert content[place : place + 8] == bytes(8), header


@pytest.mark.parametrize(("format", "rate"), [("mp4", 16000), ("mkv", 16000), ("webm", 48000)])
def test_sound_is_in_step_with_the_picture(
    tmp_path: Path, patches: np.ndarray, tone: np.ndarray, format: str, rate: int
) -> None:
    path = tmp_path / f"clip.{format}"
    stereo = np.concatenate([tone, -tone])
    write_video(path, patches, 8, audio=stereo, sample_rate=16000)
    _, _, audio, read_rate, info = read_video(path)
    assert info.channels == 2 and read_rate == rate and audio.dtype == np.float32
    samples = audio[:, :: rate // 16000]
    assert samples.shape[1] >= 34000 and samples.shape[1] - 34000 < (
        10 if format != "mkv" else 1024
    )
    samples = samples[:, :34000]
    for delay in (-8, 8):  # half a millisecond off is already worse
        assert np.corrcoef(samples[0], np.roll(tone[0], delay))[0, 1] < 0.97
    assert np.corrcoef(samples[0], tone[0])[0, 1] > 0.98
    assert np.corrcoef(samples[1], tone[0])[0, 1] < -0.98


def test_nut_keeps_sound_exactly(tmp_path: Path, patches: np.ndarray, tone: np.ndarray) -> None:
    write_video(tmp_path / "clip.nut", patches, 8, audio=tone, sample_rate=16000)
    frames, _, audio, _, _ = read_video(tmp_path / "clip.nut")
    assert (frames == patches).all() and (audio == tone).all()


def test_a_rate_that_aac_lacks_is_resampled(
    tmp_path: Path, patches: np.ndarray, tone: np.ndarray
) -> None:
    write_video(tmp_path / "clip.mp4", patches, 8, audio=tone, sample_rate=18000)
    _, _, audio, rate, _ = read_video(tmp_path / "clip.mp4")
    assert rate == 48000 and audio.shape[1] == pytest.approx(34000 / 18000 * 48000, abs=50)


CHILD = """
import hashlib, io, sys
import numpy as np
from vidgen.io.video import write_video
frames = np.random.default_rng(5).integers(0, 256, (12, 64, 96, 3), np.uint8).cumsum(0) // 12 % 256
tone = np.sin(np.arange(24000) / 9, dtype=np.float32)[None] / 2
for format in sys.argv[1:]:
    file = io.BytesIO()
    audio = {} if format in ("gif", "rgb") else {"audio": tone, "sample_rate": 16000}
    tags = {"comment": "{}"}
    write_video(file, frames.astype(np.uint8), 8, format=format, metadata=tags, **audio)
    print(format, hashlib.sha256(file.getvalue()).hexdigest())
"""


def test_same_bytes_in_another_process() -> None:
    formats = ["mp4", "mkv", "webm", "gif", "rgb", "nut"]
    outputs = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", CHILD, *formats],
            env=os.environ | {"PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    ]
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0].split())) == 2 * len(formats)


def test_same_bytes_again_and_again(tone: np.ndarray) -> None:
    """x264's mbtree made one in four of these differ, by what was in memory before."""
    random = np.random.default_rng(5)
    frames = random.integers(0, 256, (12, 64, 96, 3), np.uint8).cumsum(axis=0) // 12 % 256
    digests = set()
    for format in ["mp4", "mkv", "webm"] * 8:
        file = io.BytesIO()
        sound = {"audio": tone[:, :24000], "sample_rate": 16000}
        write_video(file, frames.astype(np.uint8), 8, format=format, **sound)
        digests.add((format, hashlib.sha256(file.getvalue()).hexdigest()))
    assert len(digests) == 3


def test_file_and_pipe_get_the_same_bytes(
    tmp_path: Path, patches: np.ndarray, tone: np.ndarray
) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.content = b""

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:
            self.content += bytes(data)
            return len(data)

    for format in FORMATS.keys() - {"png"}:
        pipe, path = Pipe(), tmp_path / f"clip.{format}"
        sound = {"audio": tone, "sample_rate": 16000} if FORMATS[format].audio_codec else {}
        write_video(pipe, patches, 8, format=format, **sound)
        write_video(path, patches, 8, **sound)
        same = hashlib.sha256(pipe.content).digest() == hashlib.sha256(path.read_bytes()).digest()
        assert same and not pipe.closed, format
        if format == "rgb":
            assert pipe.content == patches.tobytes()


def test_a_closed_pipe_is_a_broken_pipe(patches: np.ndarray) -> None:
    for format in ("rgb", "nut"):
        reader, writer = os.pipe()
        os.close(reader)
        with pytest.raises(BrokenPipeError), os.fdopen(writer, "wb", buffering=0) as pipe:
            write_video(pipe, patches, 8, format=format)


def test_frames_may_come_from_an_iterator_and_its_errors_pass(
    tmp_path: Path, patches: np.ndarray
) -> None:
    write_video(tmp_path / "a.mp4", (frame for frame in patches), 8)
    write_video(tmp_path / "b.mp4", patches, 8)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()

    def failing() -> Iterator[np.ndarray]:
        yield patches[0]
        raise InputError("upstream was cut")

    for format in FORMATS:
        dest = f"{tmp_path}/out/" if format == "png" else tmp_path / f"c.{format}"
        with pytest.raises(InputError, match="upstream was cut"):
            write_video(dest, failing(), 8)
    assert not (tmp_path / "out").exists()


def test_lower_crf_is_better_and_larger(tmp_path: Path, data: Path) -> None:
    source = read_video(data / "nasa_13013.mp4", start=200, num_frames=9)[0]
    for format in ("mp4", "webm"):
        sizes, errors = [], []
        for crf in (10, 40):
            path = tmp_path / f"{crf}.{format}"
            write_video(path, source, 25, crf=crf)
            sizes.append(path.stat().st_size)
            errors.append(np.abs(read_video(path)[0].astype(int) - source).mean())
        assert sizes[0] > 3 * sizes[1] and errors[0] < errors[1]


def test_gif_palette_is_good_on_a_real_picture(tmp_path: Path, data: Path) -> None:
    source = read_video(data / "big_buck_bunny_432_433.webm", num_frames=3)[0][:, ::4, ::4]
    write_video(tmp_path / "bunny.gif", source, 10)
    frames, *_, info = read_video(tmp_path / "bunny.gif")
    blurred = [
        clip.astype(float).reshape(3, 45, 4, 80, 4, 3).mean((2, 4)) for clip in (frames, source)
    ]
    assert np.abs(blurred[0] - blurred[1]).mean() < 4  # dither is fine, a cast or banding isn't
    assert info.duration_s == pytest.approx(0.3)


def test_png_folder_there_and_back(tmp_path: Path, patches: np.ndarray) -> None:
    write_video(f"{tmp_path}/clip/", patches, 8, metadata={"comment": LOG})
    names = sorted(path.name for path in (tmp_path / "clip").iterdir())
    assert names == [f"{i:06d}.png" for i in range(17)] + ["video.json"]
    frames, times, audio, _, info = read_video(tmp_path / "clip")
    assert (frames == patches).all() and np.allclose(times, np.arange(17) / 8) and audio is None
    assert (info.fps, info.num_frames, info.duration_s) == (8, 17, 17 / 8)
    assert read_video_metadata(tmp_path / "clip") == {"comment": LOG}
    assert len(list(iter_frames(tmp_path / "clip", fps=4))) == 9
    with pytest.raises(UsageError, match="there already"):
        write_video(f"{tmp_path}/clip/", patches, 8)
    (tmp_path / "clip" / "000003.png").unlink()
    with pytest.raises(InputError, match=r"has 16 pictures, video\.json says 17"):
        probe(tmp_path / "clip")


def test_a_foreign_folder_is_read_in_natural_order(tmp_path: Path, patches: np.ndarray) -> None:
    from PIL import Image

    for i in range(12):
        Image.fromarray(patches[i]).save(tmp_path / f"frame-{i}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    frames, times, *_ = read_video(tmp_path)
    assert (frames == patches[:12]).all()
    assert times[1] == pytest.approx(1 / 25)  # ffmpeg's assumption
    frames, times, *_, info = read_video(tmp_path, fps=6)  # here fps states the rate
    assert len(frames) == 12 and times[1] == pytest.approx(1 / 6) and info.fps == 6
    Image.new("RGB", (10, 10)).save(tmp_path / "frame-99.png")
    with pytest.raises(InputError, match=r"changes size .* from 128x80 to 10x10"):
        read_video(tmp_path)
    (tmp_path / "frame-99.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(InputError, match=r"frame-99\.png: can't be read as a picture"):
        read_video(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dest": "clip.avi"}, r"no video format .*"),
        ({"dest": "clip"}, "no video format"),
        ({"dest": "frame.png"}, "no video format"),
        ({"dest": "clip.mp4", "fps": 0}, "0 frames a second"),
        ({"dest": "clip.mp4", "fps": -8}, "-8 frames a second"),
        ({"dest": "clip.mp4", "fps": float("nan")}, "nan frames a second"),
        ({"dest": "clip.mp4", "crf": 52}, "crf 52: mp4 takes 0 to 51"),
        ({"dest": "clip.webm", "crf": 64}, "0 to 63"),
        ({"dest": "clip.gif", "fps": 60}, "too many for a gif"),
        ({"dest": "clip.gif", "audio": np.zeros((1, 9), np.float32)}, "can't hold audio"),
        ({"dest": "clip.mp4", "audio": np.zeros((6, 9), np.float32)}, "6 channels"),
        ({"dest": io.BytesIO()}, "a format is needed"),
        ({"dest": io.BytesIO(), "format": "png"}, "can't go to a pipe"),
        ({"dest": "clip.mp4", "format": "flv"}, "no format 'flv'; there are mp4"),
    ],
)
def test_what_cannot_be_written(
    tmp_path: Path, patches: np.ndarray, arguments: dict, message: str
) -> None:
    arguments = {"fps": 8, "sample_rate": 16000} | arguments
    dest = arguments.pop("dest")
    with pytest.raises(UsageError, match=message):
        write_video(tmp_path / dest if isinstance(dest, str) else dest, patches, **arguments)
    assert not list(tmp_path.iterdir())


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no frames"):
        write_video(tmp_path / "clip.mp4", [], 8)
    assert not (tmp_path / "clip.mp4").exists()


def test_format_of(tmp_path: Path) -> None:
    assert format_of("a/b.MP4") == "mp4"
    assert format_of("frames/") == "png" == format_of(tmp_path)


def test_rates() -> None:
    for rate, exact in [
        (8, Fraction(8)),
        (12.5, Fraction(25, 2)),
        (23.976, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (14.985014985014985, Fraction(15000, 1001)),
        (100 / 7, Fraction(100, 7)),
        (0.1, Fraction(1, 10)),
        (1 / 3, Fraction(1, 3)),
        (23.98, Fraction(24000, 1001)),
        (7.99, Fraction(799, 100)),
    ]:
        assert exact_rate(rate) == exact, rate


def test_importing_needs_no_pyav() -> None:
    """Commands that don't touch video files shouldn't pay for it."""
    code = (
        "import sys, vidgen.io.video, vidgen.io.image\n"
        "print(*{'av', 'torch', 'PIL'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
