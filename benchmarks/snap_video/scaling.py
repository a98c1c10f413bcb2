"""Claim a: shrinking the signal by sigma_in makes up for the redundancy of video (§3.2, tables 1
and 3 of the paper). Expected: of 16 frames 4 is better than 1, which leaves the mean of all frames
in sight where a single image would be hidden; frames that have nothing in common gain nothing.

Arms are trained for the same steps on the same clips, with sigma_in 1, 2, 4, 8 and sigma_data 0.5
and 1, one training each. Two looks at each:

    unexplained  without sampling: held-out clips are noised to sigma, each arm in its own scaling,
                 and the network's estimate is averaged over time. What share of the variance of the
                 true mean it leaves unexplained, over the same of a network of single frames at
                 that sigma, trained at sigma_data 0.5. 1 is a level that hides as much of video
                 as of images
    distance     Fréchet distance of sampled clips to rendered ones, features `world`, guidance off,
                 the same number of steps for all; an interval is over other clips, not trainings
    all, …       shares of sampled clips that the judge finds right

The control is trained on clips whose frames are of another scene each, with 1 and 4: what sigma_in
brings clips must be more than what it brings those.

Two things differ from the paper. Its rule, k sqrt(T) with k the sides over 64, is 1 to 1.5 for
these 16 frames of 16 x 24, and 4 for its own 64: 4 is kept because it is what was published, and
2 is among the arms. And ln(sigma) is drawn around -0.5 where EDM has -1.2, which doubles the levels
of all arms alike: a part of what sigma_in is to correct.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from benchmarks.claim_report import Check, Figure, difference, write
from benchmarks.plot import Point, plot_lines
from benchmarks.snap_video import SYSTEM, arms
from vidgen.diffusion.level import Level, noised
from vidgen.diffusion.prediction import denoiser
from vidgen.systems.base import ModelFolder
from vidgen.train.recipe import Recipe
from vidgen.train.task import Modules, generator
from vidgen.train.tasks.snap_video import SnapPixelsTask
from vidgen.train.tasks.text_to_pixels import pixels
from vidgen.world.scene import TEST_SEEDS

CLAIM = "scaling"
UNRELATED = "benchmarks.snap_video.arms:UnrelatedFramesTask"
SINGLE = "single frames"


@dataclass(frozen=True, kw_only=True)
class Settings(arms.Settings):
    """What is compared."""

    sigma_in: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    sigma_data: tuple[float, ...] = (0.5, 1.0)
    sigmas: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)  # of the probe
    probed: int = 64  # held-out clips of the probe
    parts: int = 8  # of them, for an interval
    mean: float = -0.5  # of ln(sigma) in training


SMOKE = Settings(**arms.TINY, sigma_in=(1.0, 4.0), sigma_data=(0.5,), probed=4, parts=2)


def run(
    out: Path, folder: ModelFolder, settings: Settings, runs: Path, cache: Path
) -> dict[str, Any]:
    """folder: whose text encoder the networks read. Trains in `runs`; an arm that is trained there
    for these settings is not trained again."""
    told = asdict(settings) | {"text_encoder": folder.text_encoder, **arms.judges()}
    report = write(out, SYSTEM, CLAIM, told, lambda: measure(folder, settings, runs, cache))
    plot(report, out / f"{SYSTEM}-{CLAIM}.png", out / f"{SYSTEM}-{CLAIM}-probe.png")
    return report


def measure(
    folder: ModelFolder, settings: Settings, runs: Path, cache: Path
) -> tuple[dict[str, Any], list[Check]]:
    s = settings

    def recipe_of(sigma_in: float, sigma_data: float, **more: Any) -> Recipe:
        loss = {"sigma_in": sigma_in, "sigma_data": sigma_data, "mean": s.mean}
        return arms.recipe(s, folder, cache, loss=loss, **more)

    one = {"num_frames": 1}
    group = [1, *s.config["group"][1:]]
    wanted = recipe_of(1.0, 0.5, model={**one, "group": group}, data=one)
    single = arms.arm(SINGLE, wanted, s, runs, lambda t, m: {"unexplained": probed(t, m, s)})

    rows, real = [], arms.Real(s)
    for sigma_data in s.sigma_data:
        for sigma_in in s.sigma_in:
            row = arms.arm(
                f"in {sigma_in:g} data {sigma_data:g}", recipe_of(sigma_in, sigma_data), s, runs,
                lambda t, m: sampled(t, m, real) | {"unexplained": probed(t, m, s)},
            )  # fmt: skip
            rows.append({"sigma_in": sigma_in, "sigma_data": sigma_data, **row})
    control, mixed = [], arms.Real(s, mixed=True)
    for sigma_in in (1.0, 4.0):
        wanted = recipe_of(sigma_in, 0.5, task=UNRELATED, data={"drop_caption": 1.0})
        row = arms.arm(
            f"unrelated in {sigma_in:g}", wanted, s, runs, lambda t, m: sampled(t, m, mixed)
        )
        control.append({"sigma_in": sigma_in, "sigma_data": 0.5, **row})
    figures = {"single": single, "rows": rows, "control": control, "shares": shares(rows, single)}
    return figures, checks(rows, control, single)


def sampled(task: SnapPixelsTask, modules: Modules, real: arms.Real) -> dict[str, Any]:
    groups = real.sampled(task, modules)
    distances = real.distances(groups)
    found = {"distance": Figure.of(distances).mean, "distances": distances}
    return found | ({} if real.mixed else {"judged": real.judged(groups)})


@torch.no_grad()
def probed(task: SnapPixelsTask, modules: Modules, settings: Settings) -> list[list[float]]:
    """For each sigma and each part of the held-out clips, what the estimate of the mean over time
    leaves unexplained of it. A task of single frames is asked about all frames, one by one."""
    s = settings
    clips = pixels(arms.rendered(s, range(TEST_SEEDS.start, TEST_SEEDS.start + s.probed)))
    if task.geometry.num_frames == 1:
        clips = rearrange(clips, "b c t h w -> (b t) c 1 h w")
    told = task.cond(modules, task.tokens([""])["ids"])
    found = []
    for sigma in s.sigmas:
        draw, shares = generator(0, "probe", str(sigma)), []
        for part in clips.chunk(s.parts):
            cond = {k: x.expand(len(part), *x.shape[1:]) for k, x in told.items()}
            shares.append(unexplained(task, modules, part, cond, sigma, draw))
        found.append(shares)
    return found


def unexplained(
    task: SnapPixelsTask,
    modules: Modules,
    x0: Tensor,
    cond: dict[str, Tensor],
    sigma: float,
    draw: torch.Generator,
) -> float:
    """Of clips `b 3 t h w` noised to sigma: the error of the estimate's mean over time, in shares
    of the variance of the true one. The network is self-conditioned once."""
    n = len(x0)
    shrunk = torch.full((n,), 1 / task.weights.sigma_in)
    level = Level(torch.full((n,), sigma), shrunk, torch.full((n,), sigma))
    z = noised(x0, torch.randn(x0.shape, generator=draw), level)
    denoise = denoiser(task.called(modules), task.prediction)
    denoise(z, level, cond)
    estimate, true = denoise(z, level, cond).mean(dim=2), x0.mean(dim=2)
    return float((estimate - true).square().mean() / true.var(dim=0, correction=0).mean())


def shares(rows: list[dict[str, Any]], single: dict[str, Any]) -> dict[str, list[float]]:
    """For each arm and sigma: what it leaves unexplained, over what single frames leave."""
    found = {}
    for row in rows:
        ratios = _ratios(row, single)
        found[row["arm"]] = [Figure.of(parts).mean for parts in ratios]
    return found


def _ratios(row: dict[str, Any], single: dict[str, Any]) -> list[list[float]]:
    pairs = zip(row["unexplained"], single["unexplained"], strict=True)
    return [[a / b for a, b in zip(own, other, strict=True)] for own, other in pairs]


def checks(
    rows: list[dict[str, Any]], control: list[dict[str, Any]], single: dict[str, Any]
) -> list[Check]:
    """Whether each finding is there; rows of sigma_in 1 and 4 are needed."""
    found = []
    for sigma_data in sorted({row["sigma_data"] for row in rows}):
        by = {row["sigma_in"]: row for row in rows if row["sigma_data"] == sigma_data}
        said = f"sigma_data {sigma_data:g}"
        apart = {k: _apart(by[k], single) for k in (1.0, 4.0)}
        what = f"{said}: unexplained of the mean, how far from single frames' (|ln|), 4 − 1"
        found.append(difference(what, apart[4.0], apart[1.0], side="below"))
        plain, scaled = (by[k]["distances"] for k in (1.0, 4.0))
        what = f"{said}: Fréchet distance, sigma_in 4 − 1"
        found.append(difference(what, scaled, plain, side="below"))
    what = "Fréchet distance, sigma_in 4 − 1: of unrelated frames − of clips, at sigma_data 0.5"
    return [*found, difference(what, _gain(control), _gain(rows), side="above")]


def _gain(rows: list[dict[str, Any]]) -> list[float]:
    """Of each group of clips, the distance at sigma_in 4 less that at 1; sigma_data is 0.5."""
    by = {row["sigma_in"]: row["distances"] for row in rows if row["sigma_data"] == 0.5}
    return [scaled - plain for scaled, plain in zip(by[4.0], by[1.0], strict=True)]


def _apart(row: dict[str, Any], single: dict[str, Any]) -> list[float]:
    """For each part of the clips, |ln| of the shares, the mean over sigmas."""
    by_part = zip(*_ratios(row, single), strict=True)
    return [Figure.of(abs(math.log(x)) for x in part).mean for part in by_part]


def plot(report: dict[str, Any], path: Path, probe: Path) -> None:
    """Distances against sigma_in, and what is left unexplained against sigma."""
    figures, lines = report["figures"], dict[str, list[Point]]()
    for name, rows in (("", figures["rows"]), ("unrelated, ", figures["control"])):
        for row in rows:
            figure = Figure.of(row["distances"])
            low, high = figure.interval
            spread = (low, high) if figure.n > 1 else (figure.mean, figure.mean)
            line = f"{name}data {row['sigma_data']:g}"
            lines.setdefault(line, []).append(Point(row["sigma_in"], figure.mean, *spread))
    plot_lines(lines, path, title="Frechet distance, features world", x_label="sigma_in")
    sigmas = report["settings"]["sigmas"]
    plot_lines(
        {
            arm: [Point(math.log2(x), y) for x, y in zip(sigmas, ys, strict=True)]
            for arm, ys in figures["shares"].items()
        },
        probe, title="unexplained of the mean frame, over that of single frames",
        x_label="log2 of sigma", y_range=(0.0, 1.4),
    )  # fmt: skip
