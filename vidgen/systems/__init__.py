"""The map of the house: which paper lives in which file. Strings only; nothing is imported here.

Each system has one module, named for its paper. `MARKS` are the five things that make a system
"work"; a mark counts only where `vidgen/systems/evidence/` names the test or the report that
shows it: of a claim, one whose verdict is that it reproduced. `reports` there are all of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVIDENCE = Path(__file__).parent / "evidence"

MARKS = {
    "builds": "the published configuration builds with the published sizes",
    "faithful": "the mechanism agrees with the paper's equations, by test",
    "pipeline": "a pipeline of commands uses it",
    "claim": "the paper's claim is measured against its baseline",
    "loads": "public checkpoints, or ones of their layout, load",
}


@dataclass(frozen=True)
class Entry:
    """One line of the map."""

    name: str
    title: str
    arxiv: str | None
    roles: tuple[str, ...]
    summary: str

    @property
    def module(self) -> str:
        return "vidgen.systems." + self.name.replace("-", "_")

    @property
    def file(self) -> Path:
        return Path(__file__).parent / (self.name.replace("-", "_") + ".py")

    @property
    def built(self) -> bool:
        return self.file.is_file()

    def marks(self) -> dict[str, str | None]:
        """Mark → the test or report behind it, or None where there is none yet."""
        found = self._evidence()
        return {mark: found.get(mark) for mark in MARKS}

    def reports(self) -> dict[str, str]:
        """All reports on the paper's claims → their verdicts, whether they reproduced or not."""
        return self._evidence().get("reports", {})

    def plots(self) -> list[str]:
        """The plots of these reports."""
        return self._evidence().get("plots", [])

    def _evidence(self) -> dict[str, Any]:
        path = EVIDENCE / f"{self.name}.json"
        return json.loads(path.read_text()) if path.is_file() else {}


SYSTEMS: dict[str, Entry] = {
    e.name: e
    for e in (
        Entry("world", "the shipped model", None,
              ("encode-text", "encode-video", "sample-keyframes", "sample", "interpolate",
               "upsample", "decode"),
              "a small latent transformer, trained here on the procedural world"),
        Entry("wan", "Wan", "2503.20314",
              ("encode-text", "encode-video", "sample", "decode"),
              "open weights, 2.1 and 2.2: a diffusion transformer with cross-attention to UMT5"),
        Entry("cogvideox", "CogVideoX", "2408.06072",
              ("encode-text", "encode-video", "sample", "decode"),
              "open weights, 2B to 1.5-5B: text and video in one sequence, from zero SNR"),
        Entry("snap-video", "Snap Video", "2402.14797", ("sample", "upsample"),
              "FIT transformers and input-scaled diffusion"),
        Entry("swap-attention", "VideoFactory", "2305.10874", ("sample",),
              "swapped cross-attention between space and time"),
        Entry("fusion-frames", "FusionFrames", "2311.13073",
              ("sample-keyframes", "interpolate", "decode"),
              "keyframes, interpolation and a video decoder"),
        Entry("vstar", "VSTAR", "2403.13501", ("synopsis", "sample"),
              "a video synopsis and a temporal attention bias for longer change"),
        Entry("ditflow", "DiTFlow", "2412.07776", ("extract-motion", "sample"),
              "motion transfer by the attention of a diffusion transformer"),
        Entry("mint", "MinT", "2412.05263", ("events", "sample"),
              "several events, each with its time"),
        Entry("four-real-video", "4Real-Video", "2412.04462", ("sample-views",),
              "a grid of views and times, generated together"),
        Entry("ac3d", "AC3D", "2411.18673", ("camera", "sample"),
              "camera control where and when it matters"),
        Entry("ascan", "AsCAN", "2411.04967", ("sample",),
              "asymmetric mixing of convolution and attention blocks"),
        Entry("epipolar", "Depth-Guided Decoder", "2408.14016", ("decode",),
              "a multi-view decoder with attention along truncated epipolar lines"),
        Entry("vd3d", "VD3D", "2407.12781", ("camera", "sample"),
              "camera control of a FIT by Plücker rays"),
        Entry("vimi", "VIMI", "2407.06304", ("sample",),
              "video generation from multimodal instructions"),
        Entry("genau", "GenAu and AutoCap", "2406.19388", ("sample-audio", "caption-audio"),
              "audio generation and captioning"),
        Entry("hpdm", "HPDM", "2406.07792", ("sample",),
              "a hierarchy of patches, trained end to end on pixels"),
    )
}  # fmt: skip
