"""evaluate-events from the outside: what it reads, reports and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from clips import DATA, clip, save

from vidgen.io.record import Record

REF = [
    {"id": "a", "start": 0, "end": 1, "text": "a ball bounces"},
    {"id": "a", "start": 1, "end": 2, "caption": "it spins"},
    {"id": "b", "events": [[0, 2, "a cube falls"]]},
]


def rows(name: str, *objects: dict) -> str:
    Path(name).write_text("\n".join(map(json.dumps, objects)) + "\n")
    return name


def report(ran) -> dict:
    assert ran.code == 0, ran.err
    return json.loads(ran.text)


def value(found: dict, name: str) -> float:
    return found["scores"][name]["value"]


def test_rows(vidgen) -> None:
    ref = rows("ref.jsonl", *REF)
    found = report(vidgen("evaluate-events", ref, ref, "--json"))
    assert value(found, "order") == value(found, "iou") == value(found, "found") == 1
    assert found["scores"]["order"]["n"] == 1 and found["scores"]["iou"]["n"] == 2
    made = rows("made.jsonl", {**REF[0], "start": 0.5}, REF[1], {"id": "b", "events": []})
    words = ("evaluate-events", ref, made)
    runs = [vidgen(*words, "--json") for _ in range(2)]
    found = report(runs[0])
    assert runs[0].out == runs[1].out
    assert value(found, "start") == pytest.approx(0.25)
    assert value(found, "iou") == pytest.approx((0.75 + 0) / 2)
    assert value(found, "found") == pytest.approx(1 / 2)
    assert vidgen(*words, "--min", "iou=0.5").code == 4


def test_rendered_clips_know_their_events(vidgen) -> None:
    words = ("world", "--level", "full", "--set", "events=2", "--frames", "5", "-o", "w.vgs")
    assert vidgen(*words).code == 0
    found = report(vidgen("evaluate-events", "w.vgs", "w.vgs", "--json"))
    assert value(found, "iou") == 1 and value(found, "cuts") == 0


def test_events_that_were_asked_for_are_no_finding(vidgen) -> None:
    made = clip().replace(attrs={"events": [[0, 1, "a ball bounces"]]})
    ran = vidgen("evaluate-events", save("m.vgs", made), "m.vgs")
    assert ran.code == 3 and "asked for, not those seen" in ran.err
    found = Record.make("events", "clip", {}, {"events": [[0, 1, "a ball bounces"]]})
    assert vidgen("evaluate-events", "m.vgs", save("f.vgs", found)).code == 0


def test_cuts_alone(vidgen) -> None:
    frames = np.zeros((6, 8, 8, 3), np.uint8)
    frames[3:] = 200
    a = save("a.vgs", Record.make("frames", "x", {"frames": frames}, {"fps": 8}))
    found = report(vidgen("evaluate-events", a, "--json"))
    assert set(found["scores"]) == {"cuts", "failed"}
    assert value(found, "cuts") == 1 and found["items"][0]["cut_at"] == [3]
    assert vidgen("evaluate-events", a, "--max", "cuts=0").code == 4
    assert vidgen("evaluate-events", str(DATA / "bitmap.mp4")).code == 0


def test_ids_without_counterpart(vidgen) -> None:
    ref, made = rows("ref.jsonl", *REF), rows("made.jsonl", REF[2])
    ran = vidgen("evaluate-events", ref, made)
    assert ran.code == 3 and "no events of this id were found" in ran.err
    found = report(vidgen("evaluate-events", ref, made, "--skip-bad", "--json"))
    assert value(found, "failed") == 1 and found["scores"]["iou"]["n"] == 1
    ran = vidgen("evaluate-events", made, ref)
    assert ran.code == 3 and "no events of REF" in ran.err


def test_an_id_twice_and_one_bad_record(vidgen) -> None:
    def seen(id: str, end: float) -> Record:
        return Record.make("events", id, {}, {"events": [[0, end, "it spins"]]})

    two = save("two.vgs", seen("a", 1), seen("b", 2))
    Path("made").mkdir()
    save("made/1.vgs", seen("a", 1), seen("b", 2))
    save("made/2.vgs", seen("a", 3))
    for words in ((two, "made"), ("made", two)):
        ran = vidgen("evaluate-events", *words)
        assert (ran.code, "`a`: is there twice" in ran.err) == (3, True)
    bad = Record.make("events", "x", {}, {"events": [[1]]})
    made = save("made.vgs", bad, seen("a", 1), seen("b", 2))
    found = report(vidgen("evaluate-events", two, made, "--skip-bad", "--json"))
    assert value(found, "failed") == 1 and found["scores"]["iou"]["n"] == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "an object with an `id`"),
        ('{"id": "a", "start": 1}', "`start` and `end`"),
        ('{"id": "a", "start": false, "end": true}', "`start` and `end`"),
        ('{"id": "a", "start": 1, "end": 1}', "not a time that passes"),
        ('{"id": "a", "events": 3}', "not a list"),
        ('{"id": "a", "events": [[1]]}', "an event is"),
    ],
)
def test_bad_rows(vidgen, line: str, said: str) -> None:
    Path("bad.jsonl").write_text(line + "\n")
    ran = vidgen("evaluate-events", "bad.jsonl", "bad.jsonl")
    assert (ran.code, ran.out) == (3, b"")
    assert "bad.jsonl: line 1" in ran.err and said in ran.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("gone.jsonl", "ref.jsonl"), 2, "gone.jsonl"),
        (("ref.jsonl",), 2, "rows have none"),
        (("ref.jsonl", str(DATA / "bitmap.mp4")), 3, "says nothing of its events"),
        (("ref.jsonl", str(DATA / "bitmap.mp4")), 3, "count its cuts: vidgen evaluate-events"),
        (("clip.vgs", "ref.jsonl"), 3, "no attr `events`"),
        (("clip.vgs", "--min", "order=1"), 2, "`order` is not measured here"),
        (("-", "-"), 2, "only once"),
    ],
)
def test_refused(vidgen, words: tuple[str, ...], code: int, said: str) -> None:
    rows("ref.jsonl", *REF)
    save("clip.vgs")
    ran = vidgen("evaluate-events", *words)
    assert (ran.code, ran.out) == (code, b"")
    assert said in ran.err
