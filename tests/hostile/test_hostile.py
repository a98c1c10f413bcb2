"""Broken files: each must give its own fault, keep what came before it, and never anything else."""

from __future__ import annotations

import csv
import io
import runpy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidgen.errors import Exit, InputError
from vidgen.io.record import Record
from vidgen.io.stream import read_stream

HERE = Path(__file__).parent
MAKE = runpy.run_path(str(HERE / "make.py"))
with (HERE / "expected.tsv").open(encoding="utf-8", newline="") as f:
    ROWS = list(csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def read_all(source: Path | io.BytesIO, name: str) -> tuple[list[Record], InputError | None]:
    """The whole records, and what ended the reading if not the end."""
    records: list[Record] = []
    try:
        for record in read_stream(source, name=name):
            records.append(record)
    except InputError as e:
        return records, e
    return records, None


def test_every_file_is_in_the_table_and_as_the_script_makes_it():
    assert {row[0] for row in ROWS} == MAKE["FILES"].keys()
    assert {p.stem: p.read_bytes() for p in HERE.glob("*.vgs")} == MAKE["FILES"]


@pytest.mark.parametrize("way", ["file", "pipe"])
@pytest.mark.parametrize(
    ("name", "whole", "number", "byte", "words"), ROWS, ids=[r[0] for r in ROWS]
)
def test_fault(name, whole, number, byte, words, way):
    path = HERE / f"{name}.vgs"
    source = path if way == "file" else io.BytesIO(path.read_bytes())
    records, fault = read_all(source, name)
    assert fault is not None, f"read as {records}"
    assert len(records) == int(whole)
    if name == "data-2-40" and "more than this machine can hold" in fault.what:
        return  # what a pipe says where the system doesn't even promise that much memory
    where = "" if number == "-" else f"record {number}, byte {byte}: "
    assert fault.what.startswith(f"{name}: {where}{words}")
    assert fault.exit_code == Exit.BAD_INPUT
    assert fault.next and len(fault.lines()) <= 3


def test_the_good_records_that_the_broken_ones_come_from_are_read():
    good, fault = read_all(io.BytesIO(MAKE["GOOD"]), "good")
    assert fault is None and [r.id for r in good] == ["a"] and good[0].last
    two, fault = read_all(io.BytesIO(MAKE["FIRST"] + MAKE["SECOND"]), "two")
    assert fault is None and [(r.id, r.last) for r in two] == [("a", False), ("b", True)]


def test_our_writer_makes_the_bytes_of_the_second_implementation():
    good = next(read_stream(io.BytesIO(MAKE["GOOD"])))
    header, blobs = good.pack(last=True)
    assert header + b"".join(b.data for b in blobs) == MAKE["GOOD"]


def test_a_stream_cut_at_any_byte_is_a_fault_and_keeps_its_whole_records():
    first, second = MAKE["FIRST"], MAKE["SECOND"]
    stream = first + second
    for cut in range(len(stream)):
        records, fault = read_all(io.BytesIO(stream[:cut]), "cut")
        assert fault is not None, cut
        assert len(records) == (cut >= len(first)), cut


@settings(max_examples=300)
@given(st.integers(0, len(MAKE["GOOD"]) * 8 - 1))
def test_a_flipped_bit_is_a_fault_or_leaves_the_tensors_alone(bit):
    damaged = bytearray(MAKE["GOOD"])
    damaged[bit // 8] ^= 1 << bit % 8
    records, fault = read_all(io.BytesIO(bytes(damaged)), "flipped")
    original = next(read_stream(io.BytesIO(MAKE["GOOD"])))
    if fault is None and records[0].kind != "features":  # else the bit hit the key `vidgen`
        assert records[0].digest == original.digest


@settings(max_examples=200)
@given(st.binary(max_size=64), st.integers(0, 64))
def test_noise_never_raises_anything_but_a_fault(noise, length):
    for data in (noise, length.to_bytes(8, "little") + noise):
        records, fault = read_all(io.BytesIO(data), "noise")
        assert fault is not None or records
