"""What every stage shares: where it computes, whom it tells, and how it groups its work."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from vidgen.errors import InputError, UsageError, VidgenError
from vidgen.io.record import Record
from vidgen.io.weights import cache_folder

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

Stage = Callable[[Iterator[Record]], Iterator[Record]]

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Compute:
    """Where and how a stage computes. `auto` picks CUDA, then MPS, then the CPU."""

    device: str = "auto"
    dtype: str = "auto"  # auto: float32 on a CPU, bfloat16 on CUDA
    attention: str = "auto"  # a key of vidgen.nn.attention.KERNELS
    batch_size: int = 4
    compile: bool = False
    cuda_graphs: bool = False  # of networks of ours (vidgen.nn.graphs)
    preload: bool = False  # read weights before the first record is here: for a stage in a pipe
    offload: str = "none"  # of released models: model or layer (vidgen.stages.placing)
    weight_dtype: str = "auto"  # how their blocks' matrices are kept: as they are, or fp8

    def __post_init__(self) -> None:
        """What the compiler makes is kept in the user's cache, where later processes find it. That
        is said here because torch takes another place when first any of its compiler is imported,
        which work done before compiling does."""
        if self.compile:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))

    def torch_device(self) -> torch.device:
        """The device; UsageError if it is not there."""
        import torch

        name = self.device
        if name == "auto":
            if torch.cuda.is_available():
                return torch.device("cuda")
            return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
        try:
            device = torch.device(name)
        except RuntimeError:
            raise UsageError(
                f"no device is called `{name}`", next="one of: auto, cpu, cuda, cuda:N, mps"
            ) from None
        if device.type == "cuda" and not torch.cuda.is_available():
            raise UsageError(
                f"--device {name}: this torch ({torch.__version__}) sees no CUDA device",
                next="leave --device out to use what there is",
            )
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise UsageError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices")
        if device.type == "mps" and not torch.backends.mps.is_available():
            raise UsageError(f"--device {name}: this torch sees no MPS device")
        return device

    def torch_dtype(self) -> torch.dtype:
        """The dtype of weights and activations; solver state is float32 whatever this says."""
        import torch

        if self.dtype == "auto":
            return torch.bfloat16 if self.torch_device().type == "cuda" else torch.float32
        if self.dtype not in DTYPES:
            raise UsageError(f"--dtype {self.dtype}: choose one of {', '.join(DTYPES)}")
        return getattr(torch, DTYPES[self.dtype])

    @property
    def prompts_together(self) -> int | None:
        """How many are encoded before the text encoder makes room; None: it never does."""
        return None if self.offload == "none" else self.batch_size

    def check(self) -> None:
        """UsageError now, rather than at the first record, for a device or dtype that isn't."""
        device = self.torch_device().type
        self.torch_dtype()
        if device != "cuda" and self.attention in ("efficient", "cudnn", "fa3"):
            raise UsageError(
                f"--attention {self.attention}: that kernel runs on CUDA, not on {device}",
                next="one of: auto, math, flash",
            )
        if self.attention == "fa3" and find_spec("flash_attn_interface") is None:
            raise UsageError(
                "--attention fa3: FlashAttention 3 is not installed",
                why="its Python module is flash_attn_interface, for Hopper GPUs",
                next="--attention auto takes what torch has",
            )
        if self.cuda_graphs and device != "cuda":
            raise UsageError(
                f"--cuda-graphs: on {device} there are none",
                next="leave --cuda-graphs out; --compile is for all devices",
            )
        if device == "mps" and (self.offload, self.weight_dtype) != ("none", "auto"):
            raise UsageError(
                "--offload and --weight-dtype are for CUDA and the CPU, not for mps",
                next="--device cpu --offload layer",
            )
        if device == "cpu" and self.offload == "layer" and self.weight_dtype == "fp8":
            raise UsageError(
                "--weight-dtype fp8 has nothing to save beside --offload layer on a CPU",
                why="there blocks are read from their files by turn, and not kept at all",
                next="choose one of the two",
            )

    def accelerations(self) -> dict[str, Any]:
        """The log's words for what is done to networks to be quicker (`accelerated`)."""
        asked = {"compiled": self.compile, "cuda_graphs": self.cuda_graphs}
        return {name: True for name, wanted in asked.items() if wanted}

    def described(self) -> dict[str, Any]:
        """The log's words for it."""
        device, dtype = self.torch_device(), str(self.torch_dtype()).removeprefix("torch.")
        return {"device": device.type, "device_name": device_name(device), "dtype": dtype}


def device_name(device: torch.device) -> str:
    """What the maker calls it: `NVIDIA H200`, `AMD EPYC 9554`."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


@cache
def cpu_name() -> str:
    """The processor's model, or its architecture where the system doesn't tell more."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
        for line in f:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Notify(Protocol):
    """Whom a stage tells what a person may want to know."""

    def warn(self, text: str) -> None: ...

    def step(self, done: int, total: int, unit: str) -> None: ...


class Silent:
    """Tells nobody."""

    def warn(self, text: str) -> None:
        pass

    def step(self, done: int, total: int, unit: str) -> None:
        pass


def batched(items: Iterable[T], n: int) -> Iterator[list[T]]:
    """Lists of up to n items; one list in memory at a time.

    When the source fails, what it gave before comes first: the work that can be done is done.
    """
    batch: list[T] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == n:
                yield batch
                batch = []
    except VidgenError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def require_kind(record: Record, kind: str, *, made_by: str) -> None:
    """InputError unless the record is of this kind."""
    if record.kind != kind:
        raise InputError(
            f"record `{record.id}` holds {record.kind}, this stage takes {kind}",
            next=f"put `{made_by}` in front of it",
        )


def require_tensor(record: Record, name: str, dtypes: tuple[str, ...], *sizes: int | None) -> None:
    """InputError unless the record has the tensor, in one of the dtypes (safetensors names), of
    these sizes (None: any, but not zero)."""
    blob = record[name]
    fits = len(blob.shape) == len(sizes) and all(
        have > 0 and want in (None, have) for have, want in zip(blob.shape, sizes, strict=False)
    )
    if blob.dtype not in dtypes or not fits:
        wanted = " ".join("n" if size is None else str(size) for size in sizes)
        raise InputError(
            f"record `{record.id}`: `{name}` is {blob.dtype} {list(blob.shape)},"
            f" this stage takes {' or '.join(dtypes)} [{wanted}]",
            next="vidgen inspect shows what each record holds",
        )


def require_whole(record: Record, name: str) -> int:
    """The attribute as a whole number above zero; InputError if it is anything else."""
    value = record.attrs.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"record `{record.id}`: attribute `{name}` is {value!r}, not a number")
    return value


FLOATS = ("F32", "F16", "BF16")


def compiled(network: Any, compute: Compute) -> Any:
    """The network; compiled block by block if that is asked for. Once, when it is loaded: each time
    is a compilation of its own."""
    if compute.compile:
        for block in network.blocks:
            block.compile()
    return network


def accelerated(network: Any, compute: Compute) -> Any:
    """A network of ours, which stays where it will be: compiled, and its kernels captured, if that
    is asked for."""
    compiled(network, compute)
    if compute.cuda_graphs:
        from vidgen.nn.graphs import graphed

        graphed(network)
    return network


class Loading:
    """Weights that are read once: in the background from `now` on, or when first asked for."""

    def __init__(self, load: Callable[[], T], *, now: bool = False) -> None:
        self._load = load
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="vidgen-load")
        self._future: Future | None = self._pool.submit(load) if now else None

    def get(self):
        """What was loaded; waits for it. An error of the loading comes out here."""
        if self._future is None:
            self._future = self._pool.submit(self._load)
        return self._future.result()
