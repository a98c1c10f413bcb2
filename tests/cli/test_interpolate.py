"""`vidgen interpolate` as a command: what is told before weights are read, plans, cut streams."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vidgen.errors import Exit
from vidgen.io.stream import read_stream
from vidgen.systems.interpolation import Interpolator


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
    monkeypatch.setattr(Interpolator, "load", lambda self: pytest.fail("weights were read"))


def refused(ran, code: Exit, *words: str) -> None:
    """It ended with the code, in three lines at most that hold the words."""
    assert ran.code == code, ran.err
    lines = ran.err.splitlines()
    assert lines[0].startswith("vidgen interpolate: ") and len(lines) <= 3
    for word in words:
        assert word in ran.err


def test_the_pipeline_decodes_to_more_frames(run):
    assert run("interpolate", "latents.vgs", "--passes", "2", "-o", "dense.vgs").code == 0
    assert [r["latents"].shape[1] for r in read_stream("dense.vgs")] == [33, 33]
    assert run("decode", "dense.vgs", "-o", "{id}.mp4").code == 0
    assert Path("a.mp4").is_file() and Path("b.mp4").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--passes", "0"), "--passes 0: must be"),
        (("--passes", "5"), "--passes 5: must be"),
        (("--method", "lineer"), "did you mean linear?"),
        (("--method", "linear", "--steps", "3"), "--steps 3: --method linear blends neighbors"),
        (("--method", "linear", "--cfg", "2"), "--guidance-scale 2: --method linear"),
        (("--method", "linear", "--model", "world"), "--model has no effect here"),
        (("--method", "linear", "--compile"), "--compile has no effect here: the method samples"),
        (("--device", "cuda:99"), "CUDA device"),
        (("--model", "nonesuch"), "no model called `nonesuch`"),
    ],
)
def test_usage(run, weights, words, said):
    refused(run("interpolate", "latents.vgs", *words, "-o", "x"), Exit.USAGE, said)
    assert not Path("x").exists()


@pytest.mark.parametrize("method", ["grouped", "masked"])
def test_a_model_without_the_component(run, weights, tiny_model, method):
    component = "interpolation" if method == "grouped" else "interpolation_masked"
    shutil.rmtree(shutil.copytree(tiny_model, "model") + f"/{component}")
    words = ["latents.vgs", "--model", "model", "--method", method, "-o", "x"]
    for more in ([], ["--dry-run"]):
        ran = run("interpolate", *words, *more)
        refused(ran, Exit.BAD_INPUT, f"no component `{component}`", "vidgen models show tiny")


def test_latents_of_another_model(run, weights, other_model):
    for more in ([], ["--dry-run"]):
        ran = run("interpolate", "latents.vgs", "--model", str(other_model), "-o", "x", *more)
        refused(ran, Exit.BAD_INPUT, "tiny-vae@", "`other` interpolates `other-vae@")


def test_linear_takes_latents_of_any_model_and_needs_none(run, monkeypatch):
    monkeypatch.setenv("VIDGEN_MODEL", "nonesuch")
    assert run("interpolate", "latents.vgs", "--method", "linear", "-o", "x.vgs").code == 0


def test_the_wrong_kind(run, weights):
    refused(run("interpolate", "text.vgs", "-o", "x"), Exit.BAD_INPUT, "holds text", "latents")


def test_a_cut_stream_keeps_what_was_whole(run):
    data = Path("latents.vgs").read_bytes()
    ran = run("interpolate", "-o", "-", stdin=data[:-40])
    assert ran.code == Exit.BAD_INPUT and "Traceback" not in ran.err
    Path("part.vgs").write_bytes(ran.out)
    first = next(iter(read_stream("part.vgs")))
    assert first.id == "a" and first["latents"].shape[1] == 9
    ran = run("interpolate", "part.vgs", "-o", "y.vgs")  # without a last record
    assert ran.code == Exit.BAD_INPUT


def test_a_warning_for_a_spacing_that_is_not_known(run):
    ran = run("interpolate", "latents.vgs", "--passes", "3", "-o", "x.vgs")
    assert ran.code == 0
    assert "trained on" in ran.err and "it is told 0.04167 s" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), ["model    tiny/interpolation (", "[4, 9, 2, 4] float32", "euler, 3 steps",
              "guidance 1.25: 6 network calls a pass", "FLOPs", "memory", "time"]),
        (("--passes", "2", "--steps", "7", "--cfg", "1"),
         ["[4, 33, 2, 4]", "7 steps, guidance 1: 7 network calls a pass"]),
        (("--method", "linear"), ["method   linear", "[4, 9, 2, 4]"]),
    ],
)  # fmt: skip
def test_plans(run, words, said):
    ran = run("interpolate", "latents.vgs", "--dry-run", *words)
    assert (ran.code, ran.err) == (0, "")
    for word in said:
        assert word in ran.text


def test_masked_frames_cost_several_times_as_much(run):
    """A group is one map on the grouped network's time axis, and five on the other's."""
    cost = {}
    for method in ("grouped", "masked"):
        text = run("interpolate", "latents.vgs", "-n", "--method", method).text
        (line,) = [x for x in text.splitlines() if "FLOPs" in x]
        cost[method] = float(line.split()[1])
    assert cost["masked"] > 3 * cost["grouped"]
