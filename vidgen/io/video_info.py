"""The types that reading a video gives: what a file is, and one frame with its time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np

DEFAULT_FPS = 25.0  # what ffmpeg assumes where nothing states a rate


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says about itself, without decoding more than its first frame."""

    container: str  # libavformat's name, e.g. "mov,mp4,m4a,3gp,3g2,mj2", or "pictures"
    codec: str
    pix_fmt: str
    width: int  # as returned: after rotation, without padding
    height: int
    num_frames: int | None  # None where the container doesn't say (webm, live recordings)
    fps: float  # the average rate where it varies
    duration_s: float | None  # of the video stream; None where nothing says
    start_s: float  # container time of the first frame; `times` count from it
    rotation: int  # degrees clockwise that were applied: 0, 90, 180, 270
    pixel_aspect: float  # width of a pixel / its height
    matrix: str  # "bt709", "bt601", "bt2020", "rgb" …
    matrix_stated: bool  # False: guessed from the size
    full_range: bool
    has_audio: bool
    sample_rate: int | None
    channels: int | None


class TimedFrame(NamedTuple):
    """One frame: shown from `time` for `duration` (seconds); `rgb` is [H, W, 3] uint8.

    A frame that resampling repeats is the same array again: copy it before writing into it.
    """

    time: float
    duration: float
    rgb: np.ndarray


class Moment(NamedTuple):
    """A TimedFrame whose picture isn't RGB yet (one that is skipped never becomes it)."""

    time: float
    duration: float
    picture: Any


class Source(Protocol):
    """What frames are read from: a video file or a folder of pictures."""

    path: Path
    tick_s: float  # times are known to this precision
    decodes: bool  # `moments` decodes, and not only `to_rgb`

    def info(self) -> VideoInfo: ...  # before the moments, which are had once
    def moments(self) -> Iterator[Moment]: ...
    def to_rgb(self, picture: Any) -> np.ndarray: ...
    def metadata(self) -> dict[str, str]: ...
