"""What a run writes down and says: `metrics.jsonl`, the loss plot, progress events."""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from vidgen.errors import UsageError
from vidgen.train.plot import plot_loss

Progress = Callable[[dict[str, Any]], None]


class Journal:
    """The written side of a run: `OUT/metrics.jsonl`, `OUT/loss.png` and a progress callback.

    Events are dicts with an `event`: start, prepare, step, eval, sample, checkpoint, end; `step`
    events carry step, used (0…1 of the budget), eta_s, loss, lr, grad_norm, samples_per_s.
    A quiet journal (of a process that isn't the first) does nothing. Use as a context manager:
    one process at a time may write in a folder.
    """

    def __init__(self, out: Path, progress: Progress | None, *, quiet: bool) -> None:
        self.out, self.quiet = out, quiet
        self._progress = None if quiet else progress
        self._lock: TextIO | None = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def begin(self, step: int, recipe_yaml: str) -> None:
        """Write the recipe; drop lines after `step`, which a resumed run writes again."""
        if self.quiet:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        lock = (self.out / ".lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._lock = lock
        except BlockingIOError:
            lock.close()
            raise UsageError(
                f"{self.out}: another process is training there",
                next="wait for it, or choose another --out",
            ) from None
        _replace(self.out / "recipe.yaml", recipe_yaml)
        path = self.out / "metrics.jsonl"
        if path.exists():
            _replace(path, "".join(_line(r) for r in read_metrics(path) if r["step"] <= step))

    def tell(self, event: str, **facts: Any) -> None:
        if self._progress is not None:
            self._progress({"event": event, **facts})

    def write(self, **row: Any) -> None:
        if not self.quiet:
            with (self.out / "metrics.jsonl").open("a") as file:
                file.write(_line(row))

    def plot(self, title: str) -> None:
        path = self.out / "metrics.jsonl"
        if not self.quiet and path.exists():
            plot_loss(read_metrics(path), self.out / "loss.png", title=title)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line that was cut by a crash is left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


class Window:
    """Running sums of scalars since the last `clear`, kept on the device until asked for.

    A single NaN or infinity makes its sum non-finite: checking the sums checks every step.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self.clear()

    def add(self, samples: int, **scalars: Tensor | float) -> None:
        self._samples += samples
        self._steps += 1
        for name, value in scalars.items():
            value = torch.as_tensor(value).detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """The mean of each scalar; waits for the device."""
        return {name: float(s) / self._counts[name] for name, s in self._sums.items()}

    def finite(self) -> bool:
        """Whether loss and gradient norm were finite in every step so far."""
        checked = [self._sums[n] for n in ("loss", "grad_norm") if n in self._sums]
        return all(math.isfinite(float(total)) for total in checked)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens inside (an evaluation, say) out of the throughput."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def rates(self) -> tuple[float, float]:
        """(steps, samples) per second."""
        seconds = max(1e-9, time.monotonic() - self._since)
        return self._steps / seconds, self._samples / seconds

    def clear(self) -> None:
        self._sums.clear()
        self._counts.clear()
        self._samples = self._steps = 0
        self._since = time.monotonic()


class Budget:
    """How much of the steps or minutes is spent, and how long the rest takes."""

    def __init__(self, steps: int | None, minutes: float | None) -> None:
        self.steps = steps
        self.seconds = None if minutes is None else 60.0 * minutes

    def used(self, step: int, elapsed_s: float) -> float:
        """The spent part, 0…1: the larger of steps and time."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = elapsed_s / self.seconds if self.seconds else 0.0
        return max(by_steps, by_time)

    def eta_s(self, step: int, elapsed_s: float, steps_per_s: float) -> float:
        """Seconds to go at this pace: the smaller of steps and time."""
        by_steps = (self.steps - step) / max(steps_per_s, 1e-9) if self.steps else math.inf
        by_time = self.seconds - elapsed_s if self.seconds else math.inf
        return max(0.0, min(by_steps, by_time))


def _line(row: dict[str, Any]) -> str:
    return json.dumps({k: _rounded(v) for k, v in row.items()}) + "\n"


def _rounded(value: Any) -> Any:
    """Six significant digits are enough to read; JSON has no NaN."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
