"""Tensors of weight files that are read when they are needed, and again when they are needed again.

`vidgen.io.weights.load_safetensors` maps a file for as long as any of its tensors lives, and what
was read of it stays in memory that long. A `Window` is mapped anew each time: its memory goes with
the tensor.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vidgen.errors import InputError
from vidgen.io.layout import Place, header_length, nbytes, parse_header
from vidgen.io.record import Blob

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class _File:
    """A file that is open for as long as anybody has this."""

    def __init__(self, path: Path) -> None:
        self.fd = -1
        try:
            self.fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as e:
            raise InputError(f"{path}: can't be read: {(e.strerror or str(e)).lower()}") from None

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


@dataclass(frozen=True)
class Window:
    """Where a tensor lies in a file, which stays open: another that takes its name is not read."""

    file: _File
    start: int  # byte of the file
    dtype: str  # by its safetensors name
    shape: tuple[int, ...]

    @property
    def torch_dtype(self) -> torch.dtype:
        return Blob(self.dtype, (0,), memoryview(b"")).torch().dtype

    def read(self) -> Tensor:
        """The tensor, mapped from the file into memory that goes with it. It lies as far from a
        page's begin as in a map of the whole file, since kernels may round by where numbers lie."""
        size, skip = nbytes(self.dtype, self.shape), self.start % mmap.ALLOCATIONGRANULARITY
        if not size:
            return Blob(self.dtype, self.shape, memoryview(b"")).torch()
        pages = mmap.mmap(
            self.file.fd, skip + size, access=mmap.ACCESS_COPY, offset=self.start - skip
        )
        return Blob(self.dtype, self.shape, memoryview(pages)[skip:]).torch()


def windows(path: Path) -> dict[str, Window]:
    """Those of a safetensors file, by name. InputError for one that can't be
    read, or whose header makes no sense."""
    file, place = _File(path), Place(str(path))
    with open(os.dup(file.fd), "rb") as f:
        raw = f.read(header_length(f.read(8), place))
    slots, _ = parse_header(raw, place)
    data = 8 + len(raw)
    return {s.name: Window(file, data + s.begin, s.dtype, s.shape) for s in slots}
