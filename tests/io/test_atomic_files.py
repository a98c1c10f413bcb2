"""Files that appear whole or not at all: full disks, races, read-only places, special files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time

import pytest

from vidgen.errors import Exit, InputError, UsageError, VidgenError
from vidgen.io import files
from vidgen.io.files import atomic_write, check_writable
from vidgen.io.pattern import is_pattern
from vidgen.io.stream import read_stream

PYTHON = [sys.executable, "-c"]


def listing(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a tmpfs of its own, where we may."""
    made = []

    def mount(options: str):
        folder = tmp_path / f"disk{len(made)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            run = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("no mount command here")
        if run.returncode:
            pytest.skip(f"may not mount a tmpfs here: {run.stderr.decode().strip()}")
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", str(folder)], check=True)


def test_whole_file_with_the_usual_permissions(tmp_path):
    with atomic_write(tmp_path / "out") as f:
        f.write(b"data")
        assert listing(tmp_path) != ["out"]
    assert (tmp_path / "out").read_bytes() == b"data"
    assert listing(tmp_path) == ["out"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_error(error, tmp_path):
    with pytest.raises(error), atomic_write(tmp_path / "out") as f:
        f.write(b"data")
        raise error
    assert listing(tmp_path) == []


def test_no_overwriting_without_force(tmp_path):
    out = tmp_path / "out"
    out.write_bytes(b"old")
    out.chmod(0o640)
    with pytest.raises(UsageError, match="is there already") as e, atomic_write(out):
        raise AssertionError("opened")
    assert e.value.next.startswith("-f")
    with atomic_write(out, force=True) as f:
        f.write(b"new")
    assert out.read_bytes() == b"new"
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    assert listing(tmp_path) == ["out"]


def test_a_symbolic_link_stays_one(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_write(tmp_path / "link") as f:
        f.write(b"data")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"data"


def test_long_names(tmp_path):
    with atomic_write(tmp_path / ("x" * 255)) as f:
        f.write(b"data")
    assert listing(tmp_path) == ["x" * 255]


RACE = """
import sys, time, pathlib
from vidgen.errors import UsageError
from vidgen.io.files import atomic_write
folder, me = pathlib.Path(sys.argv[1]), sys.argv[2]
try:
    with atomic_write(folder / "out") as f:
        f.write(me.encode() * 100_000)
        (folder / f"ready{me}").touch()
        while not (folder / "go").exists():
            time.sleep(0.001)
except UsageError as e:
    print(e)
else:
    print("won")
"""


def test_of_two_processes_one_gets_the_name(tmp_path):
    runs = [
        subprocess.Popen([*PYTHON, RACE, str(tmp_path), me], stdout=subprocess.PIPE, text=True)
        for me in "12"
    ]
    until = time.monotonic() + 30
    while not all((tmp_path / f"ready{me}").exists() for me in "12"):
        assert time.monotonic() < until
        time.sleep(0.005)
    (tmp_path / "go").touch()
    said = [run.communicate(timeout=30)[0].strip() for run in runs]
    won = said.index("won")
    assert said[1 - won].endswith("is there already")
    assert (tmp_path / "out").read_bytes() == b"12"[won : won + 1] * 100_000
    assert listing(tmp_path) == ["go", "out", "ready1", "ready2"]


def test_without_hard_links_names_are_still_not_replaced(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "no links on this file system")

    monkeypatch.setattr(files.os, "link", no_links)
    with atomic_write(tmp_path / "out") as f:
        f.write(b"data")
    assert (tmp_path / "out").read_bytes() == b"data"
    with pytest.raises(UsageError), atomic_write(tmp_path / "late") as f:
        (tmp_path / "late").write_bytes(b"theirs")
    assert (tmp_path / "late").read_bytes() == b"theirs"
    assert listing(tmp_path) == ["late", "out"]


def test_full_disk(mounted):
    disk = mounted("size=1m")
    with pytest.raises(VidgenError, match="no space left") as e, atomic_write(disk / "out") as f:
        f.write(bytes(4 << 20))
    assert e.value.exit_code == Exit.FAILED
    assert str(disk) in e.value.why and "free" in e.value.why
    assert listing(disk) == []


def test_records_that_fill_the_disk(mounted):
    """Hashing threads write into the file here; and the first record is kept."""
    body = """
import sys, numpy as np
from vidgen.errors import VidgenError
from vidgen.io.record import Record
from vidgen.io.stream import write_stream
records = (Record.make("frames", n, {"frames": np.zeros(s, np.uint8)}) for n, s in
           (("a", 1 << 20), ("b", 9 << 20)))
try:
    write_stream(records, sys.argv[1])
except VidgenError as e:
    print(e)
"""
    disk = mounted("size=8m")
    run = subprocess.run(
        [*PYTHON, body, str(disk / "o")], capture_output=True, check=True, text=True
    )
    assert "o: no space left" in run.stdout
    assert listing(disk) == ["o.cut"]
    reading = read_stream(disk / "o.cut")
    assert next(reading).id == "a"
    with pytest.raises(InputError, match="isn't marked as the last"):
        next(reading)


def test_file_size_limit():
    """The same fault where no disk can be mounted: a limit on the size of files."""
    body = """
import resource, sys, tempfile, pathlib
from vidgen.errors import VidgenError
from vidgen.io.files import atomic_write
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with tempfile.TemporaryDirectory() as folder:
    try:
        with atomic_write(pathlib.Path(folder) / "out") as f:
            f.write(bytes(4 << 20))
    except VidgenError as e:
        print(e, list(pathlib.Path(folder).iterdir()))
"""
    run = subprocess.run([*PYTHON, body], capture_output=True, check=True, text=True)
    assert "out: file too large []" in run.stdout


def test_read_only_folder(mounted):
    disk = mounted("size=1m,ro")
    with pytest.raises(UsageError, match="can't be written to"):
        check_writable(disk / "out")
    with pytest.raises(UsageError, match="can't be written to"):
        check_writable(disk / "{id}.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="can't be written to"):
        check_writable(tmp_path / "out")


def test_checks_before_any_work(tmp_path):
    (tmp_path / "there").touch()
    check_writable(tmp_path / "new")
    check_writable(tmp_path / "{id}.mp4")
    check_writable(tmp_path / "there", force=True)
    check_writable(os.devnull)
    check_writable(tmp_path / "{odd")
    for path, words in (
        (tmp_path / "there", "is there already"),
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "out", "there is no folder"),
        (tmp_path / "none" / "{id}.mp4", "there is no folder"),
        (tmp_path / "{id}-{seed}.mp4", "no field"),
    ):
        with pytest.raises(UsageError, match=words):
            check_writable(path)
    assert listing(tmp_path) == ["there"]
    assert is_pattern("out/{id}.mp4") and not is_pattern("out/a.mp4")


def test_a_device_is_written_to_as_it_is():
    with atomic_write(os.devnull) as f:
        f.write(b"data")
    assert not os.path.isfile(os.devnull)
