"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, TextIO

from vidgen.errors import UsageError, VidgenError
from vidgen.io.pattern import check_pattern, folder_of, is_pattern
from vidgen.io.record import human_bytes

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def refuse_terminal(stream: TextIO | IO) -> None:
    """UsageError if the stream is a terminal: records are binary."""
    if stream.isatty():
        raise UsageError(
            "refusing to write records to a terminal",
            why="they are binary",
            next="add `-o FILE`, redirect with `> FILE`, or pipe into the next command",
        )


def check_writable(path: str | Path, force: bool = False) -> None:
    """UsageError now, rather than after the work, if `path` can't be written: its folder is
    missing or read-only, it is a folder, or it is there and `force` is not given.

    Of a pattern ('out/{id}.mp4') only the folder can be checked; `-` is standard output.
    """
    if str(path) == "-":
        return
    if is_pattern(path):
        check_pattern(path)
        folder = folder_of(path)
    else:
        folder = _target(path).parent
        _check_free(_target(path), force)
    if not folder.is_dir():
        raise UsageError(f"{path}: there is no folder {folder}", next=f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"{path}: the folder {folder} can't be written to",
            next="choose another place with -o, or change the folder's permissions",
        )


def _target(path: str | Path) -> Path:
    """The path itself, or what a symbolic link there points to."""
    path = Path(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _check_free(target: Path, force: bool) -> None:
    if target.is_dir():
        raise UsageError(f"{target}: is a folder", next=f"-o {target}/NAME")
    if target.exists() and not force and not is_special(target):
        raise _exists(target)


def _exists(target: Path) -> UsageError:
    return UsageError(f"{target}: is there already", next="-f overwrites it")


def is_special(path: Path) -> bool:
    """A device or a pipe: written to as it is, since it can't be renamed into place."""
    return path.exists() and not path.is_file() and not path.is_dir()


class AtomicFile:
    """A file under a temporary name in the folder of its target, until `commit`."""

    def __init__(self, path: str | Path, *, force: bool = False) -> None:
        """UsageError as `check_writable` says."""
        check_writable(path, force)
        self.target, self.force = _target(path), force
        unique = secrets.token_hex(6)
        # Names have 255 bytes at most; the temporary one may not be longer than the real one.
        self.temporary = self.target.with_name(f".{self.target.name[:40]}.{unique}.tmp")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        self.file: BinaryIO = os.fdopen(os.open(self.temporary, flags, 0o666), "r+b")

    def commit(self, target: Path | None = None, *, force: bool | None = None) -> Path:
        """Put it in its place (or at `target`): all on disk first, then the name."""
        target = target or self.target
        force = self.force if force is None else force
        self.file.flush()
        if target.exists() and force:
            with suppress(OSError):
                os.fchmod(self.file.fileno(), target.stat().st_mode & 0o7777)
        os.fsync(self.file.fileno())
        self.file.close()
        if force:
            os.replace(self.temporary, target)
        else:
            _rename_new(self.temporary, target)
        _sync_folder(target.parent)
        return target

    def discard(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):  # closing flushes, and the disk may be what is full
            self.file.close()
        self.temporary.unlink(missing_ok=True)


def _rename_new(temporary: Path, target: Path) -> None:
    """Rename that never replaces: of two processes that write the same name, one gets it."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise _exists(target) from None
    except OSError as e:
        if e.errno not in _NO_LINKS:
            raise
        # No hard links here (FAT, some network disks): claim the name with an empty file.
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            raise _exists(target) from None
        os.replace(temporary, target)
    else:
        temporary.unlink()


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems can't; the file itself is on disk
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@contextmanager
def atomic_write(path: str | Path, *, force: bool = False) -> Iterator[BinaryIO]:
    """A binary file (seekable, readable) that takes its name when the block ends well, synced to
    disk, and leaves no trace when it doesn't. A device or pipe is opened as it is.

    UsageError if the path is taken and `force` isn't given, also when another process took it
    meanwhile; VidgenError when the disk is full.
    """
    if is_special(Path(path)):
        with open(path, "wb") as f:
            yield f
        return
    out = AtomicFile(path, force=force)
    try:
        with disk_full_is_an_error(path):
            yield out.file
            out.commit()
    except BaseException:
        out.discard()
        raise


@contextmanager
def disk_full_is_an_error(path: str | Path) -> Iterator[None]:
    """Turn the system's "no space left" into a VidgenError that says where and how much."""
    try:
        yield
    except OSError as e:
        if e.errno not in _FULL:
            raise
        free = shutil.disk_usage(_target(path).parent).free
        raise VidgenError(
            f"{path}: {os.strerror(e.errno).lower()}",
            why=f"{human_bytes(free)} free in {_target(path).parent}",
            next="make room, or choose another place with -o",
        ) from e
