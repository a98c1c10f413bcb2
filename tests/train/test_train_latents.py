"""The cache of latents: named for what decides its content, made by all processes together."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.systems.base import Geometry
from vidgen.train.distributed import World
from vidgen.train.tasks import latents

ROOT = Path(__file__).parents[2]
GEOMETRY = Geometry(5, 40, 64, 2.0)

# One process. Its encoder writes down what it was asked for, and says the seed.
WORKER = """
import json, sys
from pathlib import Path
import torch
from vidgen.systems.base import Geometry
from vidgen.train import distributed
from vidgen.train.tasks import latents

made = []

def encode(seeds, *args):
    made.extend(seeds)
    return torch.tensor(list(seeds), dtype=torch.float32)[:, None]

latents.SHARD, latents.CHUNK, latents.encode_scenes = 4, 2, encode
with distributed.join("cpu") as world:
    found = latents.cached_latents(
        Path(sys.argv[1]), 19, None, level="basic", geometry=Geometry(5, 40, 64, 2.0),
        world=world, say=lambda text: None,
    )
print(json.dumps({"made": made, "found": found[:, 0].tolist()}))
"""


def test_the_folder_is_named_for_all_that_decides_its_latents(monkeypatch) -> None:
    root, space = Path("cache"), "world-vae@2f41"
    named = latents.cache_folder(root, space, GEOMETRY, torch.bfloat16)
    assert named == root / "world-vae-2f41" / f"5x40x64@2-bfloat16-r{latents.RENDERER}"
    others = [
        latents.cache_folder(root, space, GEOMETRY, torch.float32),
        latents.cache_folder(root, "world-vae@0000", GEOMETRY, torch.bfloat16),
        *(
            latents.cache_folder(
                root, space, dataclasses.replace(GEOMETRY, **change), torch.bfloat16
            )
            for change in ({"num_frames": 9}, {"height": 80}, {"width": 128}, {"fps": 2.5})
        ),
    ]
    monkeypatch.setattr(latents, "RENDERER", latents.RENDERER + 1)
    others.append(latents.cache_folder(root, space, GEOMETRY, torch.bfloat16))
    assert len({named, *others}) == 8


def test_two_processes_make_every_shard_once(tmp_path) -> None:
    if not torch.distributed.is_available():
        pytest.skip("this torch is built without torch.distributed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True,
            env=os.environ | {
                "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port, "WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank,
            },
        )
        for rank in "01"
    ]  # fmt: skip
    try:
        told = [json.loads(p.communicate(timeout=120)[0]) for p in processes]
    finally:
        for p in processes:
            p.kill()
    assert [said["found"] for said in told] == [list(range(19))] * 2
    assert told[0]["made"] == [*range(4), *range(8, 12), *range(16, 20)]
    assert told[1]["made"] == [*range(4, 8), *range(12, 16)]


def test_what_is_there_is_not_made_again(tmp_path, monkeypatch) -> None:
    made: list[int] = []

    def encode(seeds: range, *args) -> torch.Tensor:
        made.extend(seeds)
        return torch.tensor(list(seeds), dtype=torch.float32)[:, None]

    monkeypatch.setattr(latents, "SHARD", 4)
    monkeypatch.setattr(latents, "CHUNK", 2)
    monkeypatch.setattr(latents, "encode_scenes", encode)
    alone = World(0, 1, torch.device("cpu"))
    for num in (6, 11):
        found = latents.cached_latents(
            tmp_path, num, VideoAutoencoder.__new__(VideoAutoencoder),
            level="basic", geometry=GEOMETRY, world=alone, say=lambda text: None,
        )  # fmt: skip
        assert found[:, 0].tolist() == list(range(num))
    assert made == list(range(12))
