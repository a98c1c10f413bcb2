"""Streams: records back to back, on a pipe or in a file.

Reading a file maps it into memory and copies nothing. Reading a pipe takes one record at a time
into one buffer, which the system backs with memory only as bytes arrive: a damaged length costs
nothing. The last record says `"last": true`; input that ends without it was cut, and whoever
wrote from it leaves its own output without it, so that a cut is seen at the end of every pipe.
"""

from __future__ import annotations

import fcntl
import io
import mmap
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from vidgen.errors import InputError, UsageError, VidgenError
from vidgen.io.checks import UNKNOWN, tree_sha256
from vidgen.io.files import (
    AtomicFile,
    atomic_write,
    check_writable,
    disk_full_is_an_error,
    is_special,
    refuse_terminal,
)
from vidgen.io.layout import Place, header_length, looks_like, parse_header
from vidgen.io.pattern import is_pattern, write_each
from vidgen.io.record import Blob, Record, unpack

__all__ = [
    "StreamWriter", "atomic_write", "check_writable", "read_inputs", "read_stream",
    "refuse_terminal", "write_stream",
]  # fmt: skip

STDIN = "standard input"
SMALL = 1 << 20  # bytes; buffers above this are mapped, so that they cost memory only when filled


class _Mapped:
    """A whole file in memory; `take` is a window, not a copy. The pages are private, so that
    torch accepts them as writable; nothing ever reaches the file."""

    def __init__(self, fd: int, position: int = 0) -> None:
        self.position = position
        size = os.fstat(fd).st_size
        self._view = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY) if size else b"")

    def take(self, n: int) -> memoryview:
        """The next n bytes; fewer only at the end."""
        part = self._view[self.position : self.position + n]
        self.position += len(part)
        return part

    def rest(self) -> memoryview:
        return self.take(len(self._view))


class _Piped:
    """Bytes that come once, in order."""

    def __init__(self, f: BinaryIO) -> None:
        self.position = 0
        self._file = f

    def take(self, n: int) -> memoryview:
        """The next n bytes; fewer only at the end. MemoryError if n can't be had."""
        buffer, filled = _buffer(n), 0
        while filled < n and (got := self._file.readinto(buffer[filled:])):  # type: ignore[attr-defined]
            filled += got
        self.position += filled
        return buffer[:filled]

    def rest(self) -> memoryview:
        data = self._file.read()
        self.position += len(data)
        return memoryview(data)


def _buffer(n: int) -> memoryview:
    """n writable zero bytes, which take up memory only where they are written."""
    if n <= SMALL:
        return memoryview(bytearray(n))
    try:
        return memoryview(mmap.mmap(-1, n, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except (OSError, OverflowError, ValueError) as e:
        raise MemoryError(str(e)) from None


def read_stream(
    source: str | Path | BinaryIO, *, name: str | None = None, verify: bool = True
) -> Iterator[Record]:
    """The records of a file, of standard input (`-`), or of an open binary file, one at a time.

    name    what errors call the input; default: its path
    verify  check each record's digest and values; without it only the headers are read

    Raises UsageError at once for a file that isn't there, and InputError, after the whole records
    before it, for a record that is damaged or input that ends without a last one. An NPZ file and
    a safetensors file of other makers are streams of one record.
    """
    if not isinstance(source, str | Path):
        label = name or str(getattr(source, "name", "input"))
        return _records(_Piped(source), label, "input", verify)
    if str(source) == "-":
        return _records(_standard_input(), name or STDIN, "stdin", verify)
    path = Path(source)
    label, stem = name or str(source), re.sub(r"[^A-Za-z0-9._-]", "-", path.stem)[:128]
    try:
        if not path.exists():
            raise UsageError(f"{label}: no such file")
        if path.is_dir():
            raise UsageError(f"{label}: is a folder", next=f"{label}/*.safetensors names its files")
        if is_special(path):
            return _read_special(path, label, stem, verify)
        with path.open("rb") as f:
            return _records(_Mapped(f.fileno()), label, stem, verify)
    except OSError as e:
        raise UsageError(f"{label}: {(e.strerror or str(e)).lower()}") from None


def _standard_input() -> _Mapped | _Piped:
    """Standard input, mapped where the shell redirected a file to it."""
    f = sys.stdin.buffer
    with suppress(OSError, ValueError):  # a stand-in without a descriptor is read as a pipe
        if stat.S_ISREG(os.fstat(f.fileno()).st_mode):
            return _Mapped(f.fileno(), os.lseek(f.fileno(), 0, os.SEEK_CUR))
    return _Piped(f)


def _read_special(path: Path, label: str, stem: str, verify: bool) -> Iterator[Record]:
    with path.open("rb", buffering=0) as f:
        yield from _records(_Piped(f), label, stem, verify)


def _records(source: _Mapped | _Piped, name: str, stem: str, verify: bool) -> Iterator[Record]:
    """Parse until the input ends, then see whether it may end there."""
    place, before, last = Place(name, 1, source.position), "", False
    ids: set[str] = set()  # of the stream that the input is in, which is over when `last` comes
    while prefix := source.take(8):
        if place.number == 1 and bytes(prefix[:4]) == b"PK\x03\x04":
            from vidgen.io.npz import read_npz

            data = io.BytesIO(b"".join((prefix, source.rest())))
            yield read_npz(data, name=name, stem=stem, verify=verify)
            return
        record = _record(prefix, source, place, stem, verify)
        before, last = record.id, record.last  # now: the caller may change the record
        if record.id in ids:
            raise place.fault(
                f"a second record called `{record.id}`",
                why="the id names a sample: its noise and its files follow from it",
            )
        ids.add(record.id)
        if last:
            ids.clear()
        place = Place(name, place.number + 1, source.position)
        yield record
    if not before:
        raise InputError(
            f"{name}: is empty, not one record",
            why="what should have written it failed, or wrote elsewhere",
            next="look at the messages of the command before this one",
        )
    if not last:
        raise InputError(
            f"{name}: ends at byte {place.start}, behind record {place.number - 1}"
            f" (`{before}`), which isn't marked as the last",
            why="what wrote it was stopped; the records up to here are whole",
            next="look at the messages of the command before this one, or run it again",
        )


def _record(
    prefix: memoryview, source: _Mapped | _Piped, place: Place, stem: str, verify: bool
) -> Record:
    """The record whose first eight bytes are `prefix`."""
    _whole(prefix, 8, "header length", place, 0)
    length = header_length(bytes(prefix), place)
    guess = looks_like(bytes(prefix))
    header = _whole(source.take(length), length, "header", place, 8, why=guess)
    slots, metadata = parse_header(bytes(header), place)
    size = slots[-1].end if slots else 0
    try:
        data = source.take(size)
    except MemoryError:
        raise place.fault(
            f"{size} bytes of data are announced, more than this machine can hold",
            8 + length,
            next="if that is right, save the stream to a file: files aren't read into memory",
        ) from None
    _whole(data, size, "data", place, 8 + length)
    tensors = {s.name: Blob(s.dtype, s.shape, data[s.begin : s.end]) for s in slots}
    offsets = {s.name: 8 + length + s.begin for s in slots}
    own = stem if place.number == 1 else f"{stem[:110]}-{place.number}"
    return unpack(tensors, metadata, place, stem=own, verify=verify, offsets=offsets)


def _whole(
    part: memoryview, n: int, what: str, place: Place, at: int, *, why: str | None = None
) -> memoryview:
    if len(part) < n:
        words = f"the input ends inside the {what}: {len(part)} of {n} bytes"
        raise place.fault(words, at + len(part), why=why)
    return part


def read_inputs(paths: Sequence[str | Path], *, verify: bool = True) -> Iterator[Record]:
    """Several inputs as one stream; none at all means standard input. Only a record of the final
    input can be `last`.

    Raises as `read_stream` does, and InputError when two inputs hold records of the same id.
    """
    names = [str(p) for p in paths] or ["-"]
    if names.count("-") > 1:
        raise UsageError("standard input (`-`) can be read only once")
    for name in names:
        if name != "-" and not Path(name).exists():
            raise UsageError(f"{name}: no such file")
    return _chained(names, verify)


def _chained(names: list[str], verify: bool) -> Iterator[Record]:
    origin: dict[str, str] = {}
    for i, name in enumerate(names):
        for record in read_stream(name, verify=verify):
            if record.id in origin:
                raise InputError(
                    f"{name}: a record called `{record.id}` came before, in {origin[record.id]}",
                    why="the id names a sample: its noise and its files follow from it",
                    next="run the command once for each input, or give the samples other ids",
                )
            origin[record.id] = name
            record.last = record.last and i == len(names) - 1
            yield record


class StreamWriter:
    """Writes records to a binary file, one behind: the newest is held back until it is known
    whether it is the last."""

    def __init__(self, f: BinaryIO) -> None:
        self.count = 0  # records written, without the one that is held
        self.size = 0  # bytes of these
        self._file = f
        self._held: Record | None = None
        self._ids: set[str] = set()

    def write(self, record: Record) -> None:
        """Take the record; the one before it is written now. VidgenError for NaN where none may
        be and for an id that the stream already has."""
        if record.id in self._ids:
            raise VidgenError(
                f"two records called `{record.id}` would be in one stream",
                next="give the samples ids of their own",
            )
        record.check_values()
        self._flush(last=False)
        self._ids.add(record.id)
        self._held = record

    def close(self) -> None:
        """Write the held record as the last of the stream."""
        self._flush(last=True)

    def abort(self) -> None:
        """Write the held record, but not as the last: who reads on will know of the cut."""
        self._flush(last=False)

    def _flush(self, *, last: bool) -> None:
        record, self._held = self._held, None
        if record is None:
            return
        unhashed = sum(b.nbytes for b in record.tensors.values() if b.sha256 is None)
        write = _write_and_hash if unhashed > SMALL and _is_file(self._file) else _write
        size = write(self._file, record, last)
        self._file.flush()
        self.count, self.size = self.count + 1, self.size + size


def _write(f: BinaryIO, record: Record, last: bool) -> int:
    """Hash, then write; returns the bytes written."""
    header, blobs = record.pack(last=last)
    parts = [memoryview(header), *(blob.data for blob in blobs)]
    for part in parts:
        _write_all(f, part)
    return sum(map(len, parts))


def _write_all(f: BinaryIO, view: memoryview) -> None:
    while len(view):  # an unbuffered file may take less than it is given
        view = view[f.write(view) :]


def _is_file(f: BinaryIO) -> bool:
    """Whether bytes can be put anywhere in it: a regular file, not opened to append."""
    try:
        fd = f.fileno()
        appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        return stat.S_ISREG(os.fstat(fd).st_mode) and not appends and f.seekable()
    except (OSError, ValueError):
        return False


def _write_and_hash(f: BinaryIO, record: Record, last: bool) -> int:
    """Hash and write in one pass over the data, on all cores, and put the header in front when
    the digest is known. Until then the file begins with zeros, which no reader takes."""
    f.flush()
    fd, start = f.fileno(), f.tell()
    header, blobs = record.pack(last=last, digest=UNKNOWN)
    at, offsets = start + len(header), []
    for blob in blobs:
        offsets.append(at)
        at += blob.nbytes

    def put(k: int, begin: int, chunk: memoryview) -> None:
        where = offsets[k] + begin
        while len(chunk):
            n = os.pwrite(fd, chunk, where)
            where, chunk = where + n, chunk[n:]

    digests = tree_sha256([b.data for b in blobs], also=put)
    for blob, digest in zip(blobs, digests, strict=True):
        blob.sha256 = digest
    _write_all(f, memoryview(record.pack(last=last)[0]))
    f.seek(at)
    return at - start


def write_stream(
    records: Iterable[Record],
    dest: str | Path | BinaryIO,
    *,
    force: bool = False,
    npz: bool = False,
) -> int:
    """Write all records and return how many.

    dest  an open binary file; `-` for standard output (refused if it is a terminal); a path;
          a pattern with `{id}` for one file a record; see `write_each`
    npz   write the one record as NPZ; also when the path ends in .npz

    When the source raises, the finished records are kept without a `last`, and the error goes on:
    in a pipe they have been written, for a path they are in PATH.cut while PATH stays as it was.
    BrokenPipeError passes through.
    """
    if is_pattern(str(dest)):
        return write_each(
            records, str(dest), lambda record, path: _write_one(record, path, force, npz)
        )
    if str(dest) == "-":
        refuse_terminal(sys.stdout)
        dest = sys.stdout.buffer
    if npz or str(dest).endswith(".npz"):
        from vidgen.io.npz import write_npz

        write_npz(_only(records), dest, force=force)
        return 1
    if not isinstance(dest, str | Path):
        return _drain(records, StreamWriter(dest))
    if is_special(Path(dest)):
        with open(dest, "wb", buffering=0) as f:
            return _drain(records, StreamWriter(f))
    return _write_file(records, Path(dest), force)


def _drain(records: Iterable[Record], writer: StreamWriter) -> int:
    try:
        for record in records:
            writer.write(record)
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            writer.abort()
        raise
    writer.close()
    if not writer.count:
        raise VidgenError("there was no record to write")
    return writer.count


def _write_file(records: Iterable[Record], path: Path, force: bool) -> int:
    out = AtomicFile(path, force=force)
    writer = StreamWriter(out.file)
    try:
        with disk_full_is_an_error(path):
            count = _drain(records, writer)
            out.commit()
    except BaseException as error:
        try:
            _keep_finished(out, writer, path, error)
        finally:
            out.discard()
        raise
    return count


def _keep_finished(out: AtomicFile, writer: StreamWriter, path: Path, error: BaseException) -> None:
    """Save the whole records written before the error, under a name that says it is not all."""
    if out.file.closed or not writer.count:  # closed: the error came while taking the name
        return
    with suppress(OSError):  # the disk, which was full
        out.file.truncate(writer.size)
        cut = out.commit(path.with_name(path.name + ".cut"), force=True)
        kept = f"the records finished before it are in {cut}"
        error.add_note(kept)
        if isinstance(error, VidgenError):
            error.next = f"{kept}; {error.next}" if error.next else kept


def _write_one(record: Record, path: str, force: bool, npz: bool) -> None:
    write_stream([record], path, force=force, npz=npz)


def _only(records: Iterable[Record]) -> Record:
    """The single record of a stream; UsageError if there are more."""
    iterator = iter(records)
    record = next(iterator, None)
    if record is None:
        raise VidgenError("there was no record to write")
    if next(iterator, None) is not None:
        raise several_in_npz()
    return record


def several_in_npz() -> UsageError:
    return UsageError(
        "an NPZ file holds one record, and here are several",
        next="-o '{id}.npz' writes one file a record",
    )
