"""SIGTERM and SIGINT as a wish to stop after the present step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Signals:
    """While entered, the first SIGTERM or SIGINT only sets `caught`; a second one does what it
    usually does. Outside the main thread Python can't catch signals, so nothing changes there.
    """

    WATCHED = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.caught = 0  # signal number; 0 = none
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in self.WATCHED}
            for number in self.WATCHED:
                signal.signal(number, self._catch)
        return self

    def __exit__(self, *exc: object) -> None:
        self._restore()

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.caught = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
