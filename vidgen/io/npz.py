"""NPZ files of one record, for whoever has NumPy and nothing else.

Each tensor is one array under its own name; the metadata, the same JSON as in a stream, is the
bytes of the array `vidgen`. NumPy lacks BF16 and the 8-bit floats: those are stored as unsigned
integers of their width, and the array `vidgen.dtypes` (JSON too) says which they are.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vidgen.errors import InputError
from vidgen.io.files import atomic_write
from vidgen.io.layout import ITEM_BYTES, Place, canonical_json, parse_json
from vidgen.io.record import Blob, Record, unpack

if TYPE_CHECKING:
    from numpy import ndarray

META, DTYPES = "vidgen", "vidgen.dtypes"


def write_npz(record: Record, dest: str | Path | BinaryIO, *, force: bool = False) -> None:
    """The record as a stored (not compressed) NPZ; the same record gives the same bytes.

    A path is written as `atomic_write` does. VidgenError for NaN where none may be.
    """
    record.check_values()
    if isinstance(dest, str | Path):
        with atomic_write(dest, force=force) as f:
            _write(record, f)
    else:
        _write(record, dest)


def _write(record: Record, f: BinaryIO) -> None:
    import numpy as np

    arrays, foreign = {}, {}
    for name, blob in sorted(record.tensors.items()):
        try:
            arrays[name] = blob.numpy()
        except TypeError:
            foreign[name] = blob.dtype
            words = np.frombuffer(blob.data, f"<u{ITEM_BYTES[blob.dtype]}")
            arrays[name] = words.reshape(blob.shape)
    texts = {META: record.metadata(last=True).encode("utf-8")}
    if foreign:
        texts[DTYPES] = canonical_json(foreign)
    arrays |= {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
    with zipfile.ZipFile(f, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # whose date is 1980: no clock in our files
            with archive.open(member, "w", force_zip64=True) as out:
                np.lib.format.write_array(out, array, version=(1, 0), allow_pickle=False)


def read_npz(
    source: str | Path | BinaryIO,
    *,
    name: str | None = None,
    stem: str | None = None,
    verify: bool = True,
) -> Record:
    """The record of an NPZ file. One without our metadata is a `features` record called `stem`.

    InputError for what is no NPZ, holds Python objects, or fails the checks of any record.
    """
    name = name or str(source)
    place = Place(name)
    try:
        with zipfile.ZipFile(source) as archive:
            arrays = _arrays(archive)
    except _DAMAGE as e:
        raise InputError(
            f"{name}: is not an NPZ file that can be read: {e}",
            why="it is cut or damaged, or holds something other than plain arrays",
            next="make it again with the command that wrote it",
        ) from None
    metadata = {}
    if META in arrays:
        raw = arrays.pop(META).tobytes()
        parse_json(raw, place, 0, f"the array `{META}`")
        metadata[META] = raw.decode("utf-8")
    foreign = parse_json(arrays.pop(DTYPES).tobytes(), place, 0, DTYPES) if DTYPES in arrays else {}
    try:
        tensors = {k: _blob(array, foreign.get(k)) for k, array in arrays.items()}
    except (TypeError, AttributeError) as e:
        raise place.fault(f"its arrays are not those of a record: {e}") from None
    stem = stem or Path(name).stem
    return unpack(tensors, metadata, place, stem=stem, offsets={}, verify=verify)


_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, KeyError, MemoryError,
           RuntimeError, NotImplementedError)  # fmt: skip


def _arrays(archive: zipfile.ZipFile) -> dict[str, ndarray]:
    """Every member as an array, under its name without `.npy`."""
    import numpy as np

    arrays = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name == member.filename or name in arrays:
            raise ValueError(f"its member `{member.filename}` is no array, or there twice")
        with archive.open(member) as f:
            arrays[name] = np.lib.format.read_array(f, allow_pickle=False)
    return arrays


def _blob(array: ndarray, dtype: str | None) -> Blob:
    """The array as it is, or as the bits of a dtype that NumPy lacks."""
    blob = Blob.of(array)
    if dtype is None:
        return blob
    if ITEM_BYTES.get(dtype) != array.itemsize:
        raise TypeError(f"{array.dtype} can't be the bits of {dtype}")
    return Blob(dtype, blob.shape, blob.data)
