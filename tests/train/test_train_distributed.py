"""Two processes over gloo equal one; a killed process loses nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file

from vidgen.train import checkpoint
from vidgen.train.loop import train
from vidgen.train.recipe import load_recipe

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# The batch size counts all processes together: two with four samples each equal one with eight.
# No noise, since each process draws its own.
SAME = ["data.noise=0", "batch_size=8", "prefetch=0"]
ADAMW = [*SAME, "optim.name=adamw"]
FSDP = "parallel=fsdp"

JOBS = [
    {"out": "ddp", "overrides": SAME},
    {"out": "fsdp", "overrides": [*ADAMW, FSDP]},
    {"out": "fsdp-muon", "overrides": [*SAME, FSDP, "steps=4"]},
    {"out": "ddp-then-fsdp", "overrides": ADAMW, "stop_at": 5},
    {"out": "ddp-then-fsdp", "overrides": [*ADAMW, FSDP]},
    {"out": "fsdp-then-ddp", "overrides": [*ADAMW, FSDP], "stop_at": 5},
    {"out": "fsdp-then-ddp", "overrides": ADAMW},
]


def start(jobs: Path, rank: int, world: int) -> subprocess.Popen:
    """A worker with the environment that torchrun gives."""
    env = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(world),
        "RANK": str(rank), "LOCAL_RANK": str(rank),
    }  # fmt: skip
    command = [sys.executable, str(HERE / "worker.py"), str(jobs)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, list[list[int]], str]:
    """All `JOBS` by two processes: folder, exit codes of each process, what they said."""
    if not torch.distributed.is_available():
        pytest.skip("this torch is built without torch.distributed")
    folder = tmp_path_factory.mktemp("pair")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in JOBS]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    jobs = [
        job | {"out": str(folder / job["out"]), "port": port}
        for job, port in zip(JOBS, ports, strict=True)
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    processes = [start(folder / "jobs.json", rank, 2) for rank in (0, 1)]
    try:
        printed = [p.communicate(timeout=120) for p in processes]
    finally:
        for p in processes:
            p.kill()
    said = "\n".join(err for _, err in printed)
    assert [p.returncode for p in processes] == [0, 0], said
    return folder, [json.loads(out) for out, _ in printed], said


def alone(out: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """The same by this process."""
    train(load_recipe(TINY, overrides=overrides), out, device="cpu")
    return newest(out)


def newest(out: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.checkpoints(out)[-1] / "tensors.safetensors")


def worst(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], prefix: str = "") -> float:
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max()) for k in a if k.startswith(prefix))


def test_ddp_equals_one_process(pair, tmp_path):
    out = pair[0] / "ddp"
    assert worst(alone(tmp_path, *SAME), newest(out)) < 1e-5
    assert (out / "model" / "model.safetensors").exists()
    assert (out / "metrics.jsonl").read_text().count('"eval.loss"') == 2  # one process writes


def test_fsdp_equals_one_process(pair, tmp_path):
    assert worst(alone(tmp_path, *ADAMW), newest(pair[0] / "fsdp")) < 1e-5
    assert (pair[0] / "fsdp" / "model" / "model.safetensors").exists()


def test_fsdp_with_muon_is_near(pair, tmp_path):
    """Newton–Schulz runs in bfloat16, on shards there: equal to its rounding, not float32's."""
    one, two = alone(tmp_path, *SAME, "steps=4"), newest(pair[0] / "fsdp-muon")
    assert worst(one, two, "model") < 0.02  # four updates of up to 0.02 × 0.3 an element
    assert worst(one, two, "optim") < 1e-3


@pytest.mark.parametrize("kinds", ["ddp-then-fsdp", "fsdp-then-ddp"])
def test_sigterm_to_one_stops_both_and_the_other_kind_goes_on(pair, tmp_path, kinds):
    folder, codes, said = pair
    expected = [75 if "stop_at" in job else 0 for job in JOBS]
    assert codes == [expected, expected], said
    assert said.count("stopped by SIGTERM at step 6, checkpoint saved") == 4
    assert worst(alone(tmp_path, *ADAMW), newest(folder / kinds)) < 1e-5


def test_kill_9_loses_one_interval_at_most(tmp_path):
    """A process killed while it saves all the time leaves a checkpoint that leads on to the bit."""
    names = ["steps=300", "log_every=300", "eval_every=0"]
    out = tmp_path / "killed"
    job = {"out": str(out), "overrides": [*names, "checkpoint_every_s=0"], "port": 0}
    (tmp_path / "jobs.json").write_text(json.dumps([job]))
    process = start(tmp_path / "jobs.json", 0, 1)
    until = time.monotonic() + 60
    while not checkpoint.checkpoints(out) and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    reached = checkpoint.read_state(checkpoint.checkpoints(out)[-1])["step"]
    assert 0 < reached < 300
    assert worst(alone(tmp_path / "whole", *names), alone(out, *names)) == 0.0
