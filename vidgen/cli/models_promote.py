"""`vidgen models promote`: a trained model takes the place of a shipped one, if it is no worse."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vidgen.cli.console import Console
from vidgen.cli.evaluate_world import SCHEMAS as EVALUATED
from vidgen.cli.evaluate_world import find_judge
from vidgen.cli.models_find import components
from vidgen.cli.options import option
from vidgen.cli.runner import print_json, print_text
from vidgen.cli.schemas import SHA256, SWITCH, TEXT, WHOLE, obj, or_null, report
from vidgen.errors import InputError, ThresholdError, UsageError

if TYPE_CHECKING:
    from vidgen.metrics.judge import WorldJudge
    from vidgen.systems.base import ModelFolder

As = Annotated[
    str,
    option("--as", metavar="NAME", settable=False,
           help="promote: the shipped model whose place is taken"),
]  # fmt: skip
Num = Annotated[
    int,
    option("--num", metavar="N", min=1, max=100_000, settable=False,
           help="promote: captions that both models are tried on"),
]  # fmt: skip
ModelsDir = Annotated[
    str | None,
    option("--models-dir", metavar="DIR", default="that of the shipped models", settable=False,
           help="promote: the folder in which the place is"),
]  # fmt: skip

_SHARES = EVALUATED["vidgen.evaluate-world/1"]["properties"]["scores"]
SCHEMAS = {
    "vidgen.models-promote/1": report(
        "vidgen.models-promote/1",
        "What `vidgen models promote --json` prints; old is null where there was no model",
        {
            "candidate": TEXT,
            "place": TEXT,
            "clips": WHOLE,
            "level": TEXT,
            "judge": obj({"name": TEXT, "sha256": SHA256}),
            "old": or_null(_SHARES),
            "new": _SHARES,
            "promoted": SWITCH,
        },
    )
}

NEEDED = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")


@dataclass(frozen=True)
class Plan:
    """What a promotion would do."""

    candidate: ModelFolder
    place: Path
    judge: Path
    num: int

    @property
    def taken(self) -> bool:
        """Whether a model is in that place."""
        return (self.place / "model_index.json").is_file()

    def words(self) -> str:
        beaten = (
            f"and with the model in {self.place}, which must not score higher"
            if self.taken
            else f"and nothing is in {self.place} to be compared with"
        )
        return "\n".join(
            (
                f"{self.candidate.path}: would be checked, component by component",
                f"{self.num} validation captions would be sampled with it, {beaten}",
                f"the judge would be {self.judge}",
                f"{self.place}: would hold its copy"
                + (", and the card that is there" * self.taken),
            )
        )


def promote(
    console: Console,
    folder: str,
    *,
    name: str,
    num: int,
    judge: str | None,
    models_dir: str | None,
    device: str,
    dry_run: bool,
    json: bool,
) -> None:
    plan = make_plan(folder, name, num, judge, models_dir)
    if dry_run:
        print_text(plan.words())
        return

    from vidgen.metrics.judge import load_judge
    from vidgen.stages.base import Compute
    from vidgen.systems.swap import put_in_place

    compute = Compute(device=device)
    compute.check()
    network = load_judge(plan.judge, compute.torch_device())
    check_whole(plan.candidate)
    hashes = {part: plan.candidate.sha256(part) for part in ("text_encoder", "transformer", "vae")}
    old, new = score(plan, network, device, console)
    refused = old is not None and new["all"]["share"] < old["all"]["share"]
    if not refused:
        put_in_place(plan.candidate, plan.place, hashes)
    if json:
        print_json(as_report(plan, network, old, new, promoted=not refused))
    else:
        print_text(as_table(old, new))
    if old is not None and refused:
        raise ThresholdError(
            f"{plan.place} stays as it is: all is right in {_percent(new)} of the candidate's"
            f" {new['all']['of']} clips, in {_percent(old)} of its own"
        )
    console.say(f"{plan.place} is now the model of {plan.candidate.path}")


# --- before anything is computed ------------------------------------------------------------------


def make_plan(folder: str, name: str, num: int, judge: str | None, models_dir: str | None) -> Plan:
    """UsageError or InputError for what can be wrong with the command line."""
    from vidgen.systems.base import SHIPPED, ModelFolder

    path = Path(folder)
    if not path.is_dir():
        raise UsageError(f"{folder}: is no folder", next="vidgen models promote RUN/model")
    if not (path / "model_index.json").is_file():
        raise InputError(f"{folder}: a folder without model_index.json, so not a model")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise UsageError(f"--as {name}: is no name of a model", next="--as world")
    home = Path(models_dir) if models_dir else SHIPPED
    if models_dir and not home.is_dir():
        raise UsageError(f"--models-dir {home}: is no folder", next=f"mkdir -p {home}")
    near = home if home.is_dir() else home.parent
    if not os.access(near, os.W_OK | os.X_OK):
        raise UsageError(f"{near}: can't be written to", next="--models-dir DIR")
    place = home.resolve() / name
    if place.exists() and path.resolve() == place.resolve():
        raise UsageError(f"{folder}: is that model already")
    if place.exists() and not (place / "model_index.json").is_file():
        raise UsageError(f"{place}: is there, and no model", next="--as ANOTHER")
    candidate = ModelFolder(path.resolve())
    if lacking := [part for part in NEEDED if part not in components(candidate)]:
        raise InputError(
            f"{folder}: has no {' and no '.join(lacking)}",
            why="only a whole model can be sampled",
        )
    return Plan(candidate, place, find_judge(judge, "basic"), num)


def check_whole(folder: ModelFolder) -> None:
    """InputError that names the first thing that `vidgen models verify` finds."""
    from vidgen.systems.verify import verify

    for part, problems in verify(folder, components(folder)):
        if problems:
            raise InputError(
                f"{folder.path}: the model is not whole",
                why=f"{part}: {problems[0]}",
                next=f"vidgen models verify {folder.path}",
            )


# --- scoring --------------------------------------------------------------------------------------


def score(
    plan: Plan, network: WorldJudge, device: str, console: Console
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Shares of the model in place (None: there is none) and of the candidate, on the same
    captions from the same noise."""
    from vidgen.metrics.world_accuracy import tally
    from vidgen.stages import judge_model as bench
    from vidgen.stages.base import Compute
    from vidgen.systems.base import ModelFolder
    from vidgen.world.scene import VALIDATION_SEEDS, sample_scene

    level = network.config.level
    scenes = [sample_scene(VALIDATION_SEEDS.start + i, level=level) for i in range(plan.num)]
    compute = Compute(device=device, batch_size=bench.BATCH)

    def judged(folder: ModelFolder) -> dict[str, Any]:
        console.note(f"trying {folder.path}")
        marks = bench.judge_model(folder, network, scenes, compute=compute, notify=console)
        return tally(marks)

    old = judged(ModelFolder(plan.place)) if plan.taken else None
    return old, judged(plan.candidate)


# --- telling --------------------------------------------------------------------------------------


def as_report(
    plan: Plan,
    network: WorldJudge,
    old: dict[str, Any] | None,
    new: dict[str, Any],
    *,
    promoted: bool,
) -> dict[str, Any]:
    from vidgen.io import weights

    return {
        "schema": "vidgen.models-promote/1",
        "candidate": str(plan.candidate.path),
        "place": str(plan.place),
        "clips": plan.num,
        "level": network.config.level,
        "judge": {
            "name": plan.judge.name,
            "sha256": weights.sha256(plan.judge / "model.safetensors"),
        },
        "old": old,
        "new": new,
        "promoted": promoted,
    }


def as_table(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> str:
    """Factor by factor: the model in place, the candidate, and by how much it is better."""
    lines = [_line("", "in place", "95 % interval", "candidate", "95 % interval", "gain")]
    for name, share in new.items():
        was = (old or {}).get(name)
        before = _cell(was) if was else ("–", "–")
        gain = f"{100 * (share['share'] - was['share']):+.1f}" if was else "–"
        lines.append(_line(name, *before, *_cell(share), gain))
    return "\n".join(lines)


def _line(*cells: str) -> str:
    first, *rest = cells
    widths = (8, 14, 10, 14, 6)
    return "  ".join([f"{first:<8}", *(f"{x:>{w}}" for x, w in zip(rest, widths, strict=True))])


def _cell(share: Mapping[str, Any]) -> tuple[str, str]:
    interval = f"{100 * share['low']:.1f} – {100 * share['high']:.1f}"
    return f"{100 * share['share']:.1f} %", interval


def _percent(shares: Mapping[str, Any]) -> str:
    return f"{100 * shares['all']['share']:.1f} %"
