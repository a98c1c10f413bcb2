"""Clips of the world for the upsampler: at every size and rate, and as it is told them.

Latents are cached where the keyframes' task caches its own, and so is what is made of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vidgen.errors import UsageError
from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.systems import upsampling
from vidgen.systems.base import Geometry, ModelFolder
from vidgen.train.distributed import World
from vidgen.train.tasks.latents import cache_folder, cached, cached_latents, encode_scenes, whole
from vidgen.train.tasks.redrawn import Redrawn
from vidgen.train.tasks.shown import shown, shown_name
from vidgen.world.captions import caption
from vidgen.world.render import render
from vidgen.world.scene import VALIDATION_SEEDS, sample_scene

Key = tuple[tuple[int, int], float]  # size in pixels, frames a second


@dataclass(frozen=True)
class Data:
    """Clips at several sizes and rates, and the autoencoder that encodes them."""

    vae: str  # a folder that holds `vae/`
    cache: str = "runs/cache"
    num: int = 8192  # scenes, at each size and rate; they come by again after that
    num_held: int = 32  # and as many that are only measured on
    level: str = "basic"  # of the world
    num_full: int = 0  # scenes of the full world beside those
    text: str | None = None  # a folder that holds `text_encoder/` and `tokenizer/`
    drop_caption: float = 0.1
    canonical: float = 0.0  # share of captions that say everything, in the first words for it
    # A folder of a model that makes keyframes of the first size, and one with an interpolation: a
    # share of the samples is told clips as these draw them again, from this noise level on.
    redrawn: str | None = None
    filled: str | None = None
    redrawn_share: float = 0.5
    redrawn_level: float = 0.6
    # Pixels (height, width), each twice the one before: every two neighbors are a pair to learn.
    sizes: tuple[tuple[int, int], ...] = ((40, 64), (80, 128))
    num_frames: int = 5  # of a clip, at each rate
    fps: tuple[float, ...] = (2.0, 8.0)  # of keyframes, and of what interpolation makes of them

    def parts(self) -> list[tuple[str, int]]:
        """The level and number of the scenes of each part."""
        parts = ((self.level, self.num), ("full", self.num_full))
        return [(level, num) for level, num in parts if num]

    def geometry(self, key: Key) -> Geometry:
        (height, width), fps = key
        return Geometry(self.num_frames, height, width, fps)


@dataclass
class Clips:
    """By size and rate, all of the same scenes in one order. What is told of a size is as large as
    the next one."""

    scenes: list[tuple[str, int]] = field(default_factory=list)  # level and seed of each
    latents: dict[Key, Tensor] = field(default_factory=dict)  # n c t h w
    told: dict[Key, Tensor] = field(default_factory=dict)  # n c t 2h 2w, enlarged
    redrawn: dict[Key, Tensor] = field(default_factory=dict)  # the same of the first size, redrawn
    shown: dict[Key, Tensor] = field(default_factory=dict)  # n t h w, where objects are


@dataclass
class Maker:
    """Makes clips, and everything that is told of them, or reads them where they were made."""

    data: Data
    vae_folder: ModelFolder
    vae: VideoAutoencoder
    redraw: Redrawn | None
    dtype: torch.dtype  # of the networks while they make them
    world: World
    say: Callable[[str], None]

    def clips(self, *, shown: bool) -> Clips:
        """Of all parts of the data; `shown`: where objects are, too."""
        d = self.data
        made = Clips([(level, seed) for level, num in d.parts() for seed in range(num)])
        for key in ((size, fps) for size in d.sizes for fps in sorted(d.fps)):
            latents, told, redrawn, seen = [], [], [], []
            for level, num in d.parts():
                whole_shards = self._latents(key, level, num)
                latents.append(whole_shards[:num])
                if key[0] != d.sizes[-1]:
                    told.append(self._enlarged(key, level, num, whole_shards))
                if key[0] == d.sizes[0] and self.redraw is not None:
                    clips = self._redrawn(key, level, num)
                    name = f"{level}-{self.redraw.name}"
                    redrawn.append(self._enlarged(key, name, num, clips))
                if key[0] != d.sizes[0] and shown:
                    seen.append(self._shown(key, level, num))
            for table, parts in (
                (made.latents, latents), (made.told, told),
                (made.redrawn, redrawn), (made.shown, seen),
            ):  # fmt: skip
                if parts:
                    table[key] = torch.cat(parts)
        return made

    def _latents(self, key: Key, level: str, num: int) -> Tensor:
        """Of whole shards, as is what is made of them."""
        return cached_latents(
            self._folder(key), whole(num), self.vae, level=level, geometry=self.data.geometry(key),
            world=self.world, say=self.say, dtype=self.dtype,
        )  # fmt: skip

    def _enlarged(self, key: Key, name: str, num: int, latents: Tensor) -> Tensor:
        def make(seeds: range) -> Tensor:
            part = latents[seeds.start : seeds.stop].to(self.world.device).float()
            return upsampling.enlarged(part, self.vae).cpu()

        return self._cached(key, f"{name}-enlarged", num, make)[:num]

    def _redrawn(self, key: Key, level: str, num: int) -> Tensor:
        redraw = self.redraw
        assert redraw is not None
        own = (key[0], redraw.rates[0])
        before = self._latents(own, level, num) if key == own else self._redrawn(own, level, num)

        def make(seeds: range) -> Tensor:
            keyframes = before[seeds.start : seeds.stop].float()
            again = redraw.keyframes if key == own else redraw.filled
            return again(keyframes, level, seeds)

        return self._cached(key, f"{level}-{redraw.name}", whole(num), make)

    def _shown(self, key: Key, level: str, num: int) -> Tensor:
        geometry = self.data.geometry(key)
        height, width = (n // self.vae_folder.size("vae", "stride") for n in key[0])
        folder = Path(self.data.cache) / "shown" / shown_name(geometry, height, width)

        def make(seeds: range) -> Tensor:
            return shown(seeds, level, geometry, height, width)

        return cached(folder, level, num, make, world=self.world, say=self.say)[:num]

    def _folder(self, key: Key) -> Path:
        space, geometry = self.vae_folder.latent_space, self.data.geometry(key)
        return cache_folder(Path(self.data.cache), space, geometry, self.dtype)

    def _cached(self, key: Key, name: str, num: int, make: Callable[[range], Tensor]) -> Tensor:
        device, low = self.world.device, self.dtype != torch.float32

        def cast(seeds: range) -> Tensor:
            with torch.autocast(device.type, self.dtype, enabled=low):
                return make(seeds)

        return cached(self._folder(key), name, num, cast, world=self.world, say=self.say)


@dataclass
class Held:
    """Held-out scenes of the first pair of sizes, an equal share at each rate."""

    small: Tensor  # b c t h w
    enlarged: Tensor  # b c t 2h 2w
    redrawn: Tensor | None  # the same of redrawn ones
    large: Tensor  # b c t 2h 2w
    truth: Tensor  # rendered frames `b t H W 3` of the large
    fps: Tensor  # b
    captions: list[str]

    @classmethod
    def of(
        cls, data: Data, vae: VideoAutoencoder, redraw: Redrawn | None, device: torch.device
    ) -> Held:
        start, count = VALIDATION_SEEDS.start, data.num_held // len(data.fps)
        rows, captions = [], []
        for i, fps in enumerate(data.fps):
            seeds = range(start + i * count, start + (i + 1) * count)
            scenes = [sample_scene(seed, level=data.level) for seed in seeds]
            captions += [caption(scene) for scene in scenes]
            small, large = (data.geometry((size, fps)) for size in data.sizes[:2])
            true = render(scenes, times=large.times, height=large.height, width=large.width)
            latents = encode_scenes(seeds, vae, data.level, small, device)
            rows.append((
                latents,
                upsampling.enlarged(latents.to(device), vae).cpu(),
                encode_scenes(seeds, vae, data.level, large, device),
                true.frames,
                torch.full((count,), fps),
                cls._redrawn(data, vae, redraw, fps, seeds, device),
            ))  # fmt: skip
        *tensors, again = zip(*rows, strict=True)
        told, enlarged, big, truth, rates = (torch.cat(x) for x in tensors)
        redrawn = torch.cat(again) if redraw is not None else None
        return cls(told, enlarged, redrawn, big, truth, rates, captions)

    @staticmethod
    def _redrawn(
        data: Data, vae: VideoAutoencoder, redraw: Redrawn | None, fps: float,
        seeds: range, device: torch.device,
    ) -> Tensor | None:  # fmt: skip
        if redraw is None:
            return None
        at = data.geometry((data.sizes[0], redraw.rates[0]))
        clips = encode_scenes(seeds, vae, data.level, at, device)
        clips = redraw.keyframes(clips, data.level, seeds)
        if fps != at.fps:
            clips = redraw.filled(clips, data.level, seeds)
        return upsampling.enlarged(clips.to(device), vae).cpu()


def redraw_of(data: Data, vae_folder: ModelFolder, device: torch.device) -> Redrawn | None:
    """What draws clips again. UsageError for a model that has other latents, or makes clips of
    another size or at other rates than the recipe's."""
    if data.redrawn is None:
        return None
    if data.filled is None:
        raise UsageError(
            "recipe: data.redrawn without data.filled", next="name a folder with an interpolation"
        )
    folder, filling = ModelFolder.find(data.redrawn), ModelFolder.find(data.filled)
    for key, one in (("redrawn", folder), ("filled", filling)):
        if one.latent_space != vae_folder.latent_space:
            raise UsageError(f"recipe: data.{key} is {one.path}, whose latents are others")
    redraw = Redrawn(folder, filling, data.redrawn_level, device)
    known = all(redraw.fits(data.geometry((data.sizes[0], fps))) for fps in data.fps)
    if not known or redraw.rates[0] not in data.fps:
        own = redraw.geometry
        raise UsageError(
            f"recipe: data.redrawn is {data.redrawn}, which makes {own.num_frames} keyframes of"
            f" {own.height} × {own.width}, {redraw.rates[0]:g} a second, and {redraw.rates[1]:g}"
            " with those between",
            next="make data.num_frames, the first of data.sizes, and data.fps like that",
        )
    return redraw
