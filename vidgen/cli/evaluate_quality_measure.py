"""What `vidgen evaluate-quality` measures of a clip, a piece at a time, so that long ones fit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vidgen.cli.clip_scores import Better
from vidgen.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vidgen.cli.evaluate_quality_inception import Inception
    from vidgen.metrics.lpips import Lpips
    from vidgen.metrics.vmaf import Vmaf

# name → what is better, and unit. The first kind holds clips to a reference, the second needs none.
WITH_REF: dict[str, tuple[Better, str]] = {
    "psnr": ("higher", "dB"),
    "ssim": ("higher", ""),
    "ms-ssim": ("higher", ""),
    "flicker": ("lower", "levels"),
    "error-change": ("lower", "levels"),
    "warping": ("lower", ""),
    "lpips": ("lower", ""),
    "vmaf": ("higher", ""),
}
ALONE: dict[str, tuple[Better, str]] = {
    "temporal-flickering": ("higher", ""),
    "self-warping": ("lower", ""),
    "is": ("higher", ""),
}
DEFAULT = {
    True: ("psnr", "ssim", "ms-ssim", "flicker", "error-change"),
    False: ("temporal-flickering",),
}
NEEDS_TWO = ("flicker", "error-change", "warping", "temporal-flickering", "self-warping")  # frames
PIECE = 2**20  # pixels that are looked at together


@dataclass
class Measure:
    """Computes metrics of clips, uint8 arrays `t h w 3`.

    metrics  names of `WITH_REF` or of `ALONE`
    asked    whether they were asked for by name: then one that a clip can't have is an error
    pixels   where to compute what is no network
    missing  (metric, why) → how many clips go without
    frames   of which psnr was taken
    exact    frames that equal the reference's, whose psnr is infinite, of each clip that has any
    """

    metrics: Sequence[str]
    asked: bool
    pixels: torch.device
    lpips: Lpips | None = None
    vmaf: Vmaf | None = None
    missing: Counter[tuple[str, str]] = field(default_factory=Counter)
    inception: Inception | None = None
    exact: list[int] = field(default_factory=list)
    frames: int = 0

    def __call__(self, name: str, made: Any, true: Any = None) -> dict[str, float | None]:
        """Every metric of a clip; None where it has none. InputError where that was asked for."""
        import torch

        clips = [torch.from_numpy(x)[None].to(self.pixels) for x in (made, true) if x is not None]
        found: dict[str, float | None] = {}
        reasons = {metric: self._impossible(metric, clips[0].shape) for metric in self.metrics}
        for metric, why in reasons.items():
            if why and self.asked:
                raise InputError(f"clip `{name}` has no {metric}: {why}")
        for metric, why in reasons.items():
            if metric == "is" and self.inception is not None:
                self.inception.add(clips[0])
                continue
            value = math.nan if why else self._measured(metric, *clips)
            if math.isnan(value):
                self.missing[metric, why or _NOTHING[metric]] += 1
            found[metric] = None if math.isnan(value) else value
        return found

    def without(self, count: int) -> dict[str, str]:
        """What nobody asked for and no clip can have, as all are too small, and why."""
        why = [(why, n) for (metric, why), n in self.missing.items() if metric == "ms-ssim"]
        if self.asked or not why or sum(n for _, n in why) < count:
            return {}
        return {"ms-ssim": why[0][0] if len(why) == 1 else "all clips are too small"}

    def warnings(self, count: int) -> Iterator[str]:
        without = self.without(count)
        for (metric, why), n in self.missing.items():
            if metric not in without:
                yield f"{n} of {count} clips have no {metric}: {why}"
        if self.exact and sum(self.exact) == self.frames:
            yield (f"all {self.frames} frames equal the reference's: psnr is infinite, as nothing"
                   " differs")  # fmt: skip
        elif self.exact:
            yield (f"{len(self.exact)} of {count} clips have frames, {sum(self.exact)} in all, that"
                   " equal the reference's: psnr is infinite there, and its mean that of the"
                   " others")  # fmt: skip
        if self.inception is not None and (few := self.inception.warning()):
            yield few

    def _impossible(self, metric: str, shape: Sequence[int]) -> str | None:
        """Why a clip of that shape `1 t h w 3` can't have a metric."""
        from vidgen.metrics import fidelity, ms_ssim

        _, t, h, w, _ = shape
        if metric in NEEDS_TWO and t < 2:
            return "one frame has no neighbor"
        smallest = {"ssim": fidelity.WINDOW, "ms-ssim": ms_ssim.SMALLEST}.get(metric, 1)
        if metric == "lpips" and self.lpips is not None:
            smallest = self.lpips.smallest
        if metric == "is" and self.inception is not None and t < self.inception.frames:
            return f"it has {t} frames, of the {self.inception.frames} that C3D takes"
        if min(h, w) < smallest:
            return f"frames are {w}x{h}, its sides are {smallest} or more"
        return None

    def _measured(self, metric: str, made: Tensor, true: Tensor | None = None) -> float:
        from vidgen.metrics import fidelity, flickering, ms_ssim, warping

        if true is None:
            if metric == "self-warping":
                return float(warping.warping(made, made))
            return _by_pairs(flickering.temporal_flickering, made)
        match metric:
            case "psnr":
                return self._psnr(made, true)
            case "ssim":
                return _by_frames(fidelity.ssim, made, true)
            case "ms-ssim":
                return _by_frames(ms_ssim.ms_ssim, made, true)
            case "lpips":
                assert self.lpips is not None
                return _by_frames(self.lpips, made, true)
            case "flicker":
                return _flicker(made, true)
            case "error-change":
                return _by_pairs(fidelity.error_change, made, true)
            case "warping":
                return float(warping.warping(made, true))
        assert self.vmaf is not None
        return self.vmaf(made, true)

    def _psnr(self, made: Tensor, true: Tensor) -> float:
        """The mean over frames that differ; infinite where none does."""
        from vidgen.metrics import fidelity

        frames = [
            float(x) for at in _pieces(made, 0) for x in fidelity.psnr(made[:, at], true[:, at])[0]
        ]
        finite = [x for x in frames if math.isfinite(x)]
        self.frames += len(frames)
        if len(finite) < len(frames):
            self.exact.append(len(frames) - len(finite))
        return math.fsum(finite) / len(finite) if finite else math.inf


_NOTHING = {
    "flicker": "nothing stands still in the reference",
    "warping": "no motion could be followed in the reference",
    "self-warping": "no motion could be followed",
}


def _pieces(clip: Tensor, overlap: int) -> Iterator[slice]:
    """Stretches of frames, each with so many of the one before."""
    t, h, w = clip.shape[1:4]
    step = max(1, PIECE // (h * w))
    for start in range(0, t - overlap, step):
        yield slice(start, min(start + step + overlap, t))


def _by_frames(metric: Any, made: Tensor, true: Tensor) -> float:
    """The mean over frames."""
    total = sum(float(metric(made[:, at], true[:, at]).sum()) for at in _pieces(made, 0))
    return total / made.shape[1]


def _by_pairs(metric: Any, *clips: Tensor) -> float:
    """The mean over pairs of neighboring frames, of what `metric` gives as a mean over them."""
    total = 0.0
    for at in _pieces(clips[0], 1):
        total += float(metric(*(clip[:, at] for clip in clips))) * (at.stop - at.start - 1)
    return total / (clips[0].shape[1] - 1)


def _flicker(made: Tensor, true: Tensor) -> float:
    """`fidelity.flicker` in bands of rows, each by its number of pixels that stand still."""
    from vidgen.metrics import fidelity

    t, h, w = made.shape[1:4]
    rows = max(1, PIECE // (t * w))
    total, count = 0.0, 0
    for row in range(0, h, rows):
        band = slice(row, row + rows)
        still = int((true[:, :, band] == true[:, :1, band]).all(dim=1).all(dim=-1).sum())
        if still:
            total += float(fidelity.flicker(made[:, :, band], true[:, :, band])) * still
            count += still
    return total / count if count else math.nan
