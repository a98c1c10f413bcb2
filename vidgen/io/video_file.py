"""One video file, opened with PyAV: its description, its frames in order, its damage, its audio.

Damage is never passed over. Three things count as damage: libav says so (a packet or a frame that
can't be decoded), an MP4 holds fewer packets than its index lists, or the container ends before
the place that it states (`video_container`). A frame count that is only a header's estimate
(AVI, MPEG-TS) is not held against a file.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vidgen.errors import InputError
from vidgen.io import gif, video_color, video_container
from vidgen.io.video_info import DEFAULT_FPS, Moment, VideoInfo

if TYPE_CHECKING:
    from av import VideoCodecContext, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

# What `write_video` leaves in `description` when it had to make the sides even.
PADDING_NOTE = re.compile(r"padded from (\d+)x(\d+)")

# Decoders that keep the alpha plane of VP8 and VP9.
_LIBVPX = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


# Pixels of a picture up to which a decoder's threads take longer to start than they save: 16 frames
# of 128 x 80 took three times as long with them.
SMALL = 128 * 128


class _Damage(Exception):
    """Something is wrong with the file; `in_picture` where a decoded picture shows it."""

    def __init__(self, why: str, *, in_picture: bool = False) -> None:
        super().__init__(why)
        self.in_picture = in_picture


class VideoFile:
    """An open container and its best video stream, which is decoded once."""

    decodes = True

    def __init__(self, path: Path, container: InputContainer) -> None:
        from av.video.reformatter import VideoReformatter

        stream = container.streams.best("video")
        if stream is None:
            raise InputError(f"{path}: has no video stream")
        self.path = path
        self.container = container
        self.stream = cast("VideoStream", stream)
        self.tick_s = float(stream.time_base or 0)
        self.rate = self._average_rate()
        self._reformatter = VideoReformatter()
        self._decoding = self._frames()
        self._pictures: Iterator[VideoFrame] = self._decoding

    def close(self) -> None:
        """Let go of the pictures: what decodes them refers back to this."""
        self._decoding.close()
        self._pictures = iter(())

    def info(self) -> VideoInfo:
        """Decodes the first frame, because only that tells rotation and (webm) colors."""
        first = next(self._pictures, None)
        if first is None:
            raise InputError(f"{self.path}: has no frames")
        self._pictures = chain([first], self._pictures)
        with self._named():
            turn = video_color.orientation(first)
            matrix, stated = video_color.matrix_of(first)
        width, height = self._unpadded(first)
        aspect = float(self.stream.sample_aspect_ratio or 1)
        if video_color.is_transposed(turn):
            width, height, aspect = height, width, 1 / aspect
        audio: Any = self.container.streams.best("audio")
        return VideoInfo(
            container=self.container.format.name,
            codec=self.stream.codec_context.name,
            pix_fmt=first.format.name,
            width=width,
            height=height,
            num_frames=self.stream.frames or None,
            fps=self.rate,
            duration_s=self._duration(),
            start_s=self._seconds(first) or 0.0,
            rotation=video_color.clockwise_degrees(turn),
            pixel_aspect=aspect,
            matrix=matrix,
            matrix_stated=stated,
            full_range=video_color.is_full_range(first),
            has_audio=audio is not None,
            sample_rate=audio.rate if audio else None,
            channels=audio.channels if audio else None,
        )

    def metadata(self) -> dict[str, str]:
        tags = {name.lower(): text for name, text in self.container.metadata.items()}
        comment = gif.read_comment(self.path)
        return tags if comment is None else tags | {"comment": comment}

    def to_rgb(self, picture: VideoFrame) -> np.ndarray:
        """[H, W, 3] uint8, without padding and the right way up."""
        width, height = self._unpadded(picture)
        with self._named():
            rgb = video_color.to_rgb(picture, self._reformatter)[:height, :width]
            return video_color.orient(rgb, video_color.orientation(picture))

    def moments(self) -> Iterator[Moment]:
        """Frames with their times from the first one; each lasts until the next begins."""
        frames, damage = self._pictures, None
        start, held, index = 0.0, None, 0
        while True:
            try:
                frame = next(frames, None)
            except InputError as error:  # what came before it is still good
                frame, damage = None, error
            if frame is None:
                break
            seconds = self._seconds(frame)
            if seconds is None:  # a raw stream has no times
                seconds = index / self.rate
            if held is None:
                start = seconds
            else:
                yield held._replace(duration=seconds - start - held.time)
            held = Moment(seconds - start, self._lasts(frame), frame)
            index += 1
        if held is not None:
            yield held
        if damage is not None:
            raise damage

    def _frames(self) -> Generator[VideoFrame]:
        """All frames in the order shown; at damage, those before it and then `InputError`."""
        shown = 0
        try:
            for frame in self._decode(self._decoder()):
                yield frame
                shown += 1
        except _Damage as damage:
            # Several threads stop at different frames, before the fault or behind it; one alone
            # says which come before it.
            good = 0
            for frame in _frames_before_damage(self.path):
                good += 1
                if good > shown:
                    yield frame
            total = f" of {self.stream.frames}" if self.stream.frames > good else ""
            raise InputError(
                f"{self.path}: the video is damaged: the first {good}{total} frames can be read",
                why=str(damage),
                next="get the file again, or use only the frames before the damage",
            ) from damage

    def _decode(self, decoder: VideoCodecContext) -> Iterator[VideoFrame]:
        """All frames; raises `_Damage` where something is wrong with the file."""
        import av

        packets = 0
        try:
            for packet in self.container.demux(self.stream):
                packets += bool(packet.size)
                if packet.is_corrupt:
                    raise _Damage("the file ends inside a frame")
                for frame in decoder.decode(packet if packet.size else None):
                    if frame.is_corrupt:
                        raise _Damage("a frame could only be guessed at", in_picture=True)
                    yield frame
        except av.FFmpegError as error:
            raise _Damage(str(error.strerror).lower()) from error
        # An MP4's index says how many there are; libavformat ends quietly where the bytes end.
        if "mp4" in self.container.format.name and packets < len(self.stream.index_entries):
            raise _Damage("the file ends before its last frame")
        if why := video_container.cut_off(self.path):
            raise _Damage(why)

    def _decoder(self, threads: str | None = None) -> VideoCodecContext:
        """The stream's decoder; libvpx for VP8 and VP9 with alpha, which libavcodec's own drop.

        Pictures that are large enough to be worth it are decoded in several threads.
        """
        import av

        codec = self.stream.codec_context
        threads = threads or ("AUTO" if codec.width * codec.height > SMALL else "NONE")
        name = codec.name
        if self.stream.metadata.get("alpha_mode") == "1" and name in _LIBVPX:
            return cast("VideoCodecContext", av.CodecContext.create(_LIBVPX[name], "r"))
        self.stream.thread_type = threads
        return codec

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Puts the file's name before errors that only know about pictures."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.path}: {error.what}", why=error.why, next=error.next) from None

    def _unpadded(self, frame: VideoFrame) -> tuple[int, int]:
        """(width, height) as stored, without what `write_video` added to make them even."""
        note = PADDING_NOTE.search(self.container.metadata.get("description", ""))
        if note:
            width, height = int(note[1]), int(note[2])
            if 0 <= frame.width - width <= 1 and 0 <= frame.height - height <= 1:
                return width, height
        return frame.width, frame.height

    def _seconds(self, frame: VideoFrame) -> float | None:
        return None if frame.pts is None else frame.pts * self.tick_s

    def _lasts(self, frame: VideoFrame) -> float:
        """How long the file says the frame is shown, else one interval of the average rate."""
        return (frame.duration or 0) * self.tick_s or 1 / self.rate

    def _average_rate(self) -> float:
        """Frames a second. A GIF's is computed: libavformat only looks at its first delays."""
        if self.container.format.name == "gif" and self.stream.duration:
            return self.stream.frames / (self.stream.duration * self.tick_s)
        return float(self.stream.average_rate or self.stream.guessed_rate or DEFAULT_FPS)

    def _duration(self) -> float | None:
        """Of the video stream; Matroska writers note it in a tag, else the container's."""
        if self.stream.duration is not None:
            return self.stream.duration * self.tick_s
        if tag := re.fullmatch(
            r"(\d+):(\d+):(\d+\.?\d*)", self.stream.metadata.get("DURATION", "")
        ):
            return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
        duration = self.container.duration
        return None if duration is None else duration / 1_000_000


def _frames_before_damage(path: Path) -> Iterator[VideoFrame]:
    """The frames that can be decoded before the first fault, found with a single thread."""
    import av

    with av.open(str(path), metadata_errors="replace") as container:
        file = VideoFile(path, container)
        decoder = file._decoder("NONE")
        try:
            yield from file._decode(decoder)
        except _Damage as damage:
            if damage.in_picture:
                return
            with contextlib.suppress(av.FFmpegError):  # those held back for reordering
                yield from decoder.decode(None)


def read_audio(path: str | Path, start_s: float, end_s: float | None = None) -> np.ndarray:
    """The best audio stream between two container times, [C, S] float32.

    Audio that begins after `start_s` gets silence before it, so that sample 0 is at `start_s`.
    """
    import av

    parts: list[np.ndarray] = []
    first_s, rate = None, 1
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream: Any = container.streams.best("audio")
            rate, channels = stream.rate, stream.channels
            # Encoders fill their last block with silence; where the length is stated, it is cut.
            length = stream.duration and round(float(stream.duration * stream.time_base) * rate)
            to_float = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
            frame: Any
            for frame in container.decode(stream):
                first_s = frame.time if first_s is None else first_s
                if end_s is not None and frame.time is not None and frame.time > end_s:
                    break
                parts += [part.to_ndarray() for part in to_float.resample(frame)]
            parts += [part.to_ndarray() for part in to_float.resample(None)]
    except (av.FFmpegError, ValueError) as error:
        seconds = sum(part.shape[1] for part in parts) / rate
        raise InputError(
            f"{path}: the audio is damaged: the first {seconds:.2f} s of it can be read",
            why=str(error),
        ) from error
    samples = np.concatenate([np.zeros((channels, 0), np.float32), *parts], axis=1)[:, :length]
    offset = round((start_s - (first_s or 0.0)) * rate)
    samples = np.pad(samples, ((0, 0), (max(-offset, 0), 0)))[:, max(offset, 0) :]
    if end_s is not None:
        samples = samples[:, : round((end_s - start_s) * rate)]
    return np.ascontiguousarray(samples)
