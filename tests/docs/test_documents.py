"""Every command in the README runs, as a shell runs it, with the shipped model; and the pipeline
makes what one process makes. (The examples of the man pages run in tests/cli.)

Training the shipped model takes an hour, and promoting would change it: those lines are run with
--dry-run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.slow


def shell(line: str, folder: Path) -> subprocess.CompletedProcess:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=folder, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, errors="replace", timeout=240,
    )  # fmt: skip


def run(line: str, folder: Path) -> None:
    """Run it; it may overwrite nothing, so what it writes is taken out of the way first."""
    for name in re.findall(r"(?:-o|>)\s*'?([^\s'|&;]+)", line):
        target = folder / name
        if target.is_file():
            target.unlink()
    ran = shell(line, folder)
    assert ran.returncode == 0, f"{line}\n{ran.stderr[-2000:]}"


def readme_lines() -> list[str]:
    """The lines of the README's `sh` blocks, continued lines joined; `make` has its own jobs."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith(("make ", "#"))]


def test_the_readme_runs(tmp_path: Path) -> None:
    from vidgen.systems.base import SHIPPED

    folder = tmp_path / "here"
    (folder / "out").mkdir(parents=True)
    parts = ("autoencoder", "text", "keyframes", "interpolation", "upsampler")
    for name in (f"world-{part}" for part in parts):  # as if trained
        shutil.copytree(SHIPPED / "world", folder / "runs" / name / "model")
    lines = readme_lines()
    assert len(lines) > 10
    for line in lines:
        only_planned = line.startswith(("vidgen train world", "vidgen models promote"))
        run(line + " -n" if only_planned else line, folder)


def test_pipeline_and_generate_make_the_same_file(tmp_path: Path) -> None:
    folder = tmp_path
    prompt = "a red ball bounces on sand ground"
    run(f'vidgen generate "{prompt}" --seed 7 -o one.mp4', folder)
    run(
        f'vidgen encode-text "{prompt}" | vidgen sample-keyframes --seed 7 | vidgen interpolate'
        " | vidgen upsample | vidgen decode -o five.mp4",
        folder,
    )
    run(f'vidgen generate "{prompt}" --seed 8 -o other.mp4', folder)
    one, five, other = ((folder / f"{n}.mp4").read_bytes() for n in ("one", "five", "other"))
    assert one == five
    assert one != other


def test_the_whole_pipeline_as_a_script(tmp_path: Path) -> None:
    script = ROOT / "bin" / "vidgen-t2v"
    line = f'{script} "a blue cube spins" cube --seed 7 --steps 2'
    run(line, tmp_path)
    made = sorted(p.name for p in tmp_path.iterdir())
    stages = ("dense.large", "dense", "latents", "text")
    assert made == sorted(
        ["cube.asked.txt", "cube.mp4", *(f"cube.{stage}.vgs" for stage in stages)]
    )
    latents = (tmp_path / "cube.latents.vgs").stat().st_mtime_ns
    run(line, tmp_path)  # again: what is there is not made anew
    assert (tmp_path / "cube.latents.vgs").stat().st_mtime_ns == latents


def test_the_systems_table_of_the_readme_is_what_the_command_prints() -> None:
    ran = shell("vidgen systems --markdown", ROOT)
    assert ran.stdout.strip() in (ROOT / "README.md").read_text(encoding="utf-8")
