"""C3D's logits of a clip, for the Inception score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidgen.errors import InputError
from vidgen.io.weights import sha256
from vidgen.metrics import preprocess
from vidgen.metrics.state_file import read_state
from vidgen.nn.c3d import C3D, CHANNEL_MEANS, FRAMES, SIZE, to_native
from vidgen.nn.meta import on_meta

MIDDLE = 128.0  # TGAN2's net holds this minus the mean
SWAP = (3, 3, 1, 1, 1)  # its first layer, red and blue exchanged and scaled: done here instead


class C3DExtractor:
    """Clips of 16 frames → logits `b 101`."""

    name = "c3d"
    min_frames = FRAMES

    def __init__(self, weights: Path, device: torch.device) -> None:
        with on_meta():
            self.net = C3D()
        state = read_state(weights)
        offset, state = _offset(state)
        try:
            layout, native = to_native(state, self.net)
        except ValueError as error:
            raise InputError(f"{weights}: not the weights of C3D", why=str(error)) from None
        self.net.load_state_dict(native, assign=True)
        self.net.eval().requires_grad_(False).to(device)
        self.device, self.sha256, self.dim = device, sha256(weights), self.net.fc8.out_features
        mean = "the weights' own, of every place" if offset is not None else "of each channel"
        if offset is None:
            offset = -torch.tensor(CHANNEL_MEANS).view(3, 1, 1, 1)
        self.offset = offset.to(device)
        self.settings: dict[str, Any] = {
            "extractor": self.name,
            "layer": "logits before softmax",
            "weights_sha256": self.sha256,
            "weights_layout": layout,
            "preprocessing": "112 × 112 straight, bilinear, corners aligned; blue first; "
            f"x less the mean {mean}",
        }

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        """InputError for clips of another length."""
        if clips.shape[1] != FRAMES:
            raise InputError(f"clips of {clips.shape[1]} frames; c3d takes {FRAMES}")
        return self.net(preprocess.tgan2(clips.to(self.device), self.offset)).float().cpu()


def _offset(state: dict[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
    """What TGAN2's net adds to pixels of −128 … 127, turned into what is added to 0 … 255, and the
    rest of the tensors without the two layers that prepare pixels. They are known by their
    shapes."""
    cube = (3, FRAMES, SIZE, SIZE)
    found = [
        x for x in state.values() if x.shape[-4:] == cube and x.numel() == cube[0] * 16 * 112**2
    ]
    rest = {
        name: x
        for name, x in state.items()
        if tuple(x.shape) != SWAP and not any(x is other for other in found)
    }
    return (found[0].float().view(cube) - MIDDLE if found else None), rest
