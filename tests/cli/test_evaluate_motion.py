"""evaluate-motion from the outside: what it reads, reports and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from clips import DATA, save

from vidgen.io.record import Record


def tracks(id: str, *, sign: float = 1.0, frames: int = 6, go: float = 1.0) -> Record:
    """Four points that go right, faster and slower."""
    speed = go * sign * np.array((1.0, 2, 3, 0.5))
    at = np.zeros((4, frames, 2))
    at[:, :, 0] = 100 + speed[:, None] * np.arange(frames)
    seen = np.ones((4, frames), bool)
    return Record.make("motion", id, {"motion.tracks": at, "motion.visibility": seen})


def report(ran) -> dict:
    assert ran.code == 0, ran.err
    return json.loads(ran.text)


def value(found: dict, name: str) -> float:
    return found["scores"][name]["value"]


def test_the_same_and_the_opposite_motion(vidgen) -> None:
    a, b = save("a.vgs", tracks("x")), save("b.vgs", tracks("x", sign=-1))
    found = report(vidgen("evaluate-motion", a, a, "--json"))
    assert value(found, "fidelity") == pytest.approx(1)
    assert found["items"][0]["tracks"] == ["motion.tracks", "motion.tracks"]
    found = report(vidgen("evaluate-motion", a, b, "--json", "--ditflow"))
    assert value(found, "fidelity_both") == pytest.approx(-1)
    assert value(found, "fidelity_ditflow") == pytest.approx(-1)
    assert vidgen("evaluate-motion", a, b, "--min", "fidelity=0").code == 4


def test_tracks_of_another_program(vidgen) -> None:
    at = np.cumsum(np.ones((3, 5, 2)), axis=1)
    np.savez("tracks.npz", tracks=at, visibility=np.ones((3, 5), np.float32))
    found = report(vidgen("evaluate-motion", "tracks.npz", "tracks.npz", "--json"))
    assert value(found, "fidelity") == pytest.approx(1)
    np.savez("bad.npz", tracks=at[0])
    ran = vidgen("evaluate-motion", "tracks.npz", "bad.npz")
    assert ran.code == 3 and "[N, T, 2]" in ran.err


def test_nothing_moves_is_said_and_no_nan(vidgen) -> None:
    still = save("still.vgs", tracks("x", go=0))
    ran = vidgen("evaluate-motion", still, still, "--json", "--ditflow")
    found = report(ran)
    assert value(found, "undefined") == 1
    assert "fidelity" not in found["scores"] and "nan" not in ran.text.lower()
    assert "nothing moves" in ran.err and "no fidelity_ditflow" in ran.err


def test_true_tracks_of_rendered_clips_and_points_followed(vidgen) -> None:
    assert vidgen("world", "--seed", "3", "--frames", "5", "-o", "a.vgs").code == 0
    found = report(vidgen("evaluate-motion", "a.vgs", "a.vgs", "--json"))
    assert found["items"][0]["tracks"] == ["truth.tracks", "truth.tracks"]
    assert value(found, "fidelity") == pytest.approx(1)
    assert 0 < value(found, "smoothness") <= 1 and value(found, "speed") >= 0
    found = report(vidgen("evaluate-motion", "a.vgs", "a.vgs", "--json", "--tracks", "pixels"))
    assert found["items"][0]["tracks"] == ["followed", "followed"]


def test_truth_of_frames_that_were_made_anew_is_not_believed(vidgen) -> None:
    from vidgen.cli.evaluate_motion_read import rendered
    from vidgen.io.log import new_entry

    record = tracks("x").replace(entry=new_entry("world", argv=["world"]))
    assert rendered(record)
    assert not rendered(record.replace(entry=new_entry("decode", argv=["decode"])))


def test_points_that_begin_at_the_same_place(vidgen) -> None:
    a, b = save("a.vgs", tracks("x")), save("b.vgs", tracks("x", sign=-1))
    assert value(report(vidgen("evaluate-motion", a, b, "--json")), "fidelity_place") == -1
    moved = tracks("x")
    at = moved.numpy("motion.tracks") + 3
    c = save("c.vgs", Record.make("motion", "x", {"motion.tracks": at}))
    ran = vidgen("evaluate-motion", a, c, "--json")
    found = report(ran)
    assert "fidelity_place" not in found["scores"] and value(found, "fidelity") == pytest.approx(1)
    assert "1 of 1 clips have no fidelity_place" in ran.err
    ran = vidgen("evaluate-motion", a, c, "--min", "fidelity_place=0.5")
    assert ran.code == 4 and "fidelity_place could not be measured" in ran.err
    seen = np.zeros((4, 6), bool)
    seen[:, :3] = True
    short = {"motion.tracks": at - 3, "motion.visibility": seen}
    d = save("d.vgs", Record.make("motion", "x", short))
    ran = vidgen("evaluate-motion", a, d, "--json")
    assert report(ran)["items"][0]["followed"] == [1.0, 0.4]
    assert "less than half as long" in ran.err


def test_an_id_that_is_there_twice_is_no_pair(vidgen) -> None:
    Path("two").mkdir()
    for name, sign in (("a", 1.0), ("b", -1.0)):
        save(f"two/{name}.vgs", tracks("x", sign=sign))
    one = save("one.vgs", tracks("x"))
    for words in ((one, "two"), ("two", one)):
        ran = vidgen("evaluate-motion", *words)
        assert (ran.code, "`x`: is there twice" in ran.err) == (3, True)
    found = report(vidgen("evaluate-motion", one, "two", "--skip-bad", "--json"))
    assert value(found, "failed") == 1 and found["scores"]["fidelity"]["n"] == 1


def test_one_bad_record_leaves_the_rest_of_its_stream(vidgen) -> None:
    bad = Record.make("motion", "b", {"motion.tracks": np.zeros((4, 2))})
    some = save("some.vgs", tracks("a"), bad, tracks("c"))
    good = save("good.vgs", tracks("a"), tracks("c"))
    ran = vidgen("evaluate-motion", good, some, "--skip-bad", "--json")
    found = report(ran)
    assert found["scores"]["fidelity"]["n"] == 2 and value(found, "failed") == 1


def test_a_page_shows_clips_side_by_side_and_an_unknown_rate_is_said(vidgen) -> None:
    frames = (np.arange(3 * 8 * 8 * 3) % 251).astype(np.uint8).reshape(3, 8, 8, 3)
    clip = save("a.vgs", Record.make("frames", "x", {"frames": frames}))
    ran = vidgen("evaluate-motion", clip, clip, "--html", "r.html", "--json")
    assert "x: doesn't say how many frames a second it has" in ran.err
    assert report(ran)["items"][0]["rate"] is None
    page = Path("r.html").read_text(encoding="utf-8")
    assert "x: 3 frames, 8 × 8; to its right 3 frames, 8 × 8" in page


def test_one_input_is_judged_alone(vidgen) -> None:
    words = ("evaluate-motion", save("a.vgs"), "--json")
    runs = [vidgen(*words) for _ in range(2)]
    found = report(runs[0])
    assert set(found["scores"]) == {"dynamic_degree", "speed", "smoothness", "failed"}
    assert "not RAFT" in found["settings"]["flow"]
    assert "not AMT" in found["settings"]["interpolation"]
    assert runs[0].out == runs[1].out


def test_pairs_by_id_and_failures(vidgen) -> None:
    two = save("two.vgs", tracks("a"), tracks("b", sign=-1))
    found = report(vidgen("evaluate-motion", two, two, "--json"))
    assert found["scores"]["fidelity"]["n"] == 2
    one = save("one.vgs", tracks("b"))
    ran = vidgen("evaluate-motion", two, one)
    assert ran.code == 3 and "no clip of this id was made" in ran.err
    found = report(vidgen("evaluate-motion", two, one, "--skip-bad", "--json"))
    assert value(found, "failed") == 1 and value(found, "fidelity") == pytest.approx(-1)
    Path("made").mkdir()
    save("made/b.vgs", tracks("b"))
    Path("made/c.vgs").write_bytes(b"junk")
    assert vidgen("evaluate-motion", two, "made").code == 3
    found = report(vidgen("evaluate-motion", two, "made", "--skip-bad", "--json"))
    assert value(found, "failed") == 2  # a, which was not made, and c


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("gone.mp4",), 2, "gone.mp4"),
        (("a.vgs", "--ditflow"), 2, "two inputs"),
        (("a.vgs", "--min", "fidelity=1"), 2, "`fidelity` is not measured here"),
        (("-", "-"), 2, "only once"),
        (("a.vgs", "t.vgs", "--still", "-1"), 2, "--still"),
        (("t.vgs", "one.vgs"), 3, "one frame"),
        ((str(DATA / "corrupted.mp4"),), 3, "corrupted.mp4"),
    ],
)
def test_refused(vidgen, words: tuple[str, ...], code: int, said: str) -> None:
    save("a.vgs")
    save("t.vgs", tracks("x"))
    save("one.vgs", tracks("x", frames=1))
    ran = vidgen("evaluate-motion", *words)
    assert (ran.code, ran.out) == (code, b"")
    assert said in ran.err
