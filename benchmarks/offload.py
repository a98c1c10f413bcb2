"""What `--offload layer` saves in memory and costs in time on a CPU: a Wan of random weights, too
large to be tiny and small enough to be made here, sampled in processes of their own.

Weights are bfloat16 in their file and computed with in float32, as they are on a CPU, so that all
of them are converted: once, or block by block in each step.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import Row

# fmt: off
SIZES = {"num_attention_heads": 8, "attention_head_dim": 128, "num_layers": 10, "ffn_dim": 4096,
         "text_dim": 512}
# fmt: on
STEPS, REPEAT = 3, 2
FRAMES, HEIGHT, WIDTH = 9, 192, 192
TOKENS = 3 * 12 * 12

SAMPLE = """
import json, resource, sys, time
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
    def step(self, done, total, unit): self.at.append(time.perf_counter())

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
taken = [b - a for a, b in zip(Clock.at, Clock.at[1:])]
print(json.dumps({"before": before, "peak": peak(), "steps": taken, "digest": made.digest}))
"""


def rows() -> list[Row]:
    """Peak of memory above what a process has before sampling, and time of a step."""
    found: dict[str, list[dict]] = {"layer": [], "none": []}
    with tempfile.TemporaryDirectory() as scratch:
        size = _write(Path(scratch))
        for _ in range(REPEAT):
            for offload, ran in found.items():
                ran.append(_sample(scratch, offload))
    if len({r["digest"] for ran in found.values() for r in ran}) > 1:
        raise SystemExit("--offload layer made other latents than none")
    peak = {k: statistics.median(r["peak"] - r["before"] for r in ran) for k, ran in found.items()}
    step = {k: statistics.median(t for r in ran for t in r["steps"]) for k, ran in found.items()}
    note = f"{size / 2**20:.0f} MiB of bf16 weights in fp32, the same latents"
    return [
        Row("peak memory of sample, --offload layer / none", f"{peak['layer']:.0f} MiB",
            f"{peak['none']:.0f} MiB", peak["layer"] / peak["none"], note),
        Row("a step, --offload layer / none", f"{step['layer']:.2f} s", f"{step['none']:.2f} s",
            step["layer"] / step["none"], f"{TOKENS} tokens, both branches of guidance"),
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
