"""Streams: pipes, several inputs, what a cut leaves behind, and that `last` is told truly."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from vidgen.errors import InputError, UsageError, VidgenError
from vidgen.io.record import Record
from vidgen.io.stream import (
    StreamWriter,
    read_inputs,
    read_stream,
    refuse_terminal,
    write_stream,
)

PYTHON = [sys.executable, "-c"]
BIG = np.random.default_rng(0).integers(0, 256, (3 << 20) + 5, dtype=np.uint8)


def ids(records):
    return [(r.id, r.last) for r in records]


def big_record(id: str = "big") -> Record:
    """Some chunks of frames and a small tensor, enough to be hashed while it is written."""
    return Record.make("frames", id, {"frames": BIG, "times": np.arange(4.0)})


def big_bytes() -> bytes:
    header, blobs = big_record().pack(last=True)
    return header + b"".join(b.data for b in blobs)


def failing(records, error):
    yield from records
    raise error


def test_through_a_pipe(make):
    """Records larger than the pipe's buffer, the reader keeping pace with the writer."""
    r, w = os.pipe()
    records = [make("a"), big_record(), make("b")]

    def write():
        with os.fdopen(w, "wb", buffering=0) as f:
            write_stream(records, f)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(r, "rb") as f:
        read = list(read_stream(f))
    writer.join()
    assert ids(read) == [("a", False), ("big", False), ("b", True)]
    assert [x.digest for x in read] == [x.digest for x in records]


def test_writer_is_one_record_behind(make, pack):
    f = io.BytesIO()
    writer = StreamWriter(f)
    writer.write(make("a"))
    assert f.getvalue() == b""
    writer.write(make("b"))
    alone = f.getvalue()
    assert pack([make("a"), make("b")]).startswith(alone) and alone
    writer.close()
    assert f.getvalue() == pack([make("a"), make("b")])


def test_streams_back_to_back(make, pack):
    """`cat a.vgs b.vgs`: the second starts anew, ids and all."""
    two = pack([make("a"), make("b")]) + pack([make("a")])
    assert ids(read_stream(io.BytesIO(two))) == [("a", False), ("b", True), ("a", True)]


def test_a_cut_stream_stays_cut_downstream(make, pack):
    first, second = pack([make("a"), make("b")]), pack([make("c")])
    cut = first[: len(first) - 3] + b""
    out = io.BytesIO()
    with pytest.raises(InputError, match="record 2"):
        write_stream(read_stream(io.BytesIO(cut)), out)
    with pytest.raises(InputError, match="isn't marked as the last"):
        list(read_stream(io.BytesIO(out.getvalue())))
    # and once more, through the next stage
    again = io.BytesIO()
    with pytest.raises(InputError, match="isn't marked as the last"):
        write_stream(read_stream(io.BytesIO(out.getvalue())), again)
    assert again.getvalue() == out.getvalue()
    assert ids(read_stream(io.BytesIO(second))) == [("c", True)]


def test_fault_after_two_records_keeps_both(make):
    out = io.BytesIO()
    with pytest.raises(VidgenError, match="stage broke"):
        write_stream(failing([make("a"), make("b")], VidgenError("stage broke")), out)
    got = []
    with pytest.raises(InputError):
        for record in read_stream(io.BytesIO(out.getvalue())):
            got.append((record.id, record.last))
    assert got == [("a", False), ("b", False)]


def test_fault_on_the_way_to_a_file_keeps_what_was_finished_beside_it(make, tmp_path):
    path = tmp_path / "out.vgs"
    write_stream([make("old")], path)
    before = path.read_bytes()
    fault = InputError("stage broke", next="mend it")
    with pytest.raises(InputError, match="stage broke") as e:
        write_stream(failing([make("a")], fault), path, force=True)
    assert path.read_bytes() == before
    assert "out.vgs.cut" in e.value.next and "mend it" in e.value.next
    reading = read_stream(tmp_path / "out.vgs.cut")
    assert next(reading).id == "a"
    with pytest.raises(InputError):
        next(reading)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.vgs", "out.vgs.cut"]


def test_fault_before_the_first_record_leaves_nothing(tmp_path):
    for error in (InputError("nothing came"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            write_stream(failing([], error), tmp_path / "out.vgs")
    with pytest.raises(VidgenError, match="no record"):
        write_stream([], tmp_path / "out.vgs")
    assert list(tmp_path.iterdir()) == []


def test_interrupt_keeps_what_was_finished(make, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_stream(failing([make("a"), make("b")], KeyboardInterrupt()), tmp_path / "o.vgs")
    assert [p.name for p in tmp_path.iterdir()] == ["o.vgs.cut"]


def test_nan_is_not_written_and_costs_nothing_else(make):
    bad = Record.make("latents", "bad", {"latents": np.array([np.nan], np.float32)})
    out = io.BytesIO()
    with pytest.raises(VidgenError, match="record `bad`: tensor `latents` holds a NaN"):
        write_stream([make("a"), bad], out)
    reading = read_stream(io.BytesIO(out.getvalue()))
    assert ids([next(reading)]) == [("a", False)]


def test_two_records_of_one_id_are_not_written(make):
    with pytest.raises(VidgenError, match="two records called `a`"):
        write_stream([make("a"), make("a")], io.BytesIO())


def test_several_inputs_are_one_stream(make, pack, tmp_path):
    for name, members in (("1", "ab"), ("2", "c"), ("3", "de")):
        (tmp_path / name).write_bytes(pack([make(m) for m in members]))
    paths = [tmp_path / n for n in "123"]
    assert ids(read_inputs(paths)) == [(m, m == "e") for m in "abcde"]
    out = io.BytesIO()
    write_stream(read_inputs(paths), out)
    assert out.getvalue() == pack([make(m) for m in "abcde"])


def test_a_cut_input_is_a_fault_before_the_next_is_read(make, pack, tmp_path):
    (tmp_path / "1").write_bytes(pack([make("a")])[:-1])
    (tmp_path / "2").write_bytes(pack([make("b")]))
    with pytest.raises(InputError, match="1: record 1, byte"):
        next(read_inputs([tmp_path / "1", tmp_path / "2"]))


def test_inputs_that_cannot_be_one_stream(make, pack, tmp_path):
    path = tmp_path / "1"
    path.write_bytes(pack([make("a")]))
    with pytest.raises(InputError, match="record called `a` came before, in"):
        list(read_inputs([path, path]))
    with pytest.raises(UsageError, match="only once"):
        read_inputs(["-", path, "-"])
    with pytest.raises(UsageError, match="no such file"):
        read_inputs([path, tmp_path / "none"])
    with pytest.raises(UsageError, match="no such file"):
        read_stream(tmp_path / "none")
    with pytest.raises(UsageError, match="is a folder"):
        read_stream(tmp_path)


@pytest.mark.parametrize("way", ["redirected", "piped"])
def test_standard_input_and_output(way, make, pack, tmp_path):
    data = pack([make("a"), big_record()])
    (tmp_path / "in").write_bytes(data)
    copy = "from vidgen.io.stream import *; write_stream(read_inputs([]), '-')"
    with (tmp_path / "in").open("rb") as f:
        given = {"stdin": f} if way == "redirected" else {"input": data}
        run = subprocess.run([*PYTHON, copy], capture_output=True, check=True, **given)
    assert run.stdout == data


def test_two_commands_may_share_one_redirected_output(make, pack, tmp_path):
    """`(a; b) > out.vgs`, each writing more than is hashed in one go."""
    write = (
        "import sys; from vidgen.io.stream import *\n"
        "for r in read_stream(sys.argv[1]): b = r.tensors['frames']; b.sha256 = None\n"
        "write_stream([r], '-')"
    )
    (tmp_path / "in").write_bytes(big_bytes())
    with (tmp_path / "out").open("wb") as out:
        for _ in range(2):
            subprocess.run([*PYTHON, write, str(tmp_path / "in")], stdout=out, check=True)
    assert (tmp_path / "out").read_bytes() == big_bytes() * 2


@pytest.mark.parametrize("mode", ["wb", "ab", "r+b"])
def test_hashing_while_writing_gives_the_same_bytes(mode, tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"before--")
    with path.open(mode) as f:
        f.seek(0, os.SEEK_END)
        write_stream([big_record()], f)
        f.write(b"after")
    assert path.read_bytes() == (b"" if mode == "wb" else b"before--") + big_bytes() + b"after"


def test_files_that_take_little_at_a_time(make, pack):
    class Slow(io.RawIOBase):
        def __init__(self):
            self.data = bytearray()

        def writable(self):
            return True

        def write(self, b):
            self.data += b[:100]
            return min(100, len(b))

        def readable(self):
            return True

        def readinto(self, b):
            n = min(100, len(b), len(self.data))
            b[:n] = self.data[:n]
            del self.data[:n]
            return n

    f = Slow()
    write_stream([make("a"), make("b")], f)
    assert f.data == pack([make("a"), make("b")])
    assert ids(read_stream(f)) == [("a", False), ("b", True)]


def test_closed_pipe_is_left_to_the_caller(make):
    r, w = os.pipe()
    os.close(r)
    with os.fdopen(w, "wb", buffering=0) as f, pytest.raises(BrokenPipeError):
        write_stream([make("a"), big_record(), make("b")], f)


def test_terminal_is_refused():
    leader, follower = os.openpty()
    try:
        with os.fdopen(follower, "w") as terminal, pytest.raises(UsageError, match="terminal"):
            refuse_terminal(terminal)
        with open(os.devnull, "w") as f:
            refuse_terminal(f)
    finally:
        os.close(leader)


def test_one_file_a_record(make, tmp_path):
    pattern = str(tmp_path / "{id}.safetensors")
    assert write_stream([make("a"), make("b")], pattern) == 2
    for name in "ab":
        assert ids(read_stream(tmp_path / f"{name}.safetensors")) == [(name, True)]
    with pytest.raises(UsageError, match="there already"):
        write_stream([make("a")], pattern)


def test_named_pipes_and_devices(make, pack, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got = []
    reader = threading.Thread(target=lambda: got.extend(read_stream(fifo)))
    reader.start()
    write_stream([make("a"), make("b")], fifo)
    reader.join()
    assert ids(got) == [("a", False), ("b", True)]
    assert write_stream([make("a")], os.devnull) == 1


def test_inspecting_reads_headers_only(make, pack, tmp_path):
    data = bytearray(pack([make("a")]))
    data[-1] ^= 1
    (tmp_path / "x").write_bytes(data)
    assert ids(read_stream(tmp_path / "x", verify=False)) == [("a", True)]
    with pytest.raises(InputError):
        list(read_stream(tmp_path / "x"))


def test_import_is_light():
    """What answers `--help` and `inspect` must not wait for NumPy or torch."""
    check = (
        "import sys, vidgen.io.stream, vidgen.io.npz, vidgen.io.log, vidgen.io.weights\n"
        "print([m for m in ('numpy', 'torch', 'safetensors') if m in sys.modules])"
    )
    run = subprocess.run([*PYTHON, check], capture_output=True, check=True, text=True)
    assert run.stdout == "[]\n"
