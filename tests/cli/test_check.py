"""`vidgen check`: silent on what is whole, one line for what isn't."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from clips import DATA, HOSTILE, clip, save
from json_schema import faults

from vidgen.cli.media import write_clip
from vidgen.io.npz import write_npz

with (HOSTILE / "expected.tsv").open(encoding="utf-8", newline="") as f:
    ROWS = list(csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def test_silence_where_all_is_well(vidgen) -> None:
    write_clip(clip(sound=True), "clip.mp4")
    write_npz(clip(), "clip.npz")
    paths = [save("clip.vgs"), "clip.mp4", "clip.npz"]
    assert vidgen("check", *paths) == vidgen("check", "-q", *paths)
    ran = vidgen("check", *paths)
    assert (ran.code, ran.out, ran.err) == (0, b"", "")
    told = vidgen("check", "-v", *paths)
    assert told.err.splitlines() == [
        "vidgen check: clip.vgs: ok, 1 record",
        "vidgen check: clip.mp4: ok, 9 frames",
        "vidgen check: clip.npz: ok, 1 record",
    ]


def test_it_finds_every_hostile_file_in_one_run(vidgen) -> None:
    paths = [str(HOSTILE / f"{row[0]}.vgs") for row in ROWS]
    ran = vidgen("check", "-q", *paths)
    assert ran.code == 3
    lines = ran.err.splitlines()
    assert len(lines) == len(ROWS)
    for line, path, (_, _, number, byte, words) in zip(lines, paths, ROWS, strict=True):
        where = "" if number == "-" else f"record {number}, byte {byte}: "
        assert line.startswith(f"vidgen check: {path}: {where}{words}")


def test_it_goes_on_after_a_bad_file(vidgen) -> None:
    bad = str(HOSTILE / "digest-other.vgs")
    ran = vidgen("check", "-v", bad, save("clip.vgs"), "missing.vgs", "missing.mp4")
    assert ran.code == 3
    assert [line.split(": ")[1] for line in ran.err.splitlines()] == [
        bad, "clip.vgs", "missing.vgs", "missing.mp4",
    ]  # fmt: skip
    assert vidgen("check", "missing.vgs", "clip.vgs").code == 2


@pytest.mark.parametrize(
    "name", ["bitmap.mp4", "circle.gif", "video_90.mov", "h264_10bits.mp4", "h265_video.mp4"]
)
def test_real_videos_are_whole(vidgen, name) -> None:
    ran = vidgen("check", str(DATA / name))
    assert (ran.code, ran.err) == (0, "")


def test_a_video_is_decoded_to_its_end(vidgen) -> None:
    ran = vidgen("check", str(DATA / "corrupted.mp4"))
    assert ran.code == 3
    assert "corrupted.mp4: the video is damaged: the first 30 of 50 frames" in ran.err
    assert len(ran.err.splitlines()) == 1


@pytest.mark.parametrize("keep", [0, 20, 0.5, 0.95])
def test_a_video_that_was_cut(vidgen, keep) -> None:
    data = (DATA / "h265_video.mp4").read_bytes()
    Path("cut.mp4").write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    ran = vidgen("check", "cut.mp4")
    assert ran.code == 3
    assert ran.err.startswith("vidgen check: cut.mp4: ")


def test_a_video_under_a_name_that_tells_nothing(vidgen) -> None:
    Path("clip").write_bytes((DATA / "bitmap.mp4").read_bytes())
    assert "5 frames" in vidgen("check", "-v", "clip").err


def test_an_edited_log_is_a_problem(vidgen) -> None:
    record = clip()
    record.log[1] = {**record.log[1], "seed": 8}
    ran = vidgen("check", save("edited.vgs", record))
    assert ran.code == 3
    assert ran.err.startswith("vidgen check: edited.vgs: record 1: the log of `clip`")


def test_standard_input(vidgen) -> None:
    data = Path(save("clip.vgs")).read_bytes()
    assert vidgen("check", stdin=data).code == 0
    ran = vidgen("check", "-", stdin=data[:-1])
    assert (ran.code, ran.err.count("\n")) == (3, 1)
    assert "standard input: record 1, byte" in ran.err


def test_json_follows_its_schema(vidgen) -> None:
    write_clip(clip(), "clip.mp4")
    ran = vidgen("check", "--json", "clip.mp4", str(HOSTILE / "cut-second-data.vgs"))
    report = json.loads(ran.text)
    assert faults(report, json.loads(vidgen("schema", "vidgen.check/1").text)) == []
    good, bad = report["files"]
    assert (report["ok"], good["ok"], bad["ok"]) == (False, True, False)
    assert (good["frames"], bad["records"]) == (9, 1)
    assert "record 2, byte 981" in bad["problem"]["what"]
