"""What tasks that train latents of clips from captions have in common: data and measures.

Latents are rendered and encoded once and cached.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from vidgen.errors import UsageError
from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.nn.pixels import to_uint8
from vidgen.systems import save, world
from vidgen.systems.base import Geometry, ModelFolder
from vidgen.train.distributed import World
from vidgen.train.task import Modules, generator, share
from vidgen.train.tasks.captioned import CaptionedTask
from vidgen.train.tasks.latents import cache_folder, cached, cached_latents, encode_scenes
from vidgen.train.tasks.shown import shown, shown_name
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
    # A model whose `transformer/` the weights begin as: for keyframes, of as many blocks or fewer.
    start: str | None = None
    num_frames: int = 5
    height: int = 40
    width: int = 64
    fps: float = 2.0


class TextToLatentsTask(CaptionedTask):
    """One sample is the frames of one clip, as latents."""

    data_class = Data
    object_weight = 1.0

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.data.level == "full" and self.data.num_full:
            raise UsageError(
                "recipe: data.num_full beside data.level full",
                why="both would be the same clips",
                next="set data.num alone",
            )
        self.vae_folder = ModelFolder(Path(self.data.vae))
        self.geometry = Geometry(
            self.data.num_frames, self.data.height, self.data.width, self.data.fps
        )

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
        self.clips = [(level, seed) for level, num in self.parts() for seed in range(num)]
        world = World(self.rank, self.world, self.device)
        self.latents = torch.cat(
            [
                cached_latents(
                    folder, num, vae,
                    level=level, geometry=self.geometry, say=say, dtype=dtype, world=world,
                )
                for level, num in self.parts()
            ]
        )  # fmt: skip
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

        if self.object_weight != 1:
            self.shown = torch.cat([self._shown(level, num, say) for level, num in self.parts()])

    def weigh_objects(self, weight: float) -> None:
        """How much more a number of the latents counts where there is an object, or its edge or
        shadow. They are a fifth of the cells: at 1 two thirds of the error are of sky and floor.
        What is best stays the same. UsageError for what is no weight."""
        if not weight > 0:
            raise UsageError(f"recipe: loss.object_weight is {weight:g}, must be above 0")
        self.object_weight = weight

    def _shown(self, level: str, num: int, say) -> Tensor:
        height, width = self.latents.shape[-2:]
        folder = Path(self.data.cache) / "shown" / shown_name(self.geometry, height, width)

        def of(seeds: range) -> Tensor:
            return shown(seeds, level, self.geometry, height, width)

        world = World(self.rank, self.world, self.device)
        return cached(folder, level, num, of, world=world, say=say)

    def parts(self) -> list[tuple[str, int]]:
        """The level and number of the clips of each part of the cache."""
        parts = ((self.data.level, self.data.num), ("full", self.data.num_full))
        return [(level, num) for level, num in parts if num]

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        size = self.recipe.batch_size
        rows = [self._index(step * size + row) for row in share(size, rank, world)]
        draw = random.Random(f"{self.recipe.seed}/{step}/{rank}")
        captions = self.draw_captions([self.clips[row] for row in rows], draw)
        return self.clips_of(rows) | self.tokens(captions)

    def clips_of(self, rows: list[int]) -> dict[str, Tensor]:
        """What a batch holds of the clips in these rows of the cache."""
        clips = {"latents": self.latents[rows]}
        return clips if self.object_weight == 1 else clips | {"shown": self.shown[rows]}

    def importance(self, batch: dict[str, Tensor]) -> Tensor | None:
        """`b 1 t h w`, 1 on average, so that the learning rate need not change."""
        if self.object_weight == 1:
            return None
        more = 1 + (self.object_weight - 1) * batch["shown"].float()[:, None]
        return more / more.mean()

    def x0(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["latents"].float()

    def told(
        self, modules: Modules, batch: dict[str, Tensor], draw: torch.Generator
    ) -> dict[str, Tensor]:
        return self.cond(modules, batch["ids"])

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

    def shape(self) -> tuple[int, ...]:
        (channels, stride), g = self.vae_folder.latent_sizes, self.geometry
        return channels, g.num_frames, g.height // stride, g.width // stride

    def frames(self, modules: Modules, samples: Tensor) -> Tensor:
        vae = modules["vae"]
        assert isinstance(vae, VideoAutoencoder)
        return to_uint8(vae.decode(samples))

    def sheet_levels(self, count: int) -> list[str]:
        """In turn, where the full world is trained on beside another."""
        levels = (self.data.level, "full" if self.data.num_full else self.data.level)
        return [levels[i % 2] for i in range(count)]

    def export(self, modules: Modules, folder: Path) -> None:
        """A whole model: the transformer, and the parts it was trained with, byte for byte; and
        what else there is beside the autoencoder, for its latents."""
        kind = type(modules["transformer"]).__name__
        config = {"_class_name": kind, **self.config.to_dict()}
        config["sample"] = asdict(self.geometry) | {"level": self.level()}
        self.write_component(folder / "transformer", config, modules["transformer"])
        save.copy_component(self.vae_folder.place("vae"), folder / "vae")
        for part in ("text_encoder", "tokenizer"):
            save.copy_component(self.text_folder.place(part), folder / part)
        save.write_json(folder / "scheduler" / "scheduler_config.json", asdict(self.sampler))
        more = [part for part in save.PARTS if self.vae_folder.place(part).is_dir()]
        for part in more:
            save.copy_component(self.vae_folder.place(part), folder / part)
        parts = ["text_encoder", "tokenizer", "transformer", "vae", "scheduler", *more]
        save.write_index(folder, self.vae_folder.name, self.system, parts, {"transformer": kind})
