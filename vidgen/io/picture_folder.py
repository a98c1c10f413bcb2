"""A video as a folder of numbered pictures, and the file `video.json` that says what they lack.

Any folder of PNG, JPEG or WebP pictures of one size can be read, in the natural order of their
names (`frame-9` before `frame-10`). Folders we write also hold `video.json` with the rate and the
metadata, so that reading one back gives the same times and the same log.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vidgen.errors import InputError, UsageError
from vidgen.io import image
from vidgen.io.video_info import DEFAULT_FPS, Moment, VideoInfo

SIDECAR = "video.json"
SCHEMA = "vidgen.picture-folder/1"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class PictureFolder:
    """A folder of pictures as a video `Source`, at its own rate, else at `fps`, else at 25."""

    tick_s = 0.0
    decodes = False

    def __init__(self, path: Path, fps: float | None = None) -> None:
        self.path = path
        self.files = sorted(
            (file for file in path.iterdir() if file.suffix.lower() in SUFFIXES), key=_natural
        )
        self.sidecar = _read_sidecar(path)
        self.rate = float(self.sidecar.get("fps") or fps or DEFAULT_FPS)
        if not self.files:
            raise InputError(f"{path}: has no pictures ({', '.join(SUFFIXES)})")
        stated = self.sidecar.get("num_frames", len(self.files))
        if stated != len(self.files):
            raise InputError(
                f"{path}: has {len(self.files)} pictures, {SIDECAR} says {stated}",
                next=f"put the missing ones back, or remove {path / SIDECAR}",
            )

    def info(self) -> VideoInfo:
        height, width, _ = self.to_rgb(self.files[0]).shape
        return VideoInfo(
            container="pictures",
            codec=self.files[0].suffix.lower()[1:],
            pix_fmt="rgb24",
            width=width,
            height=height,
            num_frames=len(self.files),
            fps=self.rate,
            duration_s=len(self.files) / self.rate,
            start_s=0.0,
            rotation=0,
            pixel_aspect=1.0,
            matrix="rgb",
            matrix_stated=True,
            full_range=True,
            has_audio=False,
            sample_rate=None,
            channels=None,
        )

    def moments(self) -> Iterator[Moment]:
        for k, file in enumerate(self.files):
            yield Moment(k / self.rate, 1 / self.rate, file)

    def to_rgb(self, picture: Path) -> np.ndarray:
        return image.read_image(picture)

    def metadata(self) -> dict[str, str]:
        return dict(self.sidecar.get("metadata", {}))


def write_folder(
    path: Path, frames: Iterable[np.ndarray], fps: float, metadata: dict[str, str]
) -> None:
    """Writes 000000.png, 000001.png … and `video.json`; the folder appears whole or not at all."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(
            f"{path}: is there already, and not an empty folder", next="choose another name"
        )
    unfinished = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        count = 0
        for count, frame in enumerate(frames, 1):
            image.write_png(unfinished / f"{count - 1:06d}.png", frame)
        sidecar = {"schema": SCHEMA, "fps": fps, "num_frames": count, "metadata": metadata}
        text = json.dumps(sidecar, sort_keys=True, indent=1, ensure_ascii=False)
        (unfinished / SIDECAR).write_text(text + "\n", encoding="utf-8")
        if path.exists():
            path.rmdir()
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _read_sidecar(path: Path) -> dict[str, Any]:
    file = path / SIDECAR
    if not file.exists():
        return {}
    try:
        sidecar = json.loads(file.read_text(encoding="utf-8"))
        if sidecar["schema"] != SCHEMA or not float(sidecar["fps"]) > 0:
            raise ValueError(f"schema is {sidecar['schema']!r}, not {SCHEMA!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: isn't a description of a picture folder ({error})") from error
    return sidecar


def _natural(path: Path) -> list[int | str]:
    """Sorts frame-9 before frame-10: digits compare as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if part.isdigit() else part for part in parts]
