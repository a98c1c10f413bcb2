"""`vidgen inspect`: what it says of records, of foreign files, and of real videos."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import DATA, HOSTILE, clip, save
from json_schema import faults

from vidgen.cli.media import write_clip
from vidgen.io.npz import write_npz


def test_a_table_for_each_record_of_each_input(vidgen) -> None:
    save("two.vgs", clip("a"), clip("b"))
    write_npz(clip("c"), "c.npz")
    ran = vidgen("inspect", "two.vgs", "c.npz")
    assert (ran.code, ran.err) == (0, "")
    blocks = ran.text.split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        "== two.vgs", "b  frames  20.8 kB  last", "== c.npz",
    ]  # fmt: skip
    assert "  frames  U8    9 24 32 3  20.7 kB\n" in blocks[0]
    assert "  prompt: a red ball, a\n" in blocks[0]
    assert "  made by: encode-text → sample-keyframes" in blocks[0]


def test_standard_input_is_read_like_a_file(vidgen) -> None:
    data = Path(save("clip.vgs")).read_bytes()
    assert vidgen("inspect", stdin=data).out == vidgen("inspect", "clip.vgs").out
    assert vidgen("inspect", terminal=("stdin",)).code == 2


def test_a_stock_safetensors_file(vidgen) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros((2, 3), np.float16)}, "weights.safetensors")
    ran = vidgen("inspect", "weights.safetensors")
    assert ran.text.startswith("weights  features  12 B")
    assert "  weight  F16   2 3  12 B" in ran.text


VIDEOS = [  # name, size, frames, duration, and words of the table
    ("nasa_13013.mp4", "480 x 270", 390, 13.013, "16000 Hz stereo"),
    ("video_90.mov", "320 x 568", 3, 0.1, "90 degrees clockwise"),
    ("no_duration.webm", "1280 x 720", 74, 4.938, "vp9 yuv420p"),
    ("circle.gif", "128 x 128", 30, 2.1, "gif"),
    ("h264_10bits.mp4", "200 x 200", 30, 1.0, "yuv420p10le"),
    ("h265_video.mp4", "128 x 128", 10, 1.0, "hevc"),
    ("bitmap.mp4", "1 x 1", 5, 5.0, "yuv444p"),
    ("pigs_in_a_polka.gif", "314 x 273", 30, 3.0, "gif"),
    ("transparent.webm", "200 x 200", 150, 5.0, "vp9"),
]


@pytest.mark.parametrize(("name", "size", "frames", "seconds", "words"), VIDEOS)
def test_real_videos(vidgen, name, size, frames, seconds, words) -> None:
    ran = vidgen("inspect", str(DATA / name))
    assert (ran.code, ran.err) == (0, "")
    assert f"  size      {size}\n" in ran.text
    assert f"  frames    {frames}\n" in ran.text
    assert f"  duration  {seconds:.3f} s\n" in ran.text
    assert words in ran.text


@pytest.mark.parametrize(
    "name", ["fire2.mp4", "bt709_full_range.mp4", "big_buck_bunny_432_433.webm"]
)
def test_headers_are_enough_where_that_is_asked_for(vidgen, name) -> None:
    ran = vidgen("inspect", "--headers", str(DATA / name))
    assert ran.code == 0
    assert "  size      1280 x 720\n" in ran.text
    stated = "not stated" if name.endswith("webm") else {"f": "25", "b": "30"}[name[0]]
    assert f"  frames    {stated}\n" in ran.text


def test_a_damaged_video_is_shown_and_told_of(vidgen) -> None:
    path = str(DATA / "corrupted.mp4")
    ran = vidgen("inspect", path)
    assert ran.code == 3
    assert "  frames    50 stated\n" in ran.text
    first, *more = ran.err.splitlines()
    assert first == (
        f"vidgen inspect: {path}: the video is damaged: the first 30 of 50 frames can be read"
    )
    assert [line[:8] for line in more] == ["  why:  ", "  next: "]


def test_the_history_in_a_video(vidgen) -> None:
    write_clip(clip(), "clip.mp4")
    ran = vidgen("inspect", "clip.mp4")
    assert "  prompt: a red ball, clip\n  made by: encode-text → sample-keyframes\n" in ran.text


def test_json_follows_its_schema(vidgen) -> None:
    write_clip(clip(sound=True), "clip.mp4")
    ran = vidgen("inspect", "--json", save("clip.vgs"), "clip.mp4")
    report = json.loads(ran.text)
    assert faults(report, json.loads(vidgen("schema", "vidgen.inspect/1").text)) == []
    records, video = report["inputs"]
    assert records["records"][0]["tensors"][0] == {
        "name": "frames", "dtype": "U8", "shape": [9, 24, 32, 3], "bytes": 20736,
    }  # fmt: skip
    assert video["video"]["num_frames"] == 9
    assert video["video"]["duration_s"] == 1.125
    assert video["video"]["audio"] == {"sample_rate": 16000, "channels": 1}
    assert video["video"]["made"]["attrs"]["prompt"] == "a red ball, clip"


def test_json_of_a_cut_stream_has_what_came_before(vidgen) -> None:
    ran = vidgen("inspect", "--json", str(HOSTILE / "cut-second-data.vgs"))
    assert ran.code == 3
    assert [r["id"] for r in json.loads(ran.text)["inputs"][0]["records"]] == ["a"]
    assert json.loads(ran.err.splitlines()[-1])["code"] == 3


def test_control_characters_reach_no_terminal(vidgen) -> None:
    save("odd.vgs", clip().replace(attrs={"prompt": "a \x1b[31mred\x07 ball"}))
    ran = vidgen("inspect", "odd.vgs")
    assert r"prompt: a \x1b[31mred\x07 ball" in ran.text


def test_only_headers_of_records_are_read_and_torch_is_not_imported(vidgen) -> None:
    path = save("clip.vgs")
    with open(path, "r+b") as f:  # damage that only the digest shows
        f.seek(-1, 2)
        f.write(b"\xff")
    code = (
        "import sys; from vidgen.cli.app import main; "
        f"main(['inspect', {path!r}, {str(DATA / 'bitmap.mp4')!r}]); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("command", ["inspect", "log"])
def test_a_report_is_called_one(vidgen, clean, command) -> None:
    Path("fvd.json").write_text('{\n "schema": "vidgen.report/1"\n}\n')
    ran = vidgen(command, "fvd.json")
    assert ran.code == 3
    assert "fvd.json: is JSON, as reports of evaluations are" in ran.err
    assert "vidgen diff A B compares two reports" in ran.err
