"""Videos in and out: `probe`, `read_video`, `iter_frames`, `open_video` (all of these in one pass),
`write_video`, `read_video_metadata`.

Frames are [T, H, W, 3] uint8 sRGB full range everywhere, whatever a file holds. Importing this
module imports numpy but not PyAV, which is imported when a file is opened.
"""

from __future__ import annotations

from vidgen.io.video_info import TimedFrame, VideoInfo
from vidgen.io.video_read import (
    OpenVideo,
    iter_frames,
    open_video,
    probe,
    read_video,
    read_video_metadata,
)
from vidgen.io.video_write import FORMATS, format_of, write_video

__all__ = [
    "FORMATS",
    "OpenVideo",
    "TimedFrame",
    "VideoInfo",
    "format_of",
    "iter_frames",
    "open_video",
    "probe",
    "read_video",
    "read_video_metadata",
    "write_video",
]
