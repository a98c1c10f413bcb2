"""C3D, whose classes the Inception score of UCF-101 is taken over.

Tran et al. 2015 (arXiv 1412.0767), tuned on UCF-101, as TGAN2 has it (pfnet-research/tgan2): eight
convolutions of 3×3×3 and three linear layers; pools round up, as Caffe's do. The port with one
pixel of padding in the last pool aligns its windows otherwise and is another network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vidgen.nn.keys import differences, first, shapes

CLASSES, FRAMES, SIZE = 101, 16, 112
LEVELS = ("1a", "2a", "3a 3b", "4a 4b", "5a 5b")  # the convolutions before each pool
LINEAR = ("fc6", "fc7", "fc8")
# Blue, green, red, of 0 … 255: what was subtracted from all pixels in training, on average.
CHANNEL_MEANS = (90.25164795, 97.65701294, 101.4083252)

Layout = Literal["torch", "chainer"]


class C3D(nn.Module):
    """Frames `b 3 16 112 112`, blue first, 0 … 255 less the training set's mean → logits."""

    def __init__(
        self,
        classes: int = CLASSES,
        *,
        widths: tuple[int, ...] = (64, 128, 256, 512, 512),
        hidden: int = 4096,
    ) -> None:
        super().__init__()
        before = 3
        for names, width in zip(LEVELS, widths, strict=True):
            for name in names.split():
                self.add_module(f"conv{name}", nn.Conv3d(before, width, 3, padding=1))
                before = width
        self.fc6 = nn.Linear(before * 4 * 4, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != (FRAMES, SIZE, SIZE):
            raise ValueError(f"{list(x.shape[2:])}; C3D takes {FRAMES} frames of {SIZE}")
        for level, names in enumerate(LEVELS):
            for name in names.split():
                x = F.relu(getattr(self, f"conv{name}")(x))
            x = F.max_pool3d(x, (1, 2, 2) if level == 0 else 2, ceil_mode=True)
        x = x.flatten(1)  # c, then the 4 × 4 places
        return self.fc8(F.relu(self.fc7(F.relu(self.fc6(x)))))


def _keys() -> dict[Layout, dict[str, str]]:
    layers = [f"conv{name}" for names in LEVELS for name in names.split()] + list(LINEAR)
    parts = {"weight": "W", "bias": "b"}
    ours = [(layer, part) for layer in layers for part in parts]
    return {
        "torch": {f"{a}.{b}": f"{a}.{b}" for a, b in ours},
        "chainer": {f"{a}.{b}": f"{a}/{parts[b]}" for a, b in ours},
    }


KEYS = _keys()  # layout → our name → its name


def to_native(state: Mapping[str, Tensor], net: C3D) -> tuple[Layout, dict[str, Tensor]]:
    """A state dict of either layout → which it was, and that of `net`. ValueError for what is
    missing, too much, or of another shape, with the names of that file."""
    layout: Layout = "chainer" if any("/" in name for name in state) else "torch"
    table = KEYS[layout]
    if not state.keys() & set(table.values()):
        raise ValueError(f"it holds {first(shapes(state))}, which no layout of C3D has")
    wanted = shapes(net.state_dict())
    expected = {theirs: wanted[name] for name, theirs in table.items()}
    if wrong := differences(expected, shapes(state)):
        raise ValueError("; ".join(wrong))
    return layout, {name: state[theirs].float() for name, theirs in table.items()}


def from_native(state: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    return {theirs: state[name] for name, theirs in KEYS[layout].items()}
