"""`vidgen extend` as a command: plans, pipes, what is told before weights are read."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from inprocess import refused

from vidgen.errors import Exit
from vidgen.io.stream import read_stream
from vidgen.io.video import read_video


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test when a network is read."""
    from vidgen.systems import world

    monkeypatch.setattr(world, "load_transformer", lambda folder: pytest.fail("weights were read"))


def test_longer_clips_decode_to_longer_videos(on_latents) -> None:
    ran = on_latents("extend", "latents.vgs", "--num-frames", "5", "-o", "long.vgs")
    assert ran.code == 0, ran.err
    assert [r["latents"].shape[1] for r in read_stream("long.vgs")] == [5, 5]
    dense = on_latents("interpolate", "long.vgs")
    assert dense.code == 0 and on_latents("decode", "-o", "{id}.mp4", stdin=dense.out).code == 0
    (frames,) = {r["latents"].shape[1] for r in read_stream(io.BytesIO(dense.out))}
    assert [read_video(f"{x}.mp4")[0].shape[0] for x in "ab"] == [frames] * 2 and frames > 5


def test_a_rate_that_is_not_known_is_told(on_latents) -> None:
    ran = on_latents("extend", "latents.vgs", "--fps", "4", "--weight", "0", "-o", "x.vgs")
    assert ran.code == 0
    assert "`tiny` was trained on 2 frames a second, and is told 4" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "neither a length nor a rate is asked for"),
        (("--num-frames", "1"), "--num-frames 1: must be"),
        (("--num-frames", "2"), "record `a` has 3"),
        (("--num-frames", "9", "--overlap", "3"), "--overlap 3: `tiny` makes 3 frames at once"),
        (("--fps", "5"), "--fps 5: record `a` has 2 frames a second"),
        (("--fps", "4", "--num-frames", "6"), "--num-frames 6: 2 times as many frames a second"),
        (("--num-frames", "5", "--device", "cuda:99"), "CUDA device"),
        (("--num-frames", "5", "--model", "nonesuch"), "no model called `nonesuch`"),
    ],
)
def test_usage(on_latents, no_weights, words, said) -> None:
    refused(on_latents("extend", "latents.vgs", *words, "-o", "x"), "extend", Exit.USAGE, said)
    assert not Path("x").exists()


def test_latents_of_another_model(on_latents, no_weights, other_model) -> None:
    words = ["latents.vgs", "--num-frames", "5", "--model", str(other_model), "-o", "x"]
    refused(
        on_latents("extend", *words), "extend", Exit.BAD_INPUT, "latents are in space `tiny-vae@"
    )


def test_a_record_without_text(on_latents, no_weights) -> None:
    from vidgen.io.stream import write_stream

    records = [r.replace(drop=["text.*"]) for r in read_stream("latents.vgs")]
    write_stream(records, "mute.vgs")
    ran = on_latents("extend", "mute.vgs", "--num-frames", "5", "-o", "x")
    refused(ran, "extend", Exit.BAD_INPUT, "has no text, and the network is told what to show")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--num-frames", "7"), ["model    tiny (", "[4, 7, 2, 4] float32", "4 of 3 frames",
                                 "euler, 3 steps, guidance 2: 6 network calls and their grad"]),
        (("--fps", "4", "--cfg", "1", "--steps", "9"),
         ["[4, 5, 2, 4]", "4 of 3 frames", "9 steps, guidance 1: 9 network calls"]),
    ],
)  # fmt: skip
def test_plans(on_latents, words, said) -> None:
    ran = on_latents("extend", "latents.vgs", "--dry-run", *words)
    assert (ran.code, ran.err) == (0, "")
    for word in said:
        assert word in ran.text, ran.text
