"""`vidgen world`: the clips that are asked for, as records and as videos."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from vidgen.cli import world
from vidgen.io.record import Record
from vidgen.io.stream import read_stream
from vidgen.io.video import probe
from vidgen.world.scene import HELD_OUT, TEST_SEEDS, VALIDATION_SEEDS

SMALL = ("--size", "24x16", "--frames", "3", "--fps", "2")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def records(data: bytes) -> list[Record]:
    return list(read_stream(io.BytesIO(data), name="out"))


def clips(vidgen, *words: str) -> list[Record]:
    ran = vidgen("world", *SMALL, *words)
    assert ran.code == 0, ran.err
    return records(ran.out)


def test_the_reference_clip_is_the_default(vidgen) -> None:
    (clip,) = records(vidgen("world").out)
    assert (clip.kind, clip.id) == ("frames", "world-00000000")
    assert clip.numpy("frames").shape == (17, 40, 64, 3)
    assert np.allclose(clip.numpy("times"), np.arange(17) / 8)
    assert {"camera.c2w", "camera.intrinsics", "truth.depth", "truth.tracks"} <= set(clip.tensors)
    assert clip.attrs["prompt"].endswith(clip.attrs["factors"]["camera"])


def test_num_counts_on_from_the_seed_and_only_the_last_is_last(vidgen) -> None:
    found = clips(vidgen, "--num", "3", "--seed", "5")
    assert [c.id for c in found] == ["world-00000005", "world-00000006", "world-00000007"]
    assert [c.attrs["seed"] for c in found] == [5, 6, 7]
    assert [c.last for c in found] == [False, False, True]


def test_seeds_can_be_named_one_by_one(vidgen) -> None:
    assert [c.attrs["seed"] for c in clips(vidgen, "--seed", "3,8-9")] == [3, 8, 9]


def test_a_clip_does_not_depend_on_the_others_and_repeats_to_the_byte(vidgen) -> None:
    two = vidgen("world", *SMALL, "--num", "2", "--seed", "4").out
    assert two == vidgen("world", *SMALL, "--num", "2", "--seed", "4").out
    alone = vidgen("world", *SMALL, "--seed", "5").out
    assert two.endswith(alone)


def test_splits_are_ranges_of_seeds(vidgen) -> None:
    for split, seeds in (("val", VALIDATION_SEEDS), ("test", TEST_SEEDS)):
        (clip,) = clips(vidgen, "--split", split, "--seed", "2")
        assert clip.attrs["seed"] == seeds[2]
        assert clip.id == f"world-{seeds[2]}"


def test_factors_are_fixed_in_every_clip(vidgen) -> None:
    shape, color, motion = sorted(HELD_OUT)[0]
    words = [f"shape={shape}", f"color={color}", f"motion={motion}", "camera=zooms in"]
    found = clips(vidgen, "--num", "3", *(x for w in words for x in ("--set", w)))
    for clip in found:
        factors = clip.attrs["factors"]
        assert [factors[k] for k in ("shape", "color", "motion")] == [shape, color, motion]
        assert factors["camera"] == "zooms in"


def test_objects_and_events_are_counted_as_set(vidgen) -> None:
    words = ("--level", "full", "--num", "3", "--set", "objects=1", "--set", "events=2")
    for clip in clips(vidgen, *words):
        assert clip.attrs["factors"]["shape_2"] == "none"
        assert len(clip.attrs["events"]) == 2


def test_fewer_frames_are_the_beginning_of_the_same_clip(vidgen) -> None:
    (short,) = clips(vidgen, "--seed", "3", "--fps", "8", "--frames", "2")
    (whole,) = clips(vidgen, "--seed", "3", "--fps", "8", "--frames", "9")
    assert np.array_equal(short.numpy("frames"), whole.numpy("frames")[:2])


def test_the_full_world_has_sound_and_the_flow_is_on_request(vidgen) -> None:
    (clip,) = clips(vidgen, "--level", "full", "--flow")
    assert clip.numpy("audio").shape == (1, 24_000)
    assert "truth.flow" in clip
    (basic,) = clips(vidgen)
    assert "audio" not in basic and "truth.flow" not in basic


def test_the_log_holds_the_words_that_make_the_clip_again(vidgen) -> None:
    words = ("--num", "2", "--seed", "7", "--split", "val", "--set", "shape=cube", "--flow")
    for clip in clips(vidgen, *words):
        (entry,) = clip.log
        ran = vidgen(*entry["argv"])
        (again,) = records(ran.out)
        assert again.digest == clip.digest and again.log == clip.log
    assert clips(vidgen, "--no-provenance")[0].log == []


def test_videos_one_a_clip(vidgen, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    assert vidgen("world", *SMALL, "--num", "2", "-o", "out/{id}.mp4").code == 0
    paths = sorted((tmp_path / "out").iterdir())
    assert [p.name for p in paths] == ["world-00000000.mp4", "world-00000001.mp4"]
    info = probe(paths[0])
    assert (info.width, info.height, info.fps) == (24, 16, 2)


def test_one_clip_at_a_time_is_in_memory(vidgen, monkeypatch) -> None:
    made, written = [], []
    whole = world.write_records

    def watch(records, *rest):
        def relay():
            for record in records:
                written.append((record.id, len(made)))
                yield record

        return whole(relay(), *rest)

    scene = world.Clips.scene
    monkeypatch.setattr(world.Clips, "scene", lambda *a: made.append(1) or scene(*a))
    monkeypatch.setattr(world, "write_records", watch)
    clips(vidgen, "--num", "3")
    assert [n for _, n in written] == [2, 3, 4]  # one to check the words, then one for each


def test_captions_prints_the_grammar(vidgen) -> None:
    text = vidgen("world", "--captions").text
    for word in ("ball / sphere", "CAMERA", "pans left", "bounces"):
        assert word in text


def test_dry_run_tells_how_much_it_would_be(vidgen, tmp_path) -> None:
    ran = vidgen("world", *SMALL, "--num", "64", "-n", "-o", "a.safetensors", "--flow")
    assert ran.code == 0 and "64, basic world" in ran.text and "3 of 24x16" in ran.text
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--set shape", "--set shape: is not FACTOR=VALUE"),
        ("--set shape=", "is not FACTOR=VALUE"),
        ("--set shape=dodecahedron", "no world factor shape = `dodecahedron`"),
        ("--set weight=1", "no world factor weight"),
        ("--set objects=4", "--set objects=4: objects are 1, 2 or 3"),
        ("--set shape=cube --set shape=ball", "shape is cube already"),
        ("--num 0", "--num 0: must be at least 1"),
        ("--num 3 --seed 0-9", "one of them says how many"),
        ("--seed 2147483648", "is past the end of the train split"),
        ("--num 2 --seed 2147483647", "seed 2147483648 is past the end"),
        ("--size 0x10", "must be WIDTHxHEIGHT in pixels"),
        ("--device warp", "warp"),
        ("--num 2 -o a.mp4", "2 videos are asked for, and -o names one file"),
        ("-o nowhere/{id}.mp4", "there is no folder nowhere"),
        ("-o there.safetensors", "there.safetensors: is there already"),
    ],
)
def test_mistakes_are_told_before_anything_is_rendered(vidgen, tmp_path, words, said) -> None:
    (tmp_path / "there.safetensors").write_text("")
    ran = vidgen("world", *shlex.split(words))
    assert (ran.code, ran.out) == (2, b"") and said in ran.err
    assert {p.name for p in tmp_path.iterdir()} <= {"there.safetensors", ".cache"}


def test_a_terminal_gets_no_clips(vidgen) -> None:
    assert vidgen("world", terminal=("stdout",)).code == 2


def test_a_closed_pipe_ends_it_quietly(vidgen, monkeypatch) -> None:
    def broken(*args):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(world, "write_records", broken)
    ran = vidgen("world", *SMALL)
    assert (ran.code, ran.err) == (141, "")


def test_progress_counts_clips(vidgen) -> None:
    ran = vidgen("world", *SMALL, "--num", "2", "--progress", "json", "-o", "a.safetensors")
    assert ran.code == 0
    assert '"unit": "clip", "done": 2, "total": 2' in ran.err
    assert len(list(read_stream(Path("a.safetensors")))) == 2
