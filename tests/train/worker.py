"""One process of distributed runs: `worker.py JOBS.json`, with torchrun's variables set.

A job is {"out", "overrides", "port", "stop_at"}: the last process gets SIGTERM while the batch of
step `stop_at` is made. Prints a JSON list with one exit code a job. Several jobs in one process,
because starting one takes longer than training the tiny task.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import tiny_task
import torch

from vidgen.errors import VidgenError
from vidgen.train.loop import train
from vidgen.train.recipe import load_recipe

torch.set_num_threads(1)


def run(job: dict) -> int:
    recipe = load_recipe(Path(__file__).with_name("tiny.yaml"), overrides=job["overrides"])
    os.environ["MASTER_PORT"] = str(job["port"])
    plain = tiny_task.TinyTask.batch

    def batch(task, step, rank, world):
        if step == job.get("stop_at") and rank == world - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(task, step, rank, world)

    tiny_task.TinyTask.batch = batch
    try:
        train(recipe, job["out"], device="cpu")
    except VidgenError as error:
        print("\n".join(error.lines()), file=sys.stderr)
        return int(error.exit_code)
    finally:
        tiny_task.TinyTask.batch = plain
    return 0


print(json.dumps([run(job) for job in json.loads(Path(sys.argv[1]).read_text())]))
