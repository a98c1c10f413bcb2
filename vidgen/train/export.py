"""From a checkpoint to a model folder, without the training loop."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn

from vidgen.errors import UsageError, is_out_of_memory
from vidgen.systems.load import first_line
from vidgen.train import checkpoint
from vidgen.train.recipe import Recipe, section
from vidgen.train.task import Task, generator, make_task


def build(task: Task) -> dict[str, nn.Module]:
    """The task's networks with initial weights that depend on the recipe's seed only. UsageError
    for sizes that make none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(task.recipe.seed, "build").initial_seed())
        try:
            return task.build()
        except (ValueError, RuntimeError, ArithmeticError) as error:
            if is_out_of_memory(error):
                raise
            raise UsageError(f"recipe: model builds no network: {first_line(error)}") from error


def export(out: str | Path, folder: str | Path, recipe: Recipe | None = None) -> None:
    """Write the averaged weights of the newest checkpoint in `out` as a model folder, as its recipe
    says or, of the same run, `recipe`.

    The folder is replaced when everything is written; a task that exports nothing leaves none.
    UsageError without a checkpoint, or for a `recipe` of another run.
    """
    out, folder = Path(out), Path(folder)
    saved = checkpoint.checkpoints(out)
    if not saved:
        raise UsageError(f"{out}: no checkpoint there", next=f"vidgen train RECIPE --out {out}")
    state = checkpoint.read_state(saved[-1])
    if recipe is None:
        recipe = section(Recipe, state["recipe"], where="")
    checkpoint.check_recipe(out, state, recipe)
    task = make_task(recipe)
    modules = build(task)
    checkpoint.load_ema(saved[-1], modules)
    for module in modules.values():
        module.eval().requires_grad_(False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        task.export(modules, temporary)
        if any(temporary.iterdir()):
            temporary.chmod(0o755)  # mkdtemp makes it private
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
