"""Claim c: guidance by keyframes, (1 + w)·net(keyframes) − w·net(nothing), pulls the frames between
towards a keyframe as w grows; the paper uses w = 0.25 and warns of more. Expected: the distance to
the nearest keyframe falls from each w to the next.

The distance of a latent is the root mean square of its difference to the keyframe on its left or on
its right, whichever is smaller; 0 is a copy. Keyframes of test scenes, the grouped network. Scenes
where next to nothing changes have nothing to copy and are left out.

Found: the distance rises with every w, and passes that of the true frames between w = 0.25 and 0.5
(`benchmarks/results/fusion-frames-guidance.json`). That is not for the shipped network's making
what frames have beside a blend, which guidance makes more of: it rises, too, for one that makes the
frames themselves and returns v, as the paper's does (`benchmarks/results/frames`):

    vidgen train world-interpolation --set loss.target=frames --set loss.prediction=v \\
        --set loss.spread=1 --minutes 12 --out runs/world-interpolation-frames
    python -m benchmarks.claims fusion-frames c --grouped runs/world-interpolation-frames/model \\
        --out benchmarks/results/frames
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from benchmarks.claim_report import Check, Figure, difference, write
from benchmarks.fusion_frames import SYSTEM, clips
from benchmarks.fusion_frames.clips import SIZE, Size
from benchmarks.plot import Point, plot_lines
from vidgen.diffusion.groups import STRIDE
from vidgen.errors import InputError
from vidgen.metrics.fidelity import psnr
from vidgen.stages.base import Compute
from vidgen.systems.base import ModelFolder

CLAIM = "guidance"


@dataclass(frozen=True)
class Settings:
    """The weights, and the clips."""

    weights: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0)
    clips: int = 64
    seeds: tuple[int, ...] = (0, 1, 2)
    size: Size = SIZE
    batch_size: int = 16
    moving: float = 0.05  # least distance of neighboring keyframes


SMOKE = Settings(weights=(0.0, 0.25, 3.0), clips=2, seeds=(0,), size=Size(9, 16, 32), moving=0.0)


def run(out: Path, models: dict[str, ModelFolder], settings: Settings) -> dict[str, Any]:
    """models: "grouped"."""
    folder = models["grouped"]
    told = asdict(settings) | {"grouped": folder.identity("interpolation")}
    report = write(out, SYSTEM, CLAIM, told, lambda: measure(folder, settings))
    plot(report, out / f"fusion-frames-{CLAIM}.png")
    return report


def measure(folder: ModelFolder, settings: Settings) -> tuple[dict[str, Any], list[Check]]:
    compute = Compute("cpu", batch_size=settings.batch_size)
    records = clips.rendered(settings.clips, settings.size)
    true = clips.frames_of(records)
    latents = clips.encoded(records, folder, compute)
    keys = clips.latents_of(clips.keyframes(latents))
    moves = apart(keys) >= settings.moving
    if not moves.any():
        raise InputError(
            f"neighboring keyframes are nowhere {settings.moving:g} apart in these clips",
            next="more clips, or a smaller `moving`",
        )
    rows, distances = [], {}
    for w in settings.weights:
        near, dB = [], []
        for seed in settings.seeds:
            told = [r.replace(attrs={"seed": seed}) for r in clips.keyframes(latents)]
            made = clips.interpolated(told, folder, "grouped", compute, guidance_scale=1 + w)
            near.append(nearest(clips.latents_of(made))[moves])
            frames = clips.decoded(made, folder, compute)
            dB.append(psnr(clips.middle(frames), clips.middle(true)).mean(dim=1))
        distances[w] = torch.stack(near).mean(dim=0).tolist()  # of seeds: one a clip
        rows.append(
            {
                "w": w,
                "distance": Figure.of(distances[w]).to_dict(),
                "by_seed": [float(x.mean()) for x in near],
                "middle_psnr": Figure.of(torch.stack(dB).mean(dim=0).tolist()).to_dict(),
            }
        )
    figures = {
        "rows": rows,
        "clips_that_move": int(moves.sum()),
        "true": Figure.of(nearest(clips.latents_of(latents))[moves].tolist()).to_dict(),
        "linear": Figure.of(
            nearest(
                clips.latents_of(
                    clips.interpolated(clips.keyframes(latents), None, "linear", compute)
                )
            )[moves].tolist()
        ).to_dict(),
    }
    return figures, falls(distances)


def falls(distances: dict[float, Sequence[float]]) -> list[Check]:
    """That each weight's distances are below those of the weight before it."""
    return [
        difference(f"distance at w = {b:g} − at w = {a:g}", distances[b], distances[a],
                   side="below")
        for a, b in pairwise(distances)
    ]  # fmt: skip


def nearest(latents: Tensor) -> Tensor:
    """Clips `b c 4g+1 h w` → the mean distance of the frames between to their nearest keyframe,
    `b`."""
    groups = rearrange(latents[:, :, :-1], "b c (g f) h w -> b g f c h w", f=STRIDE)
    keys = rearrange(latents[:, :, ::STRIDE], "b c g h w -> b g 1 c h w")
    inner = groups[:, :, 1:]
    left, right = (
        (inner - side).square().mean(dim=(3, 4, 5)).sqrt() for side in (keys[:, :-1], keys[:, 1:])
    )
    return torch.minimum(left, right).mean(dim=(1, 2))


def apart(keyframes: Tensor) -> Tensor:
    """`b c t h w` → the mean distance of neighbors, `b`."""
    return keyframes.diff(dim=2).square().mean(dim=(1, 3, 4)).sqrt().mean(dim=1)


def plot(report: dict[str, Any], path: Path) -> None:
    rows = report["figures"]["rows"]
    lines = {
        "grouped": [
            Point(r["w"], r["distance"]["mean"], r["distance"]["low"], r["distance"]["high"])
            for r in rows
        ]
    }
    for name in ("true", "linear"):
        y = report["figures"][name]["mean"]
        lines[name] = [Point(rows[0]["w"], y), Point(rows[-1]["w"], y)]
    plot_lines(
        lines, path, title="distance to the nearest keyframe, latents", x_label="guidance weight w"
    )  # fmt: skip
