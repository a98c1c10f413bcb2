"""`vidgen contact-sheet`: frames of videos side by side in one picture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vidgen.cli.console import Console, printable
from vidgen.cli.media import content_of, frames_at, history_of, own_rate
from vidgen.cli.options import FileOutput, argument, option
from vidgen.cli.page import Page
from vidgen.cli.runner import check_output, require_stdin
from vidgen.errors import InputError, UsageError

if TYPE_CHECKING:
    import numpy as np

PAGE = Page(
    name="contact-sheet",
    summary="frames of videos side by side in one picture",
    description="""\
Makes one PNG with a strip for each clip: frames at even times from the first to the last one, and
above them the prompt, where the clip knows it, or else its name. For looking at many samples at
once, in a report or in a pull request.

Clips may differ in size and length. Frames are shown about 160 pixels wide unless --scale says
otherwise; small ones are enlarged by whole factors, so that their pixels stay visible.""",
    reads="frames records or video files from IN",
    writes="a PNG picture to -o",
    examples=[
        ("vidgen contact-sheet clip.mp4 ball.mp4 -o sheet.png", "two videos"),
        ("vidgen contact-sheet clip.safetensors --frames 8 -o strip.png", "eight of a record"),
        ("cat clip.safetensors | vidgen contact-sheet --columns 2 > sheet-2.png", "in a pipe"),
    ],
    see_also=["vidgen-decode(1)", "vidgen-convert(1)"],
)  # fmt: skip

WIDTH = 160  # pixels of a frame, about

Inputs = Annotated[
    list[str] | None,
    argument("IN", "videos, folders of pictures, files of frames records; - is standard input"),
]
Columns = Annotated[
    int, option("--columns", metavar="N", min=1, max=100, help="strips side by side")
]
Frames = Annotated[int, option("--frames", metavar="N", min=1, max=1000, help="frames of a strip")]
Scale = Annotated[
    float | None,
    option("--scale", metavar="X", min=0.01, max=64, default="to about 160 pixels wide",
           help="how many times the size of a frame"),
]  # fmt: skip


def contact_sheet(
    out: FileOutput,
    console: Console,
    inputs: Inputs = None,
    *,
    columns: Columns = 1,
    frames: Frames = 5,
    scale: Scale = None,
) -> None:
    from vidgen.io import image
    from vidgen.io.files import atomic_write
    from vidgen.io.pattern import is_pattern

    paths = inputs or ["-"]
    if "-" in paths:
        require_stdin()
    if is_pattern(out.output):
        raise UsageError(f"{out.output}: all clips are on one sheet", next="-o sheet.png")
    check_output(out)
    strips, labels = [], []
    for label, clip in _clips(paths, frames):
        strips.append(_scaled(clip, scale))
        labels.append(printable(label))
        console.note(f"{label}: {len(clip)} frames")
    if not strips:
        raise InputError("there is no clip to show")
    sheet = image.contact_sheet(strips, labels, min(columns, len(strips)), frames)
    if out.output == "-":
        image.write_png(sys.stdout.buffer, sheet)
        return
    with atomic_write(out.output, force=out.force) as f:
        image.write_png(f, sheet)


def _clips(paths: list[str], count: int) -> Iterator[tuple[str, np.ndarray]]:
    """(label, `count` frames at even times) of each clip."""
    from vidgen.io.stream import read_stream

    for path in paths:
        if content_of(path) == "video":
            made = history_of(path) or {"attrs": {}, "id": Path(path).stem}
            yield str(made["attrs"].get("prompt") or Path(path).stem), _of_video(path, count)
            continue
        for record in read_stream(path):
            every, _ = frames_at(record, own_rate(record) or 1)
            yield str(record.attrs.get("prompt") or record.id), every[_even(len(every), count)]


def _even(length: int, count: int) -> np.ndarray:
    """`count` places from the first to the last of `length`; all of them if there are fewer."""
    import numpy as np

    return np.rint(np.linspace(0, length - 1, min(count, length))).astype(int)


def _of_video(path: str, count: int) -> np.ndarray:
    """Frames of a video at even times. It is read twice, so that it need not fit in memory: how
    long it lasts is known for certain only at its end."""
    import numpy as np

    from vidgen.io.video import iter_frames

    times = [frame.time for frame in iter_frames(path)]
    if not times:
        raise InputError(f"{path}: has no frames")
    wanted = np.linspace(0, times[-1], min(count, len(times)))
    nearest = {int(np.abs(np.array(times) - t).argmin()) for t in wanted}
    return np.stack([frame.rgb for i, frame in enumerate(iter_frames(path)) if i in nearest])


def _scaled(clip: np.ndarray, scale: float | None) -> np.ndarray:
    """The clip [T, H, W, 3] at its size on the sheet."""
    import numpy as np
    from PIL import Image

    width = clip.shape[2]
    if scale is None:
        scale = max(1, WIDTH // width) if width <= WIDTH else WIDTH / width
    if scale == 1:
        return clip
    exact = scale > 1 and float(scale).is_integer()
    method = Image.Resampling.NEAREST if exact else Image.Resampling.LANCZOS
    size = tuple(max(1, round(side * scale)) for side in (width, clip.shape[1]))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, method)) for frame in clip])
