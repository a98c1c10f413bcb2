"""What a training task promises to the loop, and where the tasks are found."""

from __future__ import annotations

import difflib
import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidgen.errors import UsageError
from vidgen.systems import save
from vidgen.systems.base import ModelFolder
from vidgen.train.recipe import Recipe

Modules = Mapping[str, nn.Module]

# Name in a recipe → where it is; imported only when asked for.
TASKS: dict[str, str] = {
    "autoencoder": "vidgen.train.tasks.autoencoder:AutoencoderTask",
    "text": "vidgen.train.tasks.text:TextTask",
    "judge": "vidgen.train.tasks.judge:JudgeTask",
    "features": "vidgen.train.tasks.features:FeaturesTask",
    "keyframes": "vidgen.train.tasks.keyframes:KeyframesTask",
    "snap-video": "vidgen.train.tasks.snap_video:SnapVideoTask",
    "snap-video-pixels": "vidgen.train.tasks.snap_video:SnapPixelsTask",
    "snap-video-upsampler": "vidgen.train.tasks.snap_upsampler:SnapUpsamplerTask",
    "interpolation": "vidgen.train.tasks.interpolation:InterpolationTask",
    "video-decoder": "vidgen.train.tasks.video_decoder:VideoDecoderTask",
    "upsampling": "vidgen.train.tasks.upsampling:UpsamplingTask",
}


class Task:
    """One thing that can be trained: its networks, its data, its loss.

    Subclasses define `build`, `batch` and `loss`; the rest may stay as it is. `device` is where
    the loop puts modules and batches; `rank` of `world` processes run the same task side by side.
    """

    name: str = ""
    eight_bits: bool = True  # whether its weights may be stored so: `export_dtype: int8`

    def __init__(
        self, recipe: Recipe, device: torch.device | str = "cpu", rank: int = 0, world: int = 1
    ) -> None:
        if recipe.export_dtype == "int8" and not self.eight_bits:
            raise UsageError(
                f"recipe: export_dtype is int8, and task {recipe.task} is stored in bfloat16 only"
            )
        self.recipe = recipe
        self.device = torch.device(device)
        self.rank = rank
        self.world = world

    def build(self) -> dict[str, nn.Module]:
        """All networks by name, on the CPU in float32; frozen ones have no `requires_grad`.

        torch's global generator is seeded from the recipe around this call. May be called more
        than once (exporting builds anew).
        """
        raise NotImplementedError

    def depends_on(self) -> list[str]:
        """Digests of what a resumed run must find as it was, beside the networks of `build`."""
        return []

    def prepare(self, modules: Modules, say: Callable[[str], None]) -> None:
        """Once before the first step, modules on the device: render or cache data. Not in the
        time budget."""

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """This process's part of the batch of `step`: a pure function of its arguments and the
        recipe, so that a resumed run sees the same data.

        Called from a background thread: draw from `generator(seed, step, rank)`, never from
        torch's global generator. `share` says which rows are ours.
        """
        raise NotImplementedError

    def loss(
        self, modules: Modules, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Scalar loss (mean over the batch) and scalars to log.

        Random draws come from `generator`, which lives on the device; give metrics as detached
        tensors rather than floats where that saves a wait for the device.
        """
        raise NotImplementedError

    def evaluate(self, modules: Modules, step: int) -> dict[str, float]:
        """Measures of the averaged weights; gradients are off, autocast is on."""
        return {}

    def sample_sheet(self, modules: Modules, path: Path) -> None:
        """Draw samples of the averaged weights into the PNG `path`."""

    def export(self, modules: Modules, folder: Path) -> None:
        """Write the averaged weights as a model folder; modules are on the CPU."""

    def write_component(
        self, folder: Path, config: dict[str, Any], module: nn.Module,
        filename: str = save.WEIGHTS,
    ) -> None:  # fmt: skip
        """A component of that folder, stored as the recipe says; see `save.write_component`."""
        eight_bits = self.recipe.export_dtype == "int8"
        save.write_component(folder, config, module, eight_bits=eight_bits, filename=filename)

    def blocks(self, modules: Modules) -> list[nn.Module]:
        """The repeating parts of the trained networks: what is compiled, and sharded, one by one.

        By default the members of every outermost ModuleList, and of those in it, or the networks
        themselves.
        """
        found: list[nn.Module] = []

        def visit(module: nn.Module) -> None:
            for child in module.children():
                if isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList):
                    found.append(child)
                else:
                    visit(child)

        for module in trainable(modules).values():
            before = len(found)
            visit(module)
            if len(found) == before:
                found.append(module)
        return found


def require_alike(start: ModelFolder, parts: Mapping[str, ModelFolder]) -> None:
    """UsageError unless the model that weights begin as has the same components as these models: it
    was trained on their latents, or words."""
    for part, folder in parts.items():
        if part not in start.index or start.sha256(part) != folder.sha256(part):
            raise UsageError(
                f"recipe: data.start is {start.path}, whose {part} is not that of {folder.path}",
                why="its weights were trained on what another one makes",
            )


def trainable(modules: Modules) -> dict[str, nn.Module]:
    """The modules with at least one parameter that wants a gradient."""
    return {
        name: module
        for name, module in modules.items()
        if any(p.requires_grad for p in module.parameters())
    }


def generator(seed: int, *key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for every (seed, key…): the draws of a step need no history."""
    text = "/".join(str(part) for part in (seed, *key))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def share(batch_size: int, rank: int, world: int) -> range:
    """Rows of the whole batch that belong to process `rank` of `world`."""
    if batch_size % world:
        raise UsageError(f"batch_size is {batch_size}, not divisible by {world} processes")
    size = batch_size // world
    return range(rank * size, (rank + 1) * size)


def make_task(
    recipe: Recipe, device: torch.device | str = "cpu", rank: int = 0, world: int = 1
) -> Task:
    """The task that the recipe names: one of `TASKS`, or "package.module:Class"."""
    address = TASKS.get(recipe.task, recipe.task)
    module_name, colon, class_name = address.partition(":")
    if not colon:
        near = difflib.get_close_matches(recipe.task, TASKS, n=1)
        known = f"did you mean `{near[0]}`" if near else "tasks: " + ", ".join(TASKS)
        raise UsageError(f"recipe: unknown task `{recipe.task}`", next=known)
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UsageError(f"recipe: task `{recipe.task}` cannot be loaded", why=str(error)) from None
    return cls(recipe, device, rank, world)
