"""`vidgen decode --decoder`: which of a model's decoders, told before weights are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from vidgen.errors import Exit
from vidgen.io.record import Record
from vidgen.io.stream import read_stream, write_stream
from vidgen.nn.movq import MoVQConfig, MoVQDecoder
from vidgen.systems import save
from vidgen.systems.base import ModelFolder


@pytest.fixture
def run(vidgen, tiny_model, monkeypatch):
    """`vidgen` on the tiny model, and in model/ the same with a video decoder; latents.vgs."""
    monkeypatch.setenv("VIDGEN_MODEL", str(tiny_model))
    shutil.copytree(tiny_model, "model")
    config = MoVQConfig(
        channels=4, widths=(8, 8, 8), blocks=1, attention=(), patch=2, groups=4, temporal="conv1d"
    )
    settings = {"_class_name": "MoVQDecoder", "stride": config.stride, **config.to_dict()}
    save.write_component(Path("model/video_decoder"), settings, MoVQDecoder(config))
    index = json.loads(Path("model/model_index.json").read_text())
    index["video_decoder"] = save.CLASSES["video_decoder"]
    Path("model/model_index.json").write_text(json.dumps(index))
    attrs = {"latent_space": ModelFolder(tiny_model).latent_space, "height": 16, "width": 24}
    latents = torch.randn(4, 3, 2, 3)
    with open("latents.vgs", "wb") as f:
        write_stream([Record.make("latents", "a", {"latents": latents}, attrs)], f)
    return vidgen


def model_of(path: str) -> str:
    (record,) = read_stream(path)
    return record.log[-1]["model"]["name"]


def test_the_video_decoder_is_taken_unless_the_image_decoder_is_asked_for(run):
    decode = ("decode", "latents.vgs", "--model", "model")
    for words, name in (
        ((), "tiny/video_decoder"),
        (("--decoder", "video"), "tiny/video_decoder"),
        (("--decoder", "image"), "tiny/vae"),
    ):
        assert run(*decode, *words, "-o", "frames.vgs", "-f").code == 0
        assert model_of("frames.vgs") == name
    assert run("decode", "latents.vgs", "-o", "frames.vgs", "-f").code == 0
    assert model_of("frames.vgs") == "tiny/vae"


def test_dry_run_names_it(run):
    ran = run("decode", "latents.vgs", "--model", "model", "--dry-run")
    assert ran.code == 0 and "tiny/video_decoder" in ran.text


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_model_without_one_and_words_that_are_none(run, more):
    ran = run("decode", "latents.vgs", "--decoder", "video", "-o", "x.vgs", *more)
    assert ran.code == Exit.USAGE and "has no component `video_decoder`" in ran.err
    ran = run("decode", "latents.vgs", "--decoder", "movie", "-o", "x.vgs", *more)
    assert ran.code == Exit.USAGE and "movie" in ran.err


def test_verify_knows_it(run):
    ran = run("models", "verify", "model")
    assert ran.code == 0, ran.err
    assert "video_decoder" in ran.text
