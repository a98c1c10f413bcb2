"""Claim c: images learned as videos of infinite frame rate make better frames (§3.3, table 3 of the
paper: FID 3.07 against 3.50; FVD is worse, 27.79 against 24.88, and no part of the claim).

There are few clips and many images, as there are in the world: `num` scenes come as clips, and
`num_images` others as one frame each. Arms are trained for the same steps and from the same starts;
each seed is another start and another order.

    clips alone   no images: what joint training itself is good for
    images apart  clips and images half and half, images as a process of their own, not shrunk
                  (`arms.ImagesApartTask`): the paper's 3.50
    with images   the same images as videos of infinite frame rate: its 3.07

    frames      Fréchet distance of single frames of sampled clips to single frames of rendered
                ones: features `world` of a frame that is repeated
    clips       the same of whole clips; no part of the verdict
    all, …      shares of sampled clips that the judge finds right
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.claim_report import Check, Figure, difference, write
from benchmarks.plot import Point, plot_lines
from benchmarks.snap_video import SYSTEM, arms
from vidgen.metrics.frechet import frechet_distance
from vidgen.systems.base import ModelFolder
from vidgen.train.task import Modules
from vidgen.train.tasks.snap_video import SnapPixelsTask

CLAIM = "images"
ARMS = ("clips alone", "images apart", "with images")
APART = "benchmarks.snap_video.arms:ImagesApartTask"
MEASURES = {"frames": "Fréchet distance of frames", "clips": "Fréchet distance of clips"}


@dataclass(frozen=True, kw_only=True)
class Settings(arms.Settings):
    """What is compared."""

    steps: int = 500
    num: int = 256  # scenes that come as clips
    num_images: int = 4096  # others, that come as images
    images: float = 0.5  # share of samples of the arm that has them
    seeds: tuple[int, ...] = (0, 1, 2)
    sigma_in: float = 4.0
    sigma_data: float = 1.0
    shown: tuple[int, ...] = (0, 8, 15)  # frames of a clip that are looked at by themselves


SMOKE = Settings(**arms.TINY | {"num": 8}, num_images=16, seeds=(0, 1))


def run(
    out: Path, folder: ModelFolder, settings: Settings, runs: Path, cache: Path
) -> dict[str, Any]:
    """folder: whose text encoder the networks read. Trains in `runs`; an arm that is trained there
    for these settings is not trained again."""
    told = asdict(settings) | {"text_encoder": folder.text_encoder, **arms.judges()}
    report = write(out, SYSTEM, CLAIM, told, lambda: measure(folder, settings, runs, cache))
    plot(report, out / f"{SYSTEM}-{CLAIM}.png")
    return report


def measure(
    folder: ModelFolder, settings: Settings, runs: Path, cache: Path
) -> tuple[dict[str, Any], list[Check]]:
    s, real, rows = settings, arms.Real(settings), list[dict[str, Any]]()
    features = frame_features(real, real.frames)
    shares = {"images": s.images, "num_images": s.num_images}
    loss = {"sigma_in": s.sigma_in, "sigma_data": s.sigma_data, "mean": -0.5}
    for seed in s.seeds:
        for name in ARMS:
            data = {} if name == ARMS[0] else shares
            task = APART if name == ARMS[1] else SnapPixelsTask.name
            wanted = arms.recipe(s, folder, cache, task=task, seed=seed, data=data, loss=loss)
            row = arms.arm(
                f"{name}, {seed}", wanted, s, runs, lambda t, m: sampled(t, m, real, features)
            )
            rows.append({"kind": name, "seed": seed, **row})
    figures = {
        "rows": rows,
        **{m: {k: Figure.of(_of(rows, k, m)).to_dict() for k in ARMS} for m in MEASURES},
    }
    return figures, checks(rows)


def sampled(
    task: SnapPixelsTask, modules: Modules, real: arms.Real, features: Tensor
) -> dict[str, Any]:
    groups = real.sampled(task, modules)
    frames = [frechet_distance(frame_features(real, group), features) for group in groups]
    return {
        "frames": Figure.of(frames).mean,
        "clips": Figure.of(real.distances(groups)).mean,
        "judged": real.judged(groups),
    }


def frame_features(real: arms.Real, clips: Tensor) -> Tensor:
    """Of single frames of clips `b t h w 3`, each repeated to a clip of its own."""
    frames = clips[:, list(real.settings.shown)].flatten(0, 1)  # type: ignore[attr-defined]
    parts = frames.split(arms.CHUNK)
    t = clips.shape[1]
    return torch.cat(
        [real.extract(part[:, None].expand(-1, t, -1, -1, -1).contiguous()) for part in parts]
    )


def checks(rows: Sequence[dict[str, Any]]) -> list[Check]:
    """That images make frames better, and more so as videos."""
    without, apart, joint = (_of(rows, kind, "frames") for kind in ARMS)
    what = "Fréchet distance of frames, with images −"
    return [
        difference(f"{what} without", joint, without, side="below"),
        difference(f"{what} apart", joint, apart, side="below"),
    ]


def _of(rows: Sequence[dict[str, Any]], kind: str, measure: str) -> list[float]:
    return [row[measure] for row in rows if row["kind"] == kind]


def plot(report: dict[str, Any], path: Path) -> None:
    """Each measure in shares of what clips alone have."""
    rows, lines = report["figures"]["rows"], {}
    for x, (measure, said) in enumerate(MEASURES.items()):
        base = Figure.of(_of(rows, ARMS[0], measure)).mean
        for i, kind in enumerate(ARMS):
            figure = Figure.of(v / base for v in _of(rows, kind, measure))
            spread = figure.sd if figure.n > 1 else 0.0
            line = f"{said.split()[-1]}, {kind}"
            lines[line] = [
                Point(x + 0.2 * i, figure.mean, figure.mean - spread, figure.mean + spread)
            ]
    plot_lines(
        lines, path, title="distances in shares of those of clips alone; sd over seeds",
        x_label="measure", x_ticks=range(len(MEASURES)),
    )  # fmt: skip
