"""What sampling and decoding clips of a released model would take, before it is done."""

from __future__ import annotations

from collections import Counter

import torch

from vidgen.errors import InputError
from vidgen.stages import estimates
from vidgen.stages.base import Compute
from vidgen.stages.costs import (
    costs,
    count_of,
    evaluations,
    flops_of,
    live_bytes,
    number,
    table,
)
from vidgen.stages.decode_clips import precise
from vidgen.stages.sample_clips import run_of
from vidgen.stages.sample_keyframes import Choices
from vidgen.stages.tiles import Tiles
from vidgen.systems.base import ModelFolder


def sampling(folder: ModelFolder, compute: Compute, count: int, choices: Choices) -> str:
    """Of sample, for `count` samples."""
    run = run_of(folder, choices)
    networks = [run.build(name) for name in run.components]
    made, space = run.made, folder.latent_space if folder.has("vae") else f"{folder.system}-vae"
    sampler = ", ".join(f"{key} {value}" for key, value in run.sampler.items())
    branches = 1 if run.sampler["guidance_scale"] == 1 else 2
    calls = len(evaluations(run.sampler["solver"], run.levels)) * branches
    return table(
        "sample",
        {
            "model": f"{folder.name} ({' + '.join(map(count_of, networks))} parameters)",
            "samples": f"{count}, {made.num_frames} frames of {made.width}x{made.height} each",
            "latents": f"{list(run.shape)} float32 each, in {space}",
            "sampler": f"{sampler}: {calls} network calls each",
            **estimates.sampling(run, compute, count).told(compute, number(count, "sample")),
        },
    )


def decoding(
    folder: ModelFolder,
    compute: Compute,
    shapes: Counter[tuple[int, ...]],
    tiles: Tiles | None = None,
) -> str:
    """Of decode, for so many latents of these shapes."""
    compute, made = precise(folder, compute), set()
    stride = folder.latent_sizes[1]
    for _, t, h, w in shapes:
        made.add(f"[{1 + 4 * (t - 1)}, {h * stride}, {w * stride}, 3] uint8")
    estimate = estimates.decoding(folder, compute, shapes, tiles)
    return table(
        "decode",
        {
            "model": f"{folder.name}/vae ({folder.latent_space})",
            "records": str(shapes.total()),
            "frames": ", ".join(sorted(made)),
            **({} if tiles is None else {"tiles": tiles.in_words()}),
            **estimate.told(compute, number(shapes.total())),
        },
    )


def encoding(folder: ModelFolder, compute: Compute, shapes: Counter[tuple[int, ...]]) -> str:
    """Of encode-video, for so many clips of these shapes."""
    compute = precise(folder, compute)
    system, made = folder.released, []
    vae, (channels, stride) = system.build_autoencoder(folder), folder.latent_sizes
    flops = peak = 0.0
    for (t, height, width, _), alike in shapes.items():
        h, w = -(-height // stride), -(-width // stride)
        frames = torch.empty(1, 3, t, h * stride, w * stride, device="meta")
        try:
            flops += alike * flops_of(lambda x: system.encoded(vae, x), frames)
        except ValueError as error:
            raise InputError(f"clips of {t} frames: {error}") from None
        made.append(f"[{channels}, {1 + (t - 1) // 4}, {h}, {w}] float32")
        pixels = min(t, 8) * h * stride * w * stride  # of the frames that are read at once
        peak = max(peak, live_bytes(pixels, system.decoder_width(folder), 1, compute))
    return table(
        "encode-video",
        {
            "model": f"{folder.name}/vae ({folder.latent_space})",
            "records": str(shapes.total()),
            "latents": ", ".join(sorted(set(made))),
            **costs(vae, flops, peak, compute, number(shapes.total())),
        },
    )


def to_come(folder: ModelFolder, count: int, choices: Choices) -> Counter[tuple[int, ...]]:
    """Shapes of the latents that `count` samples will have."""
    run = run_of(folder, choices)
    kept = run.kept(torch.empty(1, *run.shape, device="meta"))
    return Counter({tuple(kept.shape[1:]): count})
