"""What only a process shows: signals, closed pipes, full disks, closed standard streams."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vidgen.io.record import Record
from vidgen.io.stream import write_stream

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ENV = {**os.environ, "VIDGEN_PROGRESS": "none"}  # a slow machine would show some
TIMEOUT_S = 250
VIDGEN = [sys.executable, str(HERE / "program.py")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with four records in `in.vgs`, larger together than a pipe holds."""
    records = [
        Record.make("text", name, {"text.embeds": np.zeros((256, 256), np.float32)})
        for name in "abcd"
    ]
    write_stream(records, tmp_path / "in.vgs")
    return tmp_path


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """The command in bash; `vidgen` is the program."""
    quoted = " ".join(f"'{word}'" for word in VIDGEN)
    return subprocess.run(
        ["bash", "-c", f"vidgen() {{ {quoted} \"$@\"; }}\n{command}"],
        cwd=folder, capture_output=True, timeout=TIMEOUT_S, env=ENV,
    )  # fmt: skip


def test_a_closed_pipe_ends_quietly_with_141(folder) -> None:
    ran = shell("vidgen relay in.vgs | head -c 100 >/dev/null; echo ${PIPESTATUS[0]}", folder)
    assert (ran.stdout, ran.stderr) == (b"141\n", b"")
    ran = shell("vidgen --help | true; echo ${PIPESTATUS[0]}", folder)
    assert ran.stdout in (b"141\n", b"0\n") and ran.stderr == b""  # whoever is first


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_exit_1(folder) -> None:
    for command in ("vidgen relay in.vgs", "vidgen --help", "vidgen schema vidgen.error/1"):
        ran = shell(f"{command} > /dev/full", folder)
        assert ran.returncode == 1, command
        first = ran.stderr.decode().splitlines()[0]
        assert first.endswith(": standard output: no space left on device")


def test_closed_standard_streams(folder) -> None:
    ran = shell("vidgen relay in.vgs >&-", folder)
    assert (ran.returncode, ran.stderr.decode().splitlines()[0]) == (
        1, "vidgen relay: standard output is closed",
    )  # fmt: skip
    assert shell("vidgen relay in.vgs -o out.vgs >&-", folder).returncode == 0
    assert (folder / "out.vgs").read_bytes() == (folder / "in.vgs").read_bytes()
    ran = shell("vidgen relay <&-", folder)
    assert ran.returncode == 2 and b"standard input is closed" in ran.stderr
    ran = shell("vidgen relay in.vgs --trouble vidgen 2>&-", folder)
    assert ran.returncode == 1 and b"it failed" not in ran.stdout


def test_an_encoding_that_lacks_a_character_is_no_error(folder) -> None:
    ran = shell("PYTHONIOENCODING=latin-1 vidgen sample-keyframes --help", folder)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"SEED+1, \\u2026" in ran.stdout


def test_a_pipe_of_three_gives_the_same_bytes(folder) -> None:
    ran = shell("vidgen relay in.vgs | vidgen relay | vidgen relay - -o out.vgs", folder)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert (folder / "out.vgs").read_bytes() == (folder / "in.vgs").read_bytes()


def test_a_failure_upstream_is_exit_3_downstream(folder) -> None:
    command = "vidgen relay in.vgs --trouble vidgen | vidgen relay > out.vgs"
    ran = shell(f"{command}; echo ${{PIPESTATUS[*]}}", folder)
    assert ran.stdout == b"1 3\n"


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, -signal.SIGTERM, "stopped by SIGTERM")],
)
def test_signals_leave_no_temporary_file(folder, number, code, word) -> None:
    words = ["relay", "in.vgs", "-o", "out.vgs", "--mode", "slow"]
    with subprocess.Popen([*VIDGEN, *words], cwd=folder, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"vidgen relay: waiting\n"
        process.send_signal(number)
        rest = process.stderr.read().decode()
    assert process.returncode == code
    assert rest.splitlines() == [
        f"vidgen relay: {word}",
        "  next: the records finished before it are in out.vgs.cut",
    ]
    assert sorted(p.name for p in folder.iterdir()) == ["in.vgs", "out.vgs.cut"]


def test_the_launcher_runs_from_anywhere(folder) -> None:
    (folder / "vidgen").mkdir()
    (folder / "vidgen" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    os.symlink(ROOT / "bin" / "vidgen", folder / "link")
    for program in (str(ROOT / "bin" / "vidgen"), "./link"):
        ran = subprocess.run(
            [program, "--version"], cwd=folder, capture_output=True, timeout=TIMEOUT_S
        )
        assert ran.stdout.startswith(b"vidgen ") and ran.returncode == 0


@pytest.mark.skipif(shutil.which("script") is None, reason="no script(1) to make a terminal")
def test_on_a_real_terminal_records_are_refused(folder) -> None:
    quoted = " ".join([*VIDGEN, "relay", "in.vgs"])
    ran = subprocess.run(
        ["script", "-qec", quoted, "/dev/null"], cwd=folder, capture_output=True, timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ran.returncode == 2
    assert b"refusing to write records to a terminal" in ran.stdout
