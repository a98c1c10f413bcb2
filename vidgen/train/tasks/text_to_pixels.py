"""What tasks that train pixels of clips from captions have in common: data and measures.

Images are videos, too: of an infinite frame rate (Snap Video, Menapace et al. 2024, §3.3). One
frame of a clip is repeated, is told as frames that are no time apart, and gets noise of its own in
each repetition; so one diffusion process learns both. Clips come at several frame rates, each from
any moment of its scene on, and some were smaller once: both are told.

Frames are rendered once and cached; neighboring scenes have one rate and one moment.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vidgen.errors import UsageError
from vidgen.nn.pixels import from_uint8, to_uint8
from vidgen.systems import save, world
from vidgen.systems.base import PIXELS, Geometry
from vidgen.systems.snap_video import enlarged
from vidgen.train.distributed import World
from vidgen.train.task import Modules, generator, share
from vidgen.train.tasks.captioned import CaptionedTask
from vidgen.train.tasks.latents import cached
from vidgen.world.captions import caption
from vidgen.world.parts import DURATION_S
from vidgen.world.render import RENDERER, render
from vidgen.world.scene import VALIDATION_SEEDS, sample_scene

NEIGHBORS = 16  # scenes of one rate and one moment, which are rendered together
COARSE = 0.5  # size of clips that were smaller once, as a share: `once_smaller`
STILLS = 2**30  # the first seed of scenes that come as images alone


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Clips and images of the world."""

    cache: str = "runs/cache"
    num: int = 16_384  # clips rendered once; they come by again after that
    num_images: int = 0  # scenes beside those, one frame of each; 0: images are frames of clips
    num_held: int = 64  # clips that are only measured on
    level: str = "basic"  # of the world
    drop_caption: float = 0.1
    canonical: float = 0.0  # share of captions that say everything, in the first words for it
    images: float = 0.5  # share of samples that are one frame, repeated
    coarse: float = 0.1  # share of samples that were half as high and wide once
    num_frames: int = 8
    height: int = 20
    width: int = 32
    fps: tuple[float, ...] = (4.0, 8.0)  # rates of clips; the first is that of sampling


@dataclass(frozen=True, kw_only=True)
class Data(Clips):
    """The same, and whose text it is."""

    text: str  # a folder that holds `text_encoder/` and `tokenizer/`


class TextToPixelsTask(CaptionedTask):
    """One sample is the frames of one clip, or one frame of it as often."""

    data_class: type = Data

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        d, c = self.data, self.config
        if d.num < 1 or d.num_held < 1 or d.num_images < 0 or not d.fps:
            raise UsageError(
                f"recipe: data.num is {d.num}, data.num_images {d.num_images}, data.num_held"
                f" {d.num_held}, data.fps {list(d.fps)}: there must be a clip to train on, one to"
                " measure on, and a rate"
            )
        if d.num_images and not d.images:
            raise UsageError(f"recipe: data.num_images is {d.num_images}, and data.images is 0")
        for key in ("images", "coarse", "drop_caption", "canonical"):
            if not 0 <= getattr(d, key) <= 1:
                raise UsageError(f"recipe: data.{key} is {getattr(d, key):g}, must be from 0 to 1")
        for fps in d.fps:
            if not fps > 0 or _length(d, fps) > DURATION_S:
                raise UsageError(
                    f"recipe: {d.num_frames} frames at {fps:g} a second don't fit into the"
                    f" {DURATION_S:g} s of a clip",
                    next="raise data.fps, or lower data.num_frames",
                )
        if why := c.unfit(d.num_frames, d.height, d.width):
            raise UsageError(
                f"recipe: data are {d.num_frames} frames of {d.height} × {d.width}, and {why}"
            )
        for key, channels in (("in_channels", 3 * c.levels), ("out_channels", 3)):
            if (own := getattr(c, key)) != channels:
                raise UsageError(f"recipe: model.{key} is {own}, pixels have {channels}")
        self.geometry = Geometry(d.num_frames, d.height, d.width, d.fps[0])

    def build(self) -> dict[str, torch.nn.Module]:
        return {"transformer": self.network(), "tower": world.load_text_tower(self.text_folder)}

    def prepare(self, modules: Modules, say) -> None:
        d = self.data
        self.clips = [(d.level, seed) for seed in range(d.num)]
        here = World(self.rank, self.world, self.device)
        self.video = cached(self._folder(), d.level, d.num, self._render, world=here, say=say)
        name = f"{d.level}-still"
        self.stills = (
            cached(self._folder(), name, d.num_images, self._render_stills, world=here, say=say)
            if d.num_images
            else None
        )
        first = VALIDATION_SEEDS.start
        self.held_seeds = range(first, first + d.num_held)
        scenes = [sample_scene(seed, level=d.level) for seed in self.held_seeds]
        g = self.geometry
        self.held = render(scenes, times=g.times, height=g.height, width=g.width).frames

    def _folder(self) -> Path:
        d = self.data
        rates = "-".join(f"{fps:g}" for fps in d.fps)
        name = f"{d.num_frames}x{d.height}x{d.width}@{rates}-r{RENDERER}"
        return Path(d.cache) / PIXELS / name

    def _render(self, seeds: range) -> Tensor:
        """Frames uint8 `b t h w 3`."""
        d, made = self.data, []
        for first in range(seeds.start, seeds.stop, NEIGHBORS):
            some = range(first, min(first + NEIGHBORS, seeds.stop))
            scenes = [sample_scene(seed, level=d.level) for seed in some]
            fps, start = self.moment(first)
            times = [start + i / fps for i in range(d.num_frames)]
            made.append(render(scenes, times=times, height=d.height, width=d.width).frames)
        return torch.cat(made)

    def _render_stills(self, numbers: range) -> Tensor:
        """Frames uint8 `b h w 3` of the scenes from STILLS on, each at some moment."""
        d, made = self.data, []
        for first in range(numbers.start, numbers.stop, NEIGHBORS):
            some = range(first, min(first + NEIGHBORS, numbers.stop))
            scenes = [sample_scene(STILLS + n, level=d.level) for n in some]
            times = [random.Random(f"still/{first // NEIGHBORS}").random() * DURATION_S]
            made.append(render(scenes, times=times, height=d.height, width=d.width).frames[:, 0])
        return torch.cat(made)

    def moment(self, seed: int) -> tuple[float, float]:
        """The rate of a training scene's clip, and the second that it begins with."""
        d = self.data
        draw = random.Random(f"moment/{seed // NEIGHBORS}")
        fps = d.fps[draw.randrange(len(d.fps))]
        return fps, draw.random() * (DURATION_S - _length(d, fps))

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        count = self.recipe.batch_size
        rows = [self._index(step * count + row) for row in share(count, rank, world)]
        draw, d = random.Random(f"{self.recipe.seed}/{step}/{rank}"), self.data
        scenes, video, times, sizes = [], [], [], []
        for row in rows:
            scene, clip, (fps, _) = self.clips[row], self.video[row], self.moment(row)
            image, coarse = draw.random() < d.images, draw.random() < d.coarse
            if image and self.stills is not None:
                n = draw.randrange(d.num_images)
                scene, clip = (d.level, STILLS + n), self.stills[n : n + 1].expand_as(clip)
            elif image:
                clip = repeated(clip, draw.randrange(len(clip)))
            scenes.append(scene)
            video.append(clip)
            times.append(torch.arange(len(clip)) * (0.0 if image else 1 / fps))
            sizes.append(COARSE if coarse else 1.0)
        size = torch.tensor(sizes)
        frames = torch.stack(video)
        smaller = size < 1
        if smaller.any():
            frames[smaller] = once_smaller(frames[smaller])
        told = {"times": torch.stack(times), "size": size[:, None].expand(-1, 2)}
        return {"frames": frames, **told, **self.tokens(self.draw_captions(scenes, draw))}

    def x0(self, batch: dict[str, Tensor]) -> Tensor:
        return pixels(batch["frames"])

    def told(
        self, modules: Modules, batch: dict[str, Tensor], draw: torch.Generator
    ) -> dict[str, Tensor]:
        return self.cond(modules, batch["ids"]) | {k: batch[k] for k in ("times", "size")}

    @torch.no_grad()
    def evaluate(self, modules: Modules, step: int) -> dict[str, float]:
        """The error on held-out clips with full captions, and on their first frames as images where
        there are any in training; the same noise every time."""
        ids = self.tokens(self._held_captions())["ids"].to(self.device)
        cond, scores = self.cond(modules, ids), {}
        ways = {"val_loss": (self.held, cond)}
        if self.data.images:
            still = cond | {"times": torch.zeros_like(cond["times"])}
            ways["val_loss_images"] = torch.stack([repeated(clip) for clip in self.held]), still
        for name, (frames, known) in ways.items():
            draw = generator(0, "validation", device=self.device)
            x0 = pixels(frames.to(self.device))
            known = known | self.held_cond(x0, draw)
            scores[name] = self.error(modules, x0, known, draw)
        return scores

    def _held_captions(self) -> list[str]:
        return [caption(sample_scene(s, level=self.data.level)) for s in self.held_seeds]

    def held_cond(self, x0: Tensor, draw: torch.Generator) -> dict[str, Tensor]:
        """What is told, beside text and times, of clips that are measured on."""
        return {}

    def shape(self) -> tuple[int, ...]:
        g = self.geometry
        return 3, g.num_frames, g.height, g.width

    def frames(self, modules: Modules, samples: Tensor) -> Tensor:
        return to_uint8(samples)

    def export(self, modules: Modules, folder: Path) -> None:
        """A model that makes pixels: the transformer, and the text that it was trained with, byte
        for byte. It has no autoencoder."""
        kind = type(modules["transformer"]).__name__
        sizes = [1.0, COARSE] if self.data.coarse else [1.0]
        sample = asdict(self.geometry) | {
            "level": self.level(), "rates": list(self.data.fps), "sizes": sizes,
        }  # fmt: skip
        config = {"_class_name": kind, **self.config.to_dict(), "sample": sample}
        self.write_component(folder / "transformer", config, modules["transformer"])
        for part in ("text_encoder", "tokenizer"):
            save.copy_component(self.text_folder.place(part), folder / part)
        save.write_json(folder / "scheduler" / "scheduler_config.json", asdict(self.sampler))
        parts = ["text_encoder", "tokenizer", "transformer", "scheduler"]
        save.write_index(folder, self.name, self.system, parts, {"transformer": kind})


def _length(clips: Clips, fps: float) -> float:
    """Seconds from a clip's first frame to its last."""
    return (clips.num_frames - 1) / fps


def pixels(frames: Tensor) -> Tensor:
    """uint8 `b t h w 3` → `b 3 t h w` in −1 … 1."""
    return from_uint8(rearrange(frames, "b t h w c -> b c t h w"))


def repeated(clip: Tensor, frame: int = 0) -> Tensor:
    """`t h w 3` → one frame of it, as often: an image as a video of infinite frame rate."""
    return clip[frame : frame + 1].expand(len(clip), -1, -1, -1)


def once_smaller(frames: Tensor) -> Tensor:
    """uint8 `b t h w 3` → the same as if it had been half as high and wide and enlarged since; an
    odd row or column is shared out."""
    x = pixels(frames)
    height, width = x.shape[-2:]
    small = F.adaptive_avg_pool3d(x, (x.shape[2], -(-height // 2), -(-width // 2)))
    return rearrange(to_uint8(enlarged(small, height, width)), "b c t h w -> b t h w c")
