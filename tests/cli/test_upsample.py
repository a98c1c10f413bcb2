"""`vidgen upsample` as a command: what is told before weights are read, plans."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from inprocess import refused

from vidgen.errors import Exit
from vidgen.io.stream import read_stream


def test_the_pipeline_decodes_to_larger_frames(on_latents):
    assert on_latents("upsample", "latents.vgs", "--scale", "4", "-o", "large.vgs").code == 0
    assert on_latents("decode", "large.vgs", "-o", "frames.vgs").code == 0
    assert [r["frames"].shape for r in read_stream("frames.vgs")] == [(3, 64, 128, 3)] * 2


def test_times_that_interpolation_made_are_known(on_latents):
    assert on_latents("interpolate", "latents.vgs", "-o", "dense.vgs").code == 0
    ran = on_latents("upsample", "dense.vgs", "-o", "large.vgs")
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
def test_usage(on_latents, no_networks, words, said):
    refused(on_latents("upsample", "latents.vgs", *words, "-o", "x"), "upsample", Exit.USAGE, said)
    assert not Path("x").exists()


def test_a_model_without_the_component(on_latents, no_networks, tiny_model):
    shutil.rmtree(shutil.copytree(tiny_model, "model") + "/upsampler")
    for more in ([], ["--dry-run"]):
        ran = on_latents("upsample", "latents.vgs", "--model", "model", "-o", "x", *more)
        refused(ran, "upsample", Exit.BAD_INPUT, "no component `upsampler`", "vidgen models show /")


def test_too_little_memory(on_latents, no_networks, monkeypatch):
    monkeypatch.setattr("vidgen.stages.memory.free_bytes", lambda device: 500_000)
    ran = on_latents("upsample", "latents.vgs", "--scale", "8", "--batch-size", "1", "-o", "x")
    refused(
        ran,
        "upsample",
        Exit.OUT_OF_MEMORY,
        "--scale 8 of `a` takes about",
        "500.0 kB free",
        "smaller",
    )


def test_bicubic_needs_the_autoencoder_alone(on_latents, no_networks, tiny_model):
    shutil.rmtree(shutil.copytree(tiny_model, "model") + "/upsampler")
    words = ["latents.vgs", "--model", "model", "--method", "bicubic", "-o", "x.vgs"]
    assert on_latents("upsample", *words).code == 0
    shutil.rmtree("model/vae")
    for more in ([], ["--dry-run"]):
        refused(
            on_latents("upsample", *words, *more), "upsample", Exit.BAD_INPUT, "no component `vae`"
        )


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
def test_plans(on_latents, words, said):
    ran = on_latents("upsample", "latents.vgs", "--dry-run", *words)
    assert (ran.code, ran.err) == (0, "")
    for word in said:
        assert word in ran.text


def test_a_plan_counts_every_pass(on_latents):
    """Four times the cells, and again: 1 + 4 + 16 of the first pass."""
    cost = {}
    for scale in ("2", "8"):
        text = on_latents("upsample", "latents.vgs", "-n", "--scale", scale).text
        (line,) = [x for x in text.splitlines() if "FLOPs" in x]
        cost[scale] = float(line.split()[1])
    assert 17 < cost["8"] / cost["2"] < 21
