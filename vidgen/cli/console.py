"""What goes to standard error: progress and messages for people, or a line of JSON an event.

Standard output belongs to records and reports. A bar is drawn only on a terminal; elsewhere a
plain line comes now and then, so that a log file stays short. `Console` is what stages know as
`Notify`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_EVERY_S = 10.0  # between two plain lines
PLAIN_AFTER_S = 3.0  # before the first: what is quick needs none
JSON_EVERY_S = 0.1  # between two step events, the first and the last apart


def printable(text: str) -> str:
    """The text with control characters as escapes: names of files and prompts may hold any, and
    none of them may move a cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Console:
    """Messages and progress of one command.

    progress  auto: a bar on a terminal, plain lines elsewhere; or bar, plain, json, none
    quiet     errors only
    verbose   also what is of interest only sometimes
    """

    def __init__(
        self,
        command: str = "",
        *,
        quiet: bool = False,
        verbose: bool = False,
        progress: str = "auto",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.command = command
        self.stream = stream or sys.stderr
        self.quiet, self.verbose = quiet, verbose and not quiet
        self.json = progress == "json"
        self._progress = self._choose(progress)
        self._clock = clock
        self._start = clock()
        self._task: tuple[str, int] | None = None  # unit and total of the work under way
        self._done = 0
        self._first = (0, self._start)  # the first `done` of this work, and when that was
        self._last_word = self._start
        self._bar: Progress | None = None
        self._bar_task: TaskID | None = None
        if self.json:
            self._event("start")

    def _choose(self, progress: str) -> str:
        if progress != "auto":
            return progress
        if self.quiet:
            return "none"
        smart = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        return "bar" if smart else "plain"

    # --- messages ---------------------------------------------------------------------------------

    def warn(self, text: str) -> None:
        """What a person should know although the work goes on."""
        if self.json:
            self._event("warning", text=text)
        elif not self.quiet:
            self._line(f"warning: {text}")

    def say(self, text: str) -> None:
        """What was done; not with -q."""
        if self.json:
            self._event("note", text=text)
        elif not self.quiet:
            self._line(text)

    def note(self, text: str) -> None:
        """What is of interest to the curious; only with -v."""
        if self.verbose:
            self.say(text)

    def _line(self, text: str) -> None:
        line = f"vidgen {self.command}: {printable(text)}"
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self.stream.write(line + "\n")
            self.stream.flush()

    # --- progress ---------------------------------------------------------------------------------

    def step(self, done: int, total: int, unit: str) -> None:
        """`done` of `total` steps of the work under way; another unit or total, or a smaller
        `done`, begins the next piece of work."""
        now = self._clock()
        if self._task != (unit, total) or done <= self._done:
            self._task, self._first = (unit, total), (done, now)
        self._done = done
        match self._progress:
            case "bar":
                self._draw(done, total, unit)
            case "plain":
                self._step_line(now, done, total, unit)
            case "json":
                self._step_event(now, done, total, unit)

    def _left_s(self, now: float, done: int, total: int) -> float | None:
        """Seconds to go, from the pace since the first step; that one's own start is unknown."""
        first, then = self._first
        if done >= total:
            return 0.0
        return (now - then) / (done - first) * (total - done) if done > first else None

    def _step_line(self, now: float, done: int, total: int, unit: str) -> None:
        if now - self._start < PLAIN_AFTER_S or now - self._last_word < PLAIN_EVERY_S:
            return
        self._last_word = now
        left = self._left_s(now, done, total)
        more = f", {human_seconds(left)} left" if left else ""
        self._line(f"{unit} {done} of {total}{more}")

    def _step_event(self, now: float, done: int, total: int, unit: str) -> None:
        if 1 < done < total and now - self._last_word < JSON_EVERY_S:
            return
        self._last_word = now
        left = self._left_s(now, done, total)
        left = None if left is None else round(left, 3)
        self._event("step", unit=unit, done=done, total=total, left_s=left)

    def _draw(self, done: int, total: int, unit: str) -> None:
        if self._bar is None:
            self._bar = _new_bar(self.stream)
            self._bar_task = self._bar.add_task(self.command, total=total, unit=unit)
            self._bar.start()
        assert self._bar_task is not None
        if self._bar.tasks[0].total != total or done < self._bar.tasks[0].completed:
            self._bar.reset(self._bar_task, total=total, unit=unit)
        self._bar.update(self._bar_task, completed=done, unit=unit)

    # --- events -----------------------------------------------------------------------------------

    def _event(self, event: str, **fields: Any) -> None:
        elapsed = round(self._clock() - self._start, 3)
        row = {"event": event, "command": self.command, "elapsed_s": elapsed, **fields}
        self.stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.stream.flush()

    def stop_bar(self) -> None:
        """Take the bar away, so that an error has the line for itself."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def close(self, code: int = 0) -> None:
        """The last event says how it ended."""
        self.stop_bar()
        if self.json:
            self._event("end", code=code)


def _new_bar(stream: TextIO) -> Progress:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}s"),
        TimeLeft(),
    )
    return Progress(*columns, console=RichConsole(file=stream), transient=True)


def human_seconds(s: float) -> str:
    """8 s, 3 min 20 s, 2 h 5 min."""
    s = round(s)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60} s"
    return f"{s // 3600} h {s % 3600 // 60} min"
