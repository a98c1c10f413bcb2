"""Commands on a model that makes pixels: no autoencoder anywhere, and the pipe is `generate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import tiny
from vidgen.io.stream import read_stream
from vidgen.io.video import read_video
from vidgen.train.recipe import load_recipe
from vidgen.train.task import make_task

PROMPT = "a red ball bounces"


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory) -> str:
    return str(tiny.pixels(tmp_path_factory.mktemp("pixels") / "model", tiny_model))


def test_prompt_to_mp4_by_pipe_and_at_once(vidgen, folder) -> None:
    made = vidgen("sample", "--model", folder, "--prompt", PROMPT, "--seed", "3")
    assert made.code == 0 and "keyframes alone" not in made.err, made.err
    larger = vidgen("upsample", "--model", folder, stdin=made.out)
    assert larger.code == 0, larger.err
    ran = vidgen("decode", "-o", "pipe.mp4", stdin=larger.out)  # with no model at all
    assert ran.code == 0, ran.err
    ran = vidgen("generate", PROMPT, "--model", folder, "--seed", "3", "-o", "once.mp4")
    assert ran.code == 0, ran.err
    pipe, once = (read_video(Path(name))[0] for name in ("pipe.mp4", "once.mp4"))
    assert pipe.shape == (3, 12, 32, 3)
    assert (pipe == once).all()


def test_plans_and_refusals(vidgen, folder) -> None:
    assert "latent space  pixels" in vidgen("models", "show", folder).text
    ran = vidgen("generate", PROMPT, "--model", folder, "--dry-run")
    assert ran.code == 0 and "none: pixels are converted" in ran.text, ran.err
    made = vidgen("sample", "--model", folder, "--prompt", PROMPT).out
    for words, code, said in (
        (("--scale", "8"), 2, "makes sides 2 times as long"),
        (("--noise-level", "0.9"), 2, "was trained on 0 to 0.5"),
    ):
        ran = vidgen("upsample", "--model", folder, *words, stdin=made)
        assert ran.code == code and said in ran.err
    plain = vidgen("upsample", "--model", folder, "--method", "bicubic", stdin=made)
    assert plain.code == 0, plain.err


def test_an_original_size_is_in_the_log_and_not_for_every_network(
    vidgen, folder, tiny_model, tmp_path
) -> None:
    Path("text.vgs").write_bytes(vidgen("encode-text", "--model", folder, PROMPT).out)
    ask = ("sample-keyframes", "text.vgs", "--original-size")
    made = vidgen(*ask, "8x3", "--model", folder, "-o", "small.vgs")
    assert made.code == 0 and made.err == "", made.err
    (record,) = read_stream("small.vgs")
    assert record.log[-1]["argv"] == ["sample-keyframes", "--original-size", "8x3"]
    assert vidgen(*ask, "8x3", "--model", folder, "-n").code == 0
    task = make_task(load_recipe(
        "world-snap-video-unet", preset="tiny", overrides=[f"data.text={tiny_model}"]
    ))  # fmt: skip
    task.export(task.build(), tmp_path / "unet")
    for model, size, said in (
        (folder, "17x6", "17x6: `snap-video-pixels` makes 16x6, and clips that it learned from"),
        (folder, "16x7", "16x7: `snap-video-pixels` makes 16x6"),
        (str(tmp_path / "unet"), "8x3", "the network of `snap-video-pixels` is told no size"),
        (str(tiny_model), "8x3", "the network of `tiny` is told no size"),
    ):
        for more in ((), ("-n",)):
            ran = vidgen(*ask, size, "--model", model, "-o", "none.vgs", *more)
            assert (ran.code, said in ran.err, ran.text) == (2, True, ""), ran.err
            assert len(ran.err.splitlines()) <= 2 and not Path("none.vgs").exists()


def test_without_a_scale_the_upsampler_makes_what_it_makes(vidgen, folder, tmp_path) -> None:
    """Of a model whose second stage makes sides four times as long."""
    settings = ["model.height=24", "model.width=64", "model.group=[3,6,16]", "data.height=24",
                "data.width=64"]  # fmt: skip
    recipe = load_recipe(
        "world-snap-video-upsampler", preset="tiny",
        overrides=[f"data.base={folder}", *settings],
    )  # fmt: skip
    task = make_task(recipe)
    task.export(task.build(), tmp_path / "four")
    words = ("--model", str(tmp_path / "four"))
    made = vidgen("sample", *words, "--prompt", PROMPT).out
    larger = vidgen("upsample", *words, "-o", "x.vgs", stdin=made)
    assert larger.code == 0, larger.err
    assert "--scale 4: what the upsampler of `snap-video-pixels` makes" in larger.err
    assert next(iter(read_stream("x.vgs")))["latents"].shape == (3, 3, 24, 64)
    again = vidgen("upsample", *words, "--scale", "4", "-o", "y.vgs", stdin=made)
    assert again.code == 0 and "what the upsampler" not in again.err
    assert Path("x.vgs").read_bytes() == Path("y.vgs").read_bytes()
    plan = vidgen("upsample", *words, "--dry-run", stdin=made)
    assert plan.code == 0 and "[3, 3, 24, 64]" in plan.text, plan.err


def test_the_opponent_of_the_fit_is_trained_and_sampled_in_the_same_way(
    vidgen, tiny_model, monkeypatch
) -> None:
    monkeypatch.setattr("vidgen.train.tasks.latents.SHARD", 64)
    words = ("--preset", "tiny", "--set", f"data.text={tiny_model}", "--set", "data.cache=cache")
    ran = vidgen("train", "world-snap-video-unet", *words, "--out", "run", "--device", "cpu")
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0]
    own = ("--system", "run/model")
    at_once = vidgen("sample", *own, "--prompt", PROMPT, "--seed", "3")
    assert at_once.code == 0, at_once.err
    text = vidgen("encode-text", *own, PROMPT)
    piped = vidgen("sample-keyframes", *own, "--seed", "3", stdin=text.out)
    assert piped.code == 0, piped.err
    Path("a.vgs").write_bytes(at_once.out)
    Path("b.vgs").write_bytes(piped.out)
    a, b = (next(iter(read_stream(name))) for name in ("a.vgs", "b.vgs"))
    assert a["latents"].shape == (3, 3, 6, 16)
    assert (a.torch("latents") == b.torch("latents")).all()
    for setting, said in (
        ("loss.self_conditioned=0.5", "an AdmUNet has no latent tokens"),
        ("model.multipliers=[1,2,3]", "attention and multipliers need one entry a level"),
        ("data.height=7", "must be multiples of 2"),
    ):
        ran = vidgen("train", "world-snap-video-unet", *words, "--set", setting, "-n")
        assert ran.code == 2 and said in ran.err and len(ran.err.splitlines()) <= 2
