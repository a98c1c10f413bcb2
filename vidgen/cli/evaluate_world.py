"""`vidgen evaluate-world`: whether clips of the world show what was asked for."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from vidgen.cli import schemas
from vidgen.cli.console import Console
from vidgen.cli.eval_clips import expand
from vidgen.cli.evaluate_world_report import as_report, as_table, write_failures
from vidgen.cli.evaluate_world_rows import read_rows
from vidgen.cli.options import Device, Json, _Force, argument, option
from vidgen.cli.page import Page
from vidgen.cli.reporting import ReportFile, check_files, named_numbers
from vidgen.cli.runner import print_json, print_text
from vidgen.cli.schemas import NUMBER, SHA256, TEXT, WHOLE, array, obj, or_null
from vidgen.errors import Exit, ThresholdError, UsageError
from vidgen.io.files import atomic_write

PAGE = Page(
    name="evaluate-world",
    summary="whether clips of the world show what was asked for",
    description="""\
A judge looks at five frames of each clip, at pixels and nothing else, and says shape, color and
motion of the objects, ground and camera. What it saw is compared with what the clip's prompt asks
for; of what the prompt leaves open nothing is asked. The report gives the share that is right for
each factor, and for everything at once, with Wilson intervals of 95 %.

The judge was trained on rendered clips alone, roughened by blur, compression, noise and light,
never on generated ones. Each report begins with two scales: the ceiling is what the judge says of
freshly rendered clips, whose truth is known, written as H.264 and read back; the floor is
what the clips score against each other's prompts. A share near the ceiling can't be told from
perfect; a share near the floor is chance.

Prompts are those that the clips carry, or rows of --prompts: objects with `id` and `prompt`, and
if wanted `factors`, as `vidgen world --rows` writes them, which are then believed instead of
the prompt's words. Clips that know their factors already are held to them:
rendered ones, and those generated from rows with `factors`.

The judge looks at 40 × 64 pixels. Clips of other sizes are shrunk or enlarged, those of another
aspect than 8:5 squeezed, with a warning: shapes and motions may then be taken for others.""",
    reads="frames records, videos, folders of these or of pictures, or quoted globs, from IN",
    writes="a table, or JSON, to standard output",
    examples=[
        ("vidgen evaluate-world ball.mp4", "one clip against its own prompt"),
        ("vidgen world --split test --num 16 | vidgen evaluate-world --min all=0.9",
         "rendered clips; exit code 4 below 90 %"),
        ("vidgen evaluate-world ball.mp4 --json", "for a program"),
    ],
    notes={
        "FACTORS": """\
shape, color, motion (of every object), ground, camera; relation (left, right, front, behind) where
a prompt names several objects; count of the objects in the full world; all = everything that the
prompt asks for. Of a prompt that asks for nothing, nothing is counted.""",
    },
    see_also=["vidgen-world(1)", "vidgen-generate(1)"],
)  # fmt: skip

Inputs = Annotated[
    list[str] | None,
    argument("IN", "frames records, videos, folders of these or of pictures; - is standard input"),
]
PromptRows = Annotated[
    str | None,
    option("--prompts", metavar="FILE", default="the clips' own", settable=False,
           help="JSONL rows with id, prompt and if wanted factors, in any order"),
]  # fmt: skip
Level = Annotated[
    Literal["basic", "full"], option("--level", help="the world that the judge knows")
]
Judge = Annotated[
    str | None,
    option("--judge", metavar="DIR", default="the one that comes with vidgen",
           help="a folder that `vidgen train world-judge` made"),
]  # fmt: skip
Min = Annotated[
    list[str] | None,
    option("--min", metavar="FACTOR=SHARE", default="none", settable=False,
           help="exit with 4 if a share is lower, such as all=0.95; may be repeated"),
]  # fmt: skip
Ceiling = Annotated[
    int,
    option("--ceiling", metavar="N", min=0, max=100_000,
           help="rendered clips that the judge is tried on first; 0: none"),
]  # fmt: skip
Sheet = Annotated[
    str | None,
    option("--failures", metavar="FILE", default="none", settable=False,
           help="a PNG of the clips that are wrong, with what was seen"),
]  # fmt: skip

_SHARE = obj({"right": WHOLE, "of": WHOLE, "share": NUMBER, "low": NUMBER, "high": NUMBER})
_SHARES = {"type": "object", "additionalProperties": _SHARE}
SCHEMAS = {
    "vidgen.evaluate-world/1": schemas.report(
        "vidgen.evaluate-world/1",
        "What `vidgen evaluate-world --json` prints; confusion: factor, asked, seen, how often",
        {
            "clips": WHOLE,
            "level": TEXT,
            "judge": obj({"name": TEXT, "sha256": SHA256}),
            "models": array(obj({"name": TEXT, "sha256": SHA256})),
            "ceiling": or_null(_SHARES),
            "floor": or_null(_SHARES),
            "scores": _SHARES,
            "unseen": or_null(_SHARES),
            "seen": or_null(_SHARES),
            "places": or_null(
                obj({"prompts": WHOLE, "clips": WHOLE, "places": WHOLE, "share": NUMBER})
            ),
            "confusion": {"type": "object"},
            "wrong": array(
                obj({"id": TEXT, "prompt": TEXT, "asked": array(TEXT), "seen": array(TEXT)})
            ),
        },
    )
}


def evaluate_world(
    console: Console,
    inputs: Inputs = None,
    prompts: PromptRows = None,
    level: Level = "basic",
    judge: Judge = None,
    min: Min = None,
    ceiling: Ceiling = 256,
    failures: Sheet = None,
    report: ReportFile = None,
    force: _Force = False,
    json: Json = False,
    device: Device = "auto",
) -> int | None:
    least = thresholds(min or ())
    paths = expand(inputs or [], console)
    check_files({"--failures": failures, "--report": report}, force=force)
    rows = read_rows(prompts) if prompts else None
    folder = find_judge(judge, level)

    from vidgen.cli.evaluate_world_look import clips, evaluate, look
    from vidgen.io.weights import sha256
    from vidgen.metrics.judge import load_judge
    from vidgen.stages.base import Compute

    compute = Compute(device=device)
    compute.check()
    network = load_judge(folder, compute.torch_device())
    if network.config.level != level:
        raise UsageError(
            f"{folder}: judges the {network.config.level} world, not the {level} one",
            next=f"--level {network.config.level}",
        )
    judged = look(network, clips(paths), rows, console, thumbnails=failures is not None)
    found = evaluate(network, judged, ceiling, console)
    found["judge"] = {"name": folder.name, "sha256": sha256(folder / "model.safetensors")}
    found["models"] = [{"name": n, "sha256": h} for n, h in sorted(judged.models)]
    if failures is not None:
        write_failures(failures, judged, found["marks"], console, force=force)
    whole = as_report(found, judged, SCHEMAS["vidgen.evaluate-world/1"])
    if report is not None:
        with atomic_write(report, force=force) as f:
            f.write((jsonlib.dumps(whole, ensure_ascii=False, indent=1) + "\n").encode())
    if json:
        print_json(whole)
    else:
        print_text(as_table(found))
    return require(least, found["scores"])


def thresholds(words: Sequence[str]) -> dict[str, float]:
    """`all=0.95` … → {"all": 0.95}; UsageError for what is no factor or no share."""
    from vidgen.metrics.world_accuracy import FACTORS

    known = (*FACTORS, "relation", "count", "all")
    return named_numbers(
        "--min",
        words,
        known,
        form="FACTOR=SHARE",
        low=0.0,
        high=1.0,
        why=f"factors: {', '.join(known)}; shares are 0 to 1",
        example="--min all=0.95",
    )


def find_judge(given: str | None, level: str) -> Path:
    """The folder of the judge. UsageError if there is none."""
    from vidgen.metrics.judge import SHIPPED

    folder = Path(given) if given else SHIPPED / level
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"no judge in {folder}"
            if given
            else f"no judge of the {level} world comes with vidgen",
            next="vidgen train world-judge, and --judge runs/world-judge/model",
        )
    return folder


def require(least: dict[str, float], scores: dict[str, Any]) -> Exit:
    """Exit code; ThresholdError names the first share that is too low."""
    for name, share in least.items():
        if name not in scores:
            raise UsageError(
                f"--min {name}: no clip's prompt says anything of it",
                next=f"factors here: {', '.join(scores)}",
            )
        if scores[name]["share"] < share:
            raise ThresholdError(
                f"{name} is right in {100 * scores[name]['share']:.1f} % of {scores[name]['of']},"
                f" less than the {100 * share:.1f} % of --min"
            )
    return Exit.DONE
