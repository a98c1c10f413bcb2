"""Model folders that make no sense: one line that names the file and the key, and exit code 3."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vidgen.errors import Exit

TRANSFORMER, SCHEDULER = "transformer/config.json", "scheduler/scheduler_config.json"


@pytest.fixture
def model(vidgen, tiny_model, tmp_path) -> Path:
    """A copy of the tiny model, to be spoiled, and text.vgs and latents.vgs that it made."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    assert vidgen("encode-text", "a ball", "--model", "model", "-o", "text.vgs").code == 0
    words = ["sample-keyframes", "text.vgs", "--model", "model", "-o", "latents.vgs"]
    assert vidgen(*words).code == 0
    return folder


def edit(path: Path, **values) -> None:
    """Other values for some keys; None takes a key away. `sample__fps` is `fps` in `sample`."""
    settings = json.loads(path.read_text())
    for key, value in values.items():
        *outer, last = key.split("__")
        place = settings
        for name in outer:
            place = place[name]
        place.pop(last)
        if value is not None:
            place[last] = value
    path.write_text(json.dumps(settings))


def refused(ran, *words: str) -> None:
    assert ran.code == Exit.BAD_INPUT, ran.err
    assert "Traceback" not in ran.err and len(ran.err.splitlines()) <= 3
    for word in words:
        assert word in ran.err.splitlines()[0]


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        (TRANSFORMER, {"sample": None}, "no `sample`"),
        (TRANSFORMER, {"sample": 3}, "no `sample`"),
        (TRANSFORMER, {"sample__fps": None}, "sample.fps is null, must be a number above 0"),
        (TRANSFORMER, {"sample__fps": 0}, "sample.fps is 0"),
        (TRANSFORMER, {"sample__height": "16"}, 'sample.height is "16", must be a whole number'),
        (TRANSFORMER, {"sample__width": 8}, "patches of [1, 1, 2] don't divide"),
        (TRANSFORMER, {"depth": 3}, "not those of its config.json: lacks `blocks.2"),
        (TRANSFORMER, {"depth": 1}, "holds `blocks.1"),
        (TRANSFORMER, {"channels": 8}, "the shape of `"),
        (TRANSFORMER, {"dim": 33}, "builds no VideoDiT: rope_dims"),
        (TRANSFORMER, {"heads": 0}, "builds no VideoDiT"),
        (TRANSFORMER, {"heads": "2"}, "builds no VideoDiT"),
        (TRANSFORMER, {"text_dim": None}, "text_dim is null"),
        (SCHEDULER, {"schedule": "linear"}, "no schedule is called `linear`"),
        (SCHEDULER, {"prediction": "velocity"}, "no prediction is called `velocity`"),
        (SCHEDULER, {"solver": "ouler"}, "no solver is called `ouler`"),
        (SCHEDULER, {"solver": None}, "solver is null, must be text"),
        (SCHEDULER, {"num_inference_steps": 2.5}, "num_inference_steps is 2.5"),
        (SCHEDULER, {"shift": 0}, "shift is 0, must be a number above 0"),
        ("vae/config.json", {"stride": None}, "stride is null"),
    ],
)  # fmt: skip
def test_what_samples_cannot_be_made_with(vidgen, model, file, values, words):
    edit(model / file, **values)
    for line in ("sample-keyframes text.vgs", "generate ball"):
        refused(vidgen(*line.split(), "--model", "model", "-o", "x.mp4"), words, "model/")


@pytest.mark.parametrize("content", ["[]", "{", '"text"', "\udcff", "[" * 100000])
def test_configs_that_are_no_objects(vidgen, model, content):
    for file in (TRANSFORMER, SCHEDULER):
        whole = (model / file).read_bytes()
        (model / file).write_bytes(content.encode(errors="surrogateescape"))
        refused(vidgen("sample-keyframes", "text.vgs", "--model", "model", "-o", "x"), file)
        (model / file).write_bytes(whole)


def test_decoders_of_other_weights(vidgen, model):
    """The latent space names the config too, so it is not even looked for in the weights."""
    edit(model / "vae/config.json", decoder_blocks=2)
    ran = vidgen("encode-text", "ball", "--model", "model", "-o", "t.vgs")
    assert ran.code == 0
    words = ["--model", "model", "-o", "x.vgs", "-f"]
    assert vidgen("sample-keyframes", "t.vgs", *words).code == 0
    refused(vidgen("decode", "x.vgs", "--model", "model", "-o", "x.mp4"), "lacks `decoder")


def test_text_towers_that_cannot_be_read(vidgen, model):
    words = ["encode-text", "ball", "--no-cache", "--model", "model", "-o", "x"]
    edit(model / "text_encoder/config.json", hidden_size=20, num_attention_heads=2)
    refused(vidgen(*words), "text_encoder: can't be loaded")
    (model / "tokenizer/tokenizer.json").write_text("{}")
    refused(vidgen(*words), "tokenizer.json: can't be read")


@pytest.mark.parametrize("schedule", ["karras", "cosine", "ddpm_scaled_linear"])
def test_schedules_without_a_shift(vidgen, model, schedule):
    edit(model / SCHEDULER, schedule=schedule, prediction="v")
    words = ["sample-keyframes", "text.vgs", "--model", "model", "-o"]
    assert vidgen(*words, "x.vgs").code == 0
    ran = vidgen(*words, "y.vgs", "--shift", "2")
    assert (ran.code, f"{schedule}, has no shift" in ran.err) == (Exit.USAGE, True)
