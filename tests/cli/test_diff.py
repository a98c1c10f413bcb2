"""`vidgen diff`: equal is silent and 0, different is told and 1."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from clips import clip, save
from json_schema import faults

from vidgen.cli.compare import Distance, distance
from vidgen.cli.media import write_clip
from vidgen.io.npz import write_npz
from vidgen.io.record import Blob, Record


def latents(values: np.ndarray, **attrs) -> Record:
    return Record.make("latents", "a", {"latents": values}, {"seed": 7, **attrs})


def test_equal_files_are_equal_however_they_are_laid_out(vidgen) -> None:
    save("a.vgs", clip("a"), clip("b"))
    save("b.vgs", clip("b"), clip("a"))
    ran = vidgen("diff", "a.vgs", "b.vgs")
    assert (ran.code, ran.out, ran.err) == (0, b"", "")
    write_npz(clip(), "c.npz")
    assert vidgen("diff", save("c.vgs"), "c.npz").code == 0
    assert vidgen("diff", "-v", "c.vgs", "c.npz").err == (
        "vidgen diff: c.vgs and c.npz: 1 record equal\n"
    )


def test_values_that_differ(vidgen) -> None:
    values = np.zeros((2, 3), np.float32)
    save("a.vgs", latents(values))
    other = values.copy()
    other[1, 2] = 0.5
    save("b.vgs", latents(other))
    ran = vidgen("diff", "a.vgs", "b.vgs")
    assert ran.code == 1
    assert ran.text == (
        "a: tensor latents (F32 [2, 3]): 1 of 6 values differ: max 0.5, rms 0.2041\n"
    )
    assert vidgen("diff", "--tolerance", "0.5", "a.vgs", "b.vgs").code == 0
    assert vidgen("diff", "--tolerance", "0.49", "a.vgs", "b.vgs").code == 1


def test_what_is_there_on_one_side_only(vidgen) -> None:
    save("a.vgs", clip("a"), clip("b"))
    save("b.vgs", clip("b").replace(drop=("times",)), clip("c"))
    assert vidgen("diff", "a.vgs", "b.vgs").text.splitlines() == [
        "a: only in A",
        "b: tensor times (F64 [9]) is only in A",
        "c: only in B",
    ]


def test_shapes_attrs_and_steps(vidgen) -> None:
    save("a.vgs", clip(seed=7))
    save("b.vgs", clip(seed=8, num_frames=5).replace(attrs={"fps": 4, "note": "new"}))
    ran = vidgen("diff", "a.vgs", "b.vgs")
    assert ran.code == 1
    lines = ran.text.splitlines()
    assert "clip: tensor frames is U8 [9, 24, 32, 3] in A, U8 [5, 24, 32, 3] in B" in lines
    assert "clip: fps: 8 in A, 4 in B" in lines
    assert 'clip: note: "new", only in B' in lines
    assert "clip: log: step 2 (sample-keyframes): seed: 7 in A, 8 in B" in lines
    assert not any("id" in line.split(": ")[2:3] for line in lines)


def test_history_can_be_left_out(vidgen) -> None:
    save("a.vgs", clip(seed=7))
    save("b.vgs", clip(seed=8).replace(attrs={"note": 1}))
    assert vidgen("diff", "a.vgs", "b.vgs").code == 1
    assert vidgen("diff", "--only-tensors", "a.vgs", "b.vgs").code == 0


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F32", "I64", "U8", "BOOL", "C64"])
def test_distance_of_every_kind_of_number(dtype) -> None:
    import torch

    names = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F32": "float32", "I64": "int64",
             "U8": "uint8", "BOOL": "bool", "C64": "complex64"}  # fmt: skip
    x = torch.tensor([0.0, 1, 0, 1]).to(getattr(torch, names[dtype]))
    y = torch.tensor([0.0, 1, 1, 1]).to(getattr(torch, names[dtype]))
    far = distance(Blob.of(x), Blob.of(y))
    assert (far.values, far.differing, far.max_abs, far.rms) == (4, 1, 1, 0.5)


def test_nan_and_infinity() -> None:
    nan, inf = math.nan, math.inf

    def far(a: list[float], b: list[float]) -> float:
        d = Distance()
        d.add(np.array(a), np.array(b))
        return d.max_abs

    assert far([nan, inf, -inf, 1], [nan, inf, -inf, 1]) == 0
    assert far([nan, 1], [1, 1]) == inf
    assert far([inf, 1], [1, 1]) == inf
    assert far([inf], [-inf]) == inf
    assert far([0.0], [-0.0]) == 0


def test_large_integers_that_float64_can_not_tell_apart() -> None:
    far = Distance()
    far.add(np.array([2**62]), np.array([2**62 + 1]))
    assert (far.differing, far.max_abs) == (1, 1)


def test_videos(vidgen) -> None:
    write_clip(clip(sound=True), "a.mp4")
    write_clip(clip(sound=True), "b.mp4")
    assert vidgen("diff", "a.mp4", "b.mp4").code == 0
    write_clip(clip(sound=True), "c.mp4", crf=40)
    ran = vidgen("diff", "a.mp4", "c.mp4")
    assert ran.code == 1
    assert " of 9 frames differ, the first is frame " in ran.text
    assert "PSNR " in ran.text
    assert vidgen("diff", "--tolerance", "255", "a.mp4", "c.mp4").code == 0


def test_videos_of_other_length_rate_sound_and_history(vidgen) -> None:
    write_clip(clip(sound=True), "a.mp4")
    write_clip(clip(seed=8, num_frames=5, fps=4), "b.mp4")
    lines = vidgen("diff", "a.mp4", "b.mp4").text.splitlines()
    assert "fps: 8.0 in A, 4.0 in B" in lines
    assert "has_audio: True in A, False in B" in lines
    assert "frames: 9 in A, 5 in B" in lines
    assert "log: step 2 (sample-keyframes): seed: 7 in A, 8 in B" in lines


def test_a_video_and_records(vidgen) -> None:
    write_clip(clip(), "a.mp4")
    ran = vidgen("diff", "a.mp4", save("a.vgs"))
    assert ran.code == 2
    assert "  next: vidgen convert" in ran.err


def test_trouble_is_neither_equal_nor_different(vidgen) -> None:
    assert vidgen("diff", save("a.vgs"), "missing.vgs").code == 2
    assert vidgen("diff", "a.vgs").code == 2
    assert vidgen("diff", "-", "-").code == 2


def test_json_follows_its_schema(vidgen) -> None:
    schema = json.loads(vidgen("schema", "vidgen.diff/1").text)
    save("a.vgs", clip("a"), clip("b"))
    save("b.vgs", clip("b", seed=8).replace(attrs={"note": 1}), clip("c"))
    report = json.loads(vidgen("diff", "--json", "a.vgs", "b.vgs").text)
    assert faults(report, schema) == []
    assert [(r["id"], r["equal"], r["missing_in"]) for r in report["records"]] == [
        ("a", False, "b"), ("b", False, None), ("c", False, "a"),
    ]  # fmt: skip
    write_clip(clip(), "a.mp4")
    write_clip(clip(seed=8), "b.mp4", crf=30)
    report = json.loads(vidgen("diff", "--json", "a.mp4", "b.mp4").text)
    assert faults(report, schema) == []
    assert report["video"]["frames"]["psnr_db"] > 20
