"""`vidgen upsample` as a command: what is told before weights are read, plans, cut streams."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vidgen.errors import Exit
from vidgen.io.stream import read_stream
from vidgen.systems.upsampling import Upsampler


@pytest.fixture
def run(vidgen, tiny_model, monkeypatch):
    """`vidgen` on the tiny model, with latents.vgs of two records."""
    monkeypatch.setenv("VIDGEN_MODEL", str(tiny_model))
    rows = b'{"id": "a", "prompt": "a red ball"}\n{"id": "b", "prompt": "a blue cube"}\n'
    Path("rows.jsonl").write_bytes(rows)
    assert vidgen("encode-text", "-i", "rows.jsonl", "-o", "text.vgs").code == 0
    assert vidgen("sample-keyframes", "text.vgs", "-o", "latents.vgs").code == 0
    return vidgen


@pytest.fixture
def weights(monkeypatch):
    """Fails the test when weights are read."""
    monkeypatch.setattr(Upsampler, "load", lambda self: pytest.fail("weights were read"))


def refused(ran, code: Exit, *words: str) -> None:
    """It ended with the code, in three lines at most that hold the words."""
    assert ran.code == code, ran.err
    lines = ran.err.splitlines()
    assert lines[0].startswith("vidgen upsample: ") and len(lines) <= 3
    for word in words:
        assert word in ran.err


def test_the_pipeline_decodes_to_larger_frames(run):
    assert run("upsample", "latents.vgs", "--scale", "4", "-o", "large.vgs").code == 0
    assert run("decode", "large.vgs", "-o", "frames.vgs").code == 0
    assert [r["frames"].shape for r in read_stream("frames.vgs")] == [(3, 64, 128, 3)] * 2


def test_times_that_interpolation_made_are_known(run):
    assert run("interpolate", "latents.vgs", "-o", "dense.vgs").code == 0
    ran = run("upsample", "dense.vgs", "-o", "large.vgs")
    assert ran.code == 0 and "trained on" not in ran.err
    assert [r["latents"].shape for r in read_stream("large.vgs")] == [(4, 9, 4, 8)] * 2
    assert [r.log[-1]["skip"] for r in read_stream("large.vgs")] == [3, 3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scale", "3"), "--scale 3: sides are doubled"),
        (("--scale", "two"), "--scale two: must be"),
        (("--method", "bilinea"), "did you mean bilinear?"),
        (("--method", "bilinear", "--steps", "3"), "--steps 3: --method bilinear has no network"),
        (("--method", "bilinear", "--device", "cpu"), "--device has no effect here"),
        (("--method", "bicubic", "--attention", "math"), "--attention has no effect here"),
        (("--noise-level", "2"), "--noise-level 2: must be"),
        (("--noise-level", "0.9"), "--noise-level 0.9: `tiny` was trained on 0 to 0.5"),
        (("--device", "cuda:99"), "CUDA device"),
        (("--model", "nonesuch"), "no model called `nonesuch`"),
    ],
)
def test_usage(run, weights, words, said):
    refused(run("upsample", "latents.vgs", *words, "-o", "x"), Exit.USAGE, said)
    assert not Path("x").exists()


def test_a_model_without_the_component(run, weights, tiny_model):
    shutil.rmtree(shutil.copytree(tiny_model, "model") + "/upsampler")
    for more in ([], ["--dry-run"]):
        ran = run("upsample", "latents.vgs", "--model", "model", "-o", "x", *more)
        refused(ran, Exit.BAD_INPUT, "no component `upsampler`", "vidgen models show tiny")


def test_latents_of_another_model(run, weights, other_model):
    ran = run("upsample", "latents.vgs", "--model", str(other_model), "-o", "x")
    refused(ran, Exit.BAD_INPUT, "tiny-vae@", "`other` upsamples `other-vae@")


def test_bilinear_takes_latents_of_any_model_and_needs_none(run, monkeypatch):
    monkeypatch.setenv("VIDGEN_MODEL", "nonesuch")
    assert run("upsample", "latents.vgs", "--method", "bilinear", "-o", "x.vgs").code == 0


def test_the_wrong_kind(run, weights):
    refused(run("upsample", "text.vgs", "-o", "x"), Exit.BAD_INPUT, "holds text", "latents")


def test_too_little_memory(run, weights, monkeypatch):
    monkeypatch.setattr("vidgen.stages.memory.free_bytes", lambda device: 500_000)
    ran = run("upsample", "latents.vgs", "--scale", "8", "--batch-size", "1", "-o", "x")
    refused(ran, Exit.OUT_OF_MEMORY, "--scale 8 of `a` takes about", "500.0 kB free", "smaller")


def test_a_cut_stream_keeps_what_was_whole(run):
    data = Path("latents.vgs").read_bytes()
    ran = run("upsample", "-o", "-", stdin=data[:-40])
    assert ran.code == Exit.BAD_INPUT and "Traceback" not in ran.err
    Path("part.vgs").write_bytes(ran.out)
    first = next(iter(read_stream("part.vgs")))
    assert first.id == "a" and first["latents"].shape == (4, 3, 4, 8)


def test_bicubic_needs_the_autoencoder_alone(run, weights, tiny_model):
    shutil.rmtree(shutil.copytree(tiny_model, "model") + "/upsampler")
    words = ["latents.vgs", "--model", "model", "--method", "bicubic", "-o", "x.vgs"]
    assert run("upsample", *words).code == 0
    shutil.rmtree("model/vae")
    for more in ([], ["--dry-run"]):
        refused(run("upsample", *words, *more), Exit.BAD_INPUT, "no component `vae`")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), ["model    tiny/upsampler (", "[4, 3, 4, 8] float32", "euler, 4 steps",
              "noise level 0.05: 4 network calls a pass", "FLOPs", "memory", "free", "time"]),
        (("--scale", "8", "--steps", "7", "--noise-level", "0"),
         ["[4, 3, 16, 32]", "7 steps, noise level 0: 7 network calls a pass"]),
        (("--method", "bicubic"),
         ["method   bicubic", "model    tiny/vae (", "[4, 3, 4, 8]", "FLOPs", "memory", "free"]),
        (("--method", "bilinear"), ["method   bilinear", "[4, 3, 4, 8]", "memory", "free"]),
    ],
)  # fmt: skip
def test_plans(run, words, said):
    ran = run("upsample", "latents.vgs", "--dry-run", *words)
    assert (ran.code, ran.err) == (0, "")
    for word in said:
        assert word in ran.text


def test_a_plan_counts_every_pass(run):
    """Four times the cells, and again: 1 + 4 + 16 of the first pass."""
    cost = {}
    for scale in ("2", "8"):
        text = run("upsample", "latents.vgs", "-n", "--scale", scale).text
        (line,) = [x for x in text.splitlines() if "FLOPs" in x]
        cost[scale] = float(line.split()[1])
    assert 17 < cost["8"] / cost["2"] < 21
