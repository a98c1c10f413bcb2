"""Memory: files are mapped, pipes cost one record, and no length is believed before its bytes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vidgen.io.layout import Slot, pack_header
from vidgen.io.record import Record
from vidgen.io.stream import write_stream

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads memory use from /proc"
)
MB = 1 << 20
MEASURE = """
import sys, gc
from vidgen.io.stream import read_stream

def kib(key):
    with open("/proc/self/status") as f:
        return next(int(x.split()[1]) for x in f if x.startswith(key + ":"))

def grown(run, key):
    next(read_stream(sys.argv[1])).numpy("frames")[0]   # imports and thread pools come first
    before = kib(key)
    kept = run()
    return (kib(key) - before) / 1024
"""


def measure(body: str, *args: object, stdin: bytes | None = None) -> float:
    run = subprocess.run(
        [sys.executable, "-c", MEASURE + body, *map(str, args)],
        input=stdin, capture_output=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr.decode()
    return float(run.stdout)


def frames(n: int, id: str = "a") -> Record:
    return Record.make("frames", id, {"frames": np.ones(n, np.uint8)})


@pytest.fixture
def small(tmp_path):
    write_stream([frames(2 * MB)], tmp_path / "small")
    return tmp_path / "small"


def test_a_file_is_not_copied_into_memory(small, tmp_path):
    write_stream([frames(64 * MB)], tmp_path / "large")
    open_only = """
def run():
    record = next(read_stream(sys.argv[2], verify=False))
    assert record.numpy("frames")[-1] == 1
    return record
print(grown(run, "VmRSS"))
"""
    assert measure(open_only, small, tmp_path / "large") < 8
    verified = "print(grown(lambda: next(read_stream(sys.argv[2])), 'RssAnon'))"
    assert measure(verified, small, tmp_path / "large") < 8


def test_a_pipe_holds_one_record_not_the_stream(small):
    f = io.BytesIO()
    write_stream((frames(16 * MB, f"r{i}") for i in range(6)), f)
    body = """
def run():
    for record in read_stream("-"):
        pass
print(grown(run, "VmHWM"))
"""
    assert measure(body, small, stdin=f.getvalue()) < 40


@pytest.mark.parametrize("size", [1 << 30, 1 << 40])  # what this machine has, and what it hasn't
def test_an_announced_length_costs_nothing(size, small):
    hostile = pack_header([Slot("x", "U8", (size,), 0, size)], {})
    body = """
from vidgen.errors import InputError
def run():
    try:
        next(read_stream("-"))
    except InputError as e:
        return
    raise SystemExit("no fault")
print(grown(run, "VmHWM"))
"""
    assert measure(body, small, stdin=hostile) < 8
