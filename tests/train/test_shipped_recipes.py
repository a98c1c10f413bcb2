"""Every shipped recipe, tiny: it runs, resumes to the bit, and learns."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from vidgen.errors import TryAgain
from vidgen.train.checkpoint import checkpoints
from vidgen.train.loop import train
from vidgen.train.recipe import Recipe, load_recipe, shipped_recipes

NAMES = [name for name in shipped_recipes() if name not in ("tiny", "world-decoder")]


# Of the world, as far as each has seen it: some of the clips of keyframes are of the full one.
LEVELS = {"world-keyframes": "full", "world-snap-video": "basic"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """A tiny model, for the recipes that build on trained parts."""
    return tiny.make(tmp_path_factory.mktemp("parts") / "tiny")


@pytest.fixture(scope="module")
def base(parts, tmp_path_factory) -> Path:
    """A tiny model in pixels, for its upsampler."""
    return tiny.pixels(tmp_path_factory.mktemp("base") / "pixels", parts)


def read(name: str, preset: str, parts: Path, base: Path, tmp_path: Path) -> Recipe:
    settings = []
    from_text = ("world-keyframes", "world-snap-video")
    on_latents = ("world-interpolation", "world-interpolation-transformer", "world-upsampler")
    if name in (*from_text, *on_latents):
        settings = [f"data.vae={parts}", f"data.cache={tmp_path / 'cache'}"]
    if name in (*from_text, "world-snap-video-pixels", "world-snap-video-unet"):
        settings.append(f"data.text={parts}")
    if name == "world-snap-video-upsampler":
        settings.append(f"data.base={base}")
    if name.startswith("world-snap-video-"):
        settings.append(f"data.cache={tmp_path / 'cache'}")
    return load_recipe(name, preset=preset, overrides=settings)


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("vidgen.train.tasks.latents.SHARD", 64)


def stop_at(step: int):
    """A progress callback that asks this process to end when `step` is logged."""

    def progress(event: dict) -> None:
        if event["event"] == "step" and event["step"] == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


@pytest.mark.parametrize("name", NAMES)
def test_runs_resumes_to_the_bit_and_learns(name, parts, base, tmp_path) -> None:
    recipe = read(name, "tiny", parts, base, tmp_path)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train(recipe, whole, device="cpu")
    with pytest.raises(TryAgain):
        train(recipe, parted, device="cpu", progress=stop_at(12))
    train(recipe, parted, device="cpu", resume="yes")
    assert losses(whole) == losses(parted)
    assert losses(whole)[-1] < losses(whole)[0]
    last = [load_file(checkpoints(run)[-1] / "tensors.safetensors") for run in (whole, parted)]
    assert last[0].keys() == last[1].keys()
    assert all(torch.equal(last[0][k], last[1][k]) for k in last[0])
    if name in LEVELS:
        config = json.loads((whole / "model" / "transformer" / "config.json").read_text())
        assert config["sample"]["level"] == LEVELS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["world-autoencoder", "world-text"])
def test_the_base_preset_trains(name, parts, base, tmp_path) -> None:
    recipe = read(name, "base", parts, base, tmp_path).replace(
        steps=2, minutes=None, batch_size=4, log_every=1, eval_every=0
    )
    assert train(recipe, tmp_path / "run", device="cpu").step == 2
