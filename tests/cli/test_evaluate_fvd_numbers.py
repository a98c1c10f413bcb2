"""`vidgen evaluate-fvd`, with a network of six features: intervals, copies, other baselines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import save
from fvd_clips import FOUR, Colors, noise, report, some

from vidgen.cli import evaluate_fvd_scores
from vidgen.cli.eval_clips import Kept
from vidgen.cli.evaluate_fvd import PAGE
from vidgen.cli.evaluate_fvd_protocols import PROTOCOLS
from vidgen.cli.media import write_clip
from vidgen.metrics.intervals import Share
from vidgen.metrics.kernel import kernel_distance
from vidgen.metrics.prdc import prdc

pytestmark = pytest.mark.usefixtures("six_features")


class Said:
    """A console that nobody reads."""

    def warn(self, text: str) -> None: ...


def test_three_clips_have_no_interval(vidgen, clean) -> None:
    some("a.vgs", 3, 1)
    some("b.vgs", 9, 2)
    found = report(vidgen("evaluate-fvd", "a.vgs", "b.vgs", *FOUR, "--json"))
    assert found["scores"]["fvd"]["low"] is found["scores"]["kvd"]["low"] is None
    assert "no intervals: they take 4 clips of each side, here are 3" in found["warnings"]


def test_a_baseline_of_other_settings_is_refused_before_the_work(
    vidgen, sides, monkeypatch
) -> None:
    Path("ten").mkdir()
    for i in range(10):
        write_clip(noise(f"v{i}", 2), f"ten/v{i}.mp4")
    kept = ("--save-real", "real.st")
    assert vidgen("evaluate-fvd", "real.vgs", "ten", *FOUR, *kept, "--report", "a.json").code == 0
    words = ("evaluate-fvd", "real.vgs", "ten")
    monkeypatch.setattr(Colors, "__call__", lambda self, clips: pytest.fail("it worked"))
    for more, said in (
        (("--num-frames", "3"), "sampling.num_frames: 4 and 3"),
        ((*FOUR, "--features", "clip"), 'extractor.extractor: "world" and "clip"'),
    ):
        ran = vidgen(*words, *more, "--baseline", "a.json")
        assert (ran.code, said in ran.err) == (3, True), ran.err
    Path("ten/v3.mp4").unlink()
    ran = vidgen("evaluate-fvd", "real.st", "ten", *FOUR, "--baseline", "a.json")
    assert (ran.code, "clips.fake: 10 and 9" in ran.err) == (3, True), ran.err


def test_a_baseline_of_more_clips_says_which_were_left_out(vidgen, sides) -> None:
    records = [noise(f"c{i}", 2) for i in range(40)]
    assert vidgen("evaluate-fvd", *sides, *FOUR, "--report", "a.json").code == 0
    save("short.vgs", *records[:39], noise("short", 2, frames=2))
    words = ("evaluate-fvd", "real.vgs", "short.vgs", *FOUR, "--skip-bad", "--baseline", "a.json")
    ran = vidgen(*words)
    assert ran.code == 3
    assert "clips.fake: 40 and 39; --skip-bad left out 1 of FAKE" in ran.err
    assert "a new baseline of as many" in ran.err


@pytest.mark.parametrize("kept", [False, True])
def test_sides_of_other_rates_and_sizes_are_said(vidgen, sides, kept) -> None:
    fast = [noise(f"c{i}", 2, side=9) for i in range(40)]
    for record in fast:
        record.attrs["fps"] = 25
    save("fast.vgs", *fast)
    words = ("evaluate-fvd", "real.vgs", "fast.vgs", *FOUR)
    if kept:
        assert vidgen(*words, "--save-real", "r.st", "--save-fake", "f.safetensors").code == 0
        words = ("evaluate-fvd", "r.st", "f.safetensors")
    said = report(vidgen(*words, "--json"))["warnings"]
    assert "REAL and FAKE are of different rates, 8 and 25: --fps makes them one" in said
    assert any(w.startswith("REAL and FAKE are of different sizes, 8x8 and 9x9") for w in said)
    said = report(vidgen("evaluate-fvd", *sides, *FOUR, "--json"))["warnings"]
    assert not any("different" in w for w in said)


def test_copies_are_said(vidgen, sides) -> None:
    records = [noise(f"c{i}", 2) for i in range(30)]
    again = [noise(f"c{i}", 2) for i in range(3)]
    both = [noise(f"c{i}", 1) for i in range(7)]
    Path("in").mkdir()
    save("in/a.vgs", *records)
    save("in/b.vgs", *again)
    save("in/c.vgs", *both)
    said = report(vidgen("evaluate-fvd", "real.vgs", "in", *FOUR, "--json"))["warnings"]
    assert "3 of 40 clips of FAKE are copies of others, and count as new ones" in said
    assert any(w.startswith("7 clips are in REAL and in FAKE") for w in said)


def test_arrays_of_float64_lose_nothing(vidgen, clean) -> None:
    def features(seed: int, n: int, shift: float) -> np.ndarray:
        r = np.random.default_rng(seed)
        mix = r.standard_normal((64, 64)) / 8
        return r.standard_normal((n, 64)) @ mix + shift

    np.save("x.npy", features(31, 20, 0) + 1000)
    np.savez("y.npz", features(32, 24, 0.5) + 1000)
    kept = ("--save-real", "x.st", "--save-fake", "y.st")
    for pair, more in ((("x.npy", "y.npz"), kept), (("x.st", "y.st"), ())):
        found = report(vidgen("evaluate-fvd", *pair, *more, "--json"))
        assert found["scores"]["fvd"]["value"] == pytest.approx(94.7775048917, abs=1e-7)


def test_content_debiased_takes_all_real_clips(vidgen, sides, monkeypatch) -> None:
    monkeypatch.setitem(
        PROTOCOLS, "content-debiased-128", replace(PROTOCOLS["content-debiased-128"], clips=20)
    )
    some("real16.vgs", 30, 1, frames=16)
    for n, warned in ((20, False), (19, True)):
        some(f"{n}.vgs", n, 2, frames=16)
        words = ("real16.vgs", f"{n}.vgs", "--protocol", "content-debiased-128", "--json")
        said = report(vidgen("evaluate-fvd", *words))["warnings"]
        assert any("takes 20 clips of FAKE" in w for w in said) == warned


def test_kvd_of_many_clips_is_a_mean_of_subsets_that_strays_from_the_whole(monkeypatch) -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(80, 5, generator=g) + shift for shift in (0, 1))
    whole, how = evaluate_fvd_scores._kernel(x, y, 0)
    assert whole.value == kernel_distance(x, y)[0]
    assert whole.high - whole.value == pytest.approx(1.959964 * how["std"] * (1 / 3) ** 0.5)
    monkeypatch.setattr(evaluate_fvd_scores, "MANY", 79)
    mean, _ = evaluate_fvd_scores._kernel(x, y, 0)
    assert mean.value == how["mean"] == pytest.approx(whole.value, rel=0.1)
    assert mean.high - mean.value > whole.high - whole.value


def test_the_page_says_which_weights_make_no_published_number() -> None:
    assert "model_rgb.pth and rgb_imagenet.pt" in PAGE.notes["PROTOCOLS"]


def test_intervals_of_neighbors_hold_the_mean_where_those_of_shares_do_not(monkeypatch) -> None:
    monkeypatch.setattr(evaluate_fvd_scores, "RESAMPLES", 20)
    g = torch.Generator().manual_seed(0)
    pairs = [
        (torch.randn(80, 4, generator=g), 0.9 * torch.randn(80, 4, generator=g) + 0.4)
        for _ in range(100)
    ]
    means = {
        name: float(np.mean([vars(prdc(x, y))[name] for x, y in pairs]))
        for name in ("precision", "recall", "density", "coverage")
    }
    held = shares = 0
    for seed, (x, y) in enumerate(pairs[:25]):
        scores = evaluate_fvd_scores._neighbors(x, y, seed, console := Kept(Said()))
        assert not console.warnings
        for name, mean in means.items():
            held += scores[name].low <= mean <= scores[name].high
            if name != "density":
                low, high = Share(round(80 * scores[name].value), 80).interval
                shares += low <= mean <= high
    assert held >= 0.92 * 100
    assert shares < 0.88 * 75


def test_intervals_of_neighbors_take_halves_of_more_than_five(vidgen, clean) -> None:
    some("a.vgs", 11, 1)
    some("b.vgs", 12, 2)
    found = report(vidgen("evaluate-fvd", "a.vgs", "b.vgs", *FOUR, "--json"))
    assert found["scores"]["precision"]["low"] is None
    assert any("halves of 11 and 12 clips are too small" in w for w in found["warnings"])
