"""The next clips of a released model are sampled while the last ones are decoded: on a GPU, in one
process.

Each of the two leaves a GPU idle for a part of its time, decoding for as long as frames are on
their way to the CPU, sampling between its kernels. So sampling goes on a thread and a stream of its
own, as many clips ahead as one batch has, where the memory holds both. On a CPU both would want all
cores, and there is nothing to be had; models of ours are decoded in no time beside their sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Semaphore, Thread

import torch

from vidgen.io.record import Record
from vidgen.stages import decode_clips
from vidgen.stages.base import Compute, Notify
from vidgen.stages.encode_text import TOGETHER
from vidgen.stages.fitting import SPARE, weight_bytes
from vidgen.stages.memory import free_bytes
from vidgen.stages.sample_clips import run_of
from vidgen.stages.sample_keyframes import Choices
from vidgen.systems.base import ModelFolder

GRACE_S = 10.0  # for work that isn't wanted any more to come to its next step


def pays(folder: ModelFolder, choices: Choices, count: int, compute: Compute) -> bool:
    """Whether sampling goes ahead of decoding: of a released model on CUDA, for more samples than
    one batch has, where the memory holds both.

    Not where memory is spared (--offload), or the text encoder comes back between batches; nor with
    an attention kernel of one's choice or --compile, which are settings of the whole process.
    """
    device = compute.torch_device()
    usual = (compute.offload, compute.attention, compute.compile) == ("none", "auto", False)
    if not folder.released or device.type != "cuda" or not usual:
        return False
    if not compute.batch_size < count <= TOGETHER:
        return False
    free = free_bytes(device)
    return free is None or _needed(folder, choices, compute) < SPARE * free


def _needed(folder: ModelFolder, choices: Choices, compute: Compute) -> int:
    """Bytes that sampling and decoding take together."""
    from vidgen.stages import needs, plan_clips  # not for those who don't ask

    run, precise = run_of(folder, choices), decode_clips.precise(folder, compute)
    vae = folder.released.build_autoencoder(folder)
    decoder = sum(p.numel() for p in vae.parameters()) * precise.torch_dtype().itemsize
    decoding = needs.decoding(folder, precise, plan_clips.to_come(folder, 1, choices), None).peak
    sampling = needs.sampling_peak(run, compute, compute.batch_size)
    return weight_bytes(run, compute) + sampling + decoder + decoding


class _Stopped(Exception):
    """Nobody wants what is being made any more."""


@dataclass(frozen=True)
class _Stoppable:
    """Tells what it is told, until work is to stop: then it stops at its next step, in silence."""

    notify: Notify
    stop: Event

    def warn(self, text: str) -> None:
        if not self.stop.is_set():
            self.notify.warn(text)

    def step(self, done: int, total: int, unit: str) -> None:
        if self.stop.is_set():
            raise _Stopped
        self.notify.step(done, total, unit)


@dataclass(frozen=True)
class Aside:
    """Tells only what a person should know: of work beside other work, whose steps are told."""

    notify: Notify

    def warn(self, text: str) -> None:
        self.notify.warn(text)

    def step(self, done: int, total: int, unit: str) -> None:
        pass


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


def ahead(
    make: Callable[[Notify], Iterable[Record]], device: torch.device, notify: Notify, *, most: int
) -> Generator[Record, None, None]:
    """The records that `make` makes, up to `most` of them before they are asked for.

    An error comes out after all that was made before it. Whoever stops asking closes this, which
    waits for the work to come to its next step, but not for long; an interrupt waits for nothing.
    """
    made, room, stop = SimpleQueue[Record | _End](), Semaphore(most), Event()

    def work() -> None:
        end = _End()
        try:
            with _stream(device):
                for record in make(_Stoppable(notify, stop)):
                    made.put(record)
                    room.acquire()
                    if stop.is_set():
                        return
        except BaseException as error:  # whatever it is, it is for who asks
            end = _End(error)
        made.put(end)

    # A daemon: no program waits for it at its end.
    thread = Thread(target=work, name="vidgen-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(record := made.get(), _End):
            yield record
            room.release()
        if record.error is not None:
            raise record.error
    except GeneratorExit:
        stop.set()
        room.release()
        thread.join(GRACE_S)
        raise
    finally:
        stop.set()
        room.release()


def _stream(device: torch.device) -> AbstractContextManager:
    """Kernels of one stream wait for each other, those of two don't."""
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))
