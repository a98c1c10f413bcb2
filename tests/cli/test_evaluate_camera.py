"""evaluate-camera from the outside: what it reads, reports and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from clips import DATA, save

from vidgen.io.record import Record
from vidgen.io.stream import write_stream

CAMERAS = DATA / "cameras"
ONE, TWO = sorted(CAMERAS.glob("*.txt"))


def path_of(id: str, *, frames: int = 5, sign: float = 1.0, go: float = 1.0) -> Record:
    """A camera that goes along x and turns about y."""
    turn = np.linspace(0, 0.5, frames)
    zero, one = np.zeros(frames), np.ones(frames)
    sin, cos = np.sin(turn), np.cos(turn)
    axes = np.stack((cos, zero, sin, zero, one, zero, -sin, zero, cos), -1).reshape(-1, 3, 3)
    where = np.stack((sign * go * np.linspace(0, 2, frames), zero, zero), axis=-1)[:, :, None]
    c2w = np.concatenate((axes, where), axis=2)
    return Record.make("camera", id, {"camera.c2w": c2w, "times": np.linspace(0, 2, frames)})


def report(ran) -> dict:
    assert ran.code == 0, ran.err
    return json.loads(ran.text)


def value(found: dict, name: str) -> float:
    return found["scores"][name]["value"]


def test_a_file_and_itself(vidgen) -> None:
    found = report(vidgen("evaluate-camera", str(ONE), str(ONE), "--json"))
    assert found["schema"] == "vidgen.report/1" and found["tool"] == "evaluate-camera"
    assert value(found, "rotation_max") < 1e-12
    assert value(found, "ate") < 1e-12
    assert value(found, "scale") == pytest.approx(1)
    assert found["items"][0]["formats"] == ["RealEstate10K", "RealEstate10K"]
    assert found["inputs"][0]["sha256"] == found["inputs"][1]["sha256"]


def test_the_same_bytes_twice(vidgen) -> None:
    runs = [vidgen("evaluate-camera", str(ONE), str(TWO), "--json").out for _ in range(2)]
    assert runs[0] == runs[1]


def test_another_frame_count_is_resampled_and_said(vidgen) -> None:
    a, b = save("a.vgs", path_of("x", frames=5)), save("b.vgs", path_of("x", frames=13))
    ran = vidgen("evaluate-camera", a, b, "--json")
    found = report(ran)
    assert "5 reference frames and 13, compared at 5 moments, by span" in ran.err
    assert found["warnings"] and found["items"][0]["resampled"] is True
    assert value(found, "rotation_max") < 1e-12
    ran = vidgen("evaluate-camera", a, b, "--match", "order")
    assert ran.code == 3 and "can't be matched in order" in ran.err


def test_a_path_that_stands_still_leaves_scaled_scores_out(vidgen) -> None:
    a, b = save("a.vgs", path_of("x")), save("b.vgs", path_of("x", go=0))
    ran = vidgen("evaluate-camera", a, b, "--json")
    found = report(ran)
    assert "stands still" in ran.err
    assert value(found, "still") == 1
    assert "translation_own_sum" not in found["scores"] and "ate" not in found["scores"]
    assert value(found, "rotation_max") < 1e-12
    assert value(found, "translation_sum") == pytest.approx(5)
    assert "nan" not in ran.text.lower()


def test_only_a_made_path_that_stands_still_while_the_reference_moves_is_worse(vidgen) -> None:
    moves, still = save("m.vgs", path_of("x")), save("s.vgs", path_of("x", go=0))
    for ref, made, count in ((moves, still, 1), (still, moves, 0), (still, still, 0)):
        found = report(vidgen("evaluate-camera", ref, made, "--json"))
        assert found["scores"]["still"] == {
            "value": count, "low": None, "high": None, "better": "lower", "unit": "", "n": 1,
        }  # fmt: skip


def test_a_reference_that_can_not_be_read_is_told_by_its_own_fault(vidgen) -> None:
    shutil.copytree(CAMERAS, "ref")
    (Path("ref") / TWO.name).write_text("no cameras\n")
    found = report(vidgen("evaluate-camera", "ref", str(CAMERAS), "--skip-bad", "--json"))
    (item,) = (i for i in found["items"] if "failed" in i)
    assert item["id"] == TWO.stem and "no reference of this id" not in item["failed"]


def test_the_opposite_way_is_flagged(vidgen) -> None:
    a, b = save("a.vgs", path_of("x")), save("b.vgs", path_of("x", sign=-1))
    ran = vidgen("evaluate-camera", a, b, "--json")
    assert "the other way" in ran.err
    assert value(report(ran), "opposite") == 1
    assert value(report(ran), "scale") == pytest.approx(-1)


def test_pairs_by_id_and_failures_are_counted(vidgen) -> None:
    shutil.copytree(CAMERAS, "ref")
    shutil.copytree(CAMERAS, "made")
    (Path("made") / TWO.name).write_text("no reconstruction\n")
    ran = vidgen("evaluate-camera", "ref", "made")
    assert ran.code == 3 and TWO.name in ran.err
    ran = vidgen("evaluate-camera", "ref", "made", "--skip-bad", "--json")
    found = report(ran)
    assert value(found, "failed") == 1 and found["scores"]["failed"]["n"] == 2
    assert found["scores"]["rotation_max"]["n"] == 1
    assert [i["id"] for i in found["items"] if "failed" in i] == [TWO.stem]
    (Path("made") / TWO.name).unlink()
    ran = vidgen("evaluate-camera", "ref", "made")
    assert ran.code == 3 and "no path of this id was made" in ran.err
    found = report(vidgen("evaluate-camera", "ref", "made", "--skip-bad", "--json"))
    assert value(found, "failed") == 1
    assert vidgen("evaluate-camera", "ref", "made", "--skip-bad", "--max", "failed=0").code == 4


def test_nothing_left_is_an_error(vidgen) -> None:
    Path("made").mkdir()
    (Path("made") / "x.txt").write_text("junk here\n")
    ran = vidgen("evaluate-camera", str(ONE), "made", "--skip-bad")
    assert ran.code == 3 and "none of" in ran.err


def test_folders_of_colmap(vidgen) -> None:
    lines = [f"{i + 1} 1 0 0 0 {-0.1 * i} 0 0 1 {i:05d}.png\n" for i in range(4)]
    for name in ("a", "b"):
        folder = Path("made") / name / "sparse" / "0"
        folder.mkdir(parents=True)
        (folder / "images.txt").write_text("\n".join(lines) + "\n")
    moved = np.tile(np.eye(3, 4), (4, 1, 1))
    moved[:, 0, 3] = 0.1 * np.arange(4)
    write_stream([Record.make("camera", n, {"camera.c2w": moved}) for n in ("a", "b")], "ref.vgs")
    found = report(vidgen("evaluate-camera", "ref.vgs", "made", "--json"))
    assert [i["id"] for i in found["items"]] == ["a", "b"]
    assert value(found, "translation_sum") == pytest.approx(0, abs=1e-12)


def test_from_a_pipe(vidgen) -> None:
    a = save("a.vgs", path_of("x"))
    ran = vidgen("evaluate-camera", a, "-", "--json", stdin=Path(a).read_bytes())
    assert value(report(ran), "rotation_max") < 1e-12


def test_gates(vidgen) -> None:
    words = ("evaluate-camera", str(ONE), str(TWO))
    ran = vidgen(*words, "--max", "rotation_mean_deg=0.5")
    assert ran.code == 4 and "rotation_mean_deg is" in ran.err
    assert vidgen(*words, "--max", "rotation_mean_deg=500").code == 0
    assert vidgen(*words, "--report", "r.json").code == 0
    assert vidgen(*words, "--baseline", "r.json").code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("gone.txt", str(ONE)), 2, "gone.txt: no such file"),
        ((str(ONE), str(DATA / "bitmap.mp4")), 3, "a video has no camera path"),
        ((str(ONE), "empty"), 3, "empty: is an empty folder"),
        ((str(ONE), str(TWO), "--max", "speed=1"), 2, "speed"),
        ((str(ONE), str(TWO), "--match", "luck"), 2, "--match"),
        ((str(ONE), "clip.vgs"), 3, "camera.c2w"),
        ((str(ONE), "short.vgs"), 3, "two frames"),
        (("two.vgs", str(ONE)), 3, "no path of this id was made"),
    ],
)
def test_refused(vidgen, words: tuple[str, ...], code: int, said: str) -> None:
    Path("empty").mkdir()
    save("clip.vgs")
    save("short.vgs", path_of("x", frames=1))
    save("two.vgs", path_of("x"), path_of("y"))
    ran = vidgen("evaluate-camera", *words)
    assert (ran.code, ran.out) == (code, b"")
    assert said in ran.err
