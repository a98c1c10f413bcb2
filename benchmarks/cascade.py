"""`python -m benchmarks.cascade`: each stage behind the keyframes against what needs no network.

    interpolate   three frames between two true keyframes, drawn anew where the model wants that,
                  against those that aren't, and against blending the neighbors' latents; all
                  decoded by the image decoder
    upsample      clips of half the size that `generate` makes to that size, against enlarging the
                  decoded pictures (bicubic) and the latents (bilinear)
    decode        the video decoder against the image decoder, from true latents
    all           true keyframes through what `generate` does with them, against blending, then the
                  image decoder, then enlarging the pictures if need be

Test scenes of the basic world, rendered at 8 frames a second, never seen in training; the truth is
the rendered clip at the size that comes out. Signal-to-noise ratio and SSIM are means over frames,
flicker is of pixels that stand still in truth, and the change of the error of all. Differences are
clip by clip, with intervals of 95 %. A stage whose network isn't there is left out, which the
report says. Writes docs/cascade.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from benchmarks.claim_report import Figure, plain
from benchmarks.common import machine
from benchmarks.fusion_frames import clips
from benchmarks.fusion_frames.clips import SIZE, Size
from vidgen.io.record import Record
from vidgen.metrics.fidelity import error_change, flicker, psnr, ssim
from vidgen.stages import interpolate
from vidgen.stages import upsample as upsampling
from vidgen.stages.base import Compute
from vidgen.stages.redraw import shown
from vidgen.systems.base import ModelFolder

DOCS = Path(__file__).parent.parent / "docs"
MEASURES = {"psnr": "dB", "ssim": "", "flicker": "levels", "error_change": "levels"}
# Stage → the component that it needs.
COMPONENTS = {"interpolate": "interpolation", "upsample": "upsampler", "decode": "video_decoder"}
CEILING = "true latents"  # no way to make anything: what the image decoder can do at best

Scores = dict[str, list[float]]


class Bench:
    """Rendered clips of the size that keyframes are sampled in and of that times `factor`, 1 or 2,
    which users get; and the models of each stage, None for one that isn't there."""

    def __init__(self, models: dict[str, ModelFolder | None], base: ModelFolder, count: int,
                 size: Size, factor: int, compute: Compute) -> None:  # fmt: skip
        self.models, self.base, self.compute, self.factor = models, base, compute, factor
        half = size if factor == 2 else scaled(size, 1 / 2)
        sizes = {"small": half, "sampled": size, "large": scaled(half, 2)}
        rendered = {shape: clips.rendered(count, shape) for shape in set(sizes.values())}
        latents = {shape: clips.encoded(of, base, compute) for shape, of in rendered.items()}
        self.true = {name: clips.frames_of(rendered[shape]) for name, shape in sizes.items()}
        self.latents = {name: latents[shape] for name, shape in sizes.items()}

    def rows(self) -> dict[str, dict[str, Any]]:
        """Stage → the scores of its ways, or why there are none."""
        ways: dict[str, Callable[[], dict[str, Scores]]] = {
            "interpolate": self.interpolate,
            "upsample": self.upsample,
            "decode": self.decode,
            "all": self.all,
        }
        found: dict[str, dict[str, Any]] = {}
        for stage, way in ways.items():
            needed = self.whole if stage == "all" else (stage,)
            missing = [COMPONENTS[s] for s in needed if self.models[s] is None]
            if missing:
                found[stage] = {"skipped": f"no component {', '.join(missing)}"}
                continue
            scores = way()
            made, *trivial = (name for name in scores if name != CEILING)
            found[stage] = {
                "made": made,
                "scores": {name: _figures(values) for name, values in scores.items()},
                "better_by": {name: _gains(scores[made], scores[name]) for name in trivial},
            }
        return found

    @property
    def whole(self) -> list[str]:
        """The stages that clips of this model go through."""
        return [stage for stage in COMPONENTS if stage != "upsample" or self.factor == 2]

    def interpolate(self) -> dict[str, Scores]:
        """Of the frames between alone: keyframes are the same in both."""
        true, folder, found = self.true["sampled"], self._model("interpolate"), {}
        ways = {"grouped": ("grouped", False), "linear blend": ("linear", False)}
        if self.refines:
            ways = {"grouped, refined": ("grouped", True)} | ways
        keys = self._keyframes()
        for name, (method, refine) in ways.items():
            made = clips.interpolated(keys, folder, method, self.compute, refine=refine)
            frames = clips.decoded(made, self.base, self.compute)
            found[name] = scored(frames, true, only=clips.between)
        return found

    def upsample(self) -> dict[str, Scores]:
        true, small = self.true["large"], self.latents["small"]
        return {
            "network": scored(self._image(self.enlarged(small)), true),
            "bicubic pictures": scored(bicubic(self._image(small)), true),
            "bilinear latents": scored(self._image(self.enlarged(small, "bilinear")), true),
            CEILING: scored(self._image(self.latents["large"]), true),
        }

    def decode(self) -> dict[str, Scores]:
        """At the larger size, which is the one that users get."""
        true, folder = self.true["large"], self._model("decode")
        video = clips.decoded(self.latents["large"], folder, self.compute, "video")
        image = self._image(self.latents["large"])
        return {"video decoder": scored(video, true), "image decoder": scored(image, true)}

    def all(self) -> dict[str, Scores]:
        keys, true = self._keyframes(), self.true["large"]
        made = clips.interpolated(
            keys, self._model("interpolate"), "grouped", self.compute, refine=self.refines
        )
        trivial = self._image(clips.interpolated(keys, None, "linear", self.compute))
        if self.factor == 2:
            made, trivial = self.enlarged(made), bicubic(trivial)
        frames = clips.decoded(made, self._model("decode"), self.compute, "video")
        return {"the cascade": scored(frames, true), "without networks": scored(trivial, true)}

    @property
    def refines(self) -> bool:
        """Whether the model draws frames between anew: by its network of keyframes, under text."""
        if (folder := self.models["interpolate"]) is None:
            return False
        return interpolate.method_of(folder, interpolate.Choices()).refiner is not None

    def _keyframes(self) -> list[Record]:
        """With the text of their captions, where that is looked at."""
        keys = clips.keyframes(self.latents["sampled"])
        if not self.refines:
            return keys
        return clips.captioned(keys, self._model("interpolate"), self.compute)

    def enlarged(self, records: list[Record], method: str = "diffusion") -> list[Record]:
        choices = upsampling.Choices(method=method)
        folder = self._model("upsample")
        return list(upsampling.upsample(iter(records), folder, choices, compute=self.compute))

    def _image(self, records: list[Record]) -> Tensor:
        return clips.decoded(records, self.base, self.compute)

    def _model(self, stage: str) -> ModelFolder:
        folder = self.models[stage]
        assert folder is not None
        return folder


def scaled(size: Size, factor: float) -> Size:
    return Size(size.num_frames, int(factor * size.height), int(factor * size.width))


def scored(made: Tensor, true: Tensor, *, only: Callable[[Tensor], Tensor] = lambda x: x) -> Scores:
    """Measures, one a clip. `only`: the frames whose own measures count; what changes over time is
    of whole clips."""
    a, b = only(made), only(true)
    found = {
        "psnr": psnr(a, b).mean(dim=1),
        "ssim": ssim(a, b).mean(dim=1),
        "flicker": flicker(made, true),
        "error_change": error_change(made, true),
    }
    return {name: values.tolist() for name, values in found.items()}


def bicubic(frames: Tensor) -> Tensor:
    """uint8 `b t h w 3` → the same with sides twice as long."""
    x = rearrange(frames.float(), "b t h w c -> (b t) c h w")
    x = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
    x = x.round().clamp(0, 255).to(torch.uint8)
    return rearrange(x, "(b t) c h w -> b t h w c", b=len(frames))


def _figures(scores: Scores) -> dict[str, Any]:
    return {name: Figure.of(values).to_dict() for name, values in scores.items()}


def _gains(made: Scores, trivial: Scores) -> dict[str, Any]:
    """Clip by clip; more is better for psnr and ssim, less for the others."""
    return {
        name: Figure.of(
            (a - b) if name in ("psnr", "ssim") else (b - a)
            for a, b in zip(made[name], trivial[name], strict=True)
        ).to_dict()
        for name in MEASURES
    }


def as_table(rows: dict[str, dict[str, Any]]) -> str:
    """A line a way, means over clips; what a network adds to each trivial way beneath."""
    lines = [f"{'':<36}" + "".join(f"{f'{m} {u}'.strip():>25}" for m, u in MEASURES.items())]
    for stage, row in rows.items():
        if "skipped" in row:
            lines.append(f"{stage}: skipped, {row['skipped']}")
            continue
        for name, scores in row["scores"].items():
            cells = "".join(f"{_said(scores[m]['mean']):>25}" for m in MEASURES)
            lines.append(f"{f'{stage}: {name}':<36}{cells}")
        for name, gains in row["better_by"].items():
            cells = "".join(
                f"{_said(g['mean']) + ' [' + _said(g['low']) + ', ' + _said(g['high']) + ']':>25}"
                for g in (gains[m] for m in MEASURES)
            )
            lines.append(f"{f'  better than {name} by':<36}{cells}")
    return "\n".join(lines)


def _said(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def find(path: Path | None, component: str, base: ModelFolder) -> ModelFolder | None:
    """The model that has the component: as told (InputError if it hasn't), or the shipped one if it
    has."""
    if path is None:
        return base if base.has(component) else None
    folder = ModelFolder.find(str(path))
    folder.component(component)
    return folder


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cascade", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--model", help="whose autoencoder, and what isn't told [world]")
    for stage, component in COMPONENTS.items():
        parser.add_argument(f"--{stage}", type=Path, help=f"model folder with `{component}`")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--out", type=Path, help="[docs/cascade.json]")
    parser.add_argument("--smoke", action="store_true", help="two small clips")
    options = parser.parse_args(argv)
    base = ModelFolder.find(options.model)
    models = {
        stage: find(getattr(options, stage), component, base)
        for stage, component in COMPONENTS.items()
    }
    made = base.geometry
    factor = min(shown(base).height // made.height, 2)
    count, size = options.clips, Size(SIZE.num_frames, made.height, made.width)
    if options.smoke:
        count, size = 2, Size(5, 32 // factor, 64 // factor)
    rows = Bench(models, base, count, size, factor, Compute("cpu", batch_size=8)).rows()
    report = {
        "schema": "vidgen.bench-cascade/1",
        "machine": machine(),
        "clips": count,
        "size": [size.num_frames, size.height, size.width],
        "enlarged": factor,
        "latent_space": base.latent_space,
        "models": {
            stage: folder and folder.identity(COMPONENTS[stage]) for stage, folder in models.items()
        },
        "stages": rows,
    }
    if options.out is None and not options.smoke:  # a smoke test is no result
        options.out = DOCS / "cascade.json"
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(plain(report), indent=1) + "\n", encoding="utf-8")
    print(as_table(plain(rows)))


if __name__ == "__main__":
    main()
