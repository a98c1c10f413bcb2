"""How fast `vidgen.nn.fit` is beside the same graph in plain tensor operations: a forward and a
backward pass with one thread, in turn, in float32 and, as recipes train, in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import Row, interleaved
from benchmarks.snap_video.plain import plain
from vidgen.nn.fit import FIT
from vidgen.systems.snap_video import PRESETS

WORDS = 16  # tokens of text
SIZES = {"world-pixels": 8, "world-latents": 16}  # preset → clips at once


def told(network: FIT, b: int, device: str = "cpu") -> dict[str, Any]:
    """What a network is called with, all seeded: `z`, `t` and the rest, latents of a call before
    among them."""
    c, draw = network.config, torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).to(device)

    return {
        "z": normal(b, c.in_channels, c.num_frames, c.height, c.width),
        "t": normal(b),
        "text": normal(b, WORDS, c.text_dim),
        "text_mask": torch.arange(WORDS, device=device).expand(b, -1) < WORDS - 3,
        "period": normal(b).abs(),
        "latents": normal(b, c.latents, c.latent_dim),
    }


def passes(
    call: Callable[..., tuple[Tensor, Tensor]],
    network: FIT,
    given: Mapping[str, Any],
    dtype: torch.dtype,
) -> Callable[[], None]:
    """What runs a forward and a backward pass."""
    device = given["z"].device.type

    def once() -> None:
        network.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            out, latents = call(**given)
        (out.float().square().mean() + latents.float().square().mean()).backward()
        if device == "cuda":
            torch.cuda.synchronize()

    return once


def rows() -> list[Row]:
    """Training passes of both, in turn."""
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
            for name, b in SIZES.items():
                for dtype in (torch.float32, torch.bfloat16):
                    found.append(_row(name, b, device, dtype))
    finally:
        torch.set_num_threads(threads)
    return found


def _row(name: str, b: int, device: str, dtype: torch.dtype) -> Row:
    torch.manual_seed(0)
    network = FIT(PRESETS[name]).to(device)
    given = told(network, b, device)
    fast, slow = interleaved(
        passes(network, network, given, dtype),
        passes(partial(plain, network), network, given, dtype),
        repeat=7,
    )
    own, other = (f"{1000 * x / b:.1f} ms a clip" for x in (fast, slow))
    kind = str(dtype).removeprefix("torch.")
    what = f"{device}: FIT {name}, {kind}, forward and backward"
    return Row(what, own, other, slow / fast, "against plain tensor operations")
