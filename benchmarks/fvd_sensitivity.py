"""`python -m benchmarks.fvd_sensitivity`: does FVD with the features `world` grow with what makes a
video bad?

Real: rendered clips of the world's test split, half of them of the basic and half of the full
world. Against them: as many others, clean (more than once, for what chance alone gives) and with
each kind of distortion at five strengths. Writes docs/fvd-sensitivity.json and .png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmarks.common import machine
from vidgen.metrics.frechet import frechet_distance
from vidgen.metrics.world_features import WorldFeatures, load
from vidgen.train.plot import linear_ticks
from vidgen.train.task import generator
from vidgen.train.tasks.distort import KINDS, distort
from vidgen.world.render import render
from vidgen.world.scene import TEST_SEEDS, sample_scene

DOCS = Path(__file__).parent.parent / "docs"
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
FLOORS = 3  # sets of clean clips
FRAMES, FPS = 16, 8.0
CHUNK = 32  # clips at a time
PANEL_W, PANEL_H, COLUMNS = 176, 120, 4  # pixels of a panel; panels in a row
INK, FONT = "#222222", ImageFont.load_default()


def clips(count: int, part: int) -> Iterator[Tensor]:
    """Set number `part` of test clips, uint8 `b t h w 3`, a chunk at a time."""
    first = TEST_SEEDS.start + part * count
    for at in range(first, first + count, CHUNK):
        seeds = range(at, min(at + CHUNK, first + count))
        scenes = [sample_scene(s, level=("basic", "full")[s % 2]) for s in seeds]
        yield render(scenes, num_frames=FRAMES, fps=FPS).frames


def strengths(kind: str) -> Sequence[float]:
    """Those that are measured; there is no half of a reversal."""
    return (1.0,) if kind == "reverse" else STRENGTHS


def measured(extractor: WorldFeatures, count: int) -> dict[str, Any]:
    """FVD of clean sets, and for each kind at each strength."""

    def clean(part: int) -> Tensor:
        return torch.cat([extractor(chunk) for chunk in clips(count, part)])

    real = clean(0)
    floors = [frechet_distance(real, clean(part)) for part in range(1, FLOORS + 1)]
    found: dict[tuple[str, float], list[Tensor]] = {}
    for n, chunk in enumerate(clips(count, 1)):
        for kind in KINDS:
            for strength in strengths(kind):
                changed = distort(chunk, kind, strength, generator(0, kind, strength.hex(), n))
                found.setdefault((kind, strength), []).append(extractor(changed))
    kinds = {}
    for kind in KINDS:
        values = [frechet_distance(real, torch.cat(found[kind, s])) for s in strengths(kind)]
        kinds[kind] = {"strength": strengths(kind), "fvd": values, **verdict(floors, values)}
    return {"clean": floors, "kinds": kinds}


def verdict(floors: Sequence[float], values: Sequence[float]) -> dict[str, Any]:
    """Whether distances grow from strength to strength, from that of the same clips when clean on;
    and by how much the strongest is above the largest distance of clean clips."""
    steps = pairwise([floors[0], *values])
    return {
        "monotone": all(a < b for a, b in steps),
        "over_clean": values[-1] / max(floors),
    }


@dataclass(frozen=True)
class Panel:
    """Where strength 0 … 1 and distance 0 … `most` are in the picture, in pixels."""

    left: int
    top: int
    most: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        return self.left + x * PANEL_W, self.top + (1 - y / self.most) * PANEL_H

    def frame(self, draw: ImageDraw.ImageDraw, title: str) -> None:
        """The box, its ticks and its title."""
        for y in linear_ticks(0, self.most, count=4):
            at = self.place(0, y)
            draw.line([at, self.place(1, y)], fill="#e4e4e4")
            draw.text((at[0] - 4, at[1]), f"{y:g}", fill=INK, font=FONT, anchor="rm")
        for x in (0.0, 0.5, 1.0):
            at = self.place(x, 0)
            draw.text((at[0], at[1] + 4), f"{x:g}", fill=INK, font=FONT, anchor="mt")
        draw.rectangle([*self.place(0, self.most), *self.place(1, 0)], outline=INK)
        draw.text((self.left, self.top - 5), title, fill=INK, font=FONT, anchor="lb")


def plot(result: Mapping[str, Any], path: Path) -> None:
    """A panel for each kind that has strengths: FVD over strength, clean clips as gray lines."""
    kinds = {k: v for k, v in result["kinds"].items() if len(v["fvd"]) > 1}
    rows = -(-len(kinds) // COLUMNS)
    cell_w, cell_h = PANEL_W + 56, PANEL_H + 48
    image = Image.new("RGB", (COLUMNS * cell_w, rows * cell_h), "white")
    draw = ImageDraw.Draw(image)
    for n, (kind, found) in enumerate(kinds.items()):
        most = 1.05 * max(*found["fvd"], *result["clean"])
        panel = Panel(n % COLUMNS * cell_w + 44, n // COLUMNS * cell_h + 24, most)
        panel.frame(draw, kind if found["monotone"] else f"{kind} (not monotone)")
        for floor in result["clean"]:
            draw.line([panel.place(0, floor), panel.place(1, floor)], fill="#999999")
        points = [(0.0, result["clean"][0]), *zip(found["strength"], found["fvd"], strict=True)]
        line = [panel.place(*point) for point in points]
        draw.line(line, fill="#1f5fa8", width=2)
        for x, y in line:
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill="#1f5fa8")
    image.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fvd_sensitivity")
    parser.add_argument("--clips", type=int, default=256, help="of each set")
    parser.add_argument("--features", type=Path, help="a folder that `vidgen train` made")
    parser.add_argument("--out", type=Path, default=DOCS)
    options = parser.parse_args()
    extractor = load("cpu", options.features) if options.features else load("cpu")
    result = {
        "clips": options.clips,
        "features": extractor.settings,
        "machine": machine(),
        **measured(extractor, options.clips),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / "fvd-sensitivity.json"
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    plot(result, options.out / "fvd-sensitivity.png")
    print("clean".ljust(10), *(f"{value:8.3f}" for value in result["clean"]))
    for kind, found in result["kinds"].items():
        note = "" if found["monotone"] else "   not monotone"
        print(kind.ljust(10), *(f"{value:8.3f}" for value in found["fvd"]), note)


if __name__ == "__main__":
    main()
