"""Every command in the README runs, as a shell runs it, with the shipped model; and the pipeline
makes what one process makes. (The examples of the man pages run in tests/cli, bin/vidgen-t2v in
tests/cli/test_scripts.py.)

Training the shipped model takes an hour, and promoting would change it: those lines are run with
--dry-run. Of the many clips of an evaluation there are a few.
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
SAME = " -o ball.mp4"  # made by one process, and by a pipeline of five

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


def readme_sections() -> dict[str, list[str]]:
    """Heading → the lines of its `sh` blocks, continued lines joined; `make` has its own jobs."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE):
        blocks = re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
        lines = "".join(blocks).replace("\\\n", " ").splitlines()
        lines = [line for line in lines if line.strip() and not line.startswith(("make ", "#"))]
        if lines:
            found[section.partition("\n")[0]] = lines
    return found


def test_the_readme_has_lines_to_run() -> None:
    lines = [line for section in readme_sections().values() for line in section]
    assert len(lines) > 20
    assert sum(line.endswith(SAME) for line in lines) == 2


@pytest.mark.parametrize("section", readme_sections())
def test_the_readme_runs(section: str, tmp_path: Path) -> None:
    from vidgen.systems.base import SHIPPED

    folder = tmp_path / "here"
    (folder / "out").mkdir(parents=True)
    parts = (
        "autoencoder", "text", "keyframes", "interpolation", "upsampler", "video-decoder",
    )  # fmt: skip
    for name in (f"world-{part}" for part in parts):  # as if trained
        shutil.copytree(SHIPPED / "world", folder / "runs" / name / "model")
    balls = []
    for line in readme_sections()[section]:
        only_planned = line.startswith(("vidgen train world", "vidgen models promote"))
        run(line + " -n" if only_planned else line.replace(" --num 96", " --num 6"), folder)
        if line.endswith(SAME):
            balls.append((folder / "ball.mp4").read_bytes())
    if balls:
        assert balls[0] == balls[1]
        latents = {path.read_bytes() for path in folder.glob("cube.*-s[0-3].safetensors")}
        assert len(latents) == 4  # another seed, another clip


def test_the_systems_table_of_the_readme_is_what_the_command_prints() -> None:
    ran = shell("vidgen systems --markdown", ROOT)
    assert ran.stdout.strip() in (ROOT / "README.md").read_text(encoding="utf-8")
