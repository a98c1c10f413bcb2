"""VMAF (Li et al. 2016), by an ffmpeg that was built with libvmaf: the one metric that vidgen
leaves to another program."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from vidgen.errors import UsageError, VidgenError
from vidgen.metrics.fidelity import check_pair

RATE = 25  # frames a second that ffmpeg is told; the default model doesn't look at time
TO_YUV = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"


@dataclass(frozen=True)
class Vmaf:
    """Scores clips with the default model of this ffmpeg. `version`: its own words."""

    ffmpeg: str
    version: str

    @classmethod
    def find(cls) -> Vmaf:
        """UsageError if there is no `ffmpeg`, or it can't."""
        path = shutil.which("ffmpeg")
        if path is None:
            raise UsageError(
                "vmaf: there is no `ffmpeg` here",
                why="VMAF is computed by an ffmpeg that was built with libvmaf",
                next="leave vmaf out of --metrics, or install one",
            )
        if " libvmaf " not in _said(path, "-hide_banner", "-filters"):
            raise UsageError(
                f"vmaf: {path} was built without libvmaf",
                why="`ffmpeg -filters` doesn't list it",
                next="leave vmaf out of --metrics, or install an ffmpeg that has it",
            )
        words = _said(path, "-version").split()
        return cls(path, words[2] if len(words) > 2 else "unknown")

    def __call__(self, made: Tensor, true: Tensor) -> float:
        """Of two clips, uint8 `1 t h w 3`: 0 … 100, higher is better, the mean over frames. They
        are made yuv420p, BT.709, limited range."""
        check_pair(made, true)
        height, width = made.shape[2:4]
        raw = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}",
               "-framerate", str(RATE)]  # fmt: skip
        graph = (
            f"[0:v]{TO_YUV}[made];[1:v]{TO_YUV}[true];"
            "[made][true]libvmaf=log_fmt=json:log_path=vmaf.json"
        )
        with TemporaryDirectory(prefix="vidgen-vmaf-") as folder:
            for name, clip in (("made.rgb", made), ("true.rgb", true)):
                clip[0].cpu().numpy().tofile(Path(folder) / name)
            words = ["-v", "error", "-nostdin", *raw, "-i", "made.rgb", *raw, "-i", "true.rgb",
                     "-lavfi", graph, "-f", "null", "-"]  # fmt: skip
            _said(self.ffmpeg, *words, folder=folder)
            try:
                found = json.loads((Path(folder) / "vmaf.json").read_text(encoding="utf-8"))
                return float(found["pooled_metrics"]["vmaf"]["mean"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise VidgenError(
                    f"vmaf: {self.ffmpeg} left no score", why=f"in its log: {error!r}"
                ) from None


def _said(ffmpeg: str, *words: str, folder: str | None = None) -> str:
    """What the program says on standard output. VidgenError if it fails."""
    ran = subprocess.run(
        [ffmpeg, *words], cwd=folder, capture_output=True, text=True, errors="replace"
    )
    if ran.returncode:
        lines = ran.stderr.strip().splitlines()
        raise VidgenError(
            f"vmaf: {ffmpeg} failed with exit code {ran.returncode}",
            why=lines[-1] if lines else None,
        )
    return ran.stdout
