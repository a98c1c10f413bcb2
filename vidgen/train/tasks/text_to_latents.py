"""What tasks that train latents of clips from captions have in common: data, text, measures.

Latents are rendered and encoded once and cached. Each time a clip comes by it is captioned anew:
other synonyms, other order, parts left out. One caption in ten is empty, which makes the
unconditional branch of guidance.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidgen.diffusion import guidance, losses
from vidgen.diffusion.level import Level
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import Network, Prediction, denoiser
from vidgen.diffusion.solvers import SOLVERS
from vidgen.errors import UsageError
from vidgen.io.image import contact_sheet, write_png
from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.nn.pixels import to_uint8
from vidgen.nn.text import TextTower
from vidgen.systems import load, save, world
from vidgen.systems.base import Geometry, ModelFolder, Sampler
from vidgen.train.distributed import World
from vidgen.train.recipe import section
from vidgen.train.task import Modules, Task, generator, share
from vidgen.train.tasks.latents import cache_folder, cached_latents, encode_scenes
from vidgen.train.tasks.tokenizer import pad_id
from vidgen.world.captions import caption
from vidgen.world.scene import VALIDATION_SEEDS, sample_scene


@dataclass(frozen=True)
class Data:
    """Clips, and the parts of the model that are already trained."""

    vae: str  # a folder that holds `vae/`
    text: str  # a folder that holds `text_encoder/` and `tokenizer/`
    cache: str = "runs/cache"
    num: int = 65_536  # clips rendered once; they come by again after that
    level: str = "basic"  # of the world
    num_full: int = 0  # clips of the full world beside those
    drop_caption: float = 0.1
    canonical: float = 0.0  # share of captions that say everything, in the first words for it
    # A folder that holds `transformer/`, of as many blocks or fewer: where the weights begin.
    start: str | None = None
    num_frames: int = 5
    height: int = 40
    width: int = 64
    fps: float = 2.0


class TextToLatentsTask(Task):
    """One sample is the frames of one clip, as latents. A subclass says which network it is and
    what its output means: what raises NotImplementedError here, `prediction` and `sampler`.
    """

    config_class: type
    system: str  # whose folders it exports
    prediction: Prediction
    sampler: Sampler

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.config: Any = section(self.config_class, self.recipe.model, where="model")
        self.data = section(Data, self.recipe.data, where="data")
        if self.data.level == "full" and self.data.num_full:
            raise UsageError(
                "recipe: data.num_full beside data.level full",
                why="both would be the same clips",
                next="set data.num alone",
            )
        self.vae_folder = ModelFolder(Path(self.data.vae))
        self.text_folder = ModelFolder(Path(self.data.text))
        self.geometry = Geometry(
            self.data.num_frames, self.data.height, self.data.width, self.data.fps
        )
        self.tokenizer = world.load_tokenizer(self.text_folder)
        self.pad = pad_id(self.tokenizer.fast)

    def network(self) -> torch.nn.Module:
        """The network that is trained, as it begins."""
        raise NotImplementedError

    def draw_levels(self, n: int, generator: torch.Generator) -> Level:
        """Levels of n samples to train on."""
        raise NotImplementedError

    def called(self, modules: Modules) -> Network:
        """The network as a run of sampling calls it."""
        raise NotImplementedError

    def build(self) -> dict[str, torch.nn.Module]:
        return {
            "transformer": self.network(),
            "tower": world.load_text_tower(self.text_folder),
            "vae": world.load_autoencoder(self.vae_folder).float(),
        }

    def prepare(self, modules: Modules, say) -> None:
        vae = modules["vae"]
        assert isinstance(vae, VideoAutoencoder)
        dtype = getattr(torch, self.recipe.dtype)
        space = self.vae_folder.latent_space
        folder = cache_folder(Path(self.data.cache), space, self.geometry, dtype)
        self.clips = [(self.data.level, seed) for seed in range(self.data.num)]
        self.clips += [("full", seed) for seed in range(self.data.num_full)]
        parts = []
        for level, num in ((self.data.level, self.data.num), ("full", self.data.num_full)):
            if num:
                parts.append(
                    cached_latents(
                        folder, num, vae,
                        level=level, geometry=self.geometry, say=say, dtype=dtype,
                        world=World(self.rank, self.world, self.device),
                    )
                )  # fmt: skip
        self.latents = torch.cat(parts)
        start = VALIDATION_SEEDS.start
        self.held_seeds = range(start, start + 256)
        self.held_latents = {
            level: torch.cat(
                [
                    encode_scenes(
                        self.held_seeds[i : i + 64], vae, level, self.geometry, self.device
                    )
                    for i in range(0, 256, 64)
                ]
            )
            for level in dict.fromkeys(level for level, _ in self.clips)
        }

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        size = self.recipe.batch_size
        rows = [self._index(step * size + row) for row in share(size, rank, world)]
        draw = random.Random(f"{self.recipe.seed}/{step}/{rank}")
        captions = []
        for row in rows:
            level, seed = self.clips[row]
            scene = sample_scene(seed, level=level)
            text = caption(scene, None if draw.random() < self.data.canonical else draw)
            captions.append("" if draw.random() < self.data.drop_caption else text)
        return {"latents": self.latents[rows], **self.tokens(captions)}

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
        """What `VideoDiT` takes beside z and t."""
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
        x0 = batch["latents"].float()
        level = self.draw_levels(len(x0), generator)
        eps = torch.randn(x0.shape, generator=generator, device=x0.device)
        cond = self.cond(modules, batch["ids"])
        network = self.trained(modules, generator)
        return losses.training_loss(network, self.prediction, x0, cond, level, eps).mean(), {}

    def trained(self, modules: Modules, generator: torch.Generator) -> Network:
        """The network as training calls it, once a step; random draws are of the generator."""
        return self.called(modules)

    @torch.no_grad()
    def evaluate(self, modules: Modules, step: int) -> dict[str, float]:
        """The error on held-out clips with full captions; the same noise every time."""
        scores = {}
        for level, latents in self.held_latents.items():
            draw = generator(0, "validation", device=self.device)
            texts = [caption(sample_scene(s, level=level)) for s in self.held_seeds]
            cond = self.cond(modules, self.tokens(texts)["ids"].to(self.device))
            name = "val_loss" if level == self.data.level else f"val_loss_{level}"
            scores[name] = self.error(modules, latents.to(self.device), cond, draw)
        return scores

    def error(
        self, modules: Modules, x0: Tensor, cond: dict[str, Tensor], draw: torch.Generator
    ) -> float:
        """Of these latents, on levels that depend on nothing that a recipe may change."""
        raise NotImplementedError

    @torch.no_grad()
    def sample_sheet(self, modules: Modules, path: Path) -> None:
        """Sixteen validation prompts, sampled and decoded."""
        seeds = self.held_seeds[:16]
        levels = ["full" if self.data.num_full and i % 2 else self.data.level for i in range(16)]
        prompts = [
            caption(sample_scene(s, level=level)) for s, level in zip(seeds, levels, strict=True)
        ]
        ids = self.tokens(prompts + [""] * len(prompts))["ids"].to(self.device)
        both = self.cond(modules, ids)
        cond = {k: x[: len(prompts)] for k, x in both.items()}
        uncond = {k: x[len(prompts) :] for k, x in both.items()}
        vae = modules["vae"]
        assert isinstance(vae, VideoAutoencoder)
        noise = Noise([(seed, str(seed)) for seed in seeds], stage="sample-sheet")
        z = noise.initial(tuple(self.latents.shape[1:])).to(self.device)
        noises = load.levels_of(self.sampler, self.sampler.num_inference_steps)
        denoise = denoiser(self.called(modules), self.prediction)
        denoise = guidance.cfg(denoise, uncond, self.sampler.guidance_scale)
        z = z * noises[0].sigma
        for step in SOLVERS[self.sampler.solver](denoise, z, noises, cond, noise):
            z = step.z
        frames = to_uint8(vae.decode(z))
        clips = [f.permute(1, 2, 3, 0).cpu().numpy() for f in frames]
        write_png(path, contact_sheet(clips, prompts, columns=2))

    def export(self, modules: Modules, folder: Path) -> None:
        """A whole model: the transformer, and the parts it was trained with, byte for byte; and
        what else there is beside the autoencoder, for its latents."""
        kind = type(modules["transformer"]).__name__
        config = {"_class_name": kind, **self.config.to_dict()}
        config["sample"] = asdict(self.geometry)
        save.write_component(folder / "transformer", config, modules["transformer"])
        save.copy_component(self.vae_folder.path / "vae", folder / "vae")
        for part in ("text_encoder", "tokenizer"):
            save.copy_component(self.text_folder.path / part, folder / part)
        save.write_json(folder / "scheduler" / "scheduler_config.json", asdict(self.sampler))
        more = [part for part in save.PARTS if (self.vae_folder.path / part).is_dir()]
        for part in more:
            save.copy_component(self.vae_folder.path / part, folder / part)
        parts = ["text_encoder", "tokenizer", "transformer", "vae", "scheduler", *more]
        save.write_index(folder, self.vae_folder.name, self.system, parts, {"transformer": kind})
