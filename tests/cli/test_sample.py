"""`vidgen sample` and the cascade in `vidgen generate`: the bytes of the stages in a pipe, what a
model's folder has parts for, and wishes that it can't fulfil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vidgen.errors import Exit
from vidgen.io.stream import read_stream
from vidgen.io.video import read_video
from vidgen.systems import world
from vidgen.systems.base import Enlarged

PROMPT = "a red ball bounces"


@pytest.fixture
def run(vidgen, tiny_model, monkeypatch):
    """`vidgen` on the tiny model."""
    monkeypatch.setenv("VIDGEN_MODEL", str(tiny_model))
    return vidgen


@pytest.fixture
def weights(monkeypatch):
    """Fails the test when weights are read."""
    for name in ("load_transformer", "load_text_tower", "load_autoencoder"):
        monkeypatch.setattr(world, name, lambda folder: pytest.fail("weights were read"))


@pytest.fixture
def bare(tiny_model) -> str:
    """The tiny model without the parts of the cascade."""
    folder = Path(shutil.copytree(tiny_model, "bare"))
    for part in ("interpolation", "interpolation_masked", "upsampler"):
        shutil.rmtree(folder / part)
    return str(folder)


def pipe(run, *stages: tuple[str, ...]) -> bytes:
    """What the last of these commands wrote, each fed by the one before."""
    data = b""
    for words in stages:
        ran = run(*words, stdin=data)
        assert ran.code == 0, ran.err
        data = ran.out
    return data


# --- the same bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize(("passes", "batch"), [(0, "4"), (1, "1"), (2, "4")])
def test_sample_makes_what_the_two_in_a_pipe_make(run, passes, batch):
    rows = b'{"id": "a", "prompt": "a red ball"}\n{"id": "b", "prompt": "a blue cube"}\n'
    texts = run("encode-text", stdin=rows).out
    how = ("--seed", "3-4", "--batch-size", batch)
    made = run("sample", *how, "--passes", str(passes), stdin=texts)
    assert made.code == 0, made.err
    piped = run("sample-keyframes", *how, stdin=texts).out
    if passes:
        words = ("interpolate", "--passes", str(passes), "--batch-size", batch)
        piped = run(*words, stdin=piped).out
    assert made.out == piped and len(piped) > 1000


def test_a_prompt_is_encoded_first(run):
    made = run("sample", "--prompt", PROMPT, "--prompt", "a blue cube", "--negative", "green")
    texts = run("encode-text", PROMPT, "a blue cube", "--negative", "green").out
    assert made.code == 0 and made.out == run("sample", stdin=texts).out


@pytest.mark.parametrize("more", [(), ("--decoder", "image")])
def test_generate_makes_what_the_five_in_a_pipe_make(run, more):
    assert run("generate", PROMPT, "--seed", "7", "-o", "one.mp4", *more).code == 0
    stages = (("encode-text", PROMPT), ("sample-keyframes", "--seed", "7"), ("interpolate",),
              ("upsample",), ("decode", "-o", "five.mp4", *more))  # fmt: skip
    pipe(run, *stages)
    assert Path("one.mp4").read_bytes() == Path("five.mp4").read_bytes()
    frames, times, *_ = read_video("one.mp4")
    assert frames.shape == (9, 32, 64, 3) and times[1] == pytest.approx(0.125)


def test_generate_does_as_much_of_it_as_is_asked(run):
    words = ("--passes", "2", "--scale", "4")
    assert run("generate", PROMPT, *words, "-o", "x.vgs").code == 0
    assert next(read_stream("x.vgs"))["frames"].shape == (33, 64, 128, 3)
    assert run("generate", PROMPT, "--passes", "0", "--scale", "1", "-o", "y.vgs").code == 0
    assert next(read_stream("y.vgs"))["frames"].shape == (3, 16, 32, 3)


# --- a model without the parts --------------------------------------------------------------------


def test_what_the_model_lacks_is_left_out_and_that_is_said(run, bare):
    ran = run("generate", PROMPT, "--model", bare, "-o", "x.vgs")
    assert ran.code == 0
    assert "has no component `interpolation`: keyframes alone" in ran.err
    assert "has no component `upsampler`: the size of its keyframes" in ran.err
    assert next(read_stream("x.vgs"))["frames"].shape == (3, 16, 32, 3)
    ran = run("sample", "--prompt", PROMPT, "--model", bare)
    assert ran.code == 0 and ran.err.count("has no component") == 1
    quiet = run("generate", PROMPT, "--model", bare, "--passes", "0", "--scale", "1", "-o", "y.vgs")
    assert quiet.code == 0 and "has no component" not in quiet.err


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("wish", "code", "said"),
    [
        (("--passes", "1"), Exit.BAD_INPUT, "no component `interpolation`"),
        (("--scale", "2"), Exit.BAD_INPUT, "no component `upsampler`"),
        (("--decoder", "video"), Exit.USAGE, "no component `video_decoder`"),
        (("--scale", "3"), Exit.USAGE, "--scale 3: sides are doubled"),
        (("--passes", "-1"), Exit.USAGE, "--passes -1: must be"),
    ],
)
def test_wishes_that_cant_be_fulfilled(run, weights, bare, more, wish, code, said):
    commands = [("generate", PROMPT)]
    if wish[0] == "--passes":
        commands.append(("sample", "--prompt", PROMPT))
    for command in commands:
        ran = run(*command, *wish, *more, "--model", bare, "-o", "x.vgs")
        assert ran.code == code and said in ran.err.replace("keyframes alone", "")
        assert not Path("x.vgs").exists()


def test_a_scale_too_large_for_memory_is_refused_before_anything(run, weights, monkeypatch):
    from vidgen.stages import memory

    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    ran = run("generate", PROMPT, "--scale", "8", "-o", "x.mp4")
    assert ran.code == Exit.OUT_OF_MEMORY
    assert "--scale 8 of 1 clip takes about" in ran.err and "free" in ran.err


# --- the command lines ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompt", PROMPT, "text.vgs"), "text is given both as --prompt and as files"),
        (("text.vgs", "--negative", "blue"), "--negative is for --prompt"),
        (("text.vgs", "--no-cache"), "--no-cache has no effect here: text records"),
        (("--prompt", "a dog"), "names nothing that `tiny` can show"),
        (("--prompt", PROMPT, "--seed", "0-3", "--num-samples", "2"), "--seed names 4 seeds"),
        (("--prompt", PROMPT, "--seed", "0-1", "-o", "x.npz"), "an NPZ file holds one record"),
    ],
)
def test_usage(run, weights, words, said):
    ran = run("sample", *words)
    assert ran.code == Exit.USAGE and said in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--crf", "20", "-o", "x.vgs"), "--crf has no effect here: records are written"),
        (("--fps", "8"), "--fps has no effect here: records are written"),
        (("--crf", "18", "-o", "x.gif"), "--crf has no effect here: gif has no quality"),
    ],
)
def test_words_about_a_video_where_there_is_none(run, weights, words, said):
    ran = run("generate", PROMPT, *words)
    assert ran.code == Exit.USAGE and said in ran.err and not ran.out
    assert not list(Path().glob("x.*"))


def test_settings_for_all_commands_are_no_mistake_where_they_have_no_use(run, monkeypatch):
    texts = run("encode-text", PROMPT).out
    for name, value in (("NO_CACHE", "true"), ("CRF", "20"), ("FPS", "8")):
        monkeypatch.setenv(f"VIDGEN_{name}", value)
    made = run("sample", stdin=texts)
    assert made.code == 0, made.err
    monkeypatch.setenv("VIDGEN_COMPILE", "true")
    made = run("interpolate", "--method", "linear", stdin=made.out)
    assert made.code == 0 and run("decode", stdin=made.out).code == 0


def test_plans_tell_of_every_stage(run):
    plan = run("generate", PROMPT, "--seed", "0-2", "--dry-run").text
    heads = [line for line in plan.splitlines() if not line.startswith(" ")]
    assert heads == ["encode-text", "sample-keyframes", "interpolate", "upsample", "decode"]
    assert "[9, 32, 64, 3] uint8" in plan and "[4, 9, 4, 8] float32" in plan
    plan = run("sample", "--prompt", PROMPT, "--dry-run", "--passes", "2").text
    heads = [line for line in plan.splitlines() if not line.startswith(" ")]
    assert heads == ["encode-text", "sample-keyframes", "interpolate"]
    assert "[4, 33, 2, 4] float32" in plan


@pytest.mark.parametrize(
    ("largest", "height", "scale"),
    [(None, 40, 2), (80, 40, 2), (160, 40, 4), (80, 80, 1), (80, 160, 1), (80, 60, 2)],
)
def test_pictures_become_the_largest_that_the_upsampler_learned_to_make(largest, height, scale):
    assert Enlarged(largest).scale(height) == scale
