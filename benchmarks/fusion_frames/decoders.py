"""Claim d: the decoders of table 4 of the paper, in its order. The encoder is frozen; a decoder of
pictures is trained first, and every video decoder begins as its equal.

Expected: 3 × 1 × 1 convolutions trained alone end below the image decoder, 3 × 3 × 3 ones above it;
with the whole decoder trained all are above it, and attention adds to both convolutions. The
paper's image decoder was finished when the others began. Ours is not, so what is trained longer is
better for that alone: the image decoder is also trained on for as many steps (`image, longer`), and
that is what whole decoders are held against. Layers trained alone leave the image decoder inside
them as it was, and are held against that.

All are trained by AdamW: Muon would take some kinds of kernels and not others. One training of
each, on clips of 8 frames as the paper's. The interval is over clips, of paired
differences: it doesn't hold what another start of the training would change.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.claim_report import Check, Figure, difference, once, place, write
from benchmarks.fusion_frames import SYSTEM, clips
from benchmarks.fusion_frames.clips import Size
from benchmarks.plot import Point, plot_lines
from vidgen.io.record import Record
from vidgen.metrics.fidelity import error_change, flicker, psnr, ssim
from vidgen.nn.movq import MoVQConfig, MoVQDecoder
from vidgen.stages.base import Compute
from vidgen.systems.base import ModelFolder
from vidgen.train.loop import train
from vidgen.train.recipe import Recipe, section

CLAIM = "decoders"


@dataclass(frozen=True)
class Row:
    """A line of the table, and the signal-to-noise ratio that the paper has there, dB."""

    name: str
    temporal: str
    attention: bool
    trained: str  # all | temporal
    paper: float | None


IMAGE, LONGER = "image", "image, longer"
ROWS = (
    Row(LONGER, "none", False, "all", None),
    Row("3×1×1, time alone", "conv1d", False, "temporal", 32.2544),
    Row("3×3×3, time alone", "conv3d", False, "temporal", 33.5819),
    Row("3×1×1", "conv1d", False, "all", 33.5051),
    Row("3×3×3", "conv3d", False, "all", 33.6342),
    Row("3×1×1 + attention", "conv1d", True, "all", 33.7343),
    Row("3×3×3 + attention", "conv3d", True, "all", 33.8376),
    Row("ResNet block + attention", "resnet", True, "all", 33.7024),
    Row("2-D → 3-D", "inflate", False, "all", 33.7321),
)
PAPER_IMAGE = 32.9677


@dataclass(frozen=True)
class Settings:
    """Sizes and budgets; `elapsed_s` in the report is what each training took."""

    image_steps: int = 800
    steps: int = 250
    lr: float = 1e-3
    batch_size: int = 4
    num_frames: int = 8
    pixels: tuple[int, int] = (40, 64)
    clips: int = 128  # of the test scenes, measured
    level: str = "full"
    model: dict[str, Any] = field(
        default_factory=lambda: {
            "channels": 8, "widths": [48, 64, 80], "blocks": 1, "attention": [], "patch": 2,
            "groups": 8,
        }
    )  # fmt: skip


SMOKE = Settings(
    image_steps=2, steps=2, batch_size=2, num_frames=3, pixels=(16, 32), clips=3,
    model={"channels": 8, "widths": [8, 8, 8], "blocks": 1, "attention": [], "patch": 2,
           "groups": 4},
)  # fmt: skip


def run(out: Path, folder: ModelFolder, settings: Settings, runs: Path) -> dict[str, Any]:
    """folder: whose latents are decoded. Trains in `runs`; what is trained there already for these
    settings is not trained again."""
    told = asdict(settings) | {"latent_space": folder.latent_space}
    report = write(out, SYSTEM, CLAIM, told, lambda: measure(folder, settings, runs))
    plot(report, out / f"fusion-frames-{CLAIM}.png")
    return report


def measure(
    folder: ModelFolder, settings: Settings, runs: Path
) -> tuple[dict[str, Any], list[Check]]:
    compute = Compute("cpu", batch_size=1)
    size = Size(settings.num_frames, *settings.pixels)
    records = clips.rendered(settings.clips, size, level=settings.level)
    true = clips.frames_of(records)
    latents = clips.encoded(records, folder, compute)

    image = Row(IMAGE, "none", False, "all", PAPER_IMAGE)
    start: Path | None = None
    rows, found = [], {}
    for row in (image, *ROWS):
        steps = settings.image_steps if row is image else settings.steps
        wanted = recipe(row, folder, settings, steps, start=start and start / "model")
        here = place(runs, row.name, wanted.to_dict())
        start = start or here
        kept = once(
            here / "measured.json",
            asdict(settings) | {"recipe": wanted.to_dict()},
            lambda r=wanted, p=here: measured(r, p, latents, true, compute),
        )
        scores = found[row.name] = kept["scores"]
        rows.append(
            {
                **asdict(row),
                "parameters": parameters(row, settings),
                "elapsed_s": kept["elapsed_s"],
                **{name: Figure.of(_numbers(values)).to_dict() for name, values in scores.items()},
            }
        )
        print(row.name, {name: rows[-1][name]["mean"] for name in scores}, flush=True)
    shipped = scored(clips.decoded(latents, folder, compute), true)
    figures = {
        "rows": rows,
        "shipped": {name: Figure.of(values).to_dict() for name, values in shipped.items()},
    }
    return figures, checks(found)


def checks(found: dict[str, dict[str, list[float]]]) -> list[Check]:
    """What the paper's table says, in dB of the same clips."""

    def more(a: str, b: str, side: str = "above") -> Check:
        return difference(f"{a} − {b}, dB", found[a]["psnr"], found[b]["psnr"], side=side)

    return [
        more("3×1×1, time alone", IMAGE, "below"),
        more("3×3×3, time alone", IMAGE),
        *(more(row.name, LONGER) for row in ROWS if row.trained == "all" and row.name != LONGER),
        more("3×1×1", "3×1×1, time alone"),
        more("3×3×3", "3×1×1"),
        more("3×1×1 + attention", "3×1×1"),
        more("3×3×3 + attention", "3×3×3"),
    ]


def recipe(
    row: Row, folder: ModelFolder, settings: Settings, steps: int, *, start: Path | None
) -> Recipe:
    """The training of a row; it is none of the shipped recipe, which begins elsewhere."""
    return section(
        Recipe,
        {
            "task": "video-decoder",
            "model": settings.model | {
                "temporal": row.temporal, "temporal_attention": row.attention
            },
            "data": {
                "vae": str(folder.path), "level": settings.level, "sizes": [list(settings.pixels)],
                "num_frames": [settings.num_frames] * 2, "fps": [clips.FPS],
                "start": start and str(start), "trained": row.trained,
            },
            "loss": {"latent_noise": 0.1},
            "optim": {
                "name": "adamw", "lr": settings.lr, "betas": [0.9, 0.95],
                "muon_match": [], "muon_kernels": [],
            },
            "schedule": {"warmup_steps": min(50, steps // 2), "decay_fraction": 0.6},
            "steps": steps, "batch_size": settings.batch_size, "ema": 0.98, "dtype": "bfloat16",
            "eval_every": 0, "sample_every": 0, "checkpoint_every_s": 60.0, "seed": 5,
        },
        where="",
    )  # fmt: skip


def parameters(row: Row, settings: Settings) -> int:
    """Of the decoder."""
    config = MoVQConfig(
        **settings.model,
        temporal=row.temporal,  # type: ignore[arg-type]
        temporal_attention=row.attention,
    )
    return sum(p.numel() for p in MoVQDecoder(config).parameters())


def measured(
    recipe: Recipe, run: Path, latents: list[Record], true: Tensor, compute: Compute
) -> dict[str, Any]:
    """Train a decoder, or go on where it was stopped, and measure it."""
    result = train(recipe, run, device="cpu")
    folder = ModelFolder.find(str(run / "model"))
    made = clips.decoded(latents, folder, compute, "video")
    return {"scores": scored(made, true), "elapsed_s": round(result.elapsed_s, 1)}


def scored(made: Tensor, true: Tensor) -> dict[str, list[float]]:
    """Measures of clips, one a clip."""
    return {
        "psnr": psnr(made, true).mean(dim=1).tolist(),
        "ssim": ssim(made, true).mean(dim=1).tolist(),
        "flicker": flicker(made, true).tolist(),
        "error_change": error_change(made, true).tolist(),
    }


def _numbers(values: list[float | None]) -> list[float]:
    """Clips in which nothing stands still have no flicker."""
    return [v for v in values if v is not None]


def plot(report: dict[str, Any], path: Path) -> None:
    """The table's rows from left to right: ours, and the paper's, each from its image decoder."""
    rows = report["figures"]["rows"]
    base = {"ours": rows[0]["psnr"]["mean"], "paper": rows[0]["paper"]}
    ours = [
        Point(i, *(row["psnr"][k] - base["ours"] for k in ("mean", "low", "high")))
        for i, row in enumerate(rows)
    ]
    paper = [Point(i, r["paper"] - base["paper"]) for i, r in enumerate(rows) if r["paper"]]
    plot_lines(
        {"ours": ours, "the paper": paper}, path, x_label="row of the table",
        title="decoders, dB above the image decoder", x_ticks=range(len(rows)),
    )  # fmt: skip
