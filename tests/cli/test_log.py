"""`vidgen log`: the chain, from records and from the videos made of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from clips import DATA, clip, save
from json_schema import faults

from vidgen.cli.media import comment_of, parse_comment, write_clip
from vidgen.io.record import Record


def test_the_chain_of_a_record(vidgen) -> None:
    ran = vidgen("log", save("clip.vgs"))
    assert (ran.code, ran.err) == (0, "")
    lines = ran.text.splitlines()
    assert lines[0] == "clip"
    assert lines[1].startswith("1  encode-text  vidgen ")
    assert "   seed           7" in lines
    assert lines[-1] == "the chain is whole: 2 steps"


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.webm", "clip.gif", "clip/"])
def test_a_video_tells_the_same_as_its_record(vidgen, name) -> None:
    write_clip(clip(), name)
    assert vidgen("log", name).text == vidgen("log", save("clip.vgs")).text


def test_records_of_one_history_are_told_once(vidgen) -> None:
    ran = vidgen("log", save("three.vgs", clip("a"), clip("b"), clip("c", seed=8)))
    assert ran.text.count("encode-text  vidgen") == 2
    assert "\nb: the same steps\n" in ran.text


@pytest.mark.parametrize("json_too", [False, True])
def test_an_edited_log_is_found(vidgen, json_too) -> None:
    record = clip()
    record.log[0] = {**record.log[0], "argv": ["encode-text", "--other"]}
    save("edited.vgs", record)
    ran = vidgen("log", "edited.vgs", *(["--json"] if json_too else []))
    assert ran.code == 3
    assert "edited.vgs: the log of `clip` doesn't fit together: entry 1 (encode-text)" in ran.err
    if json_too:
        assert "entry 1" in json.loads(ran.text)["records"][0]["broken"][0]
    else:
        assert "the chain is broken:\nentry 1" in ran.text


def test_what_nobody_made_with_vidgen(vidgen) -> None:
    ran = vidgen("log", str(DATA / "circle.gif"))
    assert (ran.code, ran.text.splitlines()[0]) == (0, "circle")
    assert "no log" in ran.text


def test_json_follows_its_schema(vidgen) -> None:
    write_clip(clip(), "clip.mp4")
    report = json.loads(vidgen("log", "--json", save("clip.vgs"), "clip.mp4").text)
    assert faults(report, json.loads(vidgen("schema", "vidgen.log/1").text)) == []
    a, b = report["records"]
    assert a["log"] == b["log"] == clip().log


def test_comments_are_the_same_bytes_for_the_same_record() -> None:
    text = comment_of(clip())
    assert text == comment_of(Record.make("frames", "clip", {}, clip().attrs, clip().log))
    found = parse_comment(text)
    assert found is not None and found["log"] == clip().log
    assert list(json.loads(text)) == ["attrs", "id", "log", "schema"]


@pytest.mark.parametrize(
    "text", ["", "Made by hand", "[1]", '{"log": []}', "[" * 100000,
             '{"schema": "vidgen.record/1", "id": "a", "attrs": {}, "log": [1]}'],
)  # fmt: skip
def test_comments_of_others_have_no_log(text) -> None:
    assert parse_comment(text) is None


def test_a_command_adds_one_entry(vidgen, tiny_model) -> None:
    """Reading a video and encoding it are one step of the history."""
    write_clip(clip(), "clip.gif")
    words = ["encode-video", "clip.gif", "--frames", "2", "--model", str(tiny_model)]
    assert vidgen(*words, "-o", "x.vgs").code == 0
    (report,) = json.loads(vidgen("log", "--json", "x.vgs").text)["records"]
    *before, last = report["log"]
    assert [e["tool"] for e in before] == [e["tool"] for e in clip().log]
    assert last["argv"] == ["encode-video", "--frames", "2"]
    digest = hashlib.sha256(Path("clip.gif").read_bytes()).hexdigest()
    assert last["inputs"] == [f"sha256:{digest}"] and last["model"]["name"] == "tiny/vae"
