"""`vidgen interpolate` and `vidgen upsample`: what is the same of both."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from inprocess import refused

from vidgen.errors import Exit
from vidgen.io.stream import read_stream

BOTH = pytest.mark.parametrize("command", ["interpolate", "upsample"])


@BOTH
def test_every_method_is_a_choice_of_the_command(command):
    from vidgen.cli import interpolate, upsample
    from vidgen.stages import interpolate as interpolating
    from vidgen.stages import upsample as upsampling

    page, stage = {
        "interpolate": (interpolate, interpolating), "upsample": (upsample, upsampling)
    }[command]  # fmt: skip
    assert get_args(get_args(page.Method)[0]) == stage.METHODS


@BOTH
def test_latents_of_another_model(on_latents, no_networks, other_model, command):
    for more in ([], ["--dry-run"]):
        ran = on_latents(command, "latents.vgs", "--model", str(other_model), "-o", "x", *more)
        said = ("tiny-vae@", f"`other` {command}s `other-vae@")
        refused(ran, command, Exit.BAD_INPUT, *said)


@pytest.mark.parametrize(
    ("command", "method"), [("interpolate", "linear"), ("upsample", "bilinear")]
)
def test_a_formula_takes_latents_of_any_model_and_needs_none(
    on_latents, monkeypatch, command, method
):
    monkeypatch.setenv("VIDGEN_MODEL", "nonesuch")
    assert on_latents(command, "latents.vgs", "--method", method, "-o", "x.vgs").code == 0


@BOTH
def test_the_wrong_kind(on_latents, no_networks, command):
    ran = on_latents(command, "text.vgs", "-o", "x")
    refused(ran, command, Exit.BAD_INPUT, "holds text", "latents")


@pytest.mark.parametrize(
    ("command", "shape"), [("interpolate", (4, 9, 2, 4)), ("upsample", (4, 3, 4, 8))]
)
def test_a_cut_stream_keeps_what_was_whole(on_latents, command, shape):
    data = Path("latents.vgs").read_bytes()
    ran = on_latents(command, "-o", "-", stdin=data[:-40])
    assert ran.code == Exit.BAD_INPUT and "Traceback" not in ran.err
    Path("part.vgs").write_bytes(ran.out)
    first = next(iter(read_stream("part.vgs")))
    assert first.id == "a" and first["latents"].shape == shape
    ran = on_latents(command, "part.vgs", "-o", "y.vgs")  # without a last record
    assert ran.code == Exit.BAD_INPUT


@pytest.mark.parametrize(
    ("words", "count", "sizes"),
    [
        (("interpolate",), "_flops_of_groups", [3]),
        (("interpolate", "--passes", "2"), "_flops_of_groups", [3, 9]),
        (("upsample",), "_flops_of_enlarging", [4]),
        (("upsample", "--scale", "4"), "_flops_of_enlarging", [4, 8]),
    ],
)
def test_a_plan_counts_the_whole_stream(on_latents, monkeypatch, words, count, sizes):
    """Each shape once, however many records have it."""
    from vidgen.stages import plan

    counted, original = [], getattr(plan, count)
    monkeypatch.setattr(plan, count, lambda *a: counted.append(a[-1]) or original(*a))
    sampled = on_latents("sample-keyframes", "text.vgs", "--num-samples", "3", "-o", "more.vgs")
    assert sampled.code == 0
    flops = []
    for name, records in (("latents.vgs", 2), ("more.vgs", 6)):
        text = on_latents(*words, name, "-n").text
        (line,) = [x for x in text.splitlines() if "FLOPs" in x]
        flops.append(float(line.split()[1]))
        assert line.endswith(f" for {records} records")
    assert flops[1] == pytest.approx(3 * flops[0], rel=0.01)
    axis = 1 if words[0] == "interpolate" else 2
    assert [shape[axis] for shape in counted] == sizes * 2
