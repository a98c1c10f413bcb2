"""Scores of clips in CLIP's space, of embeddings of length 1: cosines, −1 … 1.

CLIPSIM is GODIVA's (Wu et al. 2021, arXiv 2104.14806) before its division by the real clips' score.
The same quantity goes by other names in other scales: CLIP-T times 100, CLIPScore (Hessel et al.
2021) as 2.5·max(cos, 0).
"""

from __future__ import annotations

from torch import Tensor


def clipsim(frames: Tensor, text: Tensor) -> float:
    """How well frames `t d` fit a text `d`: the mean over frames."""
    return float((frames.double() @ text.double()).mean())


def frame_consistency(frames: Tensor) -> float:
    """How alike neighbors are, frames `t d`: the mean over pairs of neighbors (CLIP-F, CLIP-Temp).
    ValueError for one frame."""
    x = _several(frames)
    return float((x[1:] * x[:-1]).sum(dim=1).mean())


def first_frame_consistency(frames: Tensor) -> float:
    """How alike the frames after the first are to it, frames `t d`: their mean. ValueError for one
    frame."""
    x = _several(frames)
    return float((x[1:] @ x[0]).mean())


def _several(frames: Tensor) -> Tensor:
    if len(frames) < 2:
        raise ValueError("one frame is like no other")
    return frames.double()
