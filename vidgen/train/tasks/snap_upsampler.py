"""Train Snap Video's second stage: the same clips in more pixels, told what they look like in few.

The network begins with the base model's weights. The small video is the mean of the large one's
pixels, enlarged again; it gets a random amount of noise, which hides what will be wrong with
samples of the base, and how much is told (§3.5; Ho et al. 2021, arXiv 2106.15282).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vidgen.errors import UsageError
from vidgen.nn.fit import FIT
from vidgen.systems import save, snap_video
from vidgen.systems.base import DOUBLINGS, ModelFolder
from vidgen.systems.snap_video import (
    KIND,
    NETWORKS,
    UPSAMPLER,
    UpsamplerSampler,
    enlarged,
    low_cond,
)
from vidgen.train.task import Modules, generator
from vidgen.train.tasks.snap_video import SnapPixelsTask
from vidgen.train.tasks.text_to_pixels import Clips, pixels


@dataclass(frozen=True, kw_only=True)
class Data(Clips):
    """Clips of the larger size, and the model that makes the smaller one."""

    base: str  # a model folder of pixels: its weights are begun from, its text is read
    max_noise_level: float = 0.5  # on the small video, evenly from none
    noise_level: float = 0.1  # in sampling, unless the user says otherwise


class SnapUpsamplerTask(SnapPixelsTask):
    """`model` is a `FITConfig` with the base's sizes, but for a larger grid; one sample is one clip
    at both sizes."""

    name = "snap-video-upsampler"
    kinds: ClassVar = {KIND: NETWORKS[KIND]}
    data_class = Data

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        d, c = self.data, self.config
        self.base = ModelFolder(Path(d.base))
        if not self.base.in_pixels or self.base.system != self.system:
            raise UsageError(
                f"recipe: data.base is {d.base}, which is no model of `{self.system}` in pixels"
            )
        if (c.in_channels, c.levels) != (6, 2):
            raise UsageError(
                f"recipe: model.in_channels and levels are {c.in_channels} and {c.levels}; with the"
                " small video and its noise they are 6 and 2"
            )
        if not 0 < d.noise_level <= d.max_noise_level:
            raise UsageError(
                f"recipe: data.noise_level is {d.noise_level:g}, must be above 0 and up to"
                f" data.max_noise_level, {d.max_noise_level:g}"
            )
        small = self.base.geometry
        self.factor = d.height // small.height
        if self.factor not in DOUBLINGS or (d.height, d.width) != (
            self.factor * small.height, self.factor * small.width
        ):  # fmt: skip
            raise UsageError(
                f"recipe: data are {d.height} × {d.width}, must be 2, 4 or 8 times the base's"
                f" {small.height} × {small.width}"
            )
        if (small.num_frames, small.fps) != (d.num_frames, d.fps[0]):
            raise UsageError(
                f"recipe: data are {d.num_frames} frames at {d.fps[0]:g} a second, and the base's"
                f" {small.num_frames} at {small.fps:g}"
            )
        self.sampler = UpsamplerSampler(
            **asdict(self.sampler), noise_level=d.noise_level, max_noise_level=d.max_noise_level
        )

    def text_path(self) -> str:
        return self.data.base

    def network(self) -> FIT:
        base = snap_video.load_transformer(self.base).float()
        if not isinstance(base, FIT):
            raise UsageError(
                f"recipe: data.base is {self.data.base}, whose transformer is an"
                f" {type(base).__name__}; an upsampler begins with the weights of a FIT"
            )
        try:
            return snap_video.begun_from(base, self.config)
        except ValueError as error:
            raise UsageError(
                f"recipe: model is no upsampler of data.base, {self.data.base}: {error}"
            ) from None

    def told(
        self, modules: Modules, batch: dict[str, Tensor], draw: torch.Generator
    ) -> dict[str, Tensor]:
        frames = self.x0(batch)
        most = self.data.max_noise_level
        level = most * torch.rand(len(frames), generator=draw, device=frames.device)
        return super().told(modules, batch, draw) | self._low(frames, level, draw)

    def held_cond(self, x0: Tensor, draw: torch.Generator) -> dict[str, Tensor]:
        level = torch.full((len(x0),), self.data.noise_level, device=x0.device)
        return self._low(x0, level, draw)

    def sheet_cond(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        x0 = pixels(self.held[: len(seeds)].to(self.device))
        return self.held_cond(x0, generator(0, "sheet", device=self.device))

    def _low(self, x0: Tensor, level: Tensor, draw: torch.Generator) -> dict[str, Tensor]:
        """Of clips `b 3 t h w` what the network is told of them in few pixels."""
        height, width = x0.shape[-2:]
        small = F.avg_pool3d(x0, (1, self.factor, self.factor))
        noise = torch.randn(x0.shape, generator=draw, device=x0.device)
        return low_cond(enlarged(small, height, width), noise, level)

    def export(self, modules: Modules, folder: Path) -> None:
        """Both stages in one folder, which is called what the base is: the base, byte for byte, and
        the upsampler."""
        parts = ["text_encoder", "tokenizer", "transformer", "scheduler"]
        for part in parts:
            save.copy_component(self.base.place(part), folder / part)
        config = {"_class_name": "FIT", **self.config.to_dict()}
        config["sample"] = asdict(self.sampler) | asdict(self.geometry)
        self.write_component(folder / UPSAMPLER, config, modules["transformer"])
        kinds = {"transformer": "FIT", UPSAMPLER: "FIT"}
        save.write_index(folder, self.base.name, self.system, [*parts, UPSAMPLER], kinds)
