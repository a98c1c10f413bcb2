"""`vidgen evaluate-quality`: its numbers against scikit-image's, and what it compares with what."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pytest
from json_schema import faults

from vidgen.cli.evaluate_quality import SCHEMAS
from vidgen.io.record import Record
from vidgen.io.stream import write_stream
from vidgen.io.video import iter_frames, write_video

DATA = Path(__file__).parent.parent / "data"


def clip(seed: int, t: int = 3, h: int = 24, w: int = 32) -> np.ndarray:
    """A gradient that moves."""
    shade = np.add.outer(np.arange(h) * 3, np.arange(w) * 2)[None, :, :, None]
    moved = shade + 5 * np.arange(t)[:, None, None, None] + np.array([0, 20, 40]) + seed
    return np.broadcast_to(moved, (t, h, w, 3)).astype(np.uint8)


def stream(path: str, clips: dict[str, np.ndarray], fps: float = 4) -> str:
    write_stream(
        [Record.make("frames", id, {"frames": f}, {"fps": fps}) for id, f in clips.items()], path
    )
    return path


def video(path: str, frames: np.ndarray) -> str:
    """Lossless, so that it reads as it was written; nothing in it but the name tells what it is."""
    Path(path).parent.mkdir(exist_ok=True)
    write_video(path, frames=frames, fps=4, format="png")
    return path


def report(ran) -> dict:
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert faults(found, SCHEMAS["vidgen.report/1"]) == []
    return found


@pytest.mark.parametrize("name", ["h265_video.mp4", "pigs_in_a_polka.gif", "nasa_13013.mp4"])
def test_real_videos_against_scikit_image(vidgen, name) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    path = str(DATA / name)
    true = np.stack([frame.rgb for frame in iter_frames(path, num_frames=4)])
    noise = np.random.default_rng(0).normal(0, 9, true.shape)
    made = (true + noise).clip(0, 255).astype(np.uint8)
    found = report(
        vidgen("evaluate-quality", path, stream("m.vgs", {Path(name).stem: made}), "--shortest",
               "--metrics", "psnr,ssim", "--json")
    )  # fmt: skip
    words = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    psnr, ssim = (
        np.mean([measure(a, b, data_range=255, **more) for a, b in zip(true, made, strict=True)])
        for measure, more in (
            (metrics.peak_signal_noise_ratio, {}),
            (metrics.structural_similarity, {**words, "channel_axis": -1}),
        )
    )
    assert found["scores"]["psnr"]["value"] == pytest.approx(psnr, abs=1e-8)
    assert found["scores"]["ssim"]["value"] == pytest.approx(ssim, abs=1e-8)
    assert found["items"][0]["frames"] == 4
    assert found["inputs"][0]["role"] == "reference"


def test_long_clips_are_measured_in_pieces(vidgen, monkeypatch) -> None:
    made = clip(0, 7).copy()
    made[2:, 5:20, ::3] ^= 9
    true = clip(0, 7).copy()
    true[:, :9] = 50  # stands still
    stream("r.vgs", {"a": true})
    stream("m.vgs", {"a": made})
    whole = report(vidgen("evaluate-quality", "r.vgs", "m.vgs", "--json"))
    monkeypatch.setattr("vidgen.cli.evaluate_quality_measure.PIECE", 500)
    pieces = report(vidgen("evaluate-quality", "r.vgs", "m.vgs", "--json"))
    for name, score in whole["scores"].items():
        assert pieces["scores"][name]["value"] == pytest.approx(score["value"], rel=1e-12)
    assert set(whole["scores"]) == {"psnr", "ssim", "flicker", "error-change", "failed"}
    assert whole["warnings"] == []
    assert "frames are 32x24" in whole["details"]["without"]["ms-ssim"]


def test_clips_are_paired_by_id_whatever_their_order(vidgen) -> None:
    clips = {f"c{i}": clip(9 * i) for i in range(6)}
    stream("r.vgs", clips)
    stream("m.vgs", {k: v + np.uint8(1) for k, v in reversed(clips.items())})
    found = report(vidgen("evaluate-quality", "r.vgs", "m.vgs", "--metrics", "psnr", "--json"))
    psnr = found["scores"]["psnr"]
    assert psnr["value"] == pytest.approx(48.1308, abs=1e-4)
    assert psnr["low"] == pytest.approx(psnr["high"])
    assert psnr["n"] == 6 and found["settings"]["pair"] == "auto"
    assert found["details"]["paired_by"] == "id"
    assert sorted(item["id"] for item in found["items"]) == sorted(clips)


def test_by_order(vidgen) -> None:
    stream("r.vgs", {"a": clip(0), "b": clip(60)})
    stream("m.vgs", {"b": clip(0), "a": clip(60)})
    words = ("evaluate-quality", "r.vgs", "m.vgs", "--metrics", "psnr", "--json")
    assert report(vidgen(*words, "--pair", "order"))["scores"]["psnr"]["value"] == "inf"
    assert report(vidgen(*words))["scores"]["psnr"]["value"] < 20


def test_by_name_where_ids_say_nothing(vidgen) -> None:
    """Videos that vidgen wrote know their ids; here those of the two sides are others."""
    for side in ("r", "m"):
        stream(f"{side}.vgs", {f"{side}1": clip(0), f"{side}2": clip(50)})
        Path(side).mkdir()
        assert vidgen("convert", f"{side}.vgs", "-o", side + "/{id}.mp4", "--crf", "0").code == 0
        for i in (1, 2):
            Path(side, f"{side}{i}.mp4").rename(Path(side, f"clip{i}.mp4"))
    found = report(vidgen("evaluate-quality", "r", "m", "--metrics", "psnr", "--json"))
    assert found["settings"]["pair"] == "auto"
    assert found["details"]["paired_by"] == "name"
    assert [item["id"] for item in found["items"]] == ["clip1", "clip2"]
    assert found["scores"]["psnr"]["value"] == "inf"


def test_namesakes_of_other_folders_are_not_compared(vidgen) -> None:
    """Both folders hold two called `clip`, but only b/clip is in both."""
    for i, name in enumerate(("r/a", "r/b", "m/b", "m/c")):
        Path(name).mkdir(parents=True)
        video(f"{name}/clip/", clip(60 if name.endswith("b") else 30 * i))
    ran = vidgen("evaluate-quality", "r", "m", "--metrics", "psnr")
    assert ran.code == 3
    assert "1 of r (a/clip) and 1 of m (c/clip)" in ran.err
    ran = vidgen("evaluate-quality", "r", "m", "--metrics", "psnr", "--pair", "id")
    assert ran.code == 3 and "r: several clips have the id `clip`" in ran.err
    for words in (["r", "m"], ["r/*/clip", "m/*/clip", "--pair", "name"]):
        found = report(
            vidgen("evaluate-quality", *words, "--skip-bad", "--metrics", "psnr", "--json")
        )
        assert [item["id"] for item in found["items"]] == ["b/clip"]
        assert found["scores"]["psnr"]["value"] == "inf"


def test_names_that_differ_in_the_ending_alone_are_refused(vidgen) -> None:
    stream("r.vgs", {"a": clip(0)})
    for folder, endings in (("r", ("mp4", "mkv")), ("m", ("mp4",))):
        Path(folder).mkdir()
        for ending in endings:
            assert vidgen("convert", "r.vgs", "-o", f"{folder}/a.{ending}").code == 0
    ran = vidgen("evaluate-quality", "r", "m", "--pair", "name", "--metrics", "psnr")
    assert ran.code == 3 and "r: several clips have the name `a`" in ran.err


def test_a_pipe_is_read_once(vidgen) -> None:
    stream("r.vgs", {"a": clip(0), "b": clip(1)})
    os.mkfifo("pipe")
    writer = Thread(target=lambda: Path("pipe").write_bytes(Path("r.vgs").read_bytes()))
    writer.start()
    found = report(vidgen("evaluate-quality", "r.vgs", "pipe", "--metrics", "psnr", "--json"))
    writer.join()
    assert found["scores"]["psnr"]["n"] == 2


def test_one_video_with_one_whatever_their_names(vidgen) -> None:
    video("first/", clip(0))
    video("second/", clip(0))
    ran = vidgen("evaluate-quality", "first", "second", "--min", "ssim=1", "--min", "psnr=99")
    assert ran.code == 0, ran.err


def test_what_has_no_counterpart_is_named(vidgen) -> None:
    stream("r.vgs", {"a": clip(0), "b": clip(1)})
    stream("m.vgs", {"a": clip(0), "c": clip(1)})
    ran = vidgen("evaluate-quality", "r.vgs", "m.vgs")
    assert ran.code == 3
    assert "without a counterpart: 1 of r.vgs (b) and 1 of m.vgs (c)" in ran.err
    piped = vidgen("evaluate-quality", "r.vgs", "-", stdin=Path("m.vgs").read_bytes())
    assert piped.code == 3 and "1 of r.vgs (b) and 1 of - (c)" in piped.err
    found = report(vidgen("evaluate-quality", "r.vgs", "m.vgs", "--skip-bad", "--json"))
    assert found["scores"]["psnr"]["n"] == 1
    assert found["details"]["left_out"]["reference"] == ["`b` has no counterpart in m.vgs"]
    assert [i["left_out"] for i in found["inputs"]] == [1, 1]
    said = [text for text in found["warnings"] if "left out" in text]
    assert said == [
        "r.vgs: left out 1 without a counterpart: b", "m.vgs: left out 1 without a counterpart: c"
    ]  # fmt: skip


def test_how_to_go_on_without_a_counterpart(vidgen) -> None:
    stream("r.vgs", {str(n): clip(n) for n in range(8)})
    stream("m.vgs", {"0": clip(9)})
    stream("o.vgs", {f"o{n}": clip(n) for n in range(8)})
    ran = vidgen("evaluate-quality", "r.vgs", "m.vgs")
    assert "--skip-bad" in ran.err and "--pair" not in ran.err
    assert "next: --pair order" in vidgen("evaluate-quality", "r.vgs", "o.vgs").err
    words = ("evaluate-quality", "r.vgs", "m.vgs", "--metrics", "psnr", "--skip-bad", "--json")
    (said,) = report(vidgen(*words))["warnings"]
    assert said == "r.vgs: left out 7 without a counterpart: 1, 2, 3, 4, 5, …"


def test_how_auto_came_to_pair_is_no_setting(vidgen) -> None:
    """One folder of one video goes by order, with records of its id by their ids."""
    video("r/a/", clip(0))
    video("m/a/", clip(1))
    stream("m.vgs", {"a": clip(1)})
    words = ("evaluate-quality", "r", "--metrics", "psnr")
    assert vidgen(*words, "m", "--report", "base.json").code == 0
    assert vidgen(*words, "m.vgs", "--baseline", "base.json").code == 0
    assert json.loads(Path("base.json").read_text())["details"]["paired_by"] == "order"
    ran = vidgen(*words, "m.vgs", "--baseline", "base.json", "--pair", "id")
    assert ran.code == 3 and "pair" in ran.err


def test_what_was_left_out_can_be_gated(vidgen) -> None:
    """A broken clip counts once, though its reference has no counterpart either."""
    for folder in "rm":
        Path(folder).mkdir()
    for name in "abcd":
        stream(f"r/{name}.vgs", {name: clip(0)})
        stream(f"m/{name}.vgs", {name: clip(5)})
    words = ("evaluate-quality", "r", "m", "--metrics", "psnr", "--skip-bad")
    failed = report(vidgen(*words, "--json", "--max", "failed=0"))["scores"]["failed"]
    assert (failed["value"], failed["n"], failed["better"]) == (0, 4, "lower")
    Path("m/a.vgs").write_bytes(b"broken")
    Path("m/b.vgs").unlink()
    Path("m/c.vgs").unlink()
    stream("m/c.vgs", {"c": clip(5, t=2)})
    ran = vidgen(*words, "--json", "--min", "psnr=10", "--max", "failed=0")
    assert ran.code == 4 and "failed" in ran.err
    found = json.loads(ran.out)["scores"]
    assert (found["failed"]["value"], found["failed"]["n"], found["psnr"]["n"]) == (3, 4, 1)
    assert list(found)[-1] == "failed"


def test_other_sizes_and_lengths(vidgen) -> None:
    stream("r.vgs", {"a": clip(0, 5, 24, 32)})
    stream("m.vgs", {"a": clip(0, 4, 12, 16)})
    ran = vidgen("evaluate-quality", "r.vgs", "m.vgs")
    assert ran.code == 3 and "the reference has 5 frames, the made one 4" in ran.err
    ran = vidgen("evaluate-quality", "r.vgs", "m.vgs", "--shortest")
    assert ran.code == 3 and "the reference is 32x24, the made one 16x12" in ran.err
    ran = vidgen("evaluate-quality", "r.vgs", "m.vgs", "--shortest", "--resize", "--json")
    item = report(ran)["items"][0]
    assert (item["frames"], item["size"]) == (4, "32x24")
    flat = np.full((4, 6, 6, 3), 90, np.uint8)
    stream("flat.vgs", {"a": flat})
    stream("large.vgs", {"a": np.full((4, 13, 17, 3), 90, np.uint8)})
    found = report(vidgen("evaluate-quality", "large.vgs", "flat.vgs", "--resize", "--json"))
    assert found["scores"]["ssim"]["value"] == 1


def test_made_alone(vidgen) -> None:
    blink = np.zeros((4, 16, 16, 3), np.uint8)
    blink[::2] = 255
    stream("m.vgs", {"still": blink[:1].repeat(4, 0), "blink": blink})
    found = report(vidgen("evaluate-quality", "m.vgs", "--json"))
    assert {i["id"]: i["temporal-flickering"] for i in found["items"]} == {"still": 1, "blink": 0}
    assert list(found["scores"]) == ["temporal-flickering", "failed"]
    assert [i["role"] for i in found["inputs"]] == ["made"]


def test_a_missed_threshold_and_a_baseline(vidgen) -> None:
    stream("r.vgs", {"a": clip(0)})
    stream("good.vgs", {"a": clip(1)})
    stream("bad.vgs", {"a": clip(30)})
    words = ("evaluate-quality", "r.vgs")
    assert vidgen(*words, "good.vgs", "--report", "base.json").code == 0
    assert vidgen(*words, "good.vgs", "--baseline", "base.json").code == 0
    ran = vidgen(*words, "bad.vgs", "--baseline", "base.json")
    assert ran.code == 4 and "psnr is worse than in base.json" in ran.err
    assert vidgen(*words, "bad.vgs", "--min", "psnr=40").code == 4


def test_lpips_needs_its_backbone_and_names_it(vidgen) -> None:
    import torch

    from vidgen.nn.lpips_backbones import squeeze

    torch.manual_seed(0)
    torch.save(squeeze().state_dict(), "squeeze.pth")
    stream("r.vgs", {"a": clip(0)})
    stream("m.vgs", {"a": clip(40)})
    words = ("evaluate-quality", "r.vgs", "m.vgs", "--metrics", "lpips")
    ran = vidgen(*words)
    assert ran.code == 2 and "lpips needs --lpips-backbone" in ran.err
    found = report(vidgen(*words, "--lpips-backbone", "squeeze.pth", "--json"))
    assert found["scores"]["lpips"]["value"] > 0
    assert found["settings"]["lpips"]["net"] == "squeeze"
    assert len(found["settings"]["lpips"]["weights_sha256"]) == 64
    torch.save({"features.0.weight": torch.zeros(1)}, "none.pth")
    ran = vidgen(*words, "--lpips-backbone", "none.pth")
    assert ran.code == 3 and "none.pth: is no backbone of LPIPS" in ran.err


FFMPEG = """#!/bin/sh
case "$*" in
  *-filters*) echo " .. {filter}           VV->V      Calculate the VMAF between two streams." ;;
  *-version*) echo "ffmpeg version 7.1 Copyright" ;;
  *) echo "$@" > {log}; wc -c < made.rgb >> {log}
     echo '{{"pooled_metrics": {{"vmaf": {{"mean": 93.5}}}}}}' > vmaf.json ;;
esac
"""


@pytest.mark.parametrize("filter", ["libvmaf", "vmafmotion"])
def test_vmaf_is_left_to_ffmpeg(vidgen, clean, monkeypatch, filter) -> None:
    """A stand-in: what it is called with, and what becomes of its answer."""
    program = Path("bin/ffmpeg")
    program.parent.mkdir()
    program.write_text(FFMPEG.format(filter=filter, log=clean / "log"))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent.resolve()}:/bin:/usr/bin")
    stream("r.vgs", {"a": clip(0)})
    stream("m.vgs", {"a": clip(9)})
    ran = vidgen("evaluate-quality", "r.vgs", "m.vgs", "--metrics", "vmaf", "--json")
    if filter != "libvmaf":
        assert ran.code == 2 and "was built without libvmaf" in ran.err
        return
    found = report(ran)
    assert found["scores"]["vmaf"]["value"] == 93.5
    assert found["settings"]["vmaf"]["ffmpeg"] == "7.1"
    words, size = Path("log").read_text().splitlines()
    assert "[made][true]libvmaf=log_fmt=json" in words and "32x24" in words
    assert int(size) == 3 * 24 * 32 * 3


def test_no_ffmpeg(vidgen, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    stream("r.vgs", {"a": clip(0)})
    ran = vidgen("evaluate-quality", "r.vgs", "r.vgs", "--metrics", "vmaf")
    assert ran.code == 2 and "there is no `ffmpeg` here" in ran.err


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["r.vgs", "r.vgs", "--metrics", "psnr,taste"], 2, "taste: there is no such metric"),
        (["r.vgs", "--metrics", "psnr"], 2, "psnr: needs REF and MADE"),
        (["r.vgs", "r.vgs", "--metrics", "self-warping"], 2, "is of MADE alone"),
        (["r.vgs", "--resize"], 2, "--resize has no effect here"),
        (["r.vgs", "r.vgs", "--lpips-backbone", "x.pth"], 2, "lpips is not among --metrics"),
        (["r.vgs", "none.vgs"], 2, "none.vgs: no such file or folder"),
        (["-", "-"], 2, "can be REF or MADE, not both"),
        (["r.vgs", "r.vgs", "--pair", "name"], 2, "holds records, which have ids"),
        (["r.vgs", "r.vgs", "--pair", "order", "--skip-bad"], 2, "exclude each other"),
        (["r.vgs", "r.vgs", "--metrics", "ms-ssim"], 3, "has no ms-ssim: frames are 32x24"),
        (
            ["r.vgs", "r.vgs", "--min", "lpips=1"],
            2,
            "--min lpips=1: `lpips` is not measured here",
        ),
        (["r.vgs", "r.vgs", "--max", "lpips=1"], 2, "why:  --metrics does not name it"),
        (["r.vgs", "--min", "psnr=30"], 2, "why:  it is of two inputs, REF and MADE"),
        (["r.vgs", "r.vgs", "--min", "is=3"], 2, "why:  it is of MADE alone"),
        (["r.vgs", "r.vgs", "--min", "psrn=30"], 2, "there is no score `psrn` here"),
    ],
)
def test_mistakes(vidgen, words, code, said) -> None:
    stream("r.vgs", {"a": clip(0)})
    ran = vidgen("evaluate-quality", *words)
    assert ran.code == code
    assert said in ran.err


def test_equal_frames_and_clips_do_not_hide_the_others(vidgen) -> None:
    """An infinite mean would pass any --min, whatever the rest looks like."""
    true = {id: clip(0) for id in "ab"}
    made = {"a": clip(0), "b": clip(0).copy()}
    made["b"][1:] += 1
    stream("r.vgs", true)
    stream("m.vgs", made)
    words = ("evaluate-quality", "r.vgs", "m.vgs", "--metrics", "psnr")
    found = report(vidgen(*words, "--json"))
    assert found["scores"]["psnr"]["value"] == pytest.approx(48.1308, abs=1e-4)
    assert found["scores"]["psnr"]["n"] == 1
    assert "2 of 2 clips have frames, 4 in all, that equal" in found["warnings"][0]
    assert vidgen(*words, "--min", "psnr=60").code == 4
    same = report(vidgen("evaluate-quality", "r.vgs", "r.vgs", "--metrics", "psnr", "--json"))
    assert same["warnings"] == [
        "all 6 frames equal the reference's: psnr is infinite, as nothing differs"
    ]


class FewClasses:
    """In the place of C3D: the mean color says the class."""

    min_frames = 16
    settings: ClassVar = {"extractor": "c3d", "weights_sha256": "0"}

    def __call__(self, clips):
        assert clips.shape[1] == 16
        return clips.float().mean(dim=(1, 2, 3))


def test_inception_score(vidgen, monkeypatch) -> None:
    monkeypatch.setattr("vidgen.metrics.extractors.make", lambda name, **_: FewClasses())
    Path("c3d.pt").touch()
    flat = {}
    for i in range(30):  # red, green, blue by turns, and what C3D must not see
        flat[f"c{i}"] = np.zeros((18, 4, 4, 3), np.uint8)
        flat[f"c{i}"][:16, ..., i % 3] = 255
        flat[f"c{i}"][16:] = 99
    stream("m.vgs", flat)
    words = ("evaluate-quality", "m.vgs", "--metrics", "is")
    ran = vidgen(*words)
    assert ran.code == 2 and "is needs --weights" in ran.err and "c3d_ucf101.pt" in ran.err
    found = report(vidgen(*words, "--weights", "c3d.pt", "--json"))
    order = np.random.RandomState(42).permutation(30) % 3
    shares = [np.bincount(part, minlength=3) / 3 for part in order.reshape(10, 3)]
    scores = [np.exp(-sum(p * np.log(p) for p in part if p)) for part in shares]
    assert found["scores"]["is"]["value"] == pytest.approx(np.mean(scores))
    assert found["details"]["is_std"] == pytest.approx(np.std(scores))
    assert found["scores"]["is"]["n"] == 30
    assert found["settings"]["is"] | FewClasses.settings == found["settings"]["is"]
    assert "papers take 2048" in found["warnings"][0]
    stream("few.vgs", {"a": flat["c0"]})
    ran = vidgen("evaluate-quality", "few.vgs", "--metrics", "is", "--weights", "c3d.pt")
    assert ran.code == 3 and "is: of 1 clips" in ran.err
    stream("short.vgs", {"a": flat["c0"][:15]})
    ran = vidgen("evaluate-quality", "short.vgs", "--metrics", "is", "--weights", "c3d.pt")
    assert ran.code == 3 and "it has 15 frames, of the 16" in ran.err
