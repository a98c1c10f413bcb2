"""The Inception score of `vidgen evaluate-quality`: one number of all clips together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen.errors import InputError
from vidgen.metrics.report import Score

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SPLITS, SEED = 10, 42  # StyleGAN-V's
USUAL = 2048  # clips, the fewest that papers take


class Inception:
    """Logits of the first 16 frames of clips by a C3D tuned on UCF-101."""

    def __init__(self, weights: str, device: torch.device) -> None:
        from vidgen.metrics.extractors import make

        self.extractor = make("c3d", weights=Path(weights), device=device)
        self.frames = self.extractor.min_frames
        self.logits: list[Tensor] = []

    @property
    def settings(self) -> dict[str, Any]:
        frames = f"the first {self.frames}"
        return {**self.extractor.settings, "frames": frames, "splits": SPLITS, "shuffle_seed": SEED}

    def add(self, clip: Tensor) -> None:
        """A clip, uint8 `1 t h w 3`."""
        self.logits.append(self.extractor(clip[:, : self.frames]))

    def score(self) -> tuple[Score, float]:
        """And the standard deviation over splits. InputError of fewer clips than splits."""
        import torch

        from vidgen.metrics.inception_score import inception_score

        enough(len(self.logits))
        mean, std = inception_score(torch.cat(self.logits), SPLITS, SEED)
        return Score(mean, better="higher", n=len(self.logits)), std

    def warning(self) -> str | None:
        n = len(self.logits)
        return (
            f"is: of {n} clips; it grows with their number, and papers take {USUAL} or 10000"
            if n < USUAL
            else None
        )


def enough(clips: int) -> None:
    """InputError of fewer clips than splits."""
    if clips < SPLITS:
        raise InputError(f"is: of {clips} clips", why=f"it is taken in {SPLITS} parts of them")
