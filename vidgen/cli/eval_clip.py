"""One clip for the commands of the family `evaluate-…`: which of its frames are taken, and these
read from a video, a folder of pictures or a record."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vidgen.cli.media import frames_at, own_rate, parse_comment
from vidgen.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from vidgen.io.record import Record
    from vidgen.io.video_info import VideoInfo

LONGEST = 1e9  # seconds that are believed of a header; more of them may be no whole number at all
SKIP = "--skip-bad leaves out what can't be used, and counts it"


@dataclass(frozen=True)
class Sampling:
    """Which frames are taken of a clip.

    num_frames  how many; None is all there are
    stride      every so manieth
    fps         bring the clip to this rate first, by repeating or leaving out frames; None: its own
    start       where the stretch lies
    seed        of a random start, which also depends on the clip's id
    least       frames that whoever asks can't do without: taking fewer is no way out then
    """

    num_frames: int | None
    stride: int = 1
    fps: float | None = None
    start: Literal["first", "middle", "random"] = "first"
    seed: int = 0
    least: int = 1

    @property
    def span(self) -> int | None:
        """Frames from the first to the last one taken."""
        return None if self.num_frames is None else (self.num_frames - 1) * self.stride + 1

    def first(self, there: int, id: str) -> int:
        """The frame to begin with in a clip of so many."""
        spare = there - (self.span or there)
        if spare <= 0 or self.start == "first":
            return 0
        if self.start == "middle":
            return spare // 2
        digest = hashlib.sha256(f"{self.seed} {id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % (spare + 1)

    def settings(self) -> dict[str, Any]:
        """What of it decides the numbers."""
        seed = {"seed": self.seed} if self.start == "random" else {}
        return {
            "num_frames": self.num_frames, "stride": self.stride, "fps": self.fps,
            "start": self.start, **seed,
        }  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """One clip, sampled."""

    id: str
    frames: np.ndarray  # uint8 `t h w 3`
    times: np.ndarray  # `t` seconds from the clip's first frame
    rate: float | None  # frames a second of these; None: not known, `times` are as at 25
    prompt: str | None
    record: Record  # what it was read from; of a video, the frames taken


def of_video(path: str, sampling: Sampling) -> Clip:
    """The frames asked for of a video or a folder of pictures, the others never in memory.

    All of it is decoded, also where only its first frames are taken: a file that is damaged
    further on is not what was meant to be compared, and nothing but decoding tells. Once is enough,
    but for a start that depends on a length which the file doesn't say, or not rightly."""
    import numpy as np

    from vidgen.io.record import Record
    from vidgen.io.video import open_video
    from vidgen.stages.encode_video import id_of_name

    span, fps, every = sampling.span, sampling.fps, sampling.stride
    with open_video(path, fps) as video:
        made = parse_comment(video.metadata.get("comment", "")) or {"attrs": {}, "log": []}
        id = made.get("id") or id_of_name(path)
        info = video.info
        first = sampling.first(_expected(info, fps), id)
        taken, seen = video.stretch(first, span, fps=fps, every=every)
    if sampling.start != "first" and span is not None:
        there = video.num_frames if fps is None else _at_rate(video.end_s, fps)
        _enough(path, there, sampling)
        guessed, first = first, sampling.first(there, id)
        if first != guessed:
            with open_video(path, fps) as video:
                taken, seen = video.stretch(first, span, fps=fps, every=every)
    if not first or not taken:
        _enough(path, first + seen, sampling)
    if sampling.num_frames is not None and len(taken) < sampling.num_frames:
        raise InputError(f"{path}: ends at frame {first + seen}, its header promises more")
    frames, times = [frame.rgb for frame in taken], [frame.time for frame in taken]
    stacked = np.stack(frames)
    rate = (sampling.fps or info.fps) / sampling.stride
    attrs = {
        **made["attrs"], "fps": rate,
        "num_frames": len(frames), "height": stacked.shape[1], "width": stacked.shape[2],
    }  # fmt: skip
    tensors = {"frames": stacked, "times": np.array(times)}
    record = Record.make("frames", id, tensors, attrs, made["log"])
    return Clip(id, stacked, np.array(times), rate, _prompt(record), record)


def _expected(info: VideoInfo, fps: float | None) -> int:
    """How many frames a video has by what it says of itself, as far as it does; at a rate, if one
    is given."""
    said, lasts = info.num_frames, info.duration_s
    if lasts is not None:
        lasts = min(lasts, LONGEST)
    if fps is None:
        return round((lasts or 0.0) * info.fps) if said is None else said
    return _at_rate((said or 0) / info.fps if lasts is None else lasts, fps)


def _at_rate(seconds: float, fps: float) -> int:
    """The frames of so many seconds."""
    return max(1, int(seconds * fps + 1e-6))


def of_record(record: Record, path: str, sampling: Sampling) -> Clip:
    import numpy as np

    from vidgen.io.video_info import DEFAULT_FPS

    name = f"record `{record.id}`" if path == "-" else f"{path}: record `{record.id}`"
    own = own_rate(record)
    if sampling.fps and own is None:
        raise InputError(
            f"{name} doesn't say how many frames a second it has",
            next="leave --fps out, or make the record again with an attr fps",
        )
    frames, rate = frames_at(record, sampling.fps or own or DEFAULT_FPS)
    if "times" in record and rate == own:
        times = record.numpy("times").astype(float)
    else:
        times = np.arange(len(frames)) / rate
    if times.shape != frames.shape[:1]:
        raise InputError(f"{name} has {len(frames)} frames and times {list(times.shape)}")
    _enough(name, len(frames), sampling)
    first = sampling.first(len(frames), record.id)
    stretch = slice(first, None if sampling.span is None else first + sampling.span)
    taken = np.array(frames[stretch][:: sampling.stride])  # a copy: the record may be a mapped file
    shown = times[stretch][:: sampling.stride]
    known = None if own is None else rate / sampling.stride
    return Clip(record.id, taken, shown, known, _prompt(record), record)


def _enough(name: str, there: int, sampling: Sampling) -> None:
    """InputError if a clip is too short."""
    need = sampling.span or 1
    if there >= need:
        return
    at = f" at {sampling.fps:g} a second" if sampling.fps else ""
    every = f", every {sampling.stride}. of {need}" if sampling.stride > 1 else ""
    fewer = "--num-frames takes fewer" if there >= sampling.least else "make longer clips"
    raise InputError(
        f"{name}: has {there} frames{at}, {need} are needed",
        why=f"{sampling.num_frames} frames are taken of each clip{every}" if need > 1 else None,
        next=f"{fewer}; {SKIP}",
    )


def _prompt(record: Record) -> str | None:
    prompt = record.attrs.get("prompt")
    return prompt if isinstance(prompt, str) else None
