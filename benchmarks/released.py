"""`python -m benchmarks.released`: sampling by Wan and CogVideoX against diffusers' pipelines, CPU.

Random weights, the same for both, the same text and noise, one dtype; runs in turn, medians. Of
each case: seconds of a step, the peak of memory above what there was before sampling, and by how
much the latents differ. A step is all of it: both branches of guidance, the solver, and of the work
done once a prompt its share of the few steps that are run.

Heads are as wide as released, MLPs as many times wider than the stream, text as long and as wide;
there are fewer heads, blocks and tokens. With few tokens text takes a larger share of the time than
at released sizes: the longer case shows how much that matters.

Then the cold start: seconds from the command to its first step, compiled or not, on the clock and
of the processor. Writes benchmarks/results/released-cpu.json, case by case, so that a few can be
measured anew.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import ROOT, VIDGEN, Row, keep, own_memory
from benchmarks.released_pairs import Case, apart, last, pair
from vidgen.nn.cogvideox_dit import CogVideoXConfig
from vidgen.nn.wan_dit import WanConfig

FILE = "released-cpu.json"
AIM = 1.15  # times as fast
BOUND = 1e-4  # of the difference of latents in float32
SPREAD = 1.5  # our error in bfloat16 is at most so many times theirs

_WAN, _COGVIDEOX = WanConfig(heads=4, depth=3, mlp_dim=2944), CogVideoXConfig(heads=8, depth=3)
CASES = {
    f"{name}-{dtype}": replace(case, dtype=dtype)
    for name, case in {
        "wan": Case(_WAN, (4, 32, 40), ""),
        "wan-longer": Case(replace(_WAN, depth=2), (4, 44, 60), "", repeat=2),
        "cogvideox": Case(_COGVIDEOX, (5, 32, 40), ""),
    }.items()
    for dtype in ("fp32", "bf16")
}


def rows() -> list[Row]:
    """All cases, and the cold start."""
    made = []
    for name, case in CASES.items():
        found = measured(name)
        alike = "equal outputs" if found["equal"] else "OUTPUTS DIFFER"
        note = f"{alike} ({found['apart']:.0e}), aim {AIM}"
        ours, theirs = found["step_s"]["ours"], found["step_s"]["theirs"]
        made.append(Row(f"a step of {case.title}, diffusers / ours", f"{theirs:.2f} s",
                        f"{ours:.2f} s", theirs / ours, note))  # fmt: skip
        ours, theirs = found["peak_mib"]["ours"], found["peak_mib"]["theirs"]
        made.append(Row("    its peak memory above the weights", f"{theirs:.0f} MiB",
                        f"{ours:.0f} MiB", theirs / ours))  # fmt: skip
    for name, seconds in cold_start()["seconds"].items():
        made.append(Row(f"command to first step, {name}", f"{seconds:.1f} s", "", None))
    return made


def measured(name: str) -> dict[str, Any]:
    """A case: times of both in one process, peaks of memory in a process each."""
    case = CASES[name]
    found = json.loads(_child(name, "times"))
    peaks = {who: json.loads(_child(name, who)) for who in ("ours", "theirs")}
    if case.dtype == "fp32":
        equal = found["apart"] <= BOUND
    else:
        equal = found["error"]["ours"] <= SPREAD * found["error"]["theirs"]
    return {"case": case.title, "steps": case.steps, **found, "equal": equal, "peak_mib": peaks}


def _child(name: str, what: str) -> str:
    command = [sys.executable, "-m", "benchmarks.released", name, "--only", what]
    return subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout


def times(case: Case) -> dict[str, Any]:
    """Seconds a step of both, in turn, on the clock and of the processor; and how far their latents
    are apart, in bfloat16 also from those in float32."""
    two = pair(case)
    runs = {"ours": two.ours, "theirs": two.theirs}
    made = {who: last(run()) for who, run in runs.items()}
    clock: dict[str, list[float]] = {who: [] for who in runs}
    spent: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(case.repeat):
        for who, run in runs.items():
            began, cpu = time.perf_counter(), time.process_time()
            last(run())
            clock[who].append((time.perf_counter() - began) / case.steps)
            spent[who].append((time.process_time() - cpu) / case.steps)
    step = {who: statistics.median(x) for who, x in clock.items()}
    cpu_step = {who: statistics.median(x) for who, x in spent.items()}
    found = {
        "step_s": step, "faster": step["theirs"] / step["ours"], "step_cpu_s": cpu_step,
        "faster_in_cpu_seconds": cpu_step["theirs"] / cpu_step["ours"], "runs_s": clock,
        "apart": apart(made["ours"], made["theirs"]),
    }  # fmt: skip
    if case.dtype != "fp32":
        exact = last(pair(replace(case, exact=True)).ours())
        found["error"] = {who: apart(z, exact) for who, z in made.items()}
    return found


def peak_mib(run: Callable[[], Iterator[Tensor]]) -> float:
    """How far resident memory rises above what it was before the run (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    before = own_memory("VmRSS")
    last(run())
    return (own_memory("VmHWM") - before) / 2**20


# --- cold start -----------------------------------------------------------------------------------


def cold_start() -> dict[str, Any]:
    """Seconds from `vidgen sample` to its first step and to its second, each way of starting once:
    plain, compiled with nothing in the cache, and compiled again; and the same of the processor."""
    from benchmarks import parity_folders

    with tempfile.TemporaryDirectory() as scratch:
        at = Path(scratch)
        (at / "model").mkdir()
        parity_folders.write("wan 2.1", at / "model")
        torch.manual_seed(0)
        network: Any = parity_folders.WanTransformer3DModel(
            num_attention_heads=4,
            num_layers=3,
            ffn_dim=2944,
            text_dim=parity_folders.TEXT_DIM,
            in_channels=4,
            out_channels=4,
        )
        network.save_pretrained(at / "model" / "transformer")
        for old in (at / "model" / "transformer").glob("*of-*"):
            old.unlink()
        (at / "model/transformer/diffusion_pytorch_model.safetensors.index.json").unlink()
        env = os.environ | {"XDG_CACHE_HOME": str(at / "cache")}
        env.pop("TORCHINDUCTOR_CACHE_DIR", None)  # torch, imported here, has named its own
        subprocess.run([*VIDGEN, "encode-text", "a red ball", "--model", "model", "-o", "t.vgs"],
                       cwd=at, env=env, check=True, stderr=subprocess.DEVNULL)  # fmt: skip
        plain = _first_steps(at, env)
        first, again = _first_steps(at, env, "--compile"), _first_steps(at, env, "--compile")
    ways = {"plain": plain, "compiled, empty cache": first, "compiled, from the cache": again}
    return {
        kind: {
            f"{way}{which}": step[i]
            for way, both in ways.items()
            for which, step in zip(("", ", second step"), both, strict=True)
        }
        for i, kind in enumerate(("seconds", "cpu_seconds"))
    }


def _first_steps(at: Path, env: dict[str, str], *more: str) -> list[tuple[float, float]]:
    """Of the first two: seconds since the start, on the clock and of the processor."""
    command = [*VIDGEN, "sample", "t.vgs", "--model", "model", "--num-frames", "13", "--size",
               "320x256", "--steps", "3", "--progress", "json", "-f", "-o", "z.vgs",
               *more]  # fmt: skip
    began, seen = time.perf_counter(), list[tuple[float, float]]()
    with subprocess.Popen(command, cwd=at, env=env, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if '"step"' in line:
                seen.append((time.perf_counter() - began, _cpu_s(run.pid)))
    if run.returncode or len(seen) < 2:
        raise RuntimeError(f"vidgen sample ends with {run.returncode}, {len(seen)} steps seen")
    return seen[:2]


def _cpu_s(pid: int) -> float:
    """What a process has had of all cores so far, with its children that have ended (Linux)."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.released", description=__doc__)
    known = [*CASES, "cold-start"]
    parser.add_argument("cases", nargs="*", help=f"of: {', '.join(known)} [all]")
    parser.add_argument("--only", choices=("times", "ours", "theirs"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.cases) - set(known):
        parser.error(f"no case {', '.join(sorted(unknown))}")
    for name in options.cases or known:
        if options.only:
            with torch.no_grad():
                two = pair(CASES[name]) if options.only != "times" else None
                run = None if two is None else two.ours if options.only == "ours" else two.theirs
                print(json.dumps(times(CASES[name]) if run is None else peak_mib(run)))
            continue
        found = cold_start() if name == "cold-start" else measured(name)
        print(name, json.dumps(found))
        keep(FILE, {name: found}, threads=torch.get_num_threads(), aim=AIM)


if __name__ == "__main__":
    main()
