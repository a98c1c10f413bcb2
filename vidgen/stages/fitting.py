"""Whether a released model fits where it is to be sampled, and what would make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from vidgen.errors import OutOfMemory
from vidgen.nn.by_turn import tensors
from vidgen.stages.base import Compute
from vidgen.stages.memory import free_bytes, require_memory
from vidgen.stages.needs import sampling_peak
from vidgen.stages.placing import BLOCKS, is_fp8
from vidgen.systems.released import Run

SPARE = 0.9  # of what is free: estimates are no better, and kernels want room of their own
SURE = 8  # times what a block's widest moment holds is more than all of it ever does


@dataclass
class _Sizes:
    """Bytes of a network's weights that must be in memory to be computed with."""

    blocks: int = 0  # as they are computed with
    kept: int = 0  # the same as they are kept
    others: int = 0


def weight_bytes(run: Run, compute: Compute) -> int:
    """Of the networks' weights that are on the device at one time, at most. On a CPU those that are
    computed with as they lie in files count nothing: the system takes them in and out."""
    taken = []
    for component in run.components:
        sizes, depth = _sizes(run, component, compute)
        turn = 2 * sizes.blocks // depth
        if compute.offload == "layer":
            taken.append(sizes.others + turn)
        elif compute.weight_dtype == "fp8":
            taken.append(sizes.others + sizes.kept + turn)
        else:
            taken.append(sizes.others + sizes.blocks)
    return max(taken) if compute.offload == "model" else sum(taken)


def _sizes(run: Run, component: str, compute: Compute) -> tuple[_Sizes, int]:
    """And the number of blocks."""
    network: Any = run.build(component)
    sizes = _Sizes()
    on_cpu = compute.torch_device().type == "cpu"
    found = run.windows(component, network) if on_cpu else {}
    for name, x in tensors(network).items():
        wanted = run.dtype_of(name, compute.torch_dtype())
        fp8 = is_fp8(name, x.shape, compute)
        if on_cpu and not fp8 and found[name].torch_dtype == wanted:
            continue
        size = x.numel() * wanted.itemsize
        if name.startswith(BLOCKS):
            sizes.blocks += size
            sizes.kept += x.numel() if fp8 else size
        else:
            sizes.others += size
    return sizes, len(network.blocks)


def require_work(run: Run, compute: Compute, samples: int) -> None:
    """OutOfMemory where weights and a batch of so many samples don't fit together. What is sure to
    fit isn't counted: that takes a second."""
    free, weights = free_bytes(compute.torch_device()), weight_bytes(run, compute)
    branches = 1 if run.sampler["guidance_scale"] == 1 else 2
    about = samples * branches * run.live * compute.torch_dtype().itemsize
    if free is None or weights + SURE * about < free:
        return
    if weights + sampling_peak(run, compute, samples) > free:
        raise out_of_memory(run, compute, samples, free)


def require_weights(run: Run, compute: Compute, samples: int) -> None:
    """OutOfMemory where not even the weights fit."""
    device, needed = compute.torch_device(), weight_bytes(run, compute)
    free = free_bytes(device)
    if free is not None and needed > free:
        advice = fitting(run, compute, samples, free)
        require_memory(needed, device, what="the model", next=advice)
    if compute.offload == "layer" and device.type == "cuda":
        pinned = sum(_sizes(run, component, compute)[0].kept for component in run.components)
        require_memory(
            pinned, torch.device("cpu"), what="--offload layer", next="--offload model, or none"
        )


def out_of_memory(run: Run, compute: Compute, samples: int, free: int | None) -> OutOfMemory:
    """The error where `free` bytes were too few."""
    made, some = run.made, f"{samples} samples" if samples > 1 else "a sample"
    return OutOfMemory(
        f"{some} of {made.num_frames} frames of {made.width}x{made.height} and the model don't fit"
        f" in the memory of {compute.torch_device()}",
        next=fitting(run, compute, samples, free),
    )


def fitting(run: Run, compute: Compute, samples: int, free: int | None) -> str:
    """The options that make it fit and cost the least, by what is estimated; or that there are
    none."""
    for words, other in _cheaper(run, compute):
        together = min(samples, other.batch_size)
        needed = weight_bytes(run, other) + sampling_peak(run, other, together)
        if free is None or needed < SPARE * free:
            return words
    return "a smaller --size, or fewer --num-frames"


def _cheaper(run: Run, compute: Compute) -> Iterator[tuple[str, Compute]]:
    """Options that take less memory, and all of it with them: by what they cost in time, and last
    what isn't exact."""
    words, device = "", compute.torch_device().type
    if compute.batch_size > 1:
        words, compute = "--batch-size 1 ", replace(compute, batch_size=1)
        yield words.strip(), compute
    if compute.offload == "none" and len(run.components) > 1 and device != "mps":
        yield f"{words}--offload model", replace(compute, offload="model")
    fp8_on_cpu = device == "cpu" and compute.weight_dtype == "fp8"
    if compute.offload != "layer" and device != "mps" and not fp8_on_cpu:
        words, compute = f"{words}--offload layer ", replace(compute, offload="layer")
        yield words.strip(), compute
    if compute.torch_dtype() == torch.float32:
        yield f"{words}--dtype bf16", replace(compute, dtype="bf16")
