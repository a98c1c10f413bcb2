"""Clips rendered and encoded once, kept on disk: training then reads instead of rendering.

Shards lie in a folder named for everything that decides what is in them, written whole or not at
all, and only the missing ones are made; a cache of more clips contains the cache of fewer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from einops import rearrange
from safetensors.torch import load_file, save
from torch import Tensor

from vidgen.errors import UsageError
from vidgen.io.files import atomic_write
from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.nn.pixels import from_uint8
from vidgen.systems.base import Geometry
from vidgen.train.distributed import World
from vidgen.world.render import RENDERER, render
from vidgen.world.scene import sample_scene

SHARD = 1024
CHUNK = 64


def cache_folder(root: Path, latent_space: str, geometry: Geometry, dtype: torch.dtype) -> Path:
    """Where latents lie: by their space, size, the encoder's dtype and the renderer."""
    g = geometry
    size = f"{g.num_frames}x{g.height}x{g.width}@{g.fps:g}"
    encoder = str(dtype).removeprefix("torch.")
    return root / latent_space.replace("@", "-") / f"{size}-{encoder}-r{RENDERER}"


def whole(num: int) -> int:
    """Of so many scenes, how many whole shards hold."""
    return -(-num // SHARD) * SHARD


def cached_latents(
    folder: Path,
    num: int,
    vae: VideoAutoencoder,
    *,
    level: str,
    geometry: Geometry,
    world: World,
    say: Callable[[str], None],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Latents of the training scenes 0 … num−1 → `num c t h w` in bfloat16, on the CPU; `dtype`
    is the encoder's while it makes them."""

    def make(seeds: range) -> Tensor:
        return encode_scenes(seeds, vae, level, geometry, world.device, dtype)

    return cached(folder, level, num, make, world=world, say=say)


def cached(
    folder: Path,
    name: str,
    num: int,
    make: Callable[[range], Tensor],
    *,
    world: World,
    say: Callable[[str], None],
    shard: int | None = None,
) -> Tensor:
    """What `make` makes of the training scenes 0 … num−1, some at a time, on the CPU, in bfloat16,
    or uint8 if it is that. It is asked for whole shards, of SHARD scenes unless told otherwise. All
    processes of `world` call this, with a `folder` that all of them see: each makes its part of the
    shards, which are called `name`."""
    shard = shard or SHARD

    def path(first: int) -> Path:
        return folder / f"{name}-{first:08d}.safetensors"

    def write(first: int) -> None:
        seeds = range(first, first + shard)
        latents = torch.cat([make(seeds[i : i + CHUNK]) for i in range(0, shard, CHUNK)])
        kept = latents if latents.dtype == torch.uint8 else latents.to(torch.bfloat16)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path(first), force=True) as f:
            f.write(save({"latents": kept.contiguous()}))
        say(f"{name}: made {first + shard} of {num} clips")

    firsts = range(0, num, shard)
    mine = [first for first in firsts[world.rank :: world.size] if not path(first).is_file()]
    # They meet after every shard, so that nobody waits longer than the processes' time limit.
    while world.agree(len(mine))[0]:
        if mine:
            write(mine.pop(0))
    return torch.cat([load_file(path(first))["latents"] for first in firsts])[:num]


def spread_missing(found: float, clips: int, space: str) -> UsageError:
    """What a recipe without loss.spread is refused with: what it is in this latent space."""
    return UsageError(
        "recipe: loss.spread is not given, and it is another one in each latent space",
        why=f"of {clips} held-out clips in `{space}` it is {found:.3g}",
        next=f"--set loss.spread={found:.3g}",
    )


@torch.no_grad()
def encode_scenes(
    seeds: range,
    vae: VideoAutoencoder,
    level: str,
    geometry: Geometry,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Latents of the keyframes of these scenes, `b c t h w`, float32, on the CPU."""
    scenes = [sample_scene(seed, level=level) for seed in seeds]
    made = render(
        scenes,
        times=geometry.times,
        height=geometry.height,
        width=geometry.width,
        device=str(device),
    )
    frames = from_uint8(rearrange(made.frames, "b t h w c -> b c t h w"))
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        return vae.encode(frames.to(device)).float().cpu()
