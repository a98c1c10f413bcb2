"""Writing videos: mp4, mkv, webm, gif, folders of png, and raw rgb24 or NUT for a pipe.

| ends in | video                          | audio    | sides                                   |
|---------|--------------------------------|----------|-----------------------------------------|
| .mp4    | H.264 yuv420p, index in front  | AAC      | made even by repeating the last row and |
| .mkv    | H.264 yuv420p                  | AAC      | column; `read_video` takes them off     |
| .webm   | VP9 yuv420p                    | Opus     | any                                     |
| .gif    | one palette of 256 colors      | refused  | any                                     |
| folder/ | 000000.png …, video.json       | refused  | any                                     |
| .rgb    | raw rgb24, no header           | refused  | any                                     |
| .nut    | raw rgb24                      | float32  | any                                     |

Text tags: mp4, mkv, webm keep all; a folder too; gif keeps `comment`; libav's
NUT reader drops a tag of more than 1023 bytes; raw has none.

YUV is BT.709 limited range, converted so and tagged so. The same frames give the same bytes: one
encoding thread, no clock times, no random ids. (AAC and Opus use floating point: between
different processors their bytes may differ.)
"""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import numpy as np

from vidgen.errors import InputError, UsageError
from vidgen.io import gif, picture_folder, video_color

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream


@dataclass(frozen=True)
class Format:
    """How one kind of file is written."""

    muxer: str
    codec: str
    audio_codec: str | None = None
    sample_rates: tuple[int, ...] = ()  # empty: any
    highest_crf: int | None = None  # None: no such setting
    options: dict[str, str] = field(default_factory=dict)  # of the video encoder
    muxer_options: dict[str, str] = field(default_factory=dict)
    even: bool = False  # 4:2:0 H.264 can't hold odd sides


_AAC_RATES = (
    7350,
    8000,
    11025,
    12000,
    16000,
    22050,
    24000,
    32000,
    44100,
    48000,
    64000,
    88200,
    96000,
)
# x264 gives the same bytes for the same frames but for mbtree: its SIMD code uses approximate
# reciprocals, which differ between processors, and (core 165) reads memory past the row, so that
# even one process writes different files in turn. Without it files are larger and better at a crf.
_X264 = {"preset": "medium", "threads": "1", "mbtree": "0"}
_VP9 = {"b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "0", "threads": "1"}

FORMATS: dict[str, Format] = {
    "mp4": Format(
        "mp4", "libx264", "aac", _AAC_RATES, 51, _X264, {"movflags": "+faststart"}, even=True
    ),
    "mkv": Format("matroska", "libx264", "aac", _AAC_RATES, 51, _X264, even=True),
    "webm": Format("webm", "libvpx-vp9", "libopus", (48000,), 63, _VP9),
    "gif": Format("gif", "gif"),
    "png": Format("", "png"),
    "rgb": Format("", "rawvideo"),
    "nut": Format("nut", "rawvideo", "pcm_f32le"),
}
_SMALL_GIF_DELAY_FPS = 50  # below two hundredths of a second viewers show a tenth


def format_of(dest: str | Path) -> str:
    """The key of `FORMATS` for a file or folder name; "png" for a folder (`out/`).

    Raises `UsageError` that lists the choices.
    """
    suffix = Path(dest).suffix.lower()[1:]
    if str(dest).endswith("/") or Path(dest).is_dir():
        return "png"
    if suffix in FORMATS and suffix != "png":
        return suffix
    choices = ", ".join(f".{name}" for name in FORMATS if name != "png")
    raise UsageError(
        f"{dest}: no video format is known by that ending",
        next=f"end the name in {choices}, or in / for a folder of png",
    )


def write_video(
    dest: str | Path | BinaryIO,
    frames: np.ndarray | Iterable[np.ndarray],
    fps: float | Fraction,
    *,
    audio: np.ndarray | None = None,
    sample_rate: int | None = None,
    crf: int = 18,
    metadata: dict[str, str] | None = None,
    format: str | None = None,
) -> None:
    """Writes frames (and audio) as a video that lasts exactly len(frames) / fps.

    Args:
        dest: a path (its ending picks the format; over-written if there) or a binary file object
            (give `format`; a pipe will do). Not atomic, except for a folder of png.
        frames: [T, H, W, 3] uint8 sRGB, or an iterable of [H, W, 3], which is not held in memory
            (except for gif).
        fps: 23.976, 29.97 and 59.94 are taken as the exact 24000/1001 … they stand for.
        audio: [C, S] float32 in −1…1, one or two channels, beginning with the first frame.
        crf: constant quality of H.264 (0…51) and VP9 (0…63): lower is better and larger.
        metadata: text tags; `comment` is where vidgen keeps its log.
        format: a key of `FORMATS`, needed for file objects.
    """
    if format is None:
        if not isinstance(dest, str | Path):
            raise UsageError("a format is needed to write a video to a pipe", next="--format nut")
        format = format_of(dest)
    if format not in FORMATS:
        raise UsageError(f"no format {format!r}; there are {', '.join(FORMATS)}")
    kind = FORMATS[format]
    rate = exact_rate(fps)
    _check(format, kind, rate, audio, sample_rate, crf)
    video = _Video(_checked(frames), rate, audio, sample_rate or 0, crf, metadata or {})
    if format == "png":
        if not isinstance(dest, str | Path):
            raise UsageError("a folder of png can't go to a pipe", next="-o FOLDER/")
        picture_folder.write_folder(Path(dest), video.frames, float(rate), video.tags)
    elif format in ("rgb", "gif", "nut"):
        with _writable(dest) as file:
            if format == "rgb":
                for frame in video.frames:
                    file.write(frame.data)
            elif format == "gif":
                file.write(gif.encode_gif(video.frames, rate, video.tags.get("comment")))
            else:
                _mux(_OnlyWrite(file), video, kind)
    elif isinstance(dest, str | Path):
        _mux(str(dest), video, kind)
    else:  # these go back to fill in their index, which a pipe can't
        with tempfile.TemporaryDirectory(prefix="vidgen-") as folder:
            whole = Path(folder) / f"video.{format}"
            _mux(str(whole), video, kind)
            with whole.open("rb") as source:
                shutil.copyfileobj(source, dest)


def exact_rate(fps: float | Fraction) -> Fraction:
    """The rate as a fraction: 29.97 → 30000/1001, 12.5 → 25/2."""
    if not math.isfinite(fps):
        raise UsageError(f"{fps} frames a second can't be written")
    for broadcast in (24, 30, 48, 60, 120):
        exact = Fraction(1000 * broadcast, 1001)
        if abs(float(fps) - float(exact)) < 0.005:
            return exact
    return Fraction(fps).limit_denominator(1001)


def _check(
    format: str,
    kind: Format,
    rate: Fraction,
    audio: np.ndarray | None,
    sample_rate: int | None,
    crf: int,
) -> None:
    """Everything that can be known to be wrong before the first frame."""
    if not 0 < rate <= 1000:
        raise UsageError(f"{float(rate):g} frames a second: the rate is above 0 and at most 1000")
    if format == "gif" and rate > _SMALL_GIF_DELAY_FPS:
        raise UsageError(
            f"{float(rate):g} frames a second are too many for a gif",
            why="its clock has hundredths of a second, and viewers slow down anything below two",
            next=f"--fps {_SMALL_GIF_DELAY_FPS}, or write a .webm",
        )
    if kind.highest_crf is not None and not 0 <= crf <= kind.highest_crf:
        raise UsageError(f"crf {crf}: {format} takes 0 to {kind.highest_crf}")
    if audio is None:
        return
    if kind.audio_codec is None:
        raise UsageError(f"{format} can't hold audio", next="write .mp4, .webm or .nut")
    if audio.ndim != 2 or audio.dtype != np.float32 or not sample_rate:
        raise ValueError(f"audio is [C, S] float32 with a rate, not {audio.shape} {audio.dtype}")
    if audio.shape[0] not in (1, 2):
        raise UsageError(f"audio has {audio.shape[0]} channels; one or two can be written")


def _checked(frames: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames as contiguous [H, W, 3] uint8 of one size, at least one."""
    size = None
    for frame in frames:
        frame = np.ascontiguousarray(frame)
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise ValueError(f"a frame is [H, W, 3] uint8, not {frame.shape} {frame.dtype}")
        if size not in (None, frame.shape):
            raise ValueError(f"frames differ in size: {size}, {frame.shape}")
        size = frame.shape
        yield frame
    if size is None:
        raise InputError("there are no frames to write")


class _Video(NamedTuple):
    """What is written: checked frames, their rate, and all that goes with them."""

    frames: Iterator[np.ndarray]
    rate: Fraction
    audio: np.ndarray | None
    sample_rate: int
    crf: int
    tags: dict[str, str]


class _OnlyWrite:
    """A file that can't be sought: NUT written to a file is then the same bytes as to a pipe."""

    def __init__(self, file: BinaryIO) -> None:
        self.write = file.write


@contextlib.contextmanager
def _writable(dest: str | Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(dest, str | Path):
        with Path(dest).open("wb") as file:
            yield file
    else:
        yield dest


# --- containers ---------------------------------------------------------------------------------


def _mux(target: str | _OnlyWrite, video: _Video, kind: Format) -> None:
    """Encodes everything into one container, audio interleaved with the frames it sounds under."""
    import av

    first = next(video.frames)
    height, width, _ = first.shape
    below, right = (height % 2, width % 2) if kind.even else (0, 0)
    tags = {"description": f"padded from {width}x{height}"} if below or right else {}
    options = {"fflags": "+bitexact"} | kind.muxer_options
    rate = video.rate
    if kind.muxer == "mp4":  # its default clock of 1 ms would round 17 frames at 23.976 fps
        options["movie_timescale"] = str(rate.numerator * math.ceil(1000 / rate.numerator))
    to_frame = video_color.rgb_frame if kind.codec == "rawvideo" else video_color.RgbToYuv()
    with av.open(target, "w", format=kind.muxer, options=options) as container:
        container.metadata.update(tags | video.tags)
        pictures = _picture_stream(container, kind, rate, width + right, height + below, video.crf)
        sound = None if video.audio is None else _Sound(container, kind, video)
        for index, picture in enumerate(chain([first], video.frames)):
            frame = to_frame(np.pad(picture, ((0, below), (0, right), (0, 0)), mode="edge"))
            frame.pts, frame.time_base, frame.duration = index, 1 / rate, 1
            container.mux(pictures.encode(frame))
            if sound is not None:
                sound.write_until(float((index + 1) / rate))
        container.mux(pictures.encode(None))
        if sound is not None:
            sound.finish()


def _picture_stream(
    container: OutputContainer, kind: Format, rate: Fraction, width: int, height: int, crf: int
) -> VideoStream:
    from av.codec.context import Flags

    stream = cast("VideoStream", container.add_stream(kind.codec, rate=rate))
    stream.width, stream.height = width, height
    stream.time_base = 1 / rate
    context = stream.codec_context
    context.time_base = 1 / rate
    context.flags |= Flags.bitexact
    context.options = dict(kind.options)
    if kind.highest_crf is not None:
        context.options |= {"crf": str(crf)}
    if kind.codec == "rawvideo":
        stream.pix_fmt = "rgb24"
    else:
        stream.pix_fmt = "yuv420p"
        video_color.tag_bt709(context)
    return stream


class _Sound:
    """Feeds audio to its encoder little by little, so that the container can interleave it."""

    def __init__(self, container: OutputContainer, kind: Format, video: _Video) -> None:
        from av.codec.context import Flags

        assert video.audio is not None and kind.audio_codec is not None  # _check saw to it
        self._container = container
        self._samples = np.clip(video.audio, -1, 1)
        self._rate = video.sample_rate
        self._layout = "mono" if len(self._samples) == 1 else "stereo"
        self._written = 0
        known = not kind.sample_rates or self._rate in kind.sample_rates
        self._stream: Any = container.add_stream(
            kind.audio_codec, rate=self._rate if known else 48000, layout=self._layout
        )
        self._stream.codec_context.flags |= Flags.bitexact

    def write_until(self, seconds: float) -> None:
        self._write(min(round(seconds * self._rate), self._samples.shape[1]))

    def finish(self) -> None:
        self._write(self._samples.shape[1])
        self._container.mux(self._stream.encode(None))

    def _write(self, end: int) -> None:
        import av

        if end <= self._written:
            return
        samples = np.ascontiguousarray(self._samples[:, self._written : end])
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts = self._rate, self._written
        frame.time_base = Fraction(1, self._rate)
        self._container.mux(self._stream.encode(frame))
        self._written = end
