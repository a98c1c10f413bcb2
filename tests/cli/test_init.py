"""`sample-keyframes --init`: clips drawn anew from what is there."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch

from vidgen.errors import Exit
from vidgen.io.stream import read_stream, write_stream
from vidgen.stages import sample_keyframes as stage


@pytest.fixture
def here(on_latents):
    """vidgen on the tiny model, where text.vgs and clips.vgs of two records lie."""
    ran = on_latents("sample-keyframes", "text.vgs", "--seed", "5", "-o", "clips.vgs")
    assert ran.code == 0, ran.err
    return on_latents


def latents(path: str) -> list[torch.Tensor]:
    return [record.torch("latents") for record in read_stream(path)]


def again(run, *words: str, out: str = "out.vgs"):
    return run("sample-keyframes", "text.vgs", "--init", "clips.vgs", *words, "-o", out, "-f")


def test_less_strength_stays_nearer_and_one_is_noise_alone(here) -> None:
    errors = []
    for strength in ("1", "0.85", "0.55"):
        ran = again(here, "--strength", strength)
        assert ran.code == 0, ran.err
        pairs = zip(latents("out.vgs"), latents("clips.vgs"), strict=True)
        errors.append(sum(float((a - b).square().mean()) for a, b in pairs))
    assert errors == sorted(errors, reverse=True)
    assert here("sample-keyframes", "text.vgs", "-o", "plain.vgs").code == 0
    assert again(here, "--strength", "1").code == 0
    for a, b in zip(latents("out.vgs"), latents("plain.vgs"), strict=True):
        torch.testing.assert_close(a, b)


def test_the_log_and_the_plan_say_so(here) -> None:
    assert again(here, "--strength", "0.85").code == 0
    (first, _) = read_stream("out.vgs")
    assert first.log[-1]["argv"][-4:] == ["--init", "FILE", "--strength", "0.85"]
    read = [next(iter(read_stream(path))).digest for path in ("text.vgs", "clips.vgs")]
    assert first.log[-1]["inputs"] == read
    assert "init.latents" not in first.tensors and "prompt" in first.attrs
    plans = [again(here, *more, "-n").text for more in ((), ("--strength", "1"))]
    assert plans[0] != plans[1]  # 0.6 takes fewer steps


def test_one_clip_is_for_all_texts(here) -> None:
    write_stream([next(iter(read_stream("clips.vgs")))], "one.vgs")
    ran = here("sample-keyframes", "text.vgs", "--init", "one.vgs", "-o", "out.vgs")
    assert ran.code == 0 and len(latents("out.vgs")) == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--strength", "0"), Exit.USAGE, "must be above 0"),
        (("--strength", "0.01"), Exit.USAGE, "the last begins at"),
        (("--init", "missing.vgs"), Exit.USAGE, "no such file"),
        (("--init", "."), Exit.USAGE, "is a folder"),
        (("--init", "text.vgs"), Exit.BAD_INPUT, "holds text, this stage takes latents"),
        (("--init", "three.vgs"), Exit.BAD_INPUT, "3 clips to begin as, and 2 texts"),
        (("--init", "large.vgs"), Exit.BAD_INPUT, "the latents to begin as are"),
        (("--init", "other.vgs"), Exit.BAD_INPUT, "another autoencoder"),
    ],
)
def test_what_no_sample_begins_as_is_refused(here, words, code, said) -> None:
    clips = list(read_stream("clips.vgs"))
    write_stream([*clips, clips[0].replace(id="third")], "three.vgs")
    write_stream([clip.replace(attrs={"latent_space": "x"}) for clip in clips], "other.vgs")
    assert here("upsample", "clips.vgs", "-o", "large.vgs").code == 0
    for more in ((), ("-n",)):
        ran = again(here, *words, *more)
        assert (ran.code, said in ran.err, ran.text) == (code, True, ""), ran.err
    assert not Path("out.vgs").exists()


def test_a_clip_of_the_wrong_size_is_found_before_any_is_sampled(here, monkeypatch) -> None:
    first, second = read_stream("clips.vgs")
    short = second.replace(tensors={"latents": second.torch("latents")[:, 1:]})
    write_stream([first, short], "clips.vgs", force=True)
    monkeypatch.setattr(stage, "_sample", lambda *_: pytest.fail("sampled"))
    ran = again(here, "--batch-size", "1")
    assert ran.code == Exit.BAD_INPUT and "record `b`: the latents to begin as are" in ran.err


def test_clips_come_by_a_pipe_too(here) -> None:
    assert again(here).code == 0
    os.mkfifo("pipe")
    clips = Path("clips.vgs").read_bytes()
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(clips), daemon=True)
    writer.start()
    ran = here("sample-keyframes", "text.vgs", "--init", "pipe", "-o", "piped.vgs")
    writer.join(10)
    assert ran.code == 0, ran.err
    assert Path("piped.vgs").read_bytes() == Path("out.vgs").read_bytes()


def test_a_strength_alone_is_refused(here) -> None:
    ran = here("sample-keyframes", "text.vgs", "--strength", "0.5", "-o", "out.vgs")
    assert ran.code == Exit.USAGE and "it is for --init" in ran.err


def test_texts_that_come_by_a_pipe_are_counted_as_they_come(here) -> None:
    text = Path("text.vgs").read_bytes()
    clips = list(read_stream("clips.vgs"))
    write_stream([*clips, clips[0].replace(id="third")], "three.vgs")
    write_stream([*clips], "two.vgs")
    ran = here("sample-keyframes", "--init", "three.vgs", "-o", "out.vgs", stdin=text)
    assert ran.code == Exit.BAD_INPUT and "fewer texts" in ran.err
    ran = here("sample-keyframes", "--init", "two.vgs", "-o", "out.vgs", stdin=text)
    assert ran.code == 0, ran.err
