"""The training loop: the same for every task, on one device or several.

What happens in step n depends on the recipe, n and the weights alone: the batch is a function of
n, and every random draw comes from a generator seeded by (recipe seed, n, rank). So a run that
was stopped and resumed equals one that wasn't, to the bit on a CPU, as long as its budget is in
steps. A budget in minutes decays the learning rate by the clock, and no two clocks agree.

    OUT/recipe.yaml  metrics.jsonl  loss.png  samples/step-….png  checkpoints/step-…/  model/
"""

from __future__ import annotations

import signal
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from vidgen.errors import TryAgain, UsageError, VidgenError, is_out_of_memory
from vidgen.systems.load import first_line
from vidgen.train import checkpoint, distributed, heap
from vidgen.train.checkpoint import Training
from vidgen.train.distributed import World, full
from vidgen.train.ema import Ema
from vidgen.train.export import build, export
from vidgen.train.metrics import Budget, Journal, Progress, Window
from vidgen.train.optim import Optimizer, rate
from vidgen.train.prefetch import Batch, Prefetch
from vidgen.train.recipe import Recipe
from vidgen.train.signals import Signals
from vidgen.train.task import Modules, Task, generator, make_task, share, trainable


@dataclass(frozen=True)
class Result:
    """How a finished run ended."""

    out: Path
    step: int
    samples: int
    elapsed_s: float
    measures: dict[str, float]  # of the last evaluation


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    device: str = "auto",
    resume: str = "auto",
    compile: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Run `recipe` in the folder `out` until its budget is spent, then export the model.

    resume: `auto` goes on if `out` holds checkpoints, `yes` insists on it, `no` refuses it.
    Raises TryAgain after SIGTERM and KeyboardInterrupt after SIGINT, both with a checkpoint
    saved; UsageError if `out` holds a run of another recipe; VidgenError if the loss is no
    longer a number (the last good checkpoint stays).
    """
    recipe.require_budget()
    found = checkpoint.resume_from(Path(out), resume, recipe)
    with (
        distributed.join(device) as world,
        Journal(Path(out), progress, quiet=not world.is_main) as journal,
    ):
        if world.device.type == "cpu":
            heap.keep_freed()
        # No name is bound to the run: its shards must be gone before the processes part.
        return Run(recipe, world, journal, found, compile).until_spent()


class Step(nn.Module):
    """The loss of a step as one module: what DDP and FSDP wrap, whichever methods of its
    networks the task calls."""

    def __init__(self, task: Task, modules: Modules, autocast: AbstractContextManager) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(modules)
        self.task, self.autocast = task, autocast

    def forward(
        self, batch: Batch, draws: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        with self.autocast:
            return self.task.loss(dict(self.networks.items()), batch, draws)


class Run:
    """One process's part of a training run."""

    def __init__(
        self,
        recipe: Recipe,
        world: World,
        journal: Journal,
        resumed: Path | None,
        compile: bool,
    ) -> None:
        self.recipe, self.world = recipe, world
        self.journal, self.out = journal, journal.out
        self.budget = Budget(recipe.steps, recipe.minutes)
        self.window = Window()
        self.measured: tuple[int, dict[str, float]] = (-1, {})  # step and measures
        self.task = make_task(recipe, world.device, world.rank, world.size)
        modules = {name: m.to(world.device) for name, m in build(self.task).items()}
        share(recipe.batch_size, world.rank, world.size)  # complains before the first batch
        for name, module in modules.items():
            module.train(name in trainable(modules))
        self.frozen = checkpoint.frozen_digest(modules, self.task.depends_on())
        ema = Ema(modules, recipe.ema_decay)
        self.autocast = torch.autocast(
            world.device.type, torch.bfloat16, enabled=recipe.dtype == "bfloat16"
        )
        blocks = self.task.blocks(modules)
        step = Step(self.task, modules, self.autocast)
        self.step_module = distributed.parallelize(step, blocks, world, recipe.parallel)
        if world.size > 1 and recipe.parallel == "fsdp":
            ema.shard(modules, world.device)
        if compile:
            for block in blocks:
                # Module.compile would silently leave an nn.Sequential as it is (torch 2.13).
                setattr(block, "forward", torch.compile(block.forward))  # noqa: B010
        self.training = Training(modules, ema, Optimizer(modules, recipe.optim))
        if resumed is not None:
            self.restore(resumed)

    def until_spent(self) -> Result:
        """Steps until the budget is spent or a signal comes."""
        recipe, world, now = self.recipe, self.world, self.training
        self.journal.begin(now.step, yaml.safe_dump(recipe.to_dict(), sort_keys=False))
        size = sum(p.numel() for p in now.optimizer.parameters)
        self.journal.tell("start", step=now.step, parameters=size, device=str(world.device))
        self.task.prepare(
            now.modules, lambda text: self.journal.tell("prepare", step=now.step, message=text)
        )
        began = time.monotonic() - now.elapsed_s
        saved_s, saved_step = now.elapsed_s, now.step
        self.window.clear()

        def make(step: int) -> Batch:
            return self.task.batch(step, world.rank, world.size)

        with (
            Signals() as signals,
            Prefetch(make, now.step, world.device, recipe.prefetch) as batches,
        ):
            while True:
                caught, now.elapsed_s = world.agree(signals.caught, time.monotonic() - began)
                used = self.budget.used(now.step, now.elapsed_s)
                if caught or used >= 1:
                    break
                due = now.elapsed_s - saved_s >= recipe.checkpoint_every_s
                if due and now.step > saved_step:
                    self.save()
                    saved_s, saved_step = now.elapsed_s, now.step
                factor = rate(recipe.schedule, now.step, used)
                try:
                    self.step(batches.next(), factor)
                except (ValueError, RuntimeError, ArithmeticError) as error:
                    if now.step or is_out_of_memory(error):
                        raise
                    raise UsageError(
                        f"recipe: the first step fails: {first_line(error)}",
                        why="its sizes do not go together, or this is a bug",
                        next="--debug tells where in the code",
                    ) from error
                # Looking at the loss costs nothing on a CPU; a GPU would have to wait.
                if world.device.type == "cpu" or now.step % recipe.log_every == 0:
                    self.require_finite()
                if now.step % recipe.log_every == 0:
                    self.log(factor)
                if recipe.eval_every and now.step % recipe.eval_every == 0:
                    self.evaluate()
                if recipe.sample_every and now.step % recipe.sample_every == 0:
                    self.sample_sheet()
            self.save()
        if caught:
            self.stop(int(caught))
        self.evaluate()
        self.sample_sheet()
        if world.is_main:
            export(self.out, self.out / "model", recipe)
        world.wait()
        measures = self.measured[1]
        self.journal.tell("end", step=now.step, elapsed_s=now.elapsed_s, **measures)
        return Result(self.out, now.step, now.samples, now.elapsed_s, measures)

    def step(self, batch: Batch, factor: float) -> None:
        """One step: loss, gradients, clip, optimizers, average."""
        recipe, now = self.recipe, self.training
        key = (now.step, self.world.rank)
        draws = generator(recipe.seed, "loss", *key, device=self.world.device)
        # Dropout layers draw from the global generator, whatever we hand to the task.
        torch.manual_seed(generator(recipe.seed, "global", *key).initial_seed())
        now.optimizer.set_rate(factor)
        loss, extra = self.step_module(batch, draws)
        loss.backward()
        weights = now.optimizer.parameters
        norm = full(nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None]))
        if recipe.grad_clip:
            nn.utils.clip_grads_with_norm_(weights, recipe.grad_clip, norm)
        now.optimizer.step()
        now.optimizer.zero_grad()
        now.step += 1
        now.samples += recipe.batch_size
        now.ema.update(now.modules, now.step)
        self.window.add(recipe.batch_size, **{**extra, "loss": loss, "grad_norm": norm})

    @torch.no_grad()
    def evaluate(self) -> None:
        """The task's measures of the averaged weights, once a step. Every process takes part,
        since unsharding takes all of them."""
        now = self.training
        if self.measured[0] == now.step:
            return
        with self.window.paused(), self.autocast:
            measures = self.task.evaluate(now.ema.modules(), now.step)
            now.ema.release()
        self.measured = now.step, measures
        if measures:
            named = {f"eval.{name}": value for name, value in measures.items()}
            self.journal.write(step=now.step, samples=now.samples, **named)
            self.journal.tell("eval", step=now.step, **measures)

    @torch.no_grad()
    def sample_sheet(self) -> None:
        """The task's picture of samples; processes other than the first draw theirs in vain."""
        path = self.out / "samples" / f"step-{self.training.step:08d}.png"
        with self.window.paused(), self.autocast, tempfile.TemporaryDirectory() as scratch:
            target = path if self.world.is_main else Path(scratch) / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            self.task.sample_sheet(self.training.ema.modules(), target)
            self.training.ema.release()
        if target.exists():
            self.journal.tell("sample", step=self.training.step, path=str(path))

    def log(self, factor: float) -> None:
        """A line of metrics and a progress event; then a new window begins."""
        now, means = self.training, self.window.means()
        names = sorted(means)
        averaged = self.world.mean(torch.tensor([means[n] for n in names], dtype=torch.float64))
        row = dict(zip(names, averaged.tolist(), strict=True))
        steps_per_s, samples_per_s = self.window.rates()
        fixed = {
            "step": now.step, "seconds": now.elapsed_s, "samples": now.samples,
            "loss": row.pop("loss"), "lr": factor * self.recipe.optim.lr,
            "grad_norm": row.pop("grad_norm"), "samples_per_s": samples_per_s,
        }  # fmt: skip
        row = fixed | row | fixed  # ours first, and a task can't overwrite them
        self.journal.write(**row)
        used = self.budget.used(now.step, now.elapsed_s)
        eta_s = self.budget.eta_s(now.step, now.elapsed_s, steps_per_s)
        self.journal.tell("step", **row, used=min(1.0, used), eta_s=eta_s)
        self.window.clear()

    def require_finite(self) -> None:
        """Raise VidgenError if a step since the last log went wrong."""
        if self.window.finite():
            return
        means, saved = self.window.means(), checkpoint.checkpoints(self.out)
        raise VidgenError(
            f"step {self.training.step}: loss is {means['loss']:g}, "
            f"gradient norm {means['grad_norm']:g}",
            why="training diverged, or the data holds values that aren't numbers",
            next=f"last good checkpoint: {saved[-1]}" if saved else "try a lower optim.lr",
        )

    def save(self) -> None:
        """A checkpoint, unless a step since the last one went wrong."""
        with self.window.paused():
            self.require_finite()
            path = checkpoint.save(
                self.out, self.training, self.recipe, self.frozen, write=self.world.is_main
            )
            self.journal.plot(f"{self.recipe.task}: loss")
        self.journal.tell("checkpoint", step=self.training.step, path=str(path))

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint; refuse if the frozen networks aren't those it was made with."""
        if checkpoint.read_state(path)["frozen"] != self.frozen:
            raise UsageError(
                f"{path}: was trained against other frozen networks than the ones loaded now",
                next="put the old ones back, or choose another --out",
            )
        checkpoint.restore(path, self.training)

    def stop(self, number: int) -> None:
        """Leave after a signal; the checkpoint is saved."""
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        name = signal.Signals(number).name
        raise TryAgain(
            f"stopped by {name} at step {self.training.step}, checkpoint saved",
            next="run the same command again to go on",
        )
