"""`python -m benchmarks.estimates [CASE …]`: what `--dry-run` says of released models against what
they take: memory and time, of sampling and decoding, for networks of 20 to 300 M random weights.

Each case is estimated in one process and run in another, on one thread. Time is in seconds of
processor time of a second record, when weights are in place. Memory is the largest that the process
had while it made the first, with what its allocator kept: of decoding in float32 that differs by up
to a third between runs.
Writes benchmarks/results/estimates-cpu.json, case by case, so that a few can be measured anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.common import ROOT, Row, keep, own_memory


class Case(NamedTuple):
    """A stage of a model of that size, in that dtype, of so many frames."""

    family: str
    stage: str
    made: tuple[int, int, int]  # frames, height, width
    sizes: dict[str, Any]
    dtype: str = "fp32"
    steps: int = 4
    tile: tuple[int, int] | None = None


def wan(heads: int, depth: int) -> dict[str, Any]:
    return {"num_attention_heads": heads, "attention_head_dim": 64, "num_layers": depth,
            "ffn_dim": 256 * heads, "text_dim": 512}  # fmt: skip


def cogvideox(heads: int, depth: int) -> dict[str, Any]:
    return {"num_attention_heads": heads, "attention_head_dim": 64, "num_layers": depth,
            "time_embed_dim": 256, "text_embed_dim": 512, "max_text_seq_length": 64,
            "use_rotary_positional_embeddings": True}  # fmt: skip


def cogvideox_vae(width: int) -> dict[str, Any]:
    return {"block_out_channels": (width, 2 * width, 2 * width, 4 * width)}


FILE = "estimates-cpu.json"
AIM = (0.85, 1.15)  # what is estimated, times what was measured
CASES = {
    "wan-sample": Case("wan", "sample", (9, 192, 256), wan(6, 8)),
    "wan-sample-longer": Case("wan", "sample", (17, 256, 320), wan(12, 10), steps=2),
    "wan-sample-bf16": Case("wan", "sample", (9, 192, 320), wan(12, 24), "bf16"),
    "cogvideox-sample": Case("cogvideox", "sample", (9, 192, 256), cogvideox(8, 6)),
    "cogvideox-sample-bf16": Case(
        "cogvideox", "sample", (9, 256, 384), cogvideox(16, 16), "bf16", steps=2
    ),
    "wan-decode": Case("wan", "decode", (9, 160, 256), {"base_dim": 48}),
    "wan-decode-bf16": Case("wan", "decode", (13, 256, 384), {"base_dim": 96}, "bf16"),
    "cogvideox-decode": Case("cogvideox", "decode", (9, 128, 192), cogvideox_vae(64)),
    "cogvideox-decode-bf16": Case("cogvideox", "decode", (17, 192, 256), cogvideox_vae(96), "bf16"),
    "wan-decode-tiled": Case("wan", "decode", (9, 192, 256), {"base_dim": 48}, tile=(128, 128)),
    "wan-decode-tiled-bf16": Case(
        "wan", "decode", (9, 192, 256), {"base_dim": 96}, "bf16", tile=(128, 128)
    ),
}


def write(case: Case, folder: Path) -> None:
    """The folder of a case: its one network with random weights, and two records for it."""
    import diffusers

    from vidgen.io.record import Record
    from vidgen.io.stream import write_stream

    named = {"wan": "Wan", "cogvideox": "CogVideoX"}[case.family]
    torch.manual_seed(0)
    if case.stage == "sample":
        component, cls = "transformer", getattr(diffusers, f"{named}Transformer3DModel")
    else:
        component, cls = "vae", getattr(diffusers, f"AutoencoderKL{named}")
    cls(**case.sizes).save_pretrained(folder / component)
    scheduler = (
        diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )
        if case.family == "wan"
        else diffusers.CogVideoXDDIMScheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False,
            timestep_spacing="trailing", snr_shift_scale=1.0,
        )
    )  # fmt: skip
    scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": f"{named}Pipeline"}))
    frames, height, width = case.made
    if case.stage == "sample":
        text = torch.randn(24 if case.family == "wan" else 64, 512)
        mask = torch.ones(len(text), dtype=torch.bool)
        kind, attrs = "text", {"text_encoder": f"{case.family}-text@0"}
        tensors = {"text.embeds": text, "text.mask": mask, "text.negative_embeds": text.flip(0),
                   "text.negative_mask": mask}  # fmt: skip
    else:
        kind = "latents"
        attrs = {"latent_space": f"{case.family}-vae", "num_frames": frames, "height": height,
                 "width": width, "fps": 8.0}  # fmt: skip
        tensors = {"latents": torch.randn(16, 1 + (frames - 1) // 4, height // 8, width // 8)}
    records = [Record.make(kind, name, tensors, attrs) for name in "ab"]
    with (folder / "in.vgs").open("wb") as f:
        write_stream(records, f)


def compared(name: str) -> dict[str, Any]:
    """Of a case: what was estimated, measured, and the one over the other."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as scratch:
        write(case, Path(scratch))
        guess, real = (_child(name, job, scratch) for job in ("estimate", "measure"))
    frames, height, width = case.made
    title = f"{case.family} {case.stage}, {guess['count']}, {case.dtype},"
    title += f" {frames}x{height}x{width}" + (", tiled" if case.tile else "")
    both = {
        what: {"estimated": guess[what], "measured": real[what], "ratio": guess[what] / real[what]}
        for what in ("memory_bytes", "cpu_s")
    }
    return {"case": title, **both, "took_s": guess["took_s"]}


def _child(name: str, job: str, folder: str) -> dict[str, Any]:
    words = ["-W", "ignore", "-m", "benchmarks.estimates", name, "--only", job, folder]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, env=env
    )
    return json.loads(ran.stdout)


def rows() -> list[Row]:
    """Estimated, measured, and their ratio."""
    made = []
    for name in CASES:
        found = compared(name)
        took = f"took {found['took_s']:.1f} s to estimate"
        for what, unit, scale in (("memory_bytes", "MB", 1e-6), ("cpu_s", "s", 1)):
            guess, real = (found[what][which] * scale for which in ("estimated", "measured"))
            made.append(
                Row(f"{found['case']}: {what.split('_')[0]}", f"{guess:.4g} {unit}",
                    f"{real:.4g} {unit}", guess / real, took)
            )  # fmt: skip
    return made


# --- in a process of its own ----------------------------------------------------------------------


def _estimate(case: Case, folder: Path) -> dict[str, Any]:
    import time
    from collections import Counter

    from vidgen.stages import estimates
    from vidgen.stages.base import Compute
    from vidgen.stages.costs import count_of
    from vidgen.stages.decode_clips import precise
    from vidgen.stages.rates import Clock
    from vidgen.stages.sample_clips import run_of
    from vidgen.stages.tiles import Tiles
    from vidgen.systems.base import ModelFolder

    began = time.process_time()
    model, compute = ModelFolder(folder), Compute("cpu", case.dtype, batch_size=1)
    clock = Clock(compute.torch_device(), time.process_time)
    if case.stage == "sample":
        run = run_of(model, _choices(case))
        found, network = estimates.sampling(run, compute, 1, clock), run.build("transformer")
    else:
        network = model.released.build_autoencoder(model)
        tiles = Tiles.of(*case.tile, model.latent_sizes[1]) if case.tile else None
        frames, height, width = case.made
        shapes = Counter({(16, 1 + (frames - 1) // 4, height // 8, width // 8): 1})
        found = estimates.decoding(model, precise(model, compute), shapes, tiles, clock)
    took = time.process_time() - began
    return {"memory_bytes": found.memory, "cpu_s": found.seconds, "count": count_of(network),
            "took_s": took}  # fmt: skip


def _measure(case: Case, folder: Path) -> dict[str, Any]:
    import time

    from vidgen.io.stream import read_stream
    from vidgen.stages.base import Compute
    from vidgen.stages.decode import decode
    from vidgen.stages.sample_clips import sample_clips
    from vidgen.systems.base import ModelFolder

    model, compute = ModelFolder(folder), Compute("cpu", case.dtype, batch_size=1)
    records = read_stream(folder / "in.vgs")
    if case.stage == "sample":
        made = sample_clips(records, model, _choices(case), compute=compute)
    else:
        made = decode(records, model, tile=case.tile, compute=compute)
    next(made)
    peak = own_memory("VmHWM")
    began = time.process_time()
    next(made)
    return {"memory_bytes": peak, "cpu_s": time.process_time() - began}


def _choices(case: Case) -> Any:
    from vidgen.stages.sample_keyframes import Choices

    frames, height, width = case.made
    return Choices(num_inference_steps=case.steps, num_frames=frames, size=(width, height))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates", description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of: {', '.join(CASES)} [all]")
    parser.add_argument("--only", nargs=2, metavar=("JOB", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}")
    for name in options.cases or CASES:
        if options.only:
            job, folder = options.only
            work = {"estimate": _estimate, "measure": _measure}[job]
            print(json.dumps(work(CASES[name], Path(folder))))
            continue
        found = compared(name)
        print(name, json.dumps(found), flush=True)
        keep(FILE, {name: found}, threads=1, aim=AIM)


if __name__ == "__main__":
    main()
