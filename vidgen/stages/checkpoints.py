"""Sampling that can be stopped and taken up again, to the same bit.

A step of a solver is all there is to know (`vidgen.diffusion.solvers.Step`): it is written to a
file whose name is made of everything that shapes the samples of a batch. So one folder serves many
runs, and a run with another prompt, seed, model or number of steps finds nothing there to go on
from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from vidgen.diffusion.level import Levels
from vidgen.diffusion.solvers import Step
from vidgen.errors import InputError, TryAgain, UsageError
from vidgen.io import files
from vidgen.io.layout import canonical_json
from vidgen.io.record import Record
from vidgen.io.stream import read_stream, write_stream
from vidgen.stages.base import Notify

MEMORY = "memory."


@dataclass(frozen=True)
class Checkpoints:
    """Where steps are kept, and how often.

    every       steps between two checkpoints
    preview_every  steps between two pictures of x0; None: there are none
    stop_after  as many steps are taken in all, and the rest when run again; None: all of them
    resume      auto: go on from a checkpoint if there is one; yes: insist; no: begin anew
    """

    folder: str
    every: int = 10
    preview_every: int | None = None
    stop_after: int | None = None
    resume: Literal["auto", "yes", "no"] = "auto"

    def steps(
        self,
        solve: Callable[[Step | None], Iterator[Step]],
        levels: Levels,
        shaping: Any,
        device: torch.device,
        notify: Notify,
        preview: Callable[[Path, Step], None],
    ) -> Iterator[Step]:
        """The steps that are still to take, kept as they come; the last one's checkpoint is taken
        away again. TryAgain after `stop_after`.

        solve    a step to begin behind → the steps
        shaping  JSON of everything that the result depends on
        preview  writes a picture of a step
        """
        path = Path(self.folder) / f"{_digest(shaping)}.safetensors"
        start = self._start(path, levels, device)
        total, end = len(levels) - 1, self.stop_after
        if start is not None:
            notify.warn(f"goes on after step {start.i + 1} of {total}, from {path}")
            if end is not None and start.i + 1 >= end:
                raise self._stopped(start.i + 1, total)
        for step in solve(start):
            done = step.i + 1
            if done < total and (done % self.every == 0 or done == end):
                _write(path, step)
            if self.preview_every is not None and (done % self.preview_every == 0 or done == total):
                preview(path.with_suffix(".png"), step)
            yield step
            if done == end and done < total:
                raise self._stopped(done, total)
        path.unlink(missing_ok=True)

    def _stopped(self, done: int, total: int) -> TryAgain:
        return TryAgain(
            f"stopped after {done} of {total} steps, as --stop-after {self.stop_after} says",
            next="the same command without --stop-after goes on",
        )

    def _start(self, path: Path, levels: Levels, device: torch.device) -> Step | None:
        if self.resume == "no":
            return None
        if not path.is_file():
            if self.resume == "yes":
                raise UsageError(
                    f"--resume yes: {self.folder} has no checkpoint of these samples",
                    why="another prompt, seed, model or option makes other samples",
                    next="--resume auto begins anew",
                )
            return None
        record = next(iter(read_stream(path)))
        i = record.attrs.get("step")
        if not isinstance(i, int) or not 0 <= i < len(levels) - 1:
            raise InputError(f"{path}: is no checkpoint of {len(levels) - 1} steps")
        tensors = {name: record.torch(name).clone().to(device) for name in record.tensors}
        memory = {k.removeprefix(MEMORY): x for k, x in tensors.items() if k.startswith(MEMORY)}
        return Step(i, levels[i + 1], tensors["z"], tensors["x0"], memory)


def _digest(shaping: Any) -> str:
    return hashlib.sha256(canonical_json(shaping)).hexdigest()[:32]


def _write(path: Path, step: Step) -> None:
    """The file is there whole, or as it was before."""
    kept = {"z": step.z, "x0": step.x0} | {MEMORY + k: x for k, x in step.memory.items()}
    tensors = {name: x.detach().cpu().contiguous() for name, x in kept.items()}
    record = Record.make("features", path.stem, tensors, {"step": step.i})
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_write(path, force=True) as file:
        write_stream([record], file)
