"""What sampling and decoding clips of a released model need: operations, and memory at the fullest.

Both run on the meta device as they will on the real one, by the same code: networks in the dtype
and the batch that they get, guidance and all, a step after the first as well; the autoencoder chunk
by chunk. Weights are not in it (`vidgen.stages.fitting`).
"""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch

from vidgen.stages.base import Compute
from vidgen.stages.costs import evaluations
from vidgen.stages.tally import Op, Tally, tallied
from vidgen.stages.tiles import Tiles
from vidgen.systems.base import ModelFolder
from vidgen.systems.released import Run

CLIP_TOKENS = 257  # of a picture
PROMPT_TOKENS = 32  # of a prompt, about
SETTLED = 3  # chunks of latents until all further ones are alike
KEPT = 200_000_000  # bytes that glibc keeps of free blocks while clips are decoded: 80 to 460 MB
KEPT_AT_MOST = 5  # times what is allocated


@dataclass
class Needs:
    """Operations, each so often, and the bytes of what is there at the fullest moment."""

    ops: Counter[Op] = field(default_factory=Counter)
    peak: int = 0

    def take(self, ops: Counter[Op], times: int, peak: int) -> None:
        """Work that is done so many times, one after the other."""
        for op, count in ops.items():
            self.ops[op] += times * count
        self.peak = max(self.peak, peak)

    @property
    def flops(self) -> int:
        return sum(op.flops * count for op, count in self.ops.items())


def sampling(run: Run, compute: Compute, count: int) -> Needs:
    """Of so many samples, in batches."""
    needs, (full, rest) = Needs(), divmod(count, compute.batch_size)
    for size, batches in ((compute.batch_size, full), (rest, 1)):
        if size and batches:
            first, later, peak = _steps(run, compute, size)
            needs.take(first, batches, peak)
            times = len(evaluations(run.sampler["solver"], run.levels))
            needs.take(later, batches * (times - 1), peak)
    return needs


def sampling_peak(run: Run, compute: Compute, samples: int) -> int:
    """Bytes of what is there at once, of so many samples in a batch."""
    return _steps(run, compute, samples)[2]


def _steps(run: Run, compute: Compute, size: int) -> tuple[Counter[Op], Counter[Op], int]:
    """Operations of a batch's first step and of a later one, and the peak of both."""
    network: Any = run.build(run.components[0])
    for name, p in network.named_parameters():
        p.data = p.data.to(run.dtype_of(name, compute.torch_dtype()))
    cond, uncond = (_conditions(run, network.config, compute, size) for _ in range(2))
    z = torch.empty(size, *run.shape, device="meta")
    with tallied(compute.torch_device().type) as tally:
        denoise = run.denoiser([network], uncond)
        denoise(z, run.levels[0].on(z), cond)
        first = tally.ops.copy()
        denoise(z, run.levels[min(1, run.steps - 1)].on(z), cond)
    return first, tally.ops - first, tally.peak


def _conditions(run: Run, config: Any, compute: Compute, size: int) -> dict[str, torch.Tensor]:
    """What a network is told, beside the noise level: text, and what comes of a picture."""
    tokens, more = run.text_tokens, config.in_channels - config.out_channels
    cond: dict[str, tuple[int, ...]] = {}
    if hasattr(config, "image_dim"):  # Wan
        if compute.torch_device().type == "cpu":  # where zeros behind a prompt are but one token
            tokens = min(tokens, PROMPT_TOKENS)
        if config.image_dim is not None:
            cond["image"] = (CLIP_TOKENS, config.image_dim)
        if more:
            cond["given"] = (more, *run.shape[1:])
        elif run.pictured is not None:
            cond["first"] = (run.shape[0], 1, *run.shape[2:])
    elif more:
        cond["image"] = (more, *run.shape[1:])
    cond["text"] = (tokens, run.text_dim)
    return {name: torch.empty(size, *shape, device="meta") for name, shape in cond.items()}


def decoding(
    folder: ModelFolder, compute: Compute, shapes: Counter[tuple[int, ...]], tiles: Tiles | None
) -> Needs:
    """Of decoding so many latents of these shapes, one after the other, in whole or in tiles. On a
    CPU with what the allocator keeps."""
    needs = Needs()
    for (c, t, h, w), alike in shapes.items():
        parts = 1 if tiles is None else tiles.count(h, w)
        if tiles is not None:
            h, w = min(h, tiles.rows), min(w, tiles.columns)
        tally, later, times = _chunks(folder, compute, (c, t, h, w))
        needs.take(tally.ops, alike * parts, tally.peak)
        needs.take(later, alike * parts * times, tally.peak)
    if compute.torch_device().type == "cpu":
        needs.peak += kept(needs.peak)
    return needs


def kept(peak: int) -> int:
    """Bytes of free blocks that the allocator of a CPU's memory has beside so many allocated.

    A decoder's blocks are of many sizes. glibc's malloc keeps the free ones under 32 MiB, and torch
    wants them aligned, for which malloc looks for more than that: a block seldom fits the hole of
    one like it. How much that comes to hardly depends on the decoder's size. Giving it back as it
    is freed would take a tenth more time, or more. Nothing is known of other allocators.
    """
    return min(KEPT, KEPT_AT_MOST * peak) if platform.libc_ver()[0] == "glibc" else 0


def _chunks(
    folder: ModelFolder, compute: Compute, shape: tuple[int, ...]
) -> tuple[Tally, Counter[Op], int]:
    """The first chunks of latents, and the operations of a further one, and how many of those come
    yet."""
    system, dtype = folder.released, compute.torch_dtype()
    vae = system.build_autoencoder(folder).to(dtype)
    total, seen, later = 1 + 4 * (shape[1] - 1), 0, Counter[Op]()
    with tallied(compute.torch_device().type) as tally:
        before = tally.ops.copy()
        chunks = system.decoded(vae, torch.empty(1, *shape, dtype=dtype, device="meta"))
        for i, pixels in enumerate(chunks, 1):
            pixels.float()
            seen, frames = seen + pixels.shape[2], pixels.shape[2]
            later, before = tally.ops - before, tally.ops.copy()
            if i == SETTLED:
                break
    return tally, later, -(-max(total - seen, 0) // frames)
