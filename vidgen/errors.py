"""What can go wrong, said in three lines, and the one table of exit codes.

Library code raises `VidgenError` (or a subclass); only `vidgen.cli.app` turns it into text on
standard error and a process exit code.
"""

from __future__ import annotations

import sys
from enum import IntEnum


class Exit(IntEnum):
    """Process exit codes, the same for every command (printed into every man page)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BAD_INPUT = 3
    THRESHOLD = 4
    OUT_OF_MEMORY = 5
    TRY_AGAIN = 75
    INTERRUPTED = 130
    CLOSED_PIPE = 141


EXIT_MEANINGS: dict[Exit, str] = {
    Exit.DONE: "done",
    Exit.FAILED: "failed",
    Exit.USAGE: "usage: the command line or a setting is wrong",
    Exit.BAD_INPUT: "input corrupt, truncated or incompatible",
    Exit.THRESHOLD: "a --max, --min or --baseline threshold was missed",
    Exit.OUT_OF_MEMORY: "out of memory",
    Exit.TRY_AGAIN: "stopped by SIGTERM after saving; run again to go on",
    Exit.INTERRUPTED: "interrupted (SIGINT)",
    Exit.CLOSED_PIPE: "the reader of standard output went away",
}


class VidgenError(Exception):
    """An error a person can act on: what happened, why (if not obvious), what to type next.

    `what` names the file, record and the two values that disagree; `next` is a command that can
    be pasted, or what to look at. All lower case, no full stop.
    """

    exit_code: Exit = Exit.FAILED

    def __init__(self, what: str, *, why: str | None = None, next: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.next = next

    def lines(self) -> list[str]:
        """The message as one to three lines, without the command's name."""
        out = [self.what]
        if self.why:
            out.append(f"  why:  {self.why}")
        if self.next:
            out.append(f"  next: {self.next}")
        return out


class UsageError(VidgenError):
    """The command line or a setting is wrong: nothing was read or computed."""

    exit_code = Exit.USAGE


class InputError(VidgenError):
    """The input is corrupt, truncated, or not what this stage takes."""

    exit_code = Exit.BAD_INPUT


class ThresholdError(VidgenError):
    """Measured values are past the --max or --min that the user set, or worse than --baseline."""

    exit_code = Exit.THRESHOLD

    def __init__(self, *missed: str, why: str | None = None, next: str | None = None) -> None:
        super().__init__("; ".join(missed), why=why, next=next)
        self.missed = missed

    def lines(self) -> list[str]:
        """Several that were missed have a line each."""
        if len(self.missed) < 2:
            return super().lines()
        rows = [f"  {one}" for one in self.missed]
        return [f"{len(rows)} thresholds were missed", *rows, *super().lines()[1:]]


class OutOfMemory(VidgenError):
    """The device or the host has too little memory for what was asked."""

    exit_code = Exit.OUT_OF_MEMORY


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, or torch on any device, ran out of memory. Imports no torch: where it isn't
    loaded it can't have raised anything."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


class TryAgain(VidgenError):
    """Stopped on request after saving; the same command goes on from there."""

    exit_code = Exit.TRY_AGAIN
