"""`python -m benchmarks.released_cuda`: Wan on a GPU at released sizes, against diffusers.

Random weights: they cost what trained ones cost. Each part is measured, none extrapolated, and kept
in a JSON file as soon as it is done: called again, it goes on with those that aren't there. It ends
with 75 where the time ends before the parts do, and with 1 where the file has one that failed.

    1.3b         a step of 480p, 81 frames: ours and diffusers' as they are, and both compiled
    1.3b-whole   50 steps and the decoding, ours compiled
    14b          a step of 480p, 81 frames, ours compiled
    5b-whole     50 steps of 704 × 1280, 121 frames, and the decoding, ours compiled
    graphs       keyframes by the shipped model, as they are and with --cuda-graphs

The aims are those of an H200. Text is drawn, not encoded: its encoder's time is not among them.
--tiny shrinks everything, to try the code on a CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.common import machine
from benchmarks.released_pairs import Case, Pair, apart, last, pair
from vidgen.errors import Exit
from vidgen.io.files import atomic_write
from vidgen.nn.causal_vae import CausalVAE
from vidgen.nn.meta import on_meta
from vidgen.nn.pixels import to_uint8
from vidgen.nn.wan_dit import WanConfig, WanDiT
from vidgen.stages.base import Compute, device_name
from vidgen.stages.costs import flops_of
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.sample_keyframes import sample_keyframes
from vidgen.systems import wan
from vidgen.systems.base import Geometry, ModelFolder

PEAK = 989e12  # of an H100 or H200 in bfloat16, as the maker states it for dense matrices
AIMS = {
    "1.3b": {"faster than diffusers": 2.0, "faster than diffusers compiled": 1.5, "of peak": 0.6},
    "1.3b-whole": {"seconds": 48}, "14b": {"step_s": 5.5}, "5b-whole": {"seconds": 85},
    "graphs": {},
}  # fmt: skip
NEEDS = {
    "1.3b": 240,
    "1.3b-whole": 180,
    "14b": 180,
    "5b-whole": 240,
    "graphs": 90,
}  # seconds; a guess
_480P = Geometry(81, 480, 832, 16.0)


@dataclass(frozen=True)
class On:
    """Where the parts run, and at which sizes."""

    device: torch.device
    tiny: bool

    def case(self, name: str, made: Geometry) -> Case:
        config, vae = wan.PRESETS[name].transformer, wan.PRESETS[name].vae
        if self.tiny:
            config = replace(config, heads=2, depth=2, mlp_dim=256)
            made = Geometry(5, 4 * vae.stride, 6 * vae.stride, made.fps)
        _, t, h, w = wan.latent_shape(made, config, vae)
        return Case(config, (t, h, w), "bf16", device=str(self.device))

    def autoencoder(self, name: str) -> CausalVAE:
        config = wan.PRESETS[name].vae
        if self.tiny:
            config = replace(config, width=8, decoder_width=8)
        with self.device:
            return CausalVAE(config).eval().requires_grad_(False)

    def wait(self) -> None:
        """Until all is done that was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - began

    def peak_mib(self, run: Callable[[], object]) -> float | None:
        """The most that tensors took on the device, weights and all."""
        if self.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        run()
        return torch.cuda.max_memory_allocated(self.device) / 2**20


# --- the parts ------------------------------------------------------------------------------------


def step_of_1_3b(on: On) -> dict[str, Any]:
    case = on.case("t2v-1.3b", _480P)
    two = pair(case)
    plain, theirs = last(two.ours()), last(two.theirs())
    found: dict[str, Any] = {"apart": apart(plain, theirs), "as they are": in_turn(on, two, case)}
    compile_blocks(two.network)
    two.their_network.compile_repeated_blocks()
    found["compilation_s"] = {
        who: on.seconds(lambda run=run: last(run(1)))  # type: ignore[misc]
        for who, run in (("ours", two.ours), ("theirs", two.theirs))
    }
    found["apart compiled"] = apart(last(two.ours()), plain)
    found["compiled"] = in_turn(on, two, case)
    steps = {way: found[way]["step_s"] for way in ("as they are", "compiled")}
    best = min(step["ours"] for step in steps.values())
    rate = step_flops(case) / best
    return found | {
        "faster than diffusers": steps["as they are"]["theirs"] / best,
        "faster than diffusers compiled": steps["compiled"]["theirs"] / best,
        "FLOP/s": rate,
        "of peak": rate / PEAK,
    }


def step_of_14b(on: On) -> dict[str, Any]:
    case = on.case("t2v-14b", _480P)
    two = pair(case)
    compile_blocks(two.network)
    first = on.seconds(lambda: last(two.ours(1)))
    taken = [on.seconds(lambda: last(two.ours(1))) for _ in range(3)]
    peak = on.peak_mib(lambda: last(two.ours(1)))
    return {"step_s": median(taken), "first step_s": first, "peak_mib": peak}


def whole(on: On, name: str, made: Geometry) -> dict[str, Any]:
    """Sampling and decoding to 8 bits on the CPU, after a first step that compiles."""
    case, steps = on.case(name, made), 2 if on.tiny else 50
    two, vae = pair(case), on.autoencoder(name)
    compile_blocks(two.network)
    first = on.seconds(lambda: last(two.ours(1)))
    z, frames = list[torch.Tensor](), list[torch.Tensor]()
    sampling = on.seconds(lambda: z.append(last(two.ours(steps))))
    decoding = on.seconds(
        lambda: frames.extend(to_uint8(x[0]).cpu() for x in wan.decoded(vae, z[0]))
    )
    return {
        "seconds": sampling + decoding, "sampling_s": sampling, "decoding_s": decoding,
        "first step_s": first, "steps": steps, "frames": sum(x.shape[1] for x in frames),
    }  # fmt: skip


def shipped_in_graphs(on: On) -> dict[str, Any]:
    """Keyframes of one prompt after the other by the model in the package, after the first four,
    in which kernels are chosen and captured."""
    if on.device.type != "cuda":
        return {"seconds": None, "why": f"there are no graphs on {on.device}"}
    folder, taken = ModelFolder.find(None), {}
    for way in ("plain", "captured"):
        compute = Compute(device=str(on.device), batch_size=1, cuda_graphs=way == "captured")
        prompts = [Prompt("a red ball", seed=seed) for seed in range(12)]
        texts = list(encode_text(prompts, folder, cache=None, compute=compute))
        samples = sample_keyframes(texts, folder, compute=compute)
        each = [on.seconds(partial(next, samples)) for _ in texts]
        taken[way] = median(each[4:])
    return taken | {"times faster": taken["plain"] / taken["captured"]}


PARTS: dict[str, Callable[[On], dict[str, Any]]] = {
    "1.3b": step_of_1_3b,
    "1.3b-whole": lambda on: whole(on, "t2v-1.3b", _480P),
    "14b": step_of_14b,
    "5b-whole": lambda on: whole(on, "2.2-ti2v-5b", wan.PRESETS["2.2-ti2v-5b"].made),
    "graphs": shipped_in_graphs,
}


def in_turn(on: On, two: Pair, case: Case) -> dict[str, Any]:
    """Median seconds of a step of both, and peaks."""
    runs = {"ours": two.ours, "theirs": two.theirs}
    taken: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(case.repeat):
        for who, run in runs.items():
            taken[who].append(on.seconds(lambda run=run: last(run())) / case.steps)  # type: ignore[misc]
    return {
        "step_s": {who: median(x) for who, x in taken.items()},
        "peak_mib": {who: on.peak_mib(lambda run=run: last(run())) for who, run in runs.items()},  # type: ignore[misc]
        "runs_s": taken,
    }


def compile_blocks(network: nn.Module) -> None:
    for block in network.blocks:  # type: ignore[union-attr]
        block.compile()


def step_flops(case: Case) -> float:
    """Of both branches."""
    assert isinstance(case.network, WanConfig)
    with on_meta():
        network = WanDiT(case.network).requires_grad_(False)
    z = torch.empty(1, case.network.in_channels, *case.latents, device="meta")
    t = torch.empty(1, device="meta")
    return 2 * flops_of(network, z, t, text=torch.empty(1, 512, 4096, device="meta"))


# --- the file -------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.released_cuda", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    parser.add_argument("--seconds", type=float, default=1e9, help="no part begins that needs more")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    on, began = On(torch.device(options.device), options.tiny), time.perf_counter()
    report: dict[str, Any] = {"schema": "vidgen.bench/1", "parts": {}}
    if options.out.is_file():
        report = json.loads(options.out.read_text(encoding="utf-8"))
    for name, part in PARTS.items():
        if name in report["parts"]:
            continue
        left = options.seconds - (time.perf_counter() - began)
        if left < NEEDS[name]:
            print(f"{name}: {left:.0f} s are left, it may take {NEEDS[name]}", file=sys.stderr)
            return Exit.TRY_AGAIN
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            with torch.no_grad():
                found = part(on)
        except Exception as error:  # told in the file; the other parts can do without this one
            print(f"{name}: {error}", file=sys.stderr)
            found = {"error": f"{type(error).__name__}: {error}"}
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        versions = machine() | {"device": device_name(on.device)}
        report["parts"][name] = found | {"aims": AIMS[name], "tiny": on.tiny, "machine": versions}
        with atomic_write(options.out, force=True) as file:
            file.write((json.dumps(report, indent=1) + "\n").encode())
    failed = [name for name, found in report["parts"].items() if "error" in found]
    return Exit.FAILED if failed else Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
