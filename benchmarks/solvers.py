"""`python -m benchmarks.solvers`: what each solver makes, against number of function evaluations.

The shipped model and validation prompts, for each solver and several step counts, and for several
guidance scales: how many clips are right in all factors (the judge, on the keyframes), and how far
they are from rendered ones (FVD with the features `world`, on the 17 frames that interpolation
makes of them). The judge sees what is shown, the distance sees how well. A call of the guided
denoiser (both branches) is one evaluation. Writes docs/solvers.json and two plots,
docs/solvers.png and docs/solvers-distance.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import machine
from benchmarks.plot import Point, plot_lines
from vidgen.diffusion.groups import STRIDE
from vidgen.metrics import world_features
from vidgen.metrics.frechet import frechet_distance
from vidgen.metrics.judge import SHIPPED, WorldJudge, load_judge, prepared
from vidgen.metrics.world_accuracy import Asked, mark, tally
from vidgen.stages import cascade
from vidgen.stages.base import Compute
from vidgen.stages.decode import decode
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.rendered import clips_of
from vidgen.stages.sample_keyframes import Choices
from vidgen.systems.base import ModelFolder
from vidgen.world.captions import caption
from vidgen.world.render import render
from vidgen.world.scene import VALIDATION_SEEDS, Scene, sample_scene

DOCS = Path(__file__).parent.parent / "docs"
STEPS = (2, 3, 4, 6, 8, 12, 20)
OTHER_STEPS = {
    "heun": (2, 3, 4, 6, 10),  # two evaluations each, but for the last one
    "dpmpp_2m_sde": (6, 8, 12, 16, 20, 24, 32),  # noise that is drawn anew wants more of them
}
SOLVERS = ("euler", "dpmpp_2m", "unipc", "heun", "dpmpp_2m_sde")
SCALES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
RENDERED = 512  # clips that made ones are compared with; other scenes than theirs


class Bench:
    """Scenes, what is asked of clips of them, and what rendered clips look like."""

    def __init__(self, folder: ModelFolder, num: int) -> None:
        first = VALIDATION_SEEDS.start
        self.folder, self.judge = folder, load_judge(SHIPPED / "basic")
        self.scenes = self._scenes(first, num)
        self.extract = world_features.load()
        clip = clips_of(folder.geometry)
        self.real = torch.cat([
            self.extract(
                render(some, times=clip.times, height=clip.height, width=clip.width).frames
            )
            for i in range(0, RENDERED, 32)
            for some in [self._scenes(first + 10_000 + i, 32)]
        ])  # fmt: skip

    @staticmethod
    def _scenes(first: int, num: int) -> list[Scene]:
        return [sample_scene(seed, level="basic") for seed in range(first, first + num)]

    def measure(self, **choices: Any) -> dict[str, Any]:
        """Shares by factor, and the distance, with these choices of sampling."""
        compute = Compute("cpu", batch_size=32)
        prompts = [Prompt(caption(scene), id=f"world-{scene.seed}") for scene in self.scenes]
        texts = encode_text(prompts, self.folder)
        latents = cascade.sample(texts, self.folder, Choices(**choices), passes=1, compute=compute)
        made = decode(latents, self.folder, compute=compute)
        clips = torch.stack([record.torch("frames") for record in made])
        marks = [_mark(self.judge, *pair) for pair in zip(self.scenes, clips, strict=True)]
        return {**tally(marks), "fvd": frechet_distance(self.real, self.extract(clips))}


def _mark(judge: WorldJudge, scene: Scene, clip: torch.Tensor):
    (verdict,) = judge.judge(torch.stack([prepared(clip[::STRIDE])]))
    return mark(verdict, Asked.of_scene(scene), counted=False)


def plot(points: list[dict[str, Any]], folder: Path) -> None:
    """All-five accuracy with its intervals, and the distance, a line a solver."""
    rows = {name: [p for p in points if p["solver"] == name] for name in SOLVERS}
    shares = {
        name: [
            Point(p["evaluations"], p["all"]["share"], p["all"]["low"], p["all"]["high"])
            for p in row
        ]
        for name, row in rows.items()
    }
    distances = {
        name: [Point(p["evaluations"], p["fvd"]) for p in row] for name, row in rows.items()
    }
    told: dict[str, Any] = {
        "x_label": "evaluations of the guided denoiser",
        "x_ticks": sorted({p["evaluations"] for p in points}),
    }
    plot_lines(
        shares, folder / "solvers.png", title="all five factors right", y_range=(0.0, 1.0),
        percent=True, **told,
    )  # fmt: skip
    plot_lines(
        distances, folder / "solvers-distance.png",
        title="FVD (features `world`) to rendered clips", y_range=(0.0, 0.0), **told,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solvers", description=__doc__)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--model", default=None)
    parser.add_argument("--only", choices=("steps", "scales"), default=None)
    options = parser.parse_args()
    folder = ModelFolder.find(options.model)
    bench = Bench(folder, options.prompts)
    path = DOCS / "solvers.json"
    report = json.loads(path.read_text()) if path.is_file() and options.only else {}
    report |= {
        "schema": "vidgen.bench-solvers/2",
        "machine": machine(),
        "torch": torch.__version__,
        "model": folder.identity("transformer"),
    }
    if options.only != "scales":
        report["solvers"] = []
        for solver in SOLVERS:
            for steps in OTHER_STEPS.get(solver, STEPS):
                evaluations = 2 * steps - 1 if solver == "heun" else steps
                shares = bench.measure(solver=solver, num_inference_steps=steps)
                point = {"solver": solver, "steps": steps, "evaluations": evaluations, **shares}
                report["solvers"].append(point)
                print(solver, evaluations, shares["all"], shares["fvd"], flush=True)
        plot(report["solvers"], DOCS)
    if options.only != "steps":
        report["scales"] = []
        for scale in SCALES:
            shares = bench.measure(guidance_scale=scale)
            report["scales"].append({"guidance_scale": scale, **shares})
            print(scale, shares["all"], shares["fvd"], flush=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
