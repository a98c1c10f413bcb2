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

YUV is BT.709 limited range, converted so and tagged so. The same frames give the same bytes: one
encoding thread, no clock times, no random ids. (AAC and Opus use floating point: between
different processors their bytes may differ.)
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from vidgen.errors import InputError, UsageError
from vidgen.io import picture_folder, video_color, video_container

if TYPE_CHECKING:
    from av import VideoFrame
    from av.audio.stream import AudioStream
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
_X264 = {"preset": "medium", "threads": "1"}
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
        metadata: text tags; `comment` is where vidgen keeps its log. Not kept by "rgb".
        format: a key of `FORMATS`, needed for file objects.
    """
    path = None if hasattr(dest, "write") else Path(dest)
    if format is None:
        if path is None:
            raise UsageError("a format is needed to write a video to a pipe", next="--format nut")
        format = format_of(dest)
    kind = FORMATS[format]
    rate = exact_rate(fps)
    _check(format, kind, rate, audio, sample_rate, crf)
    pictures = _checked(frames)
    tags = metadata or {}
    if format == "png":
        if path is None:
            raise UsageError("a folder of png can't go to a pipe", next="-o FOLDER/")
        picture_folder.write_folder(path, pictures, float(rate), tags)
    elif format == "rgb":
        _write_raw(path or dest, pictures)
    elif format == "gif":
        _write_whole(path or dest, _gif_bytes(pictures, rate, tags))
    elif format == "nut" or path is not None:
        target = dest if path is None else str(path)
        _mux(target, pictures, rate, audio, sample_rate, crf, tags, kind)
    else:  # these go back to fill in their index, which a pipe can't
        with tempfile.TemporaryDirectory(prefix="vidgen-") as folder:
            file = Path(folder) / f"video.{format}"
            _mux(str(file), pictures, rate, audio, sample_rate, crf, tags, kind)
            with file.open("rb") as whole:
                shutil.copyfileobj(whole, dest)


def exact_rate(fps: float | Fraction) -> Fraction:
    """The rate as a fraction: 29.97 → 30000/1001, 12.5 → 25/2."""
    rate = Fraction(fps)
    broadcast = Fraction(round(rate * Fraction(1001, 1000)) * 1000, 1001)
    if rate.denominator > 1001 and abs(rate - broadcast) < Fraction(1, 200):
        return broadcast
    return rate.limit_denominator(1001)


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


# --- plain bytes --------------------------------------------------------------------------------


def _write_raw(dest: Path | BinaryIO, pictures: Iterator[np.ndarray]) -> None:
    if isinstance(dest, Path):
        with dest.open("wb") as file:
            _write_raw(file, pictures)
        return
    for picture in pictures:
        dest.write(picture.data)


def _write_whole(dest: Path | BinaryIO, data: bytes) -> None:
    if isinstance(dest, Path):
        dest.write_bytes(data)
    else:
        dest.write(data)


# --- containers ---------------------------------------------------------------------------------


def _mux(
    target: str | BinaryIO,
    pictures: Iterator[np.ndarray],
    rate: Fraction,
    audio: np.ndarray | None,
    sample_rate: int | None,
    crf: int,
    tags: dict[str, str],
    kind: Format,
) -> None:
    """Encodes everything into one container, audio interleaved with the frames it sounds under."""
    import av

    first = next(pictures)
    height, width, _ = first.shape
    padding = (height % 2, width % 2) if kind.even else (0, 0)
    if any(padding):
        tags = {"description": f"padded from {width}x{height}"} | tags
    options = {"fflags": "+bitexact"} | kind.muxer_options
    with av.open(target, "w", format=kind.muxer, options=options) as container:
        container.metadata.update(tags)
        video = _video_stream(container, kind, rate, width + padding[1], height + padding[0], crf)
        sound = None
        if audio is not None:
            sound = _Sound(container, kind, audio, sample_rate)
        to_frame = _Converter(kind, padding)
        for index, picture in enumerate(chain([first], pictures)):
            frame = to_frame(picture)
            frame.pts, frame.time_base, frame.duration = index, 1 / rate, 1
            container.mux(video.encode(frame))
            if sound is not None:
                sound.write_until(float((index + 1) / rate))
        container.mux(video.encode(None))
        if sound is not None:
            sound.finish()


def _video_stream(
    container: OutputContainer, kind: Format, rate: Fraction, width: int, height: int, crf: int
) -> VideoStream:
    from av.codec.context import Flags

    stream = container.add_stream(kind.codec, rate=rate)
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


class _Converter:
    """[H, W, 3] uint8 → the frame that a codec takes, padded to even sides where it must be."""

    def __init__(self, kind: Format, padding: tuple[int, int]) -> None:
        self._padding = ((0, padding[0]), (0, padding[1]), (0, 0))
        self._convert = (
            video_color.rgb_frame if kind.codec == "rawvideo" else video_color.RgbToYuv()
        )

    def __call__(self, picture: np.ndarray) -> VideoFrame:
        if self._padding != ((0, 0), (0, 0), (0, 0)):
            picture = np.pad(picture, self._padding, mode="edge")
        return self._convert(picture)


class _Sound:
    """Feeds audio to its encoder little by little, so that the container can interleave it."""

    def __init__(
        self, container: OutputContainer, kind: Format, audio: np.ndarray, sample_rate: int
    ) -> None:
        from av.codec.context import Flags

        self._container = container
        self._audio = np.ascontiguousarray(np.clip(audio, -1, 1))
        self._rate = sample_rate
        self._layout = "mono" if len(audio) == 1 else "stereo"
        self._written = 0
        known = not kind.sample_rates or sample_rate in kind.sample_rates
        stream_rate = sample_rate if known else kind.sample_rates[-1]
        self._stream: AudioStream = container.add_stream(
            kind.audio_codec, rate=stream_rate, layout=self._layout
        )
        self._stream.codec_context.flags |= Flags.bitexact

    def write_until(self, seconds: float) -> None:
        self._write(min(round(seconds * self._rate), self._audio.shape[1]))

    def finish(self) -> None:
        self._write(self._audio.shape[1])
        self._container.mux(self._stream.encode(None))

    def _write(self, end: int) -> None:
        import av

        if end <= self._written:
            return
        samples = np.ascontiguousarray(self._audio[:, self._written : end])
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts = self._rate, self._written
        frame.time_base = Fraction(1, self._rate)
        self._container.mux(self._stream.encode(frame))
        self._written = end


# --- gif ----------------------------------------------------------------------------------------


def _gif_bytes(pictures: Iterator[np.ndarray], rate: Fraction, tags: dict[str, str]) -> bytes:
    """A looping GIF with one palette for all frames, so that still areas don't flicker."""
    import av

    file = io.BytesIO()
    first = next(pictures)
    height, width, _ = first.shape
    with av.open(
        file, "w", format="gif", options={"fflags": "+bitexact", "loop": "0"}
    ) as container:
        stream = container.add_stream("gif", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        stream.codec_context.time_base = 1 / rate
        graph = _palette_graph(width, height, rate)
        for index, picture in enumerate(chain([first], pictures)):
            frame = video_color.rgb_frame(picture)
            frame.pts, frame.time_base = index, 1 / rate
            graph.push(frame)
        graph.push(None)
        for frame in _pulled(graph):
            frame.duration = 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    gif = file.getvalue()
    comment = tags.get("comment")
    return gif if comment is None else video_container.with_gif_comment(gif, comment)


def _palette_graph(width: int, height: int, rate: Fraction) -> Any:
    """split → palettegen → paletteuse, as ffmpeg's own advice for GIFs has it."""
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=1 / rate)
    split = graph.add("split")
    palette = graph.add("palettegen", "reserve_transparent=0:stats_mode=full")
    use = graph.add("paletteuse", "dither=sierra2_4a:diff_mode=rectangle")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph


def _pulled(graph: Any) -> Iterator[VideoFrame]:
    import av

    while True:
        try:
            yield graph.pull()
        except (av.error.EOFError, av.error.BlockingIOError):
            return
