"""Small pictures of clips while they are sampled: the estimate x0, a pixel for each latent.

Colors are a linear map of latents. It is fitted to the model's own autoencoder, by least squares,
on a few clips that are drawn for it (`vidgen.world`): nothing is taken from elsewhere, and a model
with other weights gets another map. It knows colors and places, no detail finer than a latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from vidgen.errors import InputError
from vidgen.io import files
from vidgen.io.image import contact_sheet, encode_png
from vidgen.nn.pixels import from_uint8, to_uint8
from vidgen.systems.base import ModelFolder
from vidgen.world.render import frame_times, render
from vidgen.world.scene import sample_scene

CLIPS, FRAMES, SIDE = 4, 5, 128  # what the map is fitted on
SHOWN = 6  # latents of a clip
LONGEST = 160  # pixels of a preview's longer side, at least


@dataclass(frozen=True)
class Projection:
    """latents `c` → color: `weight` `c+1 3`, the last row for all latents alike. `explained`: the
    share of what colors vary by, of the clips that it is fitted on."""

    weight: Tensor
    explained: float

    def colors(self, latents: Tensor) -> Tensor:
        """latents `b c t h w` → `b 3 t h w`, about −1…1."""
        weight = self.weight.to(latents.device)
        made = torch.einsum("bcthw,ck->bkthw", latents.float(), weight[:-1])
        return made + weight[-1][:, None, None, None]


def require_autoencoder(folder: ModelFolder) -> None:
    """InputError where there is none to fit colors to, or its weights are cut."""
    if not folder.has("vae"):
        raise InputError(
            f"--preview-every: `{folder.path}` has no autoencoder",
            why="the colors of previews are fitted to it",
            next="leave --preview-every out",
        )
    folder.weight_files("vae")


@torch.no_grad()
def fitted(folder: ModelFolder) -> Projection:
    """The map for a released model's latents."""
    vae, system = folder.released.load_autoencoder(folder).float(), folder.released
    scenes = [sample_scene(seed, level="full") for seed in range(CLIPS)]
    drawn = render(scenes, times=frame_times(FRAMES, 8), height=SIDE, width=SIDE).frames
    pixels = rearrange(from_uint8(torch.as_tensor(drawn)), "b t h w c -> b c t h w")
    latents = torch.cat([system.encoded(vae, clip[None]).float() for clip in pixels])
    stride = folder.latent_sizes[1]
    each = reduce(pixels, "b c t (h y) (w x) -> b c t h w", "mean", y=stride, x=stride)
    later = reduce(each[:, :, 1:], "b c (t four) h w -> b c t h w", "mean", four=4)
    return _least_squares(latents, torch.cat((each[:, :, :1], later), dim=2))


def _least_squares(latents: Tensor, colors: Tensor) -> Projection:
    """latents `b c t h w`, colors `b 3 t h w`."""
    x, y = (rearrange(part, "b c t h w -> (b t h w) c").double() for part in (latents, colors))
    x = F.pad(x, (0, 1), value=1.0)
    weight = torch.linalg.lstsq(x, y, driver="gelsd").solution
    left, all_of_it = (y - x @ weight).square().sum(), (y - y.mean(0)).square().sum()
    return Projection(weight.float(), float(1 - left / all_of_it))


def write(path: Path, x0: Tensor, ids: Sequence[str], of: str, projection: Projection) -> None:
    """A sheet of clips `b c t h w`: some of their latents in a row, evenly spaced, under the clip's
    id and `of`, how far it is. The file is there whole, or as it was before."""
    scale = max(1, -(-LONGEST // max(x0.shape[3:])))
    pixels = rearrange(to_uint8(projection.colors(x0)), "b c t h w -> b t h w c").cpu().numpy()
    shown = min(SHOWN, pixels.shape[1])
    titles = [f"{id}, {of}" for id in ids]
    sheet = contact_sheet(list(pixels), titles, frames_per_clip=shown, scale=scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_write(path, force=True) as file:
        file.write(encode_png(sheet))
