"""How fast `vidgen.nn.fit` is beside the same graph in plain tensor operations, and beside those
with torch's layer norm, GELU and linear layer in their places, which leaves the three products of
an attention and its softmax; and how fast its compiled blocks are (`vidgen train --compile`). A
forward and a backward pass with one thread, in turn, in float32 and, as recipes train, in bfloat16.
What is compiled is compared with what isn't, first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import Row, interleaved
from benchmarks.snap_video import plain as reference
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
                    found += _rows(name, b, device, dtype)
    finally:
        torch.set_num_threads(threads)
    return found


def _rows(name: str, b: int, device: str, dtype: torch.dtype) -> list[Row]:
    torch.manual_seed(0)
    network = FIT(PRESETS[name]).to(device)
    given = told(network, b, device)
    ours = passes(network, network, given, dtype)
    theirs = passes(partial(plain, network), network, given, dtype)

    def with_torchs_own() -> None:
        with mock.patch.multiple(reference, norm=_norm, gelu=F.gelu, linear=_linear):
            theirs()

    kind, found = str(dtype).removeprefix("torch."), []
    for one, other, said in (
        (ours, theirs, "against plain tensor operations"),
        (ours, with_torchs_own, "… with torch's layer norm, GELU and linear layer"),
        (compiled(network, given, dtype), theirs, "compiled, against plain tensor operations"),
    ):
        fast, slow = interleaved(one, other, repeat=7)
        times = [f"{1000 * x / b:.1f} ms a clip" for x in (fast, slow)]
        what = f"{device}: FIT {name}, {kind}, forward and backward"
        found.append(Row(what, *times, slow / fast, said))
    return found


def compiled(network: FIT, given: Mapping[str, Any], dtype: torch.dtype) -> Callable[[], None]:
    """Passes of the network with compiled blocks. AssertionError if it gives anything else."""
    other = copy.deepcopy(network)
    for block in other.blocks:
        setattr(block, "forward", torch.compile(block.forward))  # noqa: B010
    once = passes(other, other, given, dtype)
    once()
    passes(network, network, given, dtype)()
    loose = {} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.02}
    for (name, p), q in zip(network.named_parameters(), other.parameters(), strict=True):
        if p.grad is not None:
            assert q.grad is not None, name
            scale = p.grad.abs().max().clamp(min=1e-12)
            torch.testing.assert_close(q.grad / scale, p.grad / scale, **loose, msg=name)
    return once


def _norm(x: Tensor, gain: Tensor) -> Tensor:
    return F.layer_norm(x, gain.shape, gain, eps=reference.EPS)


def _linear(x: Tensor, part: Any) -> Tensor:
    return F.linear(x, part.weight, part.bias)
