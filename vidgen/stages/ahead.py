"""The next clips are sampled while the last ones are decoded: on a GPU, in one process.

Each of the two leaves a GPU idle for a part of its time, decoding for as long as frames are on
their way to the CPU, sampling between its kernels. So sampling goes on a thread and a stream of its
own, as many clips ahead as one batch has, where the memory holds both. What is made is the same to
the bit. On a CPU both would want all cores, and there is nothing to be had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Semaphore, Thread

import torch

from vidgen.io.record import Record
from vidgen.stages import decode, decode_clips, upsample
from vidgen.stages.base import Compute, Notify
from vidgen.stages.cascade import yet_to_come
from vidgen.stages.costs import on_meta
from vidgen.stages.fitting import SPARE, weight_bytes
from vidgen.stages.memory import free_bytes
from vidgen.stages.sample_clips import run_of
from vidgen.stages.sample_keyframes import Choices
from vidgen.systems.base import ModelFolder

ROUGH = 2  # times what a few layers of our own small networks hold is more than all of it


def pays(
    folder: ModelFolder,
    choices: Choices,
    count: int,
    compute: Compute,
    *,
    passes: int = 0,
    scale: int = 1,
    which: decode.Which | None = None,
) -> bool:
    """Whether sampling goes ahead of decoding: on CUDA, for more samples than one batch has, where
    memory isn't spared (--offload) and holds both, and with torch's own choice of attention
    kernels, since any other is one for the whole process."""
    device = compute.torch_device()
    wanted = (compute.offload, compute.attention) == ("none", "auto") and not folder.in_pixels
    if device.type != "cuda" or not wanted or count <= compute.batch_size:
        return False
    free = free_bytes(device)
    if folder.released:
        needed = _released(folder, choices, compute)
    else:
        needed = ROUGH * _ours(folder, compute, passes, scale, which)
    return free is None or needed < SPARE * free


def _released(folder: ModelFolder, choices: Choices, compute: Compute) -> float:
    """Bytes that sampling and decoding take together."""
    from vidgen.stages import needs, plan_clips  # not for those who don't ask

    run, precise = run_of(folder, choices), decode_clips.precise(folder, compute)
    vae = folder.released.build_autoencoder(folder)
    weights = sum(p.numel() for p in vae.parameters()) * precise.torch_dtype().itemsize
    decoding = needs.decoding(folder, precise, plan_clips.to_come(folder, 1, choices), None).peak
    sampling = needs.sampling_peak(run, compute, compute.batch_size)
    return weight_bytes(run, compute) + sampling + weights + decoding


def _ours(
    folder: ModelFolder, compute: Compute, passes: int, scale: int, which: decode.Which | None
) -> float:
    (clip,), (large,) = (yet_to_come(folder, 1, passes, sides) for sides in (1, scale))
    component = decode.component_of(folder, which)
    network = on_meta(lambda: decode.load(folder, component))
    decoding = decode.live(network, large["latents"].shape, compute)
    if scale == 1:
        return decoding
    method, shape = upsample.method_of(folder, upsample.Choices(scale)), clip["latents"].shape
    return decoding + upsample.memory_bytes(shape, method, compute, compute.batch_size)


class _Stopped(Exception):
    """Nobody wants what is being made any more."""


@dataclass(frozen=True)
class _Stoppable:
    """Tells what it is told, until work is to stop: then it stops at its next step."""

    notify: Notify
    stop: Event

    def warn(self, text: str) -> None:
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
) -> Iterator[Record]:
    """The records that `make` makes, up to `most` of them before they are asked for.

    An error comes out after all that was made before it. Who stops asking waits for the step that
    is under way, and no longer.
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

    thread = Thread(target=work, name="vidgen-ahead")
    thread.start()
    try:
        while not isinstance(record := made.get(), _End):
            yield record
            room.release()
        if record.error is not None:
            raise record.error
    finally:
        stop.set()
        room.release()
        thread.join()


def _stream(device: torch.device) -> AbstractContextManager:
    """Kernels of one stream wait for each other, those of two don't."""
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))
