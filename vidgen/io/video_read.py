"""Reading videos: any container and codec that PyAV's libavformat knows, and folders of pictures.

Frames come out the right way up (display matrix applied), as sRGB uint8 full range (see
`video_color`), each with the time at which it is first shown, in seconds from the first frame.
Pixels that aren't square stay as stored; `VideoInfo.pixel_aspect` says so. Of several video
streams the best is taken, as ffmpeg does (largest picture, no cover art).

A file that can't be decoded to its end raises `InputError` with the number of frames that came
before the damage; those can be had with `num_frames`.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

from vidgen.errors import InputError, UsageError
from vidgen.io.picture_folder import PictureFolder
from vidgen.io.video_file import VideoFile, read_audio
from vidgen.io.video_info import Moment, Source, TimedFrame, VideoInfo


def probe(path: str | Path) -> VideoInfo:
    """Size, rate, colors and audio of a video file or a folder of pictures.

    Raises `InputError` where it can't be opened, has no video, or its first frame is damaged.
    """
    with _open(path) as source:
        return source.info()


def iter_frames(
    path: str | Path,
    *,
    start: int = 0,
    num_frames: int | None = None,
    fps: float | None = None,
    exact: bool = True,
) -> Iterator[TimedFrame]:
    """The frames one by one, so that a long video needn't fit in memory.

    Args:
        path: a video file, or a folder of pictures.
        start: the first frame to return (counted after resampling).
        num_frames: how many; None is all. Fewer in the file raises `InputError` at the end.
        fps: resample to this constant rate: the frame at k/fps is the last one that began by
            then. The duration is kept: frames are repeated or left out, never sped up. For a
            folder that states no rate, this is its rate.
        exact: False makes `num_frames` the most that is wanted: a shorter video is no error.
    """
    _check_asked(start, num_frames, fps)
    return _iterate(path, start, num_frames, fps, exact)


class OpenVideo:
    """A video that is open: what it says of itself, and all of its frames, decoded once.

    num_frames, end_s  what was decoded so far: frames, and when the last one ends (seconds from
                       the first). After `stretch` and `to_end` that is the whole video, whatever
                       its header says.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rgb = _Rgb(source)
        self._decoded = self._decode()
        self.num_frames, self.end_s = 0, 0.0

    @cached_property
    def metadata(self) -> dict[str, str]:
        """As `read_video_metadata` gives it."""
        return self._source.metadata()

    @cached_property
    def info(self) -> VideoInfo:
        """As `probe` gives it; to be asked for before the frames."""
        return self._source.info()

    def stretch(
        self,
        start: int = 0,
        num_frames: int | None = None,
        *,
        fps: float | None = None,
        every: int = 1,
    ) -> tuple[list[TimedFrame], int]:
        """The frames that `iter_frames` gives (with exact=False), of them each `every`th, and how
        many there were without `every`. Only those that are given are made RGB.

        All of the video is decoded: damage anywhere in it is an `InputError`, and said before
        anything else that may be wrong with the frames asked for, which may come from it.
        """
        _check_asked(start, num_frames, fps)
        moments = _stretch(self._decoded, self._source, start, num_frames, fps)
        frames, length = [], 0
        try:
            for length, moment in enumerate(moments, 1):
                if (length - 1) % every == 0:
                    frames.append(TimedFrame(moment.time, moment.duration, self._rgb(moment)))
        except InputError:
            self.to_end()
            raise
        self.to_end()
        return frames, length

    def to_end(self) -> None:
        """Decode what hasn't been yet. `InputError` at damage."""
        deque(self._decoded, maxlen=0)

    def _decode(self) -> Iterator[Moment]:
        for moment in self._source.moments():
            if not self._source.decodes:
                self._rgb(moment)
            self.num_frames += 1
            self.end_s = moment.time + moment.duration
            yield moment


@contextlib.contextmanager
def open_video(path: str | Path, fps: float | None = None) -> Iterator[OpenVideo]:
    """Open a video file or a folder of pictures once for all that is to be known of it. `fps` is
    the rate of a folder that states none."""
    with _open(path, fps) as source:
        yield OpenVideo(source)


def read_video(
    path: str | Path,
    *,
    start: int = 0,
    num_frames: int | None = None,
    fps: float | None = None,
    exact: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int | None, VideoInfo]:
    """A whole video, or a stretch of it (arguments as in `iter_frames`).

    Returns:
        frames [T, H, W, 3] uint8 sRGB; times [T] float64 seconds from the video's first frame;
        audio [C, S] float32 in −1…1 that begins with the first returned frame, or None; its
        sample rate, or None; and the info, in which `num_frames`, `fps` and `duration_s` are
        those of what is returned.
    """
    pixels, times, end = bytearray(), [], 0.0
    for frame in iter_frames(path, start=start, num_frames=num_frames, fps=fps, exact=exact):
        pixels += frame.rgb.data
        times.append(frame.time)
        end = frame.time + frame.duration
    if not times:
        raise InputError(f"{path}: has no frame {start}", next=f"vidgen inspect {path}")
    height, width, _ = frame.rgb.shape
    frames = rearrange(
        np.frombuffer(pixels, np.uint8), "(t h w c) -> t h w c", h=height, w=width, c=3
    )
    info = probe(path)
    audio = None
    if info.has_audio:
        begin = info.start_s + times[0]
        audio = read_audio(path, begin, None if num_frames is None else info.start_s + end)
    info = replace(
        info,
        num_frames=len(times),
        fps=info.fps if fps is None else fps,
        duration_s=end - times[0],
    )
    return frames, np.array(times), audio, info.sample_rate, info


def read_video_metadata(path: str | Path) -> dict[str, str]:
    """The container's text tags with lower-case names; `comment` holds vidgen's log as JSON."""
    with _open(path) as source:
        return source.metadata()


def _iterate(
    path: str | Path, start: int, num_frames: int | None, fps: float | None, exact: bool
) -> Iterator[TimedFrame]:
    with _open(path, fps) as source:
        rgb, count = _Rgb(source), 0
        for moment in _stretch(source.moments(), source, start, num_frames, fps):
            yield TimedFrame(moment.time, moment.duration, rgb(moment))
            count += 1
    if exact and num_frames is not None and count < num_frames:
        raise InputError(
            f"{path}: has only {count} of the {num_frames} frames asked for from frame {start} on"
        )


def _check_asked(start: int, num_frames: int | None, fps: float | None) -> None:
    if start < 0 or (num_frames is not None and num_frames < 1):
        raise UsageError(f"frames {start} + {num_frames}: start is 0 or more, the number 1 or more")
    if fps is not None and not 0 < fps <= 1000:
        raise UsageError(f"{fps:g} frames a second: the rate is above 0 and at most 1000")


class _Rgb:
    """Moments' pictures as [H, W, 3] uint8, one that comes again right away being the same array.
    `InputError` where the size changes."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._picture: Any = None
        self._made: np.ndarray | None = None

    def __call__(self, moment: Moment) -> np.ndarray:
        previous = self._made
        if previous is not None and moment.picture is self._picture:
            return previous
        made = self._source.to_rgb(moment.picture)
        if previous is not None and previous.shape != made.shape:
            path = self._source.path
            raise InputError(
                f"{path}: the picture changes size at {moment.time:.3f} s, "
                f"from {_size(previous)} to {_size(made)}",
                next=f"ffmpeg -i {path} -vf scale={_size(previous)} OUT.mp4",
            )
        self._picture, self._made = moment.picture, made
        return made


def _stretch(
    moments: Iterator[Moment], source: Source, start: int, num_frames: int | None, fps: float | None
) -> Iterator[Moment]:
    """Those asked for, at their own rate or at `fps`."""
    if fps is not None:
        moments = _at_rate(moments, fps, source.tick_s)
    return islice(moments, start, None if num_frames is None else start + num_frames)


def _at_rate(moments: Iterator[Moment], fps: float, tick_s: float) -> Iterator[Moment]:
    """The moment at each k/fps: the last that began by then, up to the end of the last one."""
    # A container with a coarse clock (webm: 1 ms) rounds 1/24 s up to 0.042. Half a tick of grace
    # makes that frame count as begun at 1/24, where otherwise the one before would be repeated.
    grace = min(tick_s / 2, 0.1 / fps) + 1e-9
    k, moment = 0, None
    for moment in moments:
        while k / fps + grace < moment.time + moment.duration:
            yield Moment(k / fps, 1 / fps, moment.picture)
            k += 1
    if k == 0 and moment is not None:  # all of it is shorter than the grace
        yield Moment(0.0, 1 / fps, moment.picture)


def _size(rgb: np.ndarray) -> str:
    return f"{rgb.shape[1]}x{rgb.shape[0]}"


@contextlib.contextmanager
def _open(path: str | Path, fps: float | None = None) -> Iterator[Source]:
    path = Path(path)
    if path.is_dir():
        yield PictureFolder(path, fps)
        return
    if not path.exists():
        raise UsageError(f"{path}: no such file")
    import av

    try:
        container = av.open(str(path), metadata_errors="replace")
    except av.FFmpegError as error:
        raise InputError(
            f"{path}: can't be read as a video ({error.strerror})",
            why="it isn't one, or it was cut before its index was written",
        ) from error
    with container, contextlib.closing(VideoFile(path, container)) as file:
        yield file
