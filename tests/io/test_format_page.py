"""man/vidgen-stream.5 says what the code does: its numbers, its lists, its example."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy
import pytest

from vidgen.io import checks, layout, record
from vidgen.io.stream import write_stream

PAGE = Path(__file__).parents[2] / "man" / "vidgen-stream.5"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_example_reads_a_stream(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stream([make("a"), make("b")], "clip.vgs")
    code = re.search(r"\.Bd -literal -offset indent\n(with open.*?)\.Ed", TEXT, re.DOTALL).group(1)
    scope = {"json": json, "numpy": numpy}
    exec(code, scope)
    assert scope["meta"]["id"] == "b" and scope["meta"]["last"]
    assert numpy.array_equal(scope["x"], make("b").numpy("latents"))


def test_numbers_and_lists():
    words = set(re.findall(r"vidgen\.record/1|\w+", TEXT))
    assert set(record.KINDS) <= words
    assert layout.ITEM_BYTES.keys() <= words
    assert {str(layout.HEADER_CAP), str(checks.CHUNK), record.SCHEMA} <= words
    assert f"2^{layout.DATA_CAP.bit_length() - 1}" in TEXT
    assert f"at most {layout.MAX_AXES} axes" in TEXT
    assert checks.PREFIX in TEXT
    for width in (8, 4, 2, 1):
        (row,) = re.findall(rf"^\.It {width} bytes? Ta ([A-Z].*)$", TEXT, re.MULTILINE)
        named = {d for d in re.findall(r"\w+", row) if d in layout.ITEM_BYTES}
        if width == 8:
            named.discard("F32")  # "two F32"
        assert named == {d for d, n in layout.ITEM_BYTES.items() if n == width}
    finite = re.search(r"^(latents, .*) MUST be", TEXT, re.MULTILINE).group(1)
    assert set(re.split(r", | and ", finite)) == set(checks.FINITE)


def test_every_metadata_key_is_there(make):
    meta = json.loads(make().metadata(last=True))
    assert list(meta) == sorted(meta)
    for key in meta:
        assert f".It Li {key}\n" in TEXT


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here")
def test_it_renders_without_a_warning():
    run = subprocess.run(
        ["groff", "-mdoc", "-Tutf8", "-ww", str(PAGE)], capture_output=True, check=True
    )
    assert run.stderr == b""
