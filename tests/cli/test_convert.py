"""`vidgen convert`, and how clips become files: whole or not at all, with their history."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from clips import DATA, clip, save

from vidgen.cli.media import content_of, history_of, own_rate, write_clip, write_raw
from vidgen.errors import InputError, UsageError
from vidgen.io.record import Record
from vidgen.io.stream import read_stream
from vidgen.io.video import probe, read_video


def only(path: str) -> Record:
    (record,) = read_stream(path)
    return record


def test_records_to_npz_and_back_are_the_same_bytes(vidgen) -> None:
    save("a.safetensors")
    assert vidgen("convert", "a.safetensors", "-o", "a.npz").code == 0
    assert vidgen("convert", "a.npz", "-o", "b.safetensors").code == 0
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".webm", ".gif", "/"])
def test_records_to_video_and_back(vidgen, ending) -> None:
    original = clip(sound=True)
    save("a.vgs", original)
    ran = vidgen("convert", "a.vgs", "-o", f"out{ending}")
    assert (ran.code, ran.err) == (0, "")
    assert vidgen("convert", f"out{ending}", "-o", "b.vgs").code == 0
    record = only("b.vgs")
    assert record.id == original.id
    assert record.attrs["prompt"] == original.attrs["prompt"]
    assert record.log[:2] == original.log
    assert record.log[2]["tool"] == "convert"
    assert abs(record.numpy("times") - original.numpy("times")).max() < 0.01
    apart = np.abs(record.numpy("frames").astype(int) - original.numpy("frames").astype(int))
    assert apart.mean() < (0.01 if ending == "/" else 12)
    assert ("audio" in record) == (ending not in (".gif", "/"))
    assert vidgen("log", "b.vgs").code == 0


def test_a_real_video(vidgen) -> None:
    path = str(DATA / "video_90.mov")
    assert vidgen("convert", path, "-o", "a.npz").code == 0
    record = only("a.npz")
    assert (record.id, record.kind) == ("video_90", "frames")
    assert record["frames"].shape == (3, 568, 320, 3)
    assert record.attrs["fps"] == 30
    assert len(record.log[0]["inputs"][0]) == len("sha256:") + 64


def test_a_damaged_video(vidgen) -> None:
    ran = vidgen("convert", str(DATA / "corrupted.mp4"), "-o", "a.vgs")
    assert ran.code == 3
    assert "the first 30 of 50 frames can be read" in ran.err
    assert os.listdir() == []


def test_one_file_a_record(vidgen) -> None:
    save("two.vgs", clip("a"), clip("b"))
    assert vidgen("convert", "two.vgs", "-o", "{id}.gif").code == 0
    assert vidgen("convert", "two.vgs", "-o", "{id}.npz").code == 0
    assert {"a.gif", "b.gif", "a.npz", "b.npz"} <= set(os.listdir())
    ran = vidgen("convert", "two.vgs", "-o", "x.gif")
    assert ran.code == 2
    assert "  next: -o 'x-{id}.gif' writes one file a record" in ran.err


def test_several_inputs_are_one_stream(vidgen) -> None:
    write_clip(clip("a"), "a.gif")
    write_clip(clip("a"), "b.gif")
    assert vidgen("convert", "a.gif", "b.gif", save("c.vgs", clip("c")), "-o", "all.vgs").code == 0
    assert [r.id for r in read_stream("all.vgs")] == ["a", "a-2", "c"]


def test_rate_changes_frames_and_not_the_duration(vidgen) -> None:
    save("a.vgs", clip(sound=True))
    for fps, count in (("4", 5), ("16", 18), ("8", 9)):
        assert vidgen("convert", "a.vgs", "--fps", fps, "-fo", "a.mp4").code == 0
        assert probe("a.mp4").num_frames == count
        assert abs(count / float(fps) - 1.125) <= 1 / float(fps)
    assert vidgen("convert", "a.vgs", "--fps", "4", "-o", "b.vgs").code == 2
    assert vidgen("convert", "a.mp4", "--fps", "4", "-o", "b.vgs").code == 0
    assert only("b.vgs")["frames"].shape[0] == 5


def test_a_rate_must_be_known() -> None:
    record = clip(fps=None)
    with pytest.raises(UsageError, match="doesn't say how many frames a second"):
        write_clip(record, "x.gif")
    assert not os.path.exists("x.gif")
    assert own_rate(record.replace(tensors={"times": np.arange(9) / 4})) == 4
    assert own_rate(record.replace(attrs={"fps": 12})) == 12


def test_raw_to_a_pipe(vidgen) -> None:
    save("a.vgs", clip(sound=True))
    ran = vidgen("convert", "a.vgs", "--format", "rgb")
    assert ran.out == clip().numpy("frames").tobytes()
    ran = vidgen("convert", "a.vgs", "--format", "nut")
    Path("a.nut").write_bytes(ran.out)
    frames, _, audio, rate, _ = read_video("a.nut")
    assert (frames == clip().numpy("frames")).all()
    assert (audio is not None, rate) == (True, 16000)
    direct = io.BytesIO()
    write_raw(clip(sound=True), direct, "nut")
    assert direct.getvalue() == ran.out


@pytest.mark.parametrize("target", ["-o x.gif", "-o x/", "-o x.vgs", "--format nut", ""])
def test_a_quality_where_there_is_none_to_set(vidgen, target) -> None:
    save("a.vgs")
    ran = vidgen("convert", "a.vgs", *target.split(), "--crf", "20")
    assert (ran.code, ran.out) == (2, b"")
    assert "--crf has no effect here" in ran.err
    assert not Path("x.gif").exists() and not Path("x").exists()


def test_binary_is_refused_on_a_terminal(vidgen) -> None:
    for more in ([], ["--format", "rgb"]):
        ran = vidgen("convert", save(f"a{len(more)}.vgs"), *more, terminal=("stdout",))
        assert (ran.code, ran.out) == (2, b"")


def test_nothing_is_overwritten_without_force(vidgen) -> None:
    save("a.vgs")
    for name in ("a.gif", "frames/", "frames"):
        first = vidgen("convert", "a.vgs", "-o", name)
        assert first.code == (2 if name == "frames" else 0)
        ran = vidgen("convert", "a.vgs", "-o", name)
        assert (ran.code, "is there already" in ran.err) == (2, True)
        assert vidgen("convert", "a.vgs", "-f", "-o", name).code == 0
    assert sorted(os.listdir()) == ["a.gif", "a.vgs", "frames"]


def test_a_folder_of_other_things_is_never_replaced(vidgen) -> None:
    save("a.vgs")
    os.mkdir("mine")
    Path("mine/thesis.txt").write_text("years of work")
    ran = vidgen("convert", "a.vgs", "-f", "-o", "mine/")
    assert (ran.code, "other files in it" in ran.err) == (2, True)
    assert Path("mine/thesis.txt").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["a.vgs", "-o", "out"], 2, "doesn't say what to make"),
        (["a.vgs", "-o", "out.avi"], 2, "out.avi"),
        (["a.vgs", "-o", "nowhere/out.mp4"], 2, "there is no folder nowhere"),
        (["a.vgs", "-o", "x.mp4", "--format", "webm"], 2, "is for standard output"),
        (["a.vgs", "-o", "x.mp4", "--crf", "52"], 2, "0 to 51"),
        (["missing.mp4", "-o", "x.vgs"], 2, "missing.mp4: no such file"),
        (["latents.vgs", "-o", "x.mp4"], 3, "put `vidgen decode` in front of it"),
    ],
)
def test_what_is_wrong_is_told(vidgen, words, code, said) -> None:
    save("a.vgs")
    save("latents.vgs", Record.make("latents", "a", {"latents": np.zeros((2, 1), np.float32)}))
    before = sorted(os.listdir())
    ran = vidgen("convert", *words)
    assert (ran.code, said in ran.err) == (code, True), ran.err
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("name", ["x.mp4", "x.gif", "x/"])
def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch, name) -> None:
    from vidgen.io import video

    def fails(dest, **arguments):
        Path(dest).mkdir() if name == "x/" else Path(dest).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(video, "write_video", fails)
    with pytest.raises(Exception, match="no space left"):
        write_clip(clip(), name)
    assert os.listdir() == []


def test_the_same_record_gives_the_same_file(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mp4"):
        write_clip(clip(sound=True), name)
    assert Path("a.mp4").read_bytes() == Path("b.mp4").read_bytes()


def test_prompts_and_log_can_be_left_out(vidgen) -> None:
    save("a.vgs", clip("ball"))
    words = ("--redact-prompt", "--no-provenance")
    assert vidgen("convert", "a.vgs", *words, "-o", "a.mp4").code == 0
    made = history_of("a.mp4")
    assert made is not None and made["log"] == [] and "prompt" not in made["attrs"]
    assert b"red ball" not in Path("a.mp4").read_bytes()


def test_what_a_file_is(tmp_path) -> None:
    (tmp_path / "x").write_bytes(b"\0\0\0\x20ftypisom")
    (tmp_path / "y").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    (tmp_path / "folder").mkdir()
    found = [content_of(str(tmp_path / name)) for name in ("x", "y", "folder", "none")]
    assert found == ["video", "records", "video", "records"]
    assert [content_of(p) for p in ("-", "a.NPZ", "a.MP4")] == ["records", "records", "video"]


def test_frames_must_be_pictures() -> None:
    bad = clip().replace(tensors={"frames": np.zeros((3, 4, 5), np.uint8)})
    with pytest.raises(InputError, match="not uint8"):
        write_clip(bad, "x.gif")
