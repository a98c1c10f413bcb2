"""What tasks that train on captioned clips of the world have in common: text, order, sampling.

Each time a clip comes by it is captioned anew: other synonyms, other order, parts left out. One
caption in ten is empty, which makes the unconditional branch of guidance.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vidgen.diffusion import losses
from vidgen.diffusion.level import Level
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import Network, Prediction, denoiser
from vidgen.diffusion.solvers import SOLVERS
from vidgen.io.image import contact_sheet, write_png
from vidgen.nn.text import TextTower
from vidgen.systems import load, world
from vidgen.systems.base import Geometry, ModelFolder, Sampler
from vidgen.train.recipe import section
from vidgen.train.task import Modules, Task, generator
from vidgen.train.tasks.tokenizer import pad_id
from vidgen.world.captions import caption
from vidgen.world.scene import sample_scene


class Data(Protocol):
    """What the data section of such a task has at least."""

    @property
    def level(self) -> str: ...
    @property
    def drop_caption(self) -> float: ...
    @property
    def canonical(self) -> float: ...


class CaptionedTask(Task):
    """A subclass says what its data are and which network it trains: what raises
    NotImplementedError here, `prediction`, `sampler` and `geometry`."""

    config_class: type  # of `model`; a class with a `read_model` of its own needs none
    data_class: type
    system: str  # whose folders it exports
    prediction: Prediction
    sampler: Sampler
    geometry: Geometry
    clips: Sequence[tuple[str, int]]  # level and seed of each training scene
    held_seeds: Sequence[int]

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.config: Any = self.read_model()
        self.data: Any = section(self.data_class, self.recipe.data, where="data")
        self.text_folder = ModelFolder(Path(self.text_path()))
        self.tokenizer = world.load_tokenizer(self.text_folder)
        self.pad = pad_id(self.tokenizer.fast)

    def read_model(self) -> Any:
        """The sizes of the network."""
        return section(self.config_class, self.recipe.model, where="model")

    def text_path(self) -> str:
        """A folder that holds `text_encoder/` and `tokenizer/`."""
        return self.data.text

    def network(self) -> torch.nn.Module:
        """The network that is trained, as it begins."""
        raise NotImplementedError

    def draw_levels(self, n: int, generator: torch.Generator) -> Level:
        """Levels of n samples to train on."""
        raise NotImplementedError

    def called(self, modules: Modules) -> Network:
        """The network as a run of sampling calls it."""
        raise NotImplementedError

    def trained(self, modules: Modules, generator: torch.Generator) -> Network:
        """The network as training calls it, once a step; random draws are of the generator."""
        return self.called(modules)

    def x0(self, batch: dict[str, Tensor]) -> Tensor:
        """The clean samples of a batch, `b c t h w`, float32."""
        raise NotImplementedError

    def told(
        self, modules: Modules, batch: dict[str, Tensor], draw: torch.Generator
    ) -> dict[str, Tensor]:
        """What the network is told of a batch beside z and t."""
        raise NotImplementedError

    def draw_captions(self, clips: Sequence[tuple[str, int]], draw: random.Random) -> list[str]:
        """Captions of these scenes to train on."""
        captions = []
        for level, seed in clips:
            scene = sample_scene(seed, level=level)
            text = caption(scene, None if draw.random() < self.data.canonical else draw)
            captions.append("" if draw.random() < self.data.drop_caption else text)
        return captions

    def _index(self, n: int) -> int:
        """The n-th sample of the run: every clip once an epoch, in that epoch's own order."""
        epoch, place = divmod(n, len(self.clips))
        if epoch != getattr(self, "_epoch", None):
            self._epoch = epoch
            draw = generator(self.recipe.seed, "epoch", epoch)
            self._order = torch.randperm(len(self.clips), generator=draw).tolist()
        return self._order[place]

    def tokens(self, captions: list[str]) -> dict[str, Tensor]:
        """Token numbers `b l`, padded to the longest."""
        ids = [torch.tensor(self.tokenizer(text)) for text in captions]
        return {
            "ids": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.pad)
        }

    def cond(self, modules: Modules, ids: Tensor) -> dict[str, Tensor]:
        """What networks take beside z and t: text, and the times of the model's own frames."""
        tower = modules["tower"]
        assert isinstance(tower, TextTower)
        mask = torch.ne(ids, self.pad)
        with torch.no_grad():
            out = tower.encoder(input_ids=ids, attention_mask=mask.long())
        times = torch.tensor(self.geometry.times, device=ids.device).expand(len(ids), -1)
        return {
            "text": out.last_hidden_state.float(),
            "text_mask": mask,
            "pooled": out.pooler_output.float(),
            "times": times,
        }

    def loss(
        self, modules: Modules, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        x0 = self.x0(batch)
        level = self.draw_levels(len(x0), generator)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        cond = self.told(modules, batch, generator)
        network = self.trained(modules, generator)
        weights = self.importance(batch)
        loss = losses.training_loss(network, self.prediction, x0, cond, level, eps, weights)
        return loss.mean(), {}

    def importance(self, batch: dict[str, Tensor]) -> Tensor | None:
        """How much each number of a batch's samples counts; None: all alike."""
        return None

    def error(
        self, modules: Modules, x0: Tensor, cond: dict[str, Tensor], draw: torch.Generator
    ) -> float:
        """Of these samples, on levels that depend on nothing that a recipe may change."""
        raise NotImplementedError

    def shape(self) -> tuple[int, ...]:
        """`c t h w` of a sample."""
        raise NotImplementedError

    def frames(self, modules: Modules, samples: Tensor) -> Tensor:
        """Samples `b c t h w` as frames, uint8 `b 3 t H W`."""
        raise NotImplementedError

    def level(self) -> str:
        """Of the world, as far as the clips show it: "full" if some do."""
        return "full" if "full" in self.sheet_levels(2) else self.data.level

    def sheet_levels(self, count: int) -> list[str]:
        """Of the world, of so many scenes that are sampled to be looked at."""
        return [self.data.level] * count

    def sheet_cond(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """What is told, beside text and times, of scenes that are sampled to be looked at."""
        return {}

    @torch.no_grad()
    def sampled(
        self, modules: Modules, prompts: list[str], noise: Noise, more: dict[str, Tensor]
    ) -> Tensor:
        """Samples `b c t h w` of these prompts, with the sampler that is exported; `more` is told
        with and without text."""
        ids = self.tokens(prompts + [""] * len(prompts))["ids"].to(self.device)
        both = self.cond(modules, ids)
        cond = {k: x[: len(prompts)] for k, x in both.items()} | more
        uncond = {k: x[len(prompts) :] for k, x in both.items()} | more
        noises = load.levels_of(self.sampler, self.sampler.num_inference_steps)
        denoise = denoiser(self.called(modules), self.prediction)
        denoise = load.guided(denoise, uncond, self.sampler, noises)
        z = noise.initial(self.shape()).to(self.device) * noises[0].sigma
        for step in SOLVERS[self.sampler.solver](denoise, z, noises, cond, noise):
            z = step.z
        return z

    def sample_sheet(self, modules: Modules, path: Path) -> None:
        """Sixteen validation prompts, sampled and decoded."""
        seeds = self.held_seeds[:16]
        levels = self.sheet_levels(len(seeds))
        prompts = [
            caption(sample_scene(s, level=level)) for s, level in zip(seeds, levels, strict=True)
        ]
        noise = Noise([(seed, str(seed)) for seed in seeds], stage="sample-sheet")
        samples = self.sampled(modules, prompts, noise, self.sheet_cond(seeds))
        frames = self.frames(modules, samples)
        clips = [f.permute(1, 2, 3, 0).cpu().numpy() for f in frames]
        write_png(path, contact_sheet(clips, prompts, columns=2))
