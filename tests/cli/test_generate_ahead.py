"""`vidgen generate` with sampling ahead of decoding, as on a GPU: the same videos, and the same of
what was finished when something fails."""

import hashlib

import pytest
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


def made(vidgen, models, kind, out):
    ran = vidgen(
        "generate", *PROMPTS, "--model", str(models[kind]), *SMALL[kind], "--batch-size", "2",
        "-o", f"{out}-{{id}}.mp4",
    )  # fmt: skip
    return ran, sorted(PROMPTS)


@pytest.mark.parametrize("kind", ["wan", "tiny"])
def test_the_same_videos(vidgen, models, clean, kind, monkeypatch, always):
    with monkeypatch.context() as usual:
        usual.setattr(ahead, "pays", lambda *_, **__: False)
        assert made(vidgen, models, kind, "plain")[0].code == 0
    assert always == []
    assert made(vidgen, models, kind, "ahead")[0].code == 0
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
    ran, _ = made(vidgen, models, "tiny", "x")
    assert ran.code == Exit.BAD_INPUT and "no decoder would have this" in ran.err
    assert len(list(clean.glob("x-*.mp4"))) == 2


def test_what_sampling_refuses_is_told_as_ever(vidgen, models, clean, always, monkeypatch):
    from vidgen.stages import sample_keyframes

    monkeypatch.setattr(
        sample_keyframes, "text_cond", lambda *_: (_ for _ in ()).throw(InputError("no such text"))
    )
    ran, _ = made(vidgen, models, "tiny", "x")
    assert ran.code == Exit.BAD_INPUT and "no such text" in ran.err
    assert not list(clean.glob("x-*.mp4"))
