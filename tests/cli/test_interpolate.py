"""`vidgen interpolate` as a command: what is told before weights are read, plans."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from inprocess import refused

from vidgen.errors import Exit
from vidgen.io.stream import read_stream


def test_the_pipeline_decodes_to_more_frames(on_latents):
    assert on_latents("interpolate", "latents.vgs", "--passes", "2", "-o", "dense.vgs").code == 0
    assert [r["latents"].shape[1] for r in read_stream("dense.vgs")] == [33, 33]
    assert on_latents("decode", "dense.vgs", "-o", "{id}.mp4").code == 0
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
def test_usage(on_latents, no_networks, words, said):
    refused(
        on_latents("interpolate", "latents.vgs", *words, "-o", "x"), "interpolate", Exit.USAGE, said
    )
    assert not Path("x").exists()


@pytest.mark.parametrize("method", ["grouped", "masked"])
def test_a_model_without_the_component(on_latents, no_networks, tiny_model, method):
    component = "interpolation" if method == "grouped" else "interpolation_masked"
    shutil.rmtree(shutil.copytree(tiny_model, "model") + f"/{component}")
    words = ["latents.vgs", "--model", "model", "--method", method, "-o", "x"]
    for more in ([], ["--dry-run"]):
        ran = on_latents("interpolate", *words, *more)
        refused(
            ran,
            "interpolate",
            Exit.BAD_INPUT,
            f"no component `{component}`",
            "vidgen models show /",
        )


def test_a_warning_for_a_spacing_that_is_not_known(on_latents):
    ran = on_latents("interpolate", "latents.vgs", "--passes", "3", "-o", "x.vgs")
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
def test_plans(on_latents, words, said):
    ran = on_latents("interpolate", "latents.vgs", "--dry-run", *words)
    assert (ran.code, ran.err) == (0, "")
    for word in said:
        assert word in ran.text


def test_masked_frames_cost_several_times_as_much(on_latents):
    """A group is one map on the grouped network's time axis, and five on the other's."""
    cost = {}
    for method in ("grouped", "masked"):
        text = on_latents("interpolate", "latents.vgs", "-n", "--method", method).text
        (line,) = [x for x in text.splitlines() if "FLOPs" in x]
        cost[method] = float(line.split()[1])
    assert cost["masked"] > 3 * cost["grouped"]
