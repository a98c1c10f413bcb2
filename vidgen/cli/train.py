"""`vidgen train`: train a model from a recipe."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vidgen.cli.console import PLAIN_AFTER_S, PLAIN_EVERY_S, Console, human_seconds
from vidgen.cli.failure import Terminated
from vidgen.cli.options import RUNNING, Compile, Device, DryRun, argument, option
from vidgen.cli.page import Page
from vidgen.cli.runner import print_text
from vidgen.cli.schemas import NUMBER, TEXT, WHOLE, obj, one_of, or_null
from vidgen.errors import TryAgain, UsageError

if TYPE_CHECKING:
    from vidgen.train.recipe import Recipe

PAGE = Page(
    name="train",
    summary="train a model from a recipe",
    description="""\
Runs a recipe until its budget is spent, and exports the averaged weights as a model folder. A
recipe is a YAML file, or the name of one that comes with vidgen; without any, those are listed.
What it says can be changed on the command line: a preset first, then each --set.

Stop it with SIGTERM (exit code 75) or Ctrl-C (130): the step under way is finished and a checkpoint
is written. The same command goes on from there. A second signal stops at once.

On several GPUs, start it with torchrun: `torchrun --nproc-per-node 8 -m vidgen train RECIPE`.""",
    reads="a recipe",
    writes="a model folder, checkpoints, metrics and sample sheets under --out",
    examples=[
        ("vidgen train", "which recipes there are"),
        ("vidgen train tiny --steps 3", "a few steps, to see it run"),
        ("vidgen train tiny --steps 6", "three more of the same run"),
        ("vidgen train tiny --set batch_size=4 --steps 3 --out runs/four", "another batch size"),
        ("vidgen train tiny -n", "the recipe in full, and how large its networks are"),
        ("vidgen train --export --out runs/tiny", "export the newest checkpoint again"),
    ],
    notes={
        "FILES": """\
OUT/recipe.yaml is the recipe in full; OUT/metrics.jsonl has a line every few steps, loss.png its
plot; OUT/samples/ holds pictures, OUT/checkpoints/ the newest checkpoints, OUT/model/ what was
exported. One process at a time trains in a folder.""",
        "REPRODUCIBILITY": """\
On a CPU, a run with a budget in steps gives the same weights to the bit each time, stopped and
resumed or not. A budget in minutes lowers the learning rate by the clock, and no two clocks
agree.""",
        "PROGRESS": """\
With --progress json, each event of the trainer is a line that follows vidgen.train-event/1:
start, prepare, step, eval, sample, checkpoint and end.""",
    },
    see_also=["vidgen-models(1)", "vidgen-world(1)", "torchrun(1)"],
)

RecipeName = Annotated[
    str | None, argument("RECIPE", "a recipe's file, or the name of one that comes with vidgen")
]
Minutes = Annotated[
    float | None,
    option("--minutes", metavar="M", min=0.001, default="the recipe's", settable=False,
           help="train for so long, instead of the recipe's budget"),
]  # fmt: skip
TrainSteps = Annotated[
    int | None,
    option("--steps", metavar="N", min=1, default="the recipe's", settable=False,
           help="train so many steps; with --minutes, what is spent first ends it"),
]  # fmt: skip
Out = Annotated[
    str | None,
    option("--out", metavar="DIR", default="runs/RECIPE", settable=False,
           help="the folder of the run"),
]  # fmt: skip
Set = Annotated[
    list[str] | None,
    option("--set", metavar="KEY=VALUE", settable=False, default="none",
           help="change the recipe, such as optim.lr=1e-3; may be repeated"),
]  # fmt: skip
Preset = Annotated[
    str | None,
    option("--preset", metavar="NAME", default="none", help="a set of changes in the recipe"),
]
Resume = Annotated[
    Literal["auto", "yes", "no"],
    option("--resume", metavar="WHEN", settable=False,
           help="go on from a checkpoint: auto (if there is one), yes (insist), no (refuse)"),
]  # fmt: skip
Export = Annotated[
    bool,
    option("--export", settable=False,
           help="train nothing, only export the newest checkpoint"),
]  # fmt: skip
TrainDtype = Annotated[
    Literal["auto", "fp32", "bf16"],
    option("--dtype", group=RUNNING, metavar="TYPE",
           help="of the matrix products: auto (as the recipe says), fp32, bf16"),
]  # fmt: skip

SCHEMAS = {
    "vidgen.train-event/1": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of `vidgen train --progress json`, a line on standard error; steps and"
        " evaluations also have the task's own measures, as numbers",
        **obj(
            {
                "event": {"const": "train"},
                "schema": {"const": "vidgen.train-event/1"},
                "what": one_of("start", "prepare", "step", "eval", "sample", "checkpoint", "end"),
                "step": WHOLE,
                "message": TEXT,
                "device": TEXT,
                "path": TEXT,
                "parameters": WHOLE,
                "used": NUMBER,
                "eta_s": NUMBER,
            },
            optional=("message", "device", "path", "parameters", "used", "eta_s"),
            more=or_null(NUMBER),
        ),
    }
}


def train(
    console: Console,
    recipe: RecipeName = None,
    minutes: Minutes = None,
    steps: TrainSteps = None,
    out: Out = None,
    set: Set = None,
    preset: Preset = None,
    resume: Resume = "auto",
    export: Export = False,
    device: Device = "auto",
    dtype: TrainDtype = "auto",
    compile: Compile = False,
    dry_run: DryRun = False,
) -> None:
    from vidgen.train.recipe import load_recipe

    if recipe is None and not export:
        print_text(shipped())
        return
    if recipe is None and out is None:
        raise UsageError("--export of which run?", next="vidgen train --export --out runs/NAME")
    folder = Path(out or f"runs/{Path(recipe or '').stem}")
    changes = [*(set or ()), *_budget(minutes, steps)]
    changes += [] if dtype == "auto" else [f"dtype={dtype}"]
    if export:
        _export(folder, changes, console)
        return
    found = load_recipe(recipe or "", preset=preset, overrides=changes)
    found.require_budget()
    if dry_run:
        print_text(plan(found, folder, resume))
        return
    check_folder(folder)

    from vidgen.train.loop import train as run

    talk = Talk(console, found)
    with _told_how_to_go_on(talk, folder):
        run(found, folder, device=device, resume=resume, compile=compile, progress=talk)


def _budget(minutes: float | None, steps: int | None) -> list[str]:
    """What the command line gives replaces the recipe's budget as a whole: `--steps 100` of a
    recipe for ten minutes is a hundred steps, however long they take."""
    if minutes is None and steps is None:
        return []
    given = {"minutes": minutes, "steps": steps}
    return [f"{key}={'null' if value is None else value}" for key, value in given.items()]


def shipped() -> str:
    """The recipes that come with vidgen, each with the sentence that heads its file."""
    from vidgen.train.recipe import SHIPPED, shipped_recipes

    names = shipped_recipes()
    width = max(map(len, names), default=0)
    return "\n".join(f"{n:<{width}}  {_headline(SHIPPED / f'{n}.yaml')}" for n in names)


def _headline(path: Path) -> str:
    """The first sentence of the comment that a recipe begins with, without its full stop."""
    comment = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    return " ".join(comment).partition(". ")[0].rstrip(".")


def check_folder(folder: Path) -> None:
    """UsageError if a run can't be written there: before torch is loaded."""
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not there.is_dir():
        raise UsageError(f"{there}: is a file, not a folder", next="choose another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{there}: can't be written to", next="choose another --out")


def plan(recipe: Recipe, folder: Path, resume: str) -> str:
    """The recipe with every default written out, the sizes of its networks, and where it begins."""
    import yaml

    from vidgen.train.checkpoint import resume_from
    from vidgen.train.export import build
    from vidgen.train.task import make_task, trainable

    newest = resume_from(folder, resume, recipe)
    networks = build(make_task(recipe))
    wanted = trainable(networks)
    lines = [yaml.safe_dump(recipe.to_dict(), sort_keys=False).rstrip(), ""]
    for name, network in networks.items():
        count = sum(p.numel() for p in network.parameters())
        lines.append(f"# {name}: {count:,} parameters{'' if name in wanted else ', not trained'}")
    lines.append(f"# in {folder}, {f'going on from {newest.name}' if newest else 'from the start'}")
    return "\n".join(lines)


def _export(folder: Path, changes: list[str], console: Console) -> None:
    """As the run's recipe says, and what is changed in it on the command line."""
    from vidgen.train.export import export
    from vidgen.train.recipe import load_recipe

    check_folder(folder)
    kept = folder / "recipe.yaml"
    recipe = load_recipe(kept, overrides=changes) if changes or kept.is_file() else None
    export(folder, folder / "model", recipe)
    console.say(f"exported {folder / 'model'}")


@contextmanager
def _told_how_to_go_on(talk: Talk, folder: Path) -> Iterator[None]:
    """Where a signal stops the run, the error says what is kept. Between the last step and the end
    the trainer no longer listens for SIGTERM, but there is a checkpoint to go on from."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        if talk.saved:
            stopped.add_note(f"{talk.saved} is saved: run the same command again to go on")
        raise
    except Terminated:
        if talk.saved or any((folder / "checkpoints").glob("step-*")):
            raise TryAgain(
                "stopped by SIGTERM, a checkpoint is there",
                next="run the same command again to go on",
            ) from None
        raise


class Talk:
    """The trainer's events as a person, or a program, wants to see them."""

    BAR_EVERY_S = 60.0  # between two lines above a bar

    def __init__(
        self, console: Console, recipe: Recipe, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console, self.recipe = console, recipe
        self.saved: str | None = None  # the newest checkpoint of this run
        self._clock = clock
        self._next_line = clock() + PLAIN_AFTER_S

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint":
            self.saved = event["path"]
        if self.console.json:
            self._print_json(event)
        else:
            getattr(self, "_" + event["event"])(event)

    def _print_json(self, event: dict[str, Any]) -> None:
        import json

        row = {k: _finite(v) for k, v in event.items() if k != "event"}
        head = {"event": "train", "schema": "vidgen.train-event/1", "what": event["event"]}
        self.console.stream.write(json.dumps(head | row, ensure_ascii=False) + "\n")
        self.console.stream.flush()

    def _start(self, e: dict[str, Any]) -> None:
        begun = f", going on from step {e['step']}" if e["step"] else ""
        self.console.say(f"{e['parameters']:,} parameters on {e['device']}{begun}")

    def _prepare(self, e: dict[str, Any]) -> None:
        if self._due():
            self.console.say(e["message"])

    def _step(self, e: dict[str, Any]) -> None:
        if self._due():
            self.console.say(
                f"step {e['step']}: loss {e['loss']:.4g}, {e['samples_per_s']:.3g} samples/s,"
                f" {human_seconds(e['eta_s'])} left"
            )
        if self._has_bar:
            self._draw(e)

    def _draw(self, e: dict[str, Any]) -> None:
        """The bar counts whatever the budget is in; what there is of both, steps."""
        if self.recipe.steps:
            self.console.step(e["step"], self.recipe.steps, "step")
        elif self.recipe.minutes:
            total = max(1, round(60 * self.recipe.minutes))
            self.console.step(min(total, round(e["used"] * total)), total, "second")

    def _eval(self, e: dict[str, Any]) -> None:
        self.console.say(f"step {e['step']}: {_measures(e)}")

    def _sample(self, e: dict[str, Any]) -> None:
        self.console.note(f"step {e['step']}: samples in {e['path']}")

    def _checkpoint(self, e: dict[str, Any]) -> None:
        self.console.note(f"step {e['step']}: saved {e['path']}")

    def _end(self, e: dict[str, Any]) -> None:
        self.console.say(f"done: {e['step']} steps in {human_seconds(e['elapsed_s'])}")

    @property
    def _mode(self) -> str:
        """bar, plain, json or none: what `--progress auto` came to."""
        return self.console._progress

    @property
    def _has_bar(self) -> bool:
        return self._mode == "bar"

    def _due(self) -> bool:
        """Whether it is time for another line."""
        if self._mode == "none" or self._clock() < self._next_line:
            return False
        self._next_line = self._clock() + (self.BAR_EVERY_S if self._has_bar else PLAIN_EVERY_S)
        return True


def _measures(e: dict[str, Any]) -> str:
    """`psnr_40x64 31.2, psnr_80x128 33`"""
    named = {k: v for k, v in e.items() if k not in ("event", "step")}
    return ", ".join(f"{name} {value:.4g}" for name, value in named.items())


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if value - value == 0 else None
    return value
