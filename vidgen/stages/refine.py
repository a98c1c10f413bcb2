"""Frames between keyframes, drawn anew by the network that draws keyframes.

SDEdit (Meng et al. 2021, arXiv 2108.01073, §3): interpolated frames get a share of noise, and are
sampled from there under the clip's text. Where an object is, interpolation has decided; how it
looks, the larger network knows better: what came out blurred or broken is whole again.

Only what it changes much is taken from it, by about as much as the noise could or more: frames
drawn apart don't agree to the last digit on what stands still, and would flicker.

It draws as many frames at a time as there are keyframes in a clip, evenly spread over the clip, and
is told the times of its own keyframes, as it learned no others. Frames that were there before the
interpolation are among them, and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidgen.diffusion.groups import STRIDE
from vidgen.diffusion.level import Level
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import denoiser
from vidgen.errors import InputError, UsageError
from vidgen.io.record import Record
from vidgen.nn import attention
from vidgen.stages.base import Compute, Loading, Notify
from vidgen.stages.sample_keyframes import (
    Choices,
    Method,
    method_of,
    require_text,
    text_cond,
    unable,
)
from vidgen.stages.text_network import loading, system_of
from vidgen.systems import load
from vidgen.systems.base import ModelFolder

COMPONENT = "transformer"
VERSION = 2  # of how frames are drawn anew, for what is kept of them


@dataclass(frozen=True)
class Refiner:
    """How the network of the keyframes draws frames anew."""

    folder: ModelFolder
    strength: float  # share of noise that the frames get, as `sample_keyframes --strength`
    method: Method
    loading: Loading

    @classmethod
    def of(
        cls,
        folder: ModelFolder,
        strength: float,
        compute: Compute,
        network: Loading | None = None,
    ) -> Refiner:
        """`network` is the folder's, where another stage has it too. UsageError for a strength
        below that of the model's last step."""
        if why := unable(folder, strength):
            raise UsageError(f"--refine {strength:g}: {why}", next="a larger one, or 0")
        method = method_of(folder, Choices(strength=strength))
        return cls(folder, strength, method, network or loading(folder, compute))

    def lacking(self, record: Record, count: int) -> str:
        """Why the record, of so many frames then, can't be refined; empty: it can."""
        made, (_, stride) = self.folder.geometry, self.folder.latent_sizes
        if "text.embeds" not in record.tensors:
            return "it holds no text"
        h, w = record["latents"].shape[2:]
        rows, columns = made.height // stride, made.width // stride
        if (h, w) != (rows, columns):
            return f"its latents are {h} × {w}, and the keyframes of the model {rows} × {columns}"
        if count < made.num_frames:
            return f"it has {count} frames, and {made.num_frames} are drawn at a time"
        try:
            require_text(record, self.folder)
        except InputError as error:
            return error.what
        return ""

    def sets(self, count: int) -> list[list[int]]:
        """Frames of a clip of so many that are drawn together: each interpolated one is in a set.
        Those of a set are evenly spaced, but for some of the last where that runs out."""
        size = self.folder.geometry.num_frames
        if count == size:
            return [list(range(size))]
        spacing = -(-(count - 2) // size)  # of all but the first and the last
        last, found = count - 1, []
        for start in range(1, spacing + 1):
            rest = range(start, count, spacing)  # may be fewer: then others of the clip beside them
            others = [i for i in range(last, -1, -1) if i not in rest][: max(0, size - len(rest))]
            found.append(sorted([*rest[:size], *others]))
        return [frames for frames in found if any(i % STRIDE for i in frames)]

    @torch.no_grad()
    def refined(
        self,
        clips: Tensor,
        records: Sequence[Record],
        sources: Sequence[tuple[int, str]],
        compute: Compute,
        notify: Notify,
    ) -> tuple[Tensor, set[str]]:
        """Clips `b c t h w` (float32, on the CPU) of which every fourth frame stays, and the
        attention kernels that were used. `sources` are those of the noise.

        Sets are drawn as many at a time as there is room for in a batch.
        """
        device, dtype = compute.torch_device(), compute.torch_dtype()
        network = self.loading.get().to(device=device, dtype=dtype)
        sets, out, seen = self.sets(clips.shape[2]), clips.clone(), set[int]()
        most = max(1, compute.batch_size // len(clips))
        together = -(-len(sets) // -(-len(sets) // most))  # about as many in each round
        rounds = [sets[i : i + together] for i in range(0, len(sets), together)]
        with attention.kernel(compute.attention) as used:
            for k, some in enumerate(rounds):
                # Set by set, and in each the clips; all sets of a clip have the same noise:
                # neighbors get the same, so that what stands still is drawn alike.
                x0 = torch.cat([clips[:, :, frames] for frames in some])
                noise = Noise([*sources] * len(some), stage=f"refine {clips.shape[2]}")
                conds = text_cond([*records] * len(some), device)

                def told(step: int, k: int = k) -> None:
                    of = len(rounds) * self.method.steps
                    notify.step(k * self.method.steps + step + 1, of, "step")

                drawn = self._drawn(network, x0, noise, conds, told).chunk(len(some))
                for frames, made in zip(some, drawn, strict=True):
                    for place, frame in enumerate(frames):
                        if frame % STRIDE and frame not in seen:
                            out[:, :, frame] = made[:, :, place]
                            seen.add(frame)
        return out, set(used)

    def _drawn(
        self,
        network: nn.Module,
        x0: Tensor,
        noise: Noise,
        conds: tuple[dict[str, Tensor], dict[str, Tensor]],
        told: Callable[[int], None],
    ) -> Tensor:
        """Frames `b c n h w`, as many as there are keyframes, drawn anew and mended."""
        folder, method, (cond, uncond) = self.folder, self.method, conds
        levels, device = method.levels, cond["text"].device
        times = torch.tensor(folder.geometry.times).float().expand(len(x0), -1).to(device)
        for part in conds:
            part["times"] = times
        z = noise.initial(x0.shape[1:]) * levels[0].sigma + levels[0].alpha * x0
        denoise = denoiser(system_of(folder).called(network), load.prediction(folder))
        denoise = load.guided(denoise, uncond, folder.sampler, levels, method.guidance_scale)
        for step in method.solve(denoise, z.to(device), levels, cond, noise):
            z = step.z
            told(step.i)
        return mended(x0, z.float().cpu(), levels[0])


def mended(x0: Tensor, drawn: Tensor, level: Level) -> Tensor:
    """Latents `b c t h w` with what was drawn anew from this level where that differs enough, and
    in the cells around. The measure is the noise that was on them, (sigma / alpha)², or the spread
    of latents, 1, where that is less: of a change, in mean square over channels, of nine tenths of
    it or less nothing is taken, of eleven all, and in between a share. So it is continuous: what
    differs by rounding, as batches of other sizes do, stays so. A wider range mixes more frames,
    and what is mixed is neither (see the recipe `world-interpolation`)."""
    measure = float(level.sigma / level.alpha) ** 2 if level.alpha > level.sigma else 1.0
    change = (drawn - x0).square().mean(dim=1, keepdim=True) / measure
    share = ((change - 0.9) / 0.2).clamp(0, 1)
    share = F.max_pool3d(share, (1, 3, 3), stride=1, padding=(0, 1, 1))
    return torch.lerp(x0, drawn, share)
