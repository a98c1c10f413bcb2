"""`vidgen evaluate-fvd`, with a network of six features: its numbers, files, refusals and gates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from clips import DATA, save
from fvd_clips import FOUR, Colors, noise, report, some

from vidgen.cli.evaluate_fvd import ProtocolName
from vidgen.cli.evaluate_fvd_protocols import PROTOCOLS
from vidgen.cli.evaluate_fvd_scores import SCORES
from vidgen.cli.media import write_clip
from vidgen.io.record import Record
from vidgen.metrics import extractors, frechet

pytestmark = pytest.mark.usefixtures("six_features")


def test_all_scores_and_what_decided_them(vidgen, sides) -> None:
    found = report(vidgen("evaluate-fvd", *sides, *FOUR, "--json"))
    assert set(found["scores"]) == set(SCORES)
    fvd = found["scores"]["fvd"]
    assert fvd["low"] <= fvd["value"] <= fvd["high"]
    assert 3 * 10**2 < fvd["value"] < 3 * 20**2  # brighter by 12 in three colors, and the bias
    settings = found["settings"]
    assert settings["extractor"]["sha256"] == "ab" * 32
    assert settings["sampling"]["num_frames"] == 4
    assert settings["clips"] == {"real": 40, "fake": 40}
    assert settings["divisor"] == "n-1"
    details = found["details"]
    assert (details["n_real"], details["dim"], details["rank_real"]) == (40, 6, 6)
    assert len(details["bias"]["n"]) == len(details["bias"]["value"]) > 2
    assert [i["role"] for i in found["inputs"]] == ["real", "fake"]
    again = report(vidgen("evaluate-fvd", *sides, *FOUR, "--json"))
    assert again == found


def test_the_number_is_that_of_the_features(vidgen, sides) -> None:
    def features(seed: int, **how) -> torch.Tensor:
        clips = [noise(f"c{i}", seed, **how).torch("frames")[None, :4] for i in range(40)]
        return torch.cat([Colors()(clip) for clip in clips])

    known = frechet.frechet_distance(features(1), features(2, bright=12))
    found = report(vidgen("evaluate-fvd", *sides, *FOUR, "--batch-size", "7", "--json"))
    assert found["scores"]["fvd"]["value"] == pytest.approx(known, rel=1e-5)


def test_identical_sets_are_0(vidgen, sides) -> None:
    some("same.vgs", 40, 1)
    found = report(vidgen("evaluate-fvd", "real.vgs", "same.vgs", *FOUR, "--json"))
    assert found["scores"]["fvd"]["value"] < 1e-6
    assert found["scores"]["precision"]["value"] == found["scores"]["coverage"]["value"] == 1
    assert "REAL and FAKE are the same clips" in found["warnings"]


def test_feature_files_stand_for_clips(vidgen, sides) -> None:
    words = (*FOUR, "--json")
    kept = ("--save-real", "r.safetensors", "--save-fake", "f.safetensors")
    direct = report(vidgen("evaluate-fvd", *sides, *words, *kept))
    for pair in (("r.safetensors", "fake.vgs"), ("r.safetensors", "f.safetensors")):
        found = report(vidgen("evaluate-fvd", *pair, *words))
        assert found["scores"] == direct["scores"]
        assert found["settings"] == direct["settings"]
        assert [i["sha256"] for i in found["inputs"]] == [i["sha256"] for i in direct["inputs"]]
    ran = vidgen("evaluate-fvd", "r.safetensors", "f.safetensors", "--num-frames", "5")
    assert ran.code == 3
    assert "its num_frames is 4, asked for is 5" in ran.err
    ran = vidgen("evaluate-fvd", "r.safetensors", "f.safetensors", "--weights", "x.pt")
    assert ran.code == 2
    assert "--weights has no effect" in ran.err


def test_shards_are_one_set(vidgen, sides) -> None:
    records = [noise(f"c{i}", 1) for i in range(40)]
    Path("shards").mkdir()
    for k in range(3):
        part, file = save(f"{k}.vgs", *records[k::3]), f"shards/{k}.safetensors"
        assert vidgen("evaluate-fvd", part, "fake.vgs", *FOUR, "--save-real", file).code == 0
    whole = report(vidgen("evaluate-fvd", *sides, *FOUR, "--json"))
    for shards in ("shards", "shards/*.safetensors"):
        found = report(vidgen("evaluate-fvd", shards, "fake.vgs", *FOUR, "--json"))
        assert found["inputs"][0]["sha256"] == whole["inputs"][0]["sha256"]
        assert found["inputs"][0]["clips"] == 40
        fvd = found["scores"]["fvd"]["value"]
        assert fvd == pytest.approx(whole["scores"]["fvd"]["value"], rel=1e-9)


@pytest.mark.parametrize(
    ("words", "apart"),
    [
        (("--features", "i3d:google", *FOUR), 'extractor.extractor: "i3d:google" and "world"'),
        (("--num-frames", "3"), "sampling.num_frames: 3 and 4"),
        ((*FOUR, "--fps", "8"), "sampling.fps: 8.0 and null"),
    ],
)
def test_a_file_of_other_settings_is_refused(vidgen, sides, words, apart) -> None:
    vidgen("evaluate-fvd", *sides, *FOUR, "--save-real", "r.safetensors")
    ran = vidgen("evaluate-fvd", "r.safetensors", "fake.vgs", *words)
    assert ran.code == 3
    assert apart in ran.err


def test_plain_arrays_are_compared_with_each_other_only(vidgen, clean) -> None:
    r = np.random.default_rng(3)
    x, y = r.normal(size=(50, 4)).astype(np.float32), r.normal(1, 1, (50, 4)).astype(np.float32)
    np.save("x.npy", x)
    np.savez("y.npz", y)
    found = report(vidgen("evaluate-fvd", "x.npy", "y.npz", "--json"))
    known = frechet.frechet_distance(torch.from_numpy(x), torch.from_numpy(y))
    assert found["scores"]["fvd"]["value"] == pytest.approx(known)
    assert any("nothing says how" in w for w in found["warnings"])
    some("real.vgs", 4, 1)
    ran = vidgen("evaluate-fvd", "x.npy", "real.vgs", *FOUR)
    assert ran.code == 3
    assert "nothing says how its features were made" in ran.err
    assert vidgen("evaluate-fvd", "x.npy", "y.npz", "--features", "clip").code == 2


def test_too_few_clips_are_never_a_silent_number(vidgen, clean) -> None:
    some("a.vgs", 5, 1)
    some("b.vgs", 4, 2)
    found = report(vidgen("evaluate-fvd", "a.vgs", "b.vgs", *FOUR, "--json"))
    said = " ".join(found["warnings"])
    assert "4 clips for 6 features: covariances are singular (rank 3)" in said
    assert "5 real and 4 fake clips" in said
    assert "no precision, recall" in said
    assert set(found["scores"]) == {"fvd", "kvd", "failed"}
    some("one.vgs", 1, 2)
    ran = vidgen("evaluate-fvd", "a.vgs", "one.vgs", *FOUR)
    assert ran.code == 3
    assert "FAKE one.vgs: is one clip" in ran.err


def test_bad_clips_are_named_or_counted(vidgen, sides) -> None:
    Path("in").mkdir()
    some("in/a.vgs", 12, 2)
    write_clip(noise("short", 3, frames=2), "in/short.mp4")
    write_clip(noise("cut", 3), "in/cut.mp4")
    Path("in/cut.mp4").write_bytes(Path("in/cut.mp4").read_bytes()[:500])
    ran = vidgen("evaluate-fvd", "real.vgs", "in", *FOUR)
    assert ran.code == 3
    assert "in/cut.mp4" in ran.err
    Path("in/cut.mp4").rename("cut.mp4")
    ran = vidgen("evaluate-fvd", "real.vgs", "in", *FOUR)
    assert ran.code == 3
    assert "in/short.mp4: has 2 frames, 4 are needed" in ran.err
    Path("cut.mp4").rename("in/cut.mp4")
    found = report(vidgen("evaluate-fvd", "real.vgs", "in", *FOUR, "--skip-bad", "--json"))
    assert found["inputs"][1]["clips"] == 12
    assert found["inputs"][1]["left_out"] == len(found["details"]["left_out"]["fake"]) == 2
    assert any("2 of 14 clips were left out" in w for w in found["warnings"])
    assert (found["scores"]["failed"]["value"], found["scores"]["failed"]["n"]) == (2, 54)
    ran = vidgen("evaluate-fvd", "real.vgs", "in", *FOUR, "--skip-bad", "--max", "failed=1")
    assert (ran.code, "failed is 2" in ran.err) == (4, True), ran.err


def test_a_video_that_is_damaged_behind_its_first_frames_is_bad(vidgen, sides) -> None:
    Path("in").mkdir()
    some("in/a.vgs", 12, 2)
    Path("in/corrupted.mp4").write_bytes((DATA / "corrupted.mp4").read_bytes())
    ran = vidgen("evaluate-fvd", "real.vgs", "in", *FOUR)
    assert ran.code == 3
    assert "in/corrupted.mp4: the video is damaged: the first 30 of 50 frames" in ran.err
    found = report(vidgen("evaluate-fvd", "real.vgs", "in", *FOUR, "--skip-bad", "--json"))
    assert found["inputs"][1]["left_out"] == 1
    assert found["scores"]["failed"]["value"] == 1


def test_features_that_are_nan_name_the_clip(vidgen, sides, monkeypatch) -> None:
    def broken(self, clips: torch.Tensor) -> torch.Tensor:
        found = torch.ones(len(clips), 6)
        found[clips.flatten(1).max(dim=1).values == 255] = torch.nan
        return found

    monkeypatch.setattr(Colors, "__call__", broken)
    records = [noise(f"c{i}", 1) for i in range(10)]
    white = Record.make("frames", "white", {"frames": np.full((5, 8, 8, 3), 255, np.uint8)})
    save("white.vgs", *records[:5], white, *records[5:])
    ran = vidgen("evaluate-fvd", "white.vgs", "real.vgs", *FOUR)
    assert ran.code == 3
    assert "the features of `white` hold a NaN" in ran.err


def test_mixed_sizes_are_said(vidgen, sides) -> None:
    records = [noise(f"c{i}", 2, side=8 + i % 2) for i in range(40)]
    save("mixed.vgs", *records)
    ran = vidgen("evaluate-fvd", "real.vgs", "mixed.vgs", *FOUR)
    assert ran.code == 0
    assert ran.err.count("clips of 2 sizes: 20 of 8x8, 20 of 9x9") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "REAL and FAKE are missing"),
        (("real.vgs",), "FAKE is missing"),
        (("-", "-"), "not both"),
        (("real.vgs", "missing"), "missing: no such file or folder"),
        (("real.vgs", "fake.vgs", "--num-frames", "1"), "need 2"),
        (("real.vgs", "fake.vgs", "--seed", "1-3"), "one seed"),
        (("real.vgs", "fake.vgs", "--max", "fdv=1"), "fdv"),
        (("real.vgs", "fake.vgs", "--weights", "missing.pt"), "no such file"),
        (("real.vgs", "fake.vgs", "--save-real", "real.vgs"), "is there already"),
        (("real.vgs", "fake.vgs", "--save-real", "x", "--save-fake", "x"), "named twice"),
        (("real.vgs", "fake.vgs", "--protocol", "google", "--num-frames", "8"), "has 16"),
        (("real.vgs", "fake.vgs", "--protocol", "tats", "--fps", "8"), "own rate"),
        (("--self-test", "real.vgs", "fake.vgs"), "takes no clips"),
        (("--self-test", "--report", "x.json"), "--report has no effect"),
    ],
)
def test_usage(vidgen, sides, words, said) -> None:
    ran = vidgen("evaluate-fvd", *words)
    assert ran.code == 2, ran.err
    assert said in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a.mp4", "none"), "none: no such file or folder"),
        (("a.mp4", "empty"), "empty: is an empty folder"),
        (("a.mp4", "a.mp4", "--features", "i3d:google"), "i3d:google needs weights"),
        (("a.mp4", "a.mp4", "--features", "clip", "--weights", "no.pt"), "no.pt: no such file"),
        (("a.mp4", "a.mp4", "--max", "fdv=3"), "there is no score `fdv` here"),
    ],
)
def test_what_is_not_there_is_told_before_torch_is_imported(clean, words, said) -> None:
    Path("empty").mkdir()
    write_clip(noise("a", 1), "a.mp4")
    code = "import sys; from vidgen.cli.app import main; main(); print('torch' in sys.modules)"
    words = (sys.executable, "-c", code, "evaluate-fvd", *words)
    ran = subprocess.run(words, capture_output=True, text=True)
    assert said in ran.stderr
    assert ran.stdout == "False\n"


def test_clips_that_are_too_short_for_the_network_are_to_be_longer(vidgen, clean) -> None:
    some("one.vgs", 2, 1, frames=1)
    some("three.vgs", 2, 1, frames=3)
    ran = vidgen("evaluate-fvd", "one.vgs", "one.vgs", *FOUR)
    assert (ran.code, "next: make longer clips" in ran.err) == (3, True), ran.err
    ran = vidgen("evaluate-fvd", "three.vgs", "three.vgs", *FOUR)
    assert (ran.code, "next: --num-frames takes fewer" in ran.err) == (3, True), ran.err


def test_an_empty_folder(vidgen, sides) -> None:
    Path("empty").mkdir()
    ran = vidgen("evaluate-fvd", "real.vgs", "empty")
    assert ran.code == 3
    assert "empty: is an empty folder" in ran.err


def test_a_stream_is_one_side(vidgen, sides) -> None:
    data = Path("fake.vgs").read_bytes()
    piped = report(vidgen("evaluate-fvd", "real.vgs", "-", *FOUR, "--json", stdin=data))
    assert piped["scores"] == report(vidgen("evaluate-fvd", *sides, *FOUR, "--json"))["scores"]


def test_gates(vidgen, sides) -> None:
    ran = vidgen("evaluate-fvd", *sides, *FOUR, "--max", "fvd=1", "--report", "bad.json")
    assert ran.code == 4
    assert "fvd is" in ran.err
    assert vidgen("evaluate-fvd", *sides, *FOUR, "--max", "fvd=10000").code == 0
    some("better.vgs", 40, 5)
    words = ("evaluate-fvd", "real.vgs", "better.vgs", *FOUR)
    assert vidgen(*words, "--baseline", "bad.json", "--report", "good.json").code == 0
    ran = vidgen("evaluate-fvd", *sides, *FOUR, "--baseline", "good.json")
    assert ran.code == 4
    assert "fvd is worse" in ran.err


def test_protocols(vidgen, sides) -> None:
    some("long.vgs", 20, 1, frames=16)
    words = ("long.vgs", "long.vgs", "--protocol", "stylegan-v", "--json")
    found = report(vidgen("evaluate-fvd", *words))
    settings = found["settings"]
    assert (settings["protocol"], settings["divisor"]) == ("stylegan-v", "n")
    assert settings["extractor"]["extractor"] == "i3d:stylegan-v"
    assert settings["sampling"]["start"] == "random"
    assert any("takes 2048 clips" in w for w in found["warnings"])


def test_every_protocol_has_a_network_and_a_name_on_the_command_line() -> None:
    assert {p.features for p in PROTOCOLS.values()} <= set(extractors.NAMES)
    words = get_args(get_args(get_args(ProtocolName)[0])[0])
    assert words == tuple(PROTOCOLS)


def test_the_page_shows_clips_of_both_sides(vidgen, sides) -> None:
    assert vidgen("evaluate-fvd", *sides, *FOUR, "--html", "page.html").code == 0
    page = Path("page.html").read_text()
    assert "c0" in page
    assert "fvd_infinity" in page


def test_the_self_test_passes_and_can_fail(vidgen, monkeypatch) -> None:
    ran = vidgen("evaluate-fvd", "--self-test")
    assert ran.code == 0, ran.err
    assert "FAILED" not in ran.text
    for line in ran.text.splitlines()[1:]:
        known, computed = line.partition(" ok")[0].split()[-2:]
        assert (known != computed) == (" ok, to " in line), line
    found = report(vidgen("evaluate-fvd", "--self-test", "--json"))
    known = {item["expected"] for item in found["items"]}
    assert {17, 1.9211540048, 94.7775048917, 91.4000168364, 0} <= known
    right = frechet.frechet_distance
    monkeypatch.setattr(frechet, "frechet_distance", lambda *a: right(*a) + 1e-3)
    ran = vidgen("evaluate-fvd", "--self-test")
    assert ran.code == 1
    assert "checks failed" in ran.err
    assert "FAILED" in ran.text
