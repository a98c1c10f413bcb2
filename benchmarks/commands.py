"""Commands: start-up, the pipeline against one process, and a prompt's way to its video."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import VIDGEN, Row, interleaved, peak_memory_mib, seconds, shell

PROMPT = "a red ball bounces on sand ground"


def startup() -> list[Row]:
    """`vidgen --help` against a Python that does nothing."""
    quiet = {"stdout": subprocess.DEVNULL, "check": True}
    ours, bare = interleaved(
        lambda: subprocess.run([*VIDGEN, "--help"], **quiet),
        lambda: subprocess.run([sys.executable, "-c", "pass"], **quiet),
        repeat=15,
    )
    return [Row("vidgen --help / python -c pass", f"{ours:.3f} s", f"{bare:.3f} s", ours / bare)]


def pipeline() -> list[Row]:
    """Three processes and two pipes against one process, same bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        piped, single = interleaved(
            lambda: shell(
                f'vidgen encode-text "{PROMPT}" | vidgen sample-keyframes --seed 7'
                " | vidgen decode -f -o a.mp4", folder),
            lambda: shell(f'vidgen generate "{PROMPT}" --seed 7 -f -o b.mp4', folder),
        )  # fmt: skip
    return [Row("pipeline / generate", f"{piped:.2f} s", f"{single:.2f} s", piped / single)]


def prompt_to_video() -> list[Row]:
    """Wall time and peak memory of the whole job, from a cold process."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        one = seconds(lambda: shell(f'vidgen generate "{PROMPT}" -f -o b.mp4', folder))
        eight = seconds(
            lambda: shell(
                f"vidgen generate '{PROMPT}' --num-samples 8 -f -o 'b-{{id}}.mp4'", folder
            ),
            repeat=3,
        )
    peak = peak_memory_mib()
    return [
        Row("prompt to mp4, 1 video", f"{one:.2f} s", "", None, f"peak {peak:.0f} MiB"),
        Row("prompt to mp4, 8 videos / 1", f"{eight:.2f} s", f"{one:.2f} s", eight / one),
    ]
