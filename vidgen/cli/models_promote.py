"""`vidgen models promote`: a trained model takes the place of a shipped one, if it is no worse.

No worse: of the same scenes, from the same noise, at least as many of its clips are right. The
counts of clips that only one of the two gets right, and McNemar's p, say what a difference means;
they do not decide. Parts that work on latents alone (`save.PARTS`) can come without a model around
them, and are tried on rendered clips: see `models_promote_parts`.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vidgen.cli.console import Console
from vidgen.cli.evaluate_world import SCHEMAS as EVALUATED
from vidgen.cli.evaluate_world import find_judge
from vidgen.cli.models_find import components
from vidgen.cli.models_promote_parts import (
    PART_SCORE,
    STRENGTH,
    Tried,
    parts_as_table,
    same,
    try_parts,
)
from vidgen.cli.options import option
from vidgen.cli.runner import print_json, print_text
from vidgen.cli.schemas import NUMBER, SHA256, SWITCH, TEXT, WHOLE, array, obj, or_null, report
from vidgen.errors import InputError, ThresholdError, UsageError

if TYPE_CHECKING:
    from vidgen.metrics.intervals import Paired
    from vidgen.metrics.judge import WorldJudge
    from vidgen.metrics.world_accuracy import Mark
    from vidgen.systems.base import ModelFolder
    from vidgen.world.scene import Scene

As = Annotated[
    str | None,
    option("--as", metavar="NAME", default="add: as its folder; promote: world", settable=False,
           help="add: the model's name; promote: the shipped model whose place is taken"),
]  # fmt: skip
Num = Annotated[
    int,
    option("--num", metavar="N", min=1, max=100_000, settable=False,
           help="promote: captions, or rendered clips for parts, that both are tried on"),
]  # fmt: skip
ModelsDir = Annotated[
    str | None,
    option("--models-dir", metavar="DIR", default="that of the shipped models", settable=False,
           help="promote: the folder in which the place is"),
]  # fmt: skip

# Into the validation seeds: training and the benchmarks, by which recipes and solvers were chosen,
# look at the first ones.
OFFSET = 2**20
LEVEL = "basic"  # of the world

_SHARES = EVALUATED["vidgen.evaluate-world/1"]["properties"]["scores"]
SCHEMAS = {
    "vidgen.models-promote/1": report(
        "vidgen.models-promote/1",
        "What `vidgen models promote --json` prints; old and paired are null where no model was,"
        " and all that the judge says where parts were promoted alone. paired: clips that both,"
        " only one or none gets right; p: how likely two equally good models differ by so much or"
        " more. parts: PSNR against rendered clips, dB; wins: clips in which it is nearer to them"
        " than the candidate",
        {
            "candidate": TEXT,
            "place": TEXT,
            "clips": WHOLE,
            "level": or_null(TEXT),
            "judge": or_null(obj({"name": TEXT, "sha256": SHA256})),
            "old": or_null(_SHARES),
            "new": or_null(_SHARES),
            "paired": or_null(
                obj({"both": WHOLE, "old": WHOLE, "new": WHOLE, "neither": WHOLE, "p": NUMBER})
            ),
            "parts": array(PART_SCORE),
            "promoted": SWITCH,
        },
    )
}

NEEDED = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")


@dataclass(frozen=True)
class Plan:
    """What a promotion would do.

    judge  of the whole model; None: parts alone are promoted
    parts  of the candidate, to be tried: neither the place has the same, nor, where the place has
           none, the model that it would share it with
    kept   of the place: a whole model that takes it gets them
    lost   of the place: of another autoencoder than the model that takes it
    """

    candidate: ModelFolder
    place: Path
    judge: Path | None
    num: int
    parts: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    @property
    def taken(self) -> bool:
        """Whether a model is in that place."""
        from vidgen.systems.base import ModelFolder

        return ModelFolder(self.place).is_there

    def words(self) -> str:
        lines = [f"{self.candidate.path}: would be checked, component by component"]
        if self.judge is not None:
            beaten = (
                f"and with the model in {self.place}, which must not be right more often"
                if self.taken
                else f"and nothing is in {self.place} to be compared with"
            )
            lines.append(f"{self.num} validation captions would be sampled with it, {beaten}")
            lines.append(f"the judge would be {self.judge}")
        for part in self.parts:
            clips = f"{self.num} rendered clips"
            if part == "video_decoder":
                clips = f"what the model makes of {clips}"
            lines.append(
                f"{part}: would be tried on {clips}, and must not be further from"
                " them than what it replaces, nor than what does without"
            )
        if self.judge is None:
            lines.append(f"{self.place}: would hold a copy of {', '.join(self.parts)}")
        else:
            more = "".join(f", and its {part}" for part in self.kept)
            card = ", and the card that is there" * self.taken
            lines.append(f"{self.place}: would hold its copy{more}{card}")
        if self.lost:
            lines.append(self.lost_in_words())
        return "\n".join(lines)

    def lost_in_words(self) -> str:
        return f"not kept, because they are of another autoencoder: {', '.join(self.lost)}"


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

    compute = Compute(device=device)
    compute.check()
    network = None if plan.judge is None else load_judge(plan.judge, compute.torch_device())
    check_whole(plan.candidate)
    check_strength(plan)
    hashes = {c: plan.candidate.sha256(c) for c in promoted(plan)}
    old, new = (None, None) if network is None else score(plan, network, device, console)
    with after(plan) as result:
        tried = try_parts(
            plan.candidate, plan.place, plan.parts, scenes(plan.num, LEVEL), compute, console,
            kept=plan.kept, after=result,
        )  # fmt: skip
    paired = compared(old, new) if old is not None and new is not None else None
    refused = (paired is not None and paired.second < paired.first) or any(t.worse for t in tried)
    if not refused:
        put(plan, hashes)
    if json:
        print_json(as_report(plan, network, old, new, tried, promoted=not refused))
    else:
        tables = [as_table(old, new)] if new is not None else []
        print_text("\n".join([*tables, *parts_as_table(tried)]))
    if paired is not None and paired.second < paired.first:
        own, its = paired.both + paired.first, paired.both + paired.second
        raise ThresholdError(
            f"{plan.place} stays as it is: all is right in {its} of the candidate's {plan.num}"
            f" clips, in {own} of its own",
            why=in_words(paired),
        )
    if worse := next((t for t in tried if t.worse), None):
        raise ThresholdError(f"{plan.place} stays as it is: {worse.in_words()}")
    what = "is now the model"
    if plan.judge is None:
        what = f"now has the {' and the '.join(plan.parts)}"
    console.say(f"{plan.place} {what} of {plan.candidate.path}")
    if plan.lost:
        console.warn(plan.lost_in_words())


def promoted(plan: Plan) -> tuple[str, ...]:
    """Components of the candidate whose weights are copied, and must be those that were tried."""
    whole = ("text_encoder", "transformer", "vae") if plan.judge is not None else ()
    return (*whole, *plan.parts)


def put(plan: Plan, hashes: Mapping[str, str]) -> None:
    """What is composed, into its place."""
    from vidgen.systems.swap import put_in_place

    model, others = composed(plan)
    lender = model.lender if plan.judge is None else lends(plan.place)
    put_in_place(model, plan.place, hashes, others, lender)


def lends(place: Path) -> ModelFolder | None:
    """The model beside a place from which one that is put there has what is the same."""
    from vidgen.systems.base import DEFAULT, ModelFolder

    beside = ModelFolder(place.parent / DEFAULT)
    return beside if place.name != DEFAULT and beside.is_there else None


def composed(plan: Plan) -> tuple[ModelFolder, dict[str, ModelFolder]]:
    """The whole candidate with what the place keeps, or the place with the candidate's parts: the
    model, and what is taken from another one."""
    from vidgen.systems.base import ModelFolder

    place = ModelFolder(plan.place)
    if plan.judge is not None:
        return plan.candidate, dict.fromkeys(plan.kept, place)
    return place, dict.fromkeys(plan.parts, plan.candidate)


@contextmanager
def after(plan: Plan) -> Iterator[ModelFolder | None]:
    """The model that would be there, for as long as a decoder is tried in it; None: none is."""
    from vidgen.systems.base import ModelFolder
    from vidgen.systems.swap import copy_model

    if "video_decoder" not in plan.parts:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="vidgen.") as beside:
        target = Path(beside) / plan.place.name
        model, others = composed(plan)
        copy_model(model, target, others, name=plan.place.name)
        yield ModelFolder(target)


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
    return _planned(ModelFolder(path.resolve()), place, num, judge)


def _planned(candidate: ModelFolder, place: Path, num: int, judge: str | None) -> Plan:
    """InputError for a folder that is neither a model, nor parts for the one in place."""
    from vidgen.systems.base import ModelFolder
    from vidgen.systems.save import PARTS

    found = components(candidate)
    there = ModelFolder(place) if ModelFolder(place).is_there else None
    alike = there is not None and same(candidate, there, "vae")
    own = tuple(part for part in PARTS if part in found)
    lender = lends(place) if "transformer" in found else None

    def known(part: str) -> bool:
        """Whether it is what the place has, or would share: no better than itself."""
        has = there if there is not None and part in components(there) else lender
        return has is not None and all(same(candidate, has, c) for c in ("vae", part))

    parts = tuple(part for part in own if not known(part))
    if own and "transformer" not in found:
        if judge is not None:
            raise UsageError(
                f"--judge {judge}: parts are held against rendered clips, without a judge",
                next="leave --judge out",
            )
        if there is None:
            raise InputError(
                f"{place}: is no model for {' and '.join(own)} to go into",
                next="promote a whole model first",
            )
        if not alike:
            raise InputError(
                f"{candidate.path}: {' and '.join(own)} work on latents of another autoencoder"
                f" than that of {place}",
                why="its `vae` differs in config or weights",
                next=f"train with `data.vae` set to {place}",
            )
        if not parts:
            raise UsageError(f"{candidate.path}: its {' and '.join(own)} are in {place} already")
        return Plan(candidate, place, None, num, parts)
    if lacking := [part for part in NEEDED if part not in found]:
        raise InputError(
            f"{candidate.path}: has no {' and no '.join(lacking)}",
            why="only a whole model can be sampled",
        )
    others = tuple(
        part for part in PARTS if there and part in components(there) and part not in own
    )
    kept, lost = (others, ()) if alike else ((), others)
    return Plan(candidate, place, find_judge(judge, LEVEL), num, parts, kept, lost)


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


def check_strength(plan: Plan) -> None:
    """InputError for a model that would be there, and can't redraw the clips that its decoder is
    tried on with as little noise as they get."""
    from vidgen.stages.redraw import missing
    from vidgen.stages.sample_keyframes import unable

    model, others = composed(plan)
    if "video_decoder" not in plan.parts or set(missing(model)) - others.keys():
        return
    if why := unable(model, STRENGTH):
        raise InputError(
            f"{model.path}: can't redraw clips with a strength of {STRENGTH:g}, on which its video"
            " decoder would be tried",
            why=why,
            next="give its scheduler more num_inference_steps",
        )


# --- scoring --------------------------------------------------------------------------------------


def scenes(num: int, level: str) -> list[Scene]:
    """What both are tried on."""
    from vidgen.world.scene import VALIDATION_SEEDS, sample_scene

    first = VALIDATION_SEEDS.start + OFFSET
    return [sample_scene(first + i, level=level) for i in range(num)]


def score(
    plan: Plan, network: WorldJudge, device: str, console: Console
) -> tuple[list[Mark] | None, list[Mark]]:
    """Marks of the model in place (None: there is none) and of the candidate, clip by clip on the
    same captions from the same noise."""
    from vidgen.metrics.judge import BATCH
    from vidgen.stages import judge_model as bench
    from vidgen.stages.base import Compute
    from vidgen.systems.base import ModelFolder

    shown = scenes(plan.num, network.config.level)
    compute = Compute(device=device, batch_size=BATCH)

    def judged(folder: ModelFolder) -> list[Mark]:
        console.note(f"trying {folder.path}")
        # By the image decoder: a video decoder may be of one of the two alone.
        return bench.judge_model(
            folder, network, shown, which="image", compute=compute, notify=console
        )

    old = judged(ModelFolder(plan.place)) if plan.taken else None
    return old, judged(plan.candidate)


def compared(old: Sequence[Mark], new: Sequence[Mark]) -> Paired:
    """The model in place, first, and the candidate, by the clips in which everything is right."""
    from vidgen.metrics.intervals import Paired

    return Paired.of([m.everything for m in old], [m.everything for m in new])


# --- telling --------------------------------------------------------------------------------------


def as_report(
    plan: Plan,
    network: WorldJudge | None,
    old: Sequence[Mark] | None,
    new: Sequence[Mark] | None,
    tried: Sequence[Tried],
    *,
    promoted: bool,
) -> dict[str, Any]:
    from vidgen.io import weights
    from vidgen.metrics.world_accuracy import tally

    paired = compared(old, new) if old is not None and new is not None else None
    return {
        "schema": "vidgen.models-promote/1",
        "candidate": str(plan.candidate.path),
        "place": str(plan.place),
        "clips": plan.num,
        "level": None if network is None else network.config.level,
        "judge": None
        if plan.judge is None
        else {
            "name": plan.judge.name,
            "sha256": weights.sha256(plan.judge / "model.safetensors"),
        },
        "old": None if old is None else tally(old),
        "new": None if new is None else tally(new),
        "paired": None
        if paired is None
        else {
            "both": paired.both,
            "old": paired.first,
            "new": paired.second,
            "neither": paired.neither,
            "p": paired.p,
        },
        "parts": [t.to_dict() for t in tried],
        "promoted": promoted,
    }


def as_table(old: Sequence[Mark] | None, new: Sequence[Mark]) -> str:
    """Factor by factor: the model in place, the candidate, and by how much it is better; then the
    two clip by clip."""
    from vidgen.metrics.world_accuracy import tally

    lines = [_line("", "in place", "95 % interval", "candidate", "95 % interval", "gain")]
    before = {} if old is None else tally(old)
    for name, share in tally(new).items():
        was = before.get(name)
        cells = _cell(was) if was else ("–", "–")
        gain = f"{100 * (share['share'] - was['share']):+.1f}" if was else "–"
        lines.append(_line(name, *cells, *_cell(share), gain))
    if old is not None:
        lines.append(in_words(compared(old, new)))
    return "\n".join(lines)


def in_words(paired: Paired) -> str:
    return (
        f"clips that one alone gets right: the candidate {paired.second}, the model in place"
        f" {paired.first}; p = {paired.p:.2g} if both are equally good"
    )


def _line(*cells: str) -> str:
    first, *rest = cells
    widths = (8, 14, 10, 14, 6)
    return "  ".join([f"{first:<8}", *(f"{x:>{w}}" for x, w in zip(rest, widths, strict=True))])


def _cell(share: Mapping[str, Any]) -> tuple[str, str]:
    interval = f"{100 * share['low']:.1f} – {100 * share['high']:.1f}"
    return f"{100 * share['share']:.1f} %", interval
