"""`python -m benchmarks.offload`: what `--offload layer` saves in memory and costs in time. On
a CPU, a Wan of random weights, too large to be tiny and small enough to be made here, is sampled in
processes of their own.

Weights are bfloat16 in their file and computed with in float32, as they are on a CPU, so that all
of them are converted: once, or block by block in each step. Writes
benchmarks/results/offload-cpu.json.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import Row, keep

# fmt: off
SIZES = {"num_attention_heads": 8, "attention_head_dim": 128, "num_layers": 10, "ffn_dim": 4096,
         "text_dim": 512}
# fmt: on
FILE = "offload-cpu.json"
STEPS, REPEAT = 3, 2
FRAMES, HEIGHT, WIDTH = 9, 192, 192
TOKENS = 3 * 12 * 12

SAMPLE = """
import json, sys, time
from pathlib import Path
import torch
from vidgen.io.record import Record
from vidgen.stages.base import Compute
from vidgen.stages.sample_clips import sample_clips
from vidgen.stages.sample_keyframes import Choices
from vidgen.systems.base import ModelFolder

class Clock:
    at = []
    def warn(self, text): pass
    def step(self, done, total, unit): self.at.append((time.perf_counter(), time.process_time()))

def peak():
    with open("/proc/self/status") as f:
        return next(int(x.split()[1]) / 1024 for x in f if x.startswith("VmHWM"))

folder, offload, steps, frames, height, width = sys.argv[1:]
draw = torch.Generator().manual_seed(0)
text = {}
for prefix in ("text.", "text.negative_"):
    text[prefix + "embeds"] = torch.randn(20, 512, generator=draw)
    text[prefix + "mask"] = torch.ones(20, dtype=torch.bool)
record = Record.make("text", "a", text, {"text_encoder": "wan-text@0"})
choices = Choices(num_inference_steps=int(steps), num_frames=int(frames),
                  size=(int(width), int(height)))
before = peak()
(made,) = sample_clips([record], ModelFolder(Path(folder)), choices, notify=Clock(),
                       compute=Compute("cpu", "fp32", offload=offload))
taken = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(Clock.at, Clock.at[1:])]
print(json.dumps({"before": before, "peak": peak(), "steps": taken, "digest": made.digest,
                  "threads": torch.get_num_threads()}))
"""


def measured() -> dict[str, Any]:
    """Of both, medians: the peak of memory above what a process has before sampling, and a step's
    seconds, on the clock and of the processor."""
    found: dict[str, list[dict]] = {"layer": [], "none": []}
    with tempfile.TemporaryDirectory() as scratch:
        size = _write(Path(scratch))
        for _ in range(REPEAT):
            for offload, ran in found.items():
                ran.append(_sample(scratch, offload))
    every = [r for ran in found.values() for r in ran]
    if len({r["digest"] for r in every}) > 1:
        raise SystemExit("--offload layer made other latents than none")
    peak = {k: statistics.median(r["peak"] - r["before"] for r in ran) for k, ran in found.items()}
    clock, cpu = (
        {k: statistics.median(t[i] for r in ran for t in r["steps"]) for k, ran in found.items()}
        for i in range(2)
    )
    return {
        "case": f"{size / 2**20:.0f} MiB of bf16 weights in fp32, {TOKENS} tokens, both branches",
        "peak_mib": peak, "step_s": clock, "step_cpu_s": cpu, "threads": every[0]["threads"],
    }  # fmt: skip


def rows() -> list[Row]:
    """Of --offload layer against none."""
    found = measured()
    peak, step = found["peak_mib"], found["step_s"]
    return [
        Row("peak memory of sample, --offload layer / none", f"{peak['layer']:.0f} MiB",
            f"{peak['none']:.0f} MiB", peak["layer"] / peak["none"], found["case"]),
        Row("a step, --offload layer / none", f"{step['layer']:.2f} s", f"{step['none']:.2f} s",
            step["layer"] / step["none"], "the same latents"),
    ]  # fmt: skip


def _sample(folder: str, offload: str) -> dict:
    words = [folder, offload, *map(str, (STEPS, FRAMES, HEIGHT, WIDTH))]
    ran = subprocess.run(
        [sys.executable, "-c", SAMPLE, *words], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise SystemExit(ran.stderr)
    return json.loads(ran.stdout)


def _write(folder: Path) -> int:
    """A folder as diffusers lays it out, of a transformer alone; bytes of its weights."""
    import torch
    from safetensors.torch import save_file

    from vidgen.nn.meta import on_meta
    from vidgen.nn.wan_config import transformer_config
    from vidgen.nn.wan_dit import WanDiT
    from vidgen.nn.wan_keys import TRANSFORMER, released

    files = {
        "model_index.json": {"_class_name": "WanPipeline"},
        "transformer/config.json": {"_class_name": "WanTransformer3DModel", **SIZES},
        "scheduler/scheduler_config.json": {
            "_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction",
            "use_flow_sigmas": True, "flow_shift": 3.0,
        },
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    with on_meta():
        own = WanDiT(transformer_config(SIZES, "these sizes")).state_dict()
    draw, state = torch.Generator().manual_seed(0), {}
    for name, theirs in released(own, TRANSFORMER).items():
        state[theirs] = (0.02 * torch.randn(own[name].shape, generator=draw)).bfloat16()
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file(state, path)
    return path.stat().st_size


if __name__ == "__main__":
    case = measured()
    print(json.dumps(case))
    keep(FILE, {"wan-layer": case}, threads=case.pop("threads"))
