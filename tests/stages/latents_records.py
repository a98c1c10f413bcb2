"""Latents records out of nothing, and how they are compared: for the stages from latents to
latents."""

from __future__ import annotations

import io
from collections.abc import Iterable

import torch
from torch import Tensor

from vidgen.io.record import Record
from vidgen.io.stream import write_stream


class Listener:
    """Keeps what a stage tells: its warnings, and its steps."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.steps: list[tuple] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def step(self, *what) -> None:
        self.steps.append(what)


def record(
    space: str = "",
    id: str = "ball",
    *,
    latents: Tensor | None = None,
    times: Tensor | None = None,
    count: int = 3,
    spacing: float = 0.5,
    **attrs,
) -> Record:
    """A latents record of random values, or of those given."""
    if latents is None:
        draw = torch.Generator().manual_seed(len(id) + count)
        latents = torch.randn(4, count, 2, 4, generator=draw)
    if times is None:
        times = torch.arange(latents.shape[1], dtype=torch.float64) * spacing
    attrs = {"latent_space": space, "fps": 2.0, "height": 16, "width": 32, "seed": 1} | attrs
    return Record.make("latents", id, {"latents": latents, "times": times}, attrs)


def image(records: Iterable[Record]) -> bytes:
    """The stream that holds them."""
    out = io.BytesIO()
    write_stream(records, out)
    return out.getvalue()


def same(a: Record, b: Record) -> None:
    """Latents to rounding, which steps of a random network make larger."""
    torch.testing.assert_close(a.torch("latents"), b.torch("latents"), rtol=1e-3, atol=2e-4)
