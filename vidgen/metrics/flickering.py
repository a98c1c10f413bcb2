"""Temporal flickering as VBench scores it (Huang et al. 2024, CVPR): no reference is needed."""

from __future__ import annotations

from torch import Tensor

from vidgen.metrics.fidelity import LEVELS


def temporal_flickering(made: Tensor) -> Tensor:
    """Of clips of two frames or more, uint8 `b t h w 3`: `b`, 0 … 1, higher is steadier, 1 for a
    still clip: 1 minus the mean absolute difference of neighboring frames in levels of 0 … 1.

    VBench scores only clips that a filter on RAFT's flow calls static; of others the number is the
    motion as much as the flicker. There is no such filter here."""
    if made.shape[1] < 2:
        raise ValueError("one frame has no neighbor")
    return 1 - made.double().diff(dim=1).abs().mean(dim=(1, 2, 3, 4)) / LEVELS
