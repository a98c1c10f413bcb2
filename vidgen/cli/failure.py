"""Errors as people read them: what, why, next on standard error, and an exit code."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen import __version__
from vidgen.errors import Exit, OutOfMemory, UsageError, VidgenError, is_out_of_memory

if TYPE_CHECKING:
    from vidgen.cli.command import Command
    from vidgen.cli.console import Console


class Terminated(BaseException):
    """SIGTERM came. Unwinds like KeyboardInterrupt; the program then dies by the signal."""

    EXIT_CODE = 128 + 15


@dataclass
class Failure:
    """What there is to know about the command line when something fails."""

    words: Sequence[str]
    verb: str | None = None
    command: Command | None = None
    console: Console | None = None
    debug: bool = False
    json: bool = False

    @classmethod
    def of(cls, words: Sequence[str]) -> Failure:
        """From the bare words, for errors that come before they are understood."""
        return cls(words, debug="--debug" in words, json="--json" in words)

    @property
    def name(self) -> str:
        return f"vidgen {self.verb}" if self.verb else "vidgen"

    @property
    def events(self) -> bool:
        """Whether standard error is for machines (`--progress json`)."""
        if self.console is not None:
            return self.console.json
        pairs = zip(self.words, self.words[1:], strict=False)
        return ("--progress", "json") in pairs or "--progress=json" in self.words


def report(error: BaseException, failure: Failure) -> int:
    """Say it, and return the exit code. Output that was written before the error is kept."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    try:
        sys.stdout.flush()
    except OSError:  # the first error is the one to tell
        _abandon_stdout()
    if isinstance(error, BrokenPipeError):
        _abandon_stdout()
        return Exit.CLOSED_PIPE  # quietly: whoever read us has enough
    said = _understood(error) or _crash(error, failure)
    if failure.console is not None:
        with suppress(OSError):
            failure.console.stop_bar()
    with suppress(OSError):
        _print(said, failure, Terminated.EXIT_CODE if isinstance(error, Terminated) else None)
        if failure.debug:
            traceback.print_exception(error)
    return Terminated.EXIT_CODE if isinstance(error, Terminated) else int(said.exit_code)


def _understood(error: BaseException) -> VidgenError | None:
    """The error in our words; None for one that nobody foresaw."""
    if isinstance(error, VidgenError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return _Stopped("interrupted", error)
    if isinstance(error, Terminated):
        return _Stopped("stopped by SIGTERM", error)
    if is_out_of_memory(error):
        return OutOfMemory(
            "out of memory",
            why=str(error).splitlines()[0] if str(error) else None,
            next="try a smaller --batch-size, --dtype bf16, or --device cpu",
        )
    if isinstance(error, OSError):
        return _system_error(error)
    return None


class _Stopped(VidgenError):
    """A signal; what was kept is told."""

    exit_code = Exit.INTERRUPTED

    def __init__(self, what: str, error: BaseException) -> None:
        super().__init__(what, next="; ".join(getattr(error, "__notes__", ())) or None)


def _system_error(error: OSError) -> VidgenError:
    """What the system refused, where it doesn't speak of a path the user should correct."""
    where = f"{error.filename}: " if error.filename is not None else ""
    what = f"{where}{(error.strerror or str(error) or type(error).__name__).lower()}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = f"{where or 'standard output: '}{os.strerror(error.errno).lower()}"
        return VidgenError(what, next="make room, or choose another place with -o")
    if error.errno == errno.EBADF and not where:
        return VidgenError("standard output is closed", next="-o FILE writes to a file")
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return UsageError(what)
    return VidgenError(what)


def _crash(error: BaseException, failure: Failure) -> VidgenError:
    """An error that nobody foresaw: the traceback goes to a file, its path to the user."""
    summary = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    text = (
        f"vidgen {__version__}, Python {sys.version.split()[0]}, {sys.platform}\n"
        f"words: {list(failure.words)!r}\n\n" + "".join(traceback.format_exception(error))
    )
    path = _save(f"{failure.name.replace(' ', '-')}-{os.getpid()}.txt", text)
    again = "run it again with --debug to see where it arose"
    return VidgenError(
        f"stopped by an unexpected error: {summary}",
        why="this is a bug in vidgen, not in what you typed",
        next=f"please report it with the traceback in {path}" if path else again,
    )


def _save(name: str, text: str) -> Path | None:
    """Into the cache folder, or the system's folder for temporary files."""
    from vidgen.io.weights import cache_folder

    for folder in (cache_folder() / "crashes", Path(tempfile.gettempdir())):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return path
    return None


def _print(error: VidgenError, failure: Failure, code: int | None) -> None:
    from vidgen.cli.console import printable
    from vidgen.cli.runner import NoInput

    if not failure.events:
        if isinstance(error, NoInput) and failure.command is not None:
            from vidgen.cli.help import usage

            sys.stderr.write(usage(failure.command))
        first, *more = map(printable, error.lines())
        sys.stderr.write("\n".join([f"{failure.name}: {first}", *more]) + "\n")
    if failure.events or failure.json:
        sys.stderr.write(json.dumps(as_json(error, failure, code), ensure_ascii=False) + "\n")


def as_json(error: VidgenError, failure: Failure, code: int | None) -> dict[str, Any]:
    """The error as one object (`vidgen schema vidgen.error/1`)."""
    row = {
        "schema": "vidgen.error/1",
        "command": failure.verb,
        "code": int(error.exit_code) if code is None else code,
        "what": error.what,
        "why": error.why,
        "next": error.next,
    }
    return {"event": "error", **row} if failure.events else row


def _abandon_stdout() -> None:
    """Point standard output at nothing, so that Python has nothing to complain of at exit."""
    with suppress(OSError, ValueError, AttributeError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
