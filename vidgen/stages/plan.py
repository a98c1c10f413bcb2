"""What a stage would do, before it does it: shapes, FLOPs, memory and time, as lines of text.

FLOPs are those of the whole stream. They are counted by running the networks on the meta device,
where nothing is computed, once for each shape there is (`vidgen.stages.costs`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vidgen.diffusion.groups import PACKINGS, STRIDE, frames_after
from vidgen.io.record import Record, human_bytes
from vidgen.nn.adm_unet import AdmUNetConfig
from vidgen.nn.movq import MoVQDecoder
from vidgen.stages import memory, plan_clips, sample_keyframes, upsample
from vidgen.stages.base import Compute
from vidgen.stages.cascade import yet_to_come
from vidgen.stages.costs import (
    calls,
    costs,
    count_of,
    evaluations,
    flops_of,
    live_bytes,
    number,
    on_meta,
    table,
)
from vidgen.stages.decode import CHUNK, Which, component_of, first_chunks
from vidgen.stages.decode import load as load_decoder
from vidgen.stages.decode_clips import tiles_of
from vidgen.stages.interpolate import Choices, checked_record, method_of, refinable
from vidgen.stages.refine import Refiner
from vidgen.stages.text_network import system_of
from vidgen.stages.upsample_pixels import SecondStage, require_pixels
from vidgen.systems import interpolation, load, snap_video, upsampling, world
from vidgen.systems.base import PIXELS, ModelFolder

WORDS = 32  # tokens of a prompt, about


def encoding(folder: ModelFolder, prompts: list[str]) -> str:
    """Of encode-text."""
    tokenizer = (folder.released or world).load_tokenizer(folder)
    tokens = [len(tokenizer(text)) for text in prompts]
    width = folder.size("text_encoder", "d_model" if folder.released else "hidden_size")
    size = sum(p.stat().st_size for p in folder.weight_files("text_encoder"))
    return table(
        "encode-text",
        {
            "model": f"{folder.name} ({folder.text_encoder})",
            "prompts": str(len(prompts)),
            "text.embeds": f"up to [{max(tokens)}, {width}] float32 each",
            "weights": human_bytes(size),
        },
    )


def sampling(
    folder: ModelFolder, compute: Compute, count: int, choices: sample_keyframes.Choices
) -> str:
    """Of sample-keyframes, for `count` samples."""
    method, sampler = sample_keyframes.method_of(folder, choices), folder.sampler
    solver, scale, steps = choices.solver or sampler.solver, method.guidance_scale, method.steps
    system = system_of(folder)
    network = on_meta(lambda: system.load_transformer(folder))
    config = network.config
    shape = system.sample_shape(folder, config)
    told = told_of_text(
        config.text_dim, shape[1], folder.config("transformer").get("pooled_dim", 0)
    )
    z, t = torch.empty(1, *shape, device="meta"), torch.empty(1, device="meta")
    one = flops_of(system.called(network), z, t, told)
    made = calls(sampler, method.levels, scale, solver)
    live = _live(config, shape, min(compute.batch_size, max(count, 1)), method, compute)
    return table(
        "sample-keyframes",
        {
            "model": f"{folder.name} ({count_of(network)} parameters)",
            "samples": str(count),
            "latents": f"{list(shape)} float32 each, in {folder.latent_space}",
            "sampler": f"{solver}, {steps} steps, guidance {scale:g}: {made} network calls each",
            **costs(network, one * made * count, live, compute, number(count, "sample")),
        },
    )


def told_of_text(text_dim: int, num_frames: int, pooled_dim: int = 0) -> dict[str, Tensor]:
    """What a network of text is told, of one sample."""
    return {
        "text": torch.empty(1, WORDS, text_dim, device="meta"),
        "text_mask": torch.empty(1, WORDS, dtype=torch.bool, device="meta"),
        "pooled": torch.empty(1, pooled_dim, device="meta"),
        "times": torch.empty(1, num_frames, device="meta"),
    }


def _live(
    config: Any,
    shape: tuple[int, ...],
    together: int,
    method: sample_keyframes.Method,
    compute: Compute,
) -> float:
    """Bytes alive at the widest moment, of so many samples `c t h w` at a time, guided or not."""
    branches = 1 if method.guidance_scale == 1 else 2
    cells = shape[1] * shape[2] * shape[3]
    return together * branches * widest(config, cells) * compute.torch_dtype().itemsize


def widest(config: Any, cells: int) -> float:
    """Numbers alive at the widest moment of a block, of a sample of so many cells: the MLP's hidden
    layer beside its input and output."""
    if isinstance(config, AdmUNetConfig):
        return cells * config.live
    tokens = cells // (config.patch[0] * config.patch[1] * config.patch[2])
    return tokens * config.dim * (config.mlp_ratio + 6)


def interpolating(
    folder: ModelFolder | None, compute: Compute, records: Iterable[Record], choices: Choices
) -> str:
    """Of interpolate, for these latents records."""
    choices.check()
    method = method_of(folder, choices)
    checked = [refinable(checked_record(record, folder), method) for record in records]
    shapes = _shapes(checked)
    network = None if method.network is None else on_meta(method.network.load)
    branches = 1 if method.guidance_scale == 1 else 2
    together = min(compute.batch_size, shapes.total())
    made, flops, live = [], 0.0, 0.0
    for (c, first, h, w), alike in shapes.items():
        for done in range(choices.passes):
            if network is None:
                break
            t = frames_after(done, first)
            flops += alike * _flops_of_groups(network, choices.method, (c, t, h, w))
            assert method.network is not None
            cells = h * w * (t - 1)
            live = max(live, together * branches * cells * method.network.config.live)
        made.append(f"[{c}, {frames_after(choices.passes, first)}, {h}, {w}] float32")
    rows = {"records": str(shapes.total()), "latents": ", ".join(made)}
    if network is None or method.network is None or folder is None:
        return table("interpolate", {"method": choices.method, **rows})
    solver = method.network.settings.solver
    levels = method.network.levels(method.steps)
    each = calls(method.network.settings, levels, method.guidance_scale)
    live *= compute.torch_dtype().itemsize * (STRIDE + 1 if choices.method == "masked" else 1)
    flops *= each
    parts = nn.ModuleList([network])
    if method.refiner is not None:
        rows["refined"], more, wide, transformer = _refining(
            method.refiner, checked, choices.passes, compute
        )
        flops, live = flops + more, max(live, wide)
        if more:
            parts.append(transformer)
    return table(
        "interpolate",
        {
            "model": f"{folder.name}/{method.network.component} ({count_of(network)} parameters)",
            **rows,
            "sampler": f"{solver}, {method.steps} steps, guidance {method.guidance_scale:g}:"
            f" {each} network calls a pass",
            **costs(parts, flops, live, compute, number(shapes.total())),
        },
    )


def _refining(
    refiner: Refiner, records: list[Record], passes: int, compute: Compute
) -> tuple[str, float, float, nn.Module]:
    """What draws frames anew, of those records where it can, its FLOPs, the bytes that its widest
    moment takes, and its network."""
    folder, method = refiner.folder, refiner.method
    system = system_of(folder)
    network = on_meta(lambda: system.load_transformer(folder))
    shape = system.sample_shape(folder, network.config)
    z, one = torch.empty(1, *shape, device="meta"), torch.empty(1, device="meta")
    each = calls(folder.sampler, method.levels, method.guidance_scale)
    pooled = folder.config("transformer").get("pooled_dim", 0)
    told = told_of_text(network.config.text_dim, shape[1], pooled)
    able = sets = 0
    for record in records:
        counts = [
            count for done in range(passes)
            if not refiner.lacking(
                record, count := frames_after(done + 1, record["latents"].shape[1])
            )
        ]  # fmt: skip
        able += bool(counts)
        sets += sum(len(refiner.sets(count)) for count in counts)
    words = (
        f"{number(able)}, by {folder.name}/transformer, from {refiner.strength:g} of noise,"
        f" {method.steps} steps: {each} network calls for each {shape[1]} frames"
    )
    flops = flops_of(system.called(network), z, one, told) * each * sets
    together = min(compute.batch_size, sets)
    return words, flops, _live(network.config, shape, together, method, compute), network


def _flops_of_groups(network: nn.Module, method: str, keyframes: tuple[int, ...]) -> int:
    """Of one call of an interpolation network, for keyframes `c t h w`."""
    z = torch.empty(1, *PACKINGS[method].shape(keyframes), device="meta")
    skip = torch.empty(1, dtype=torch.int64, device="meta")
    told = torch.empty(1, *keyframes, device="meta")
    cond = interpolation.cond(network.config, method, told, skip, 1.0)  # type: ignore[arg-type]
    call = interpolation.raw(network, method)
    return flops_of(call, z, torch.empty(1, device="meta"), cond)


def enlarging(
    folder: ModelFolder | None,
    compute: Compute,
    records: Iterable[Record],
    choices: upsample.Choices,
) -> str:
    """Of upsample, for these latents records."""
    if folder is not None and folder.in_pixels:
        return _enlarging_pixels(folder, compute, list(records), choices)
    method = upsample.method_of(folder, choices)
    shapes = _shapes(upsample.checked_record(record, method) for record in records)
    vae = None if method.vae is None else on_meta(method.vae.get)
    network = None if method.network is None else on_meta(method.network.load)
    solver, each = "", 0
    if method.network is not None:
        solver = method.network.settings.solver
        each = len(evaluations(solver, method.network.levels(method.steps)))
    made, flops, needed = [], 0.0, 0
    together = min(compute.batch_size, shapes.total())
    for shape, alike in shapes.items():
        needed = max(needed, upsample.memory_bytes(shape, method, compute, together))
        c, t, h, w = shape
        for _ in range(choices.passes):
            if vae is not None:
                frame = torch.empty(1, c, 1, h, w, device="meta")
                flops += alike * t * flops_of(upsampling.enlarged, frame, vae)
            h, w = (upsampling.FACTOR * side for side in (h, w))
            if network is not None:
                flops += alike * each * _flops_of_enlarging(network, (c, t, h, w))
        made.append(f"[{c}, {t}, {h}, {w}] float32")
    rows = {"records": str(shapes.total()), "latents": ", ".join(made)}
    free = memory.free_bytes(compute.torch_device())
    there = {} if free is None else {"free": human_bytes(free)}
    if vae is None or folder is None:
        rows |= {"memory": f"about {human_bytes(needed)}"}
        return table("upsample", {"method": choices.method, **rows, **there})
    parts = nn.ModuleList([vae])
    words = {
        "method": choices.method,
        "model": f"{folder.name}/vae ({count_of(vae)} parameters)",
    }
    if network is not None:
        parts.append(network)
        words = {"model": f"{folder.name}/{upsampling.COMPONENT} ({count_of(network)} parameters)"}
        rows["sampler"] = (
            f"{solver}, {method.steps} steps, noise level"
            f" {method.noise_level:g}: {each} network calls a pass"
        )
    live = needed - sum(p.numel() for p in parts.parameters()) * compute.torch_dtype().itemsize
    taken = costs(parts, flops, live, compute, number(shapes.total()))
    return table("upsample", words | rows | taken | there)


def _enlarging_pixels(
    folder: ModelFolder, compute: Compute, records: list[Record], choices: upsample.Choices
) -> str:
    """Of the second stage of a model that makes pixels."""
    choices.check()
    for record in records:
        require_pixels(record, folder)
    count, rows = len(records), {"records": str(len(records))}
    if choices.method != choices.METHODS[0]:
        return table("upsample", {"method": choices.method, **rows})
    stage = SecondStage.of(folder, choices)
    network = on_meta(lambda: snap_video.load_upsampler(folder))
    c, t, h, w = stage.shape
    z, one = torch.empty(1, c, t, h, w, device="meta"), torch.empty(1, device="meta")
    told = told_of_text(network.config.text_dim, t) | snap_video.low_cond(z, z, one)
    branches = 1 if stage.sampler.guidance_scale == 1 else 2
    solver = stage.sampler.solver
    levels = load.levels_of(stage.sampler, stage.steps)
    made = calls(stage.sampler, levels, stage.sampler.guidance_scale)
    flops = flops_of(snap_video.called(network), z, one, told) * made * count
    live = widest(network.config, t * h * w) * min(compute.batch_size, max(count, 1)) * branches
    rows |= {
        "latents": f"{list(stage.shape)} float32 each, in {folder.latent_space}",
        "sampler": f"{solver}, {stage.steps} steps, noise level {stage.noise_level:g}, guidance"
        f" {stage.sampler.guidance_scale:g}: {made} network calls each",
        **costs(network, flops, live * compute.torch_dtype().itemsize, compute, number(count)),
    }
    words = {"model": f"{folder.name}/{snap_video.UPSAMPLER} ({count_of(network)} parameters)"}
    return table("upsample", words | rows)


def _flops_of_enlarging(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Of one call of an upsampler that makes latents `c t h w`."""
    z, one = torch.empty(1, *shape, device="meta"), torch.empty(1, device="meta")
    told = upsampling.cond(network.config, z, z, one, one.long(), 1.0)  # type: ignore[arg-type]
    return flops_of(upsampling.raw(network), z, one, told)


def decoding(
    folder: ModelFolder,
    compute: Compute,
    records: list[Record],
    which: Which | None = None,
    tile: tuple[int, int] | None = None,
) -> str:
    """Of decode, for these latents records."""
    tiles = tiles_of(folder, tile)
    if records and all(record.attrs.get("latent_space") == PIXELS for record in records):
        made = {tuple(record["latents"].shape) for record in records}
        frames = ", ".join(sorted(f"[{t}, {h}, {w}, 3] uint8" for _, t, h, w in made))
        words = {"model": "none: pixels are converted", "records": str(len(records))}
        return table("decode", words | {"frames": frames})
    shapes = _shapes(records)
    component = component_of(folder, which)
    if folder.released:
        return plan_clips.decoding(folder, compute, shapes, tiles)
    network = on_meta(lambda: load_decoder(folder, component))
    if isinstance(network, MoVQDecoder):
        decode, reach, config = network, network.config.reach, network.config
        widest, shrink = max(config.widths[:2]), config.patch
    else:
        decode, reach, config = network.decode, 0, network.config
        widest, shrink = config.decoder_widths[0], 2
    stride, chunks = config.stride, first_chunks(reach)
    flops = peak = 0.0
    for (c, t, h, w), alike in shapes.items():
        one = flops_of(decode, torch.empty(1, c, 1, h, w, device="meta"))
        spans = chunks.spans(t)
        flops += alike * one * sum(end - first for first, end in spans)
        pixels = min(chunks.size, t) * h * stride * w * stride
        peak = max(peak, live_bytes(pixels, widest, shrink, compute))
    frames = ", ".join(
        sorted({f"[{t}, {h * stride}, {w * stride}, 3] uint8" for _, t, h, w in shapes})
    )
    rows = {
        "model": f"{folder.name}/{component} ({folder.latent_space})",
        "records": str(shapes.total()),
        "frames": frames,
        **costs(network, flops, peak, compute, number(shapes.total())),
    }
    return table("decode", rows)


def after_keyframes(
    folder: ModelFolder, compute: Compute, count: int, passes: int
) -> Iterator[str]:
    """Of interpolate, if it is to be run, for keyframes that are yet to be made."""
    if passes:
        records = [_with_text(folder, record) for record in yet_to_come(folder, count)]
        yield interpolating(folder, compute, records, Choices(passes))


def _with_text(folder: ModelFolder, record: Record) -> Record:
    """As it will be: with text of the model's encoder, a word."""
    own = folder.config("transformer")
    width, pooled = folder.size("transformer", "text_dim"), own.get("pooled_dim", own["text_dim"])
    texts = {
        f"text.{kind}{name}": x
        for kind in ("", "negative_")
        for name, x in (
            ("embeds", torch.zeros(1, width)),
            ("mask", torch.ones(1, dtype=torch.bool)),
            ("pooled", torch.zeros(pooled)),
        )
    }
    return record.replace(tensors=texts, attrs={"text_encoder": folder.text_encoder})


def after_sampling(
    folder: ModelFolder,
    compute: Compute,
    count: int,
    passes: int,
    scale: int,
    which: Which | None = None,
) -> Iterator[str]:
    """Of upsample, if it is to be run, and of decode, for clips that are yet to be sampled."""
    if scale > 1:
        records = yet_to_come(folder, count, passes)
        yield enlarging(folder, compute, records, upsample.Choices(scale))
    yield decoding(folder, compute, yet_to_come(folder, count, passes, scale), which)


def encoding_video(folder: ModelFolder, compute: Compute, records: Iterable[Record]) -> str:
    """Of encode-video, for these frames records."""
    if folder.released:
        return plan_clips.encoding(folder, compute, _shapes(records, "frames"))
    network = on_meta(lambda: world.load_autoencoder(folder))
    stride, made = network.config.stride, set()
    flops = peak = 0.0
    shapes = _shapes(records, "frames")
    for (t, height, width, _), alike in shapes.items():
        h, w = -(-height // stride), -(-width // stride)
        made.add(f"[{network.config.channels}, {t}, {h}, {w}] float32")
        frame = torch.empty(1, 3, 1, h * stride, w * stride, device="meta")
        flops += alike * t * flops_of(network.encode, frame)
        pixels = min(CHUNK, t) * h * stride * w * stride
        peak = max(peak, live_bytes(pixels, network.config.encoder_widths[0], 2, compute))
    return table(
        "encode-video",
        {
            "model": f"{folder.name} ({folder.latent_space})",
            "records": str(shapes.total()),
            "latents": ", ".join(sorted(made)),
            **costs(network, flops, peak, compute, number(shapes.total())),
        },
    )


def _shapes(records: Iterable[Record], name: str = "latents") -> Counter[tuple[int, ...]]:
    """The shapes of the records' tensors of that name, and how many have each."""
    return Counter(tuple(record[name].shape) for record in records)
