"""`vidgen generate` with sampling ahead of decoding, as on a GPU: the same videos, and the same of
what was finished when something fails."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from released_folders import folders

from vidgen.errors import Exit, InputError
from vidgen.stages import ahead, decode


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_model):
    return folders({"wan": "wan 2.1"}, tmp_path_factory) | {"tiny": tiny_model}


@pytest.fixture
def always(monkeypatch):
    """Ahead, whatever the device; gives the calls that were."""
    calls, own = [], ahead.ahead
    monkeypatch.setattr(ahead, "pays", lambda *_, **__: True)

    def noted(*words, **named):
        calls.append(named)
        return own(*words, **named)

    monkeypatch.setattr(ahead, "ahead", noted)
    return calls


PROMPTS = ("a red ball", "a blue cube", "a white can", "a green cone", "a red cube")
SMALL = {"wan": ("--steps", "2", "--num-frames", "5", "--size", "32x32"), "tiny": ()}


def made(vidgen, models, kind, out, *more):
    return vidgen(
        "generate", *PROMPTS, "--model", str(models[kind]), *SMALL[kind], "--batch-size", "2",
        *more, "-o", f"{out}-{{id}}.mp4",
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["wan", "tiny"])
def test_the_same_videos(vidgen, models, clean, kind, monkeypatch, always):
    with monkeypatch.context() as usual:
        usual.setattr(ahead, "pays", lambda *_, **__: False)
        assert made(vidgen, models, kind, "plain").code == 0
    assert always == []
    assert made(vidgen, models, kind, "ahead").code == 0
    assert [call["most"] for call in always] == [2]
    plain, found = (
        {p.name.removeprefix(way): hashlib.sha256(p.read_bytes()).digest()
         for p in clean.glob(f"{way}-*.mp4")}
        for way in ("plain", "ahead")
    )  # fmt: skip
    assert len(plain) == 5 and found == plain


def test_a_clip_that_cannot_be_decoded_costs_none_before_it(
    vidgen, models, clean, always, monkeypatch
):
    own, count = decode.require_space, []

    def third_fails(record, folder):
        count.append(record.id)
        if len(count) == 3:
            raise InputError("no decoder would have this")
        own(record, folder)

    monkeypatch.setattr(decode, "require_space", third_fails)
    ran = made(vidgen, models, "tiny", "x")
    assert ran.code == Exit.BAD_INPUT and "no decoder would have this" in ran.err
    assert len(list(clean.glob("x-*.mp4"))) == 2


def test_what_sampling_refuses_is_told_as_ever(vidgen, models, clean, always, monkeypatch):
    from vidgen.stages import sample_keyframes

    monkeypatch.setattr(
        sample_keyframes, "text_cond", lambda *_: (_ for _ in ()).throw(InputError("no such text"))
    )
    ran = made(vidgen, models, "tiny", "x")
    assert ran.code == Exit.BAD_INPUT and "no such text" in ran.err
    assert not list(clean.glob("x-*.mp4"))


FAILING = """
import sys
from vidgen.cli import app
from vidgen.io import video_write
from vidgen.stages import ahead
ahead.pays = lambda *_: True

def full(*_, **__):
    raise OSError(28, "No space left on device")

video_write.write_video = full
sys.argv[0] = "vidgen"
app.entry()
"""


def test_a_write_that_fails_ends_the_program(models, tmp_path):
    """Although sampling has more to do, and the error holds what waits for it."""
    prompts = [f"a red ball {i}" for i in range(40)]
    ran = subprocess.run(
        [sys.executable, "-c", FAILING, "generate", *prompts, "--model", str(models["wan"]),
         *SMALL["wan"], "--batch-size", "2", "-o", "{id}.mp4"],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert ran.returncode == Exit.FAILED, ran.stderr
    _, error, after = ran.stderr.partition("no space left on device")
    assert error and "step" not in after, ran.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_videos_by_a_gpu(vidgen, models, clean, monkeypatch):
    for way, is_ahead in (("plain", False), ("ahead", True)):
        monkeypatch.setattr(ahead, "pays", lambda *_, wanted=is_ahead: wanted)
        assert made(vidgen, models, "wan", way, "--device", "cuda").code == 0
    for plain in clean.glob("plain-*.mp4"):
        other = clean / plain.name.replace("plain", "ahead", 1)
        assert other.read_bytes() == plain.read_bytes()
