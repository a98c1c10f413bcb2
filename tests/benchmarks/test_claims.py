"""The claims: what they measure with, their verdicts, and that they run and resume."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch

from vidgen.errors import InputError
from vidgen.systems.base import ModelFolder


@pytest.fixture
def model(tiny_model) -> ModelFolder:
    return ModelFolder.find(str(tiny_model))


def test_a_figure_and_its_interval() -> None:
    from benchmarks.claim_report import Figure, student

    figure = Figure.of([1.0, 2.0, 3.0, math.nan])
    assert (figure.mean, figure.sd, figure.n) == (2.0, 1.0, 3)
    assert figure.interval == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    assert Figure.of([1.0]).to_dict()["low"] is None
    stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 5, 8, 9, 20, 127):
        assert student(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=2e-3)


def test_verdicts() -> None:
    from benchmarks.claim_report import COST, NO, OPEN, YES, difference, overall

    higher, lower = [2.0, 3.1, 4.0], [1.0, 2.0, 3.0]
    found = difference("x", higher, lower, side="above")
    against = difference("x", higher, lower, side="below")
    unsure = difference("x", [1.0, 3.0], [3.0, 1.0], side="below")
    assert [c.verdict for c in (found, against, unsure)] == [YES, NO, OPEN]
    once = difference("x", [2.0], [1.0], side="above")
    assert once.verdict == OPEN  # one measure has no spread
    assert overall([found, found]) == YES
    assert overall([found, unsure]) == OPEN
    assert overall([found, unsure, against]) == NO
    assert overall([]) == COST


def test_what_is_measured_is_not_measured_again(tmp_path) -> None:
    from benchmarks.claim_report import once

    calls = []

    def make():
        calls.append(1)
        return {"x": math.nan}

    path = tmp_path / "a" / "b.json"
    assert once(path, {"n": (1, 2)}, make)["x"] is None
    once(path, {"n": (1, 2)}, make)
    assert len(calls) == 1
    once(path, {"n": (1, 3)}, make)
    assert len(calls) == 2
    assert json.loads(path.read_text())["settings"] == {"n": [1, 3]}


def test_distance_to_the_nearest_keyframe() -> None:
    from benchmarks.fusion_frames.guidance import apart, nearest

    clip = torch.zeros(1, 2, 5, 1, 1)
    clip[0, :, :, 0, 0] = torch.tensor([0.0, 1.0, 2.0, 3.5, 4.0])
    assert float(nearest(clip)) == pytest.approx((1 + 2 + 0.5) / 3)
    assert float(apart(clip[:, :, ::4])) == pytest.approx(4)


def test_jerkiness_is_zero_of_even_change() -> None:
    from benchmarks.fusion_frames.clips import between, jerkiness, middle

    clip = torch.arange(9, dtype=torch.uint8).view(1, 9, 1, 1, 1).expand(1, 9, 2, 2, 3) * 5
    assert jerkiness(clip).tolist() == [0]
    assert between(clip)[0, :, 0, 0, 0].tolist() == [5, 10, 15, 25, 30, 35]
    assert middle(clip)[0, :, 0, 0, 0].tolist() == [10, 30]
    jump = clip.clone()
    jump[:, 4] += 7
    assert float(jerkiness(jump)) == pytest.approx((3.5 + 7 + 3.5) / 7)


def test_paths_are_found_by_color() -> None:
    from benchmarks.fusion_frames.paths import path_error

    true = torch.full((2, 20, 30, 3), 60, dtype=torch.uint8)
    owner = torch.zeros(2, 20, 30, dtype=torch.int8)
    for t in range(2):
        owner[t, 4:8, 5 + 5 * t : 9 + 5 * t] = 1
    true[owner == 1] = torch.tensor([200, 30, 30], dtype=torch.uint8)
    assert path_error(true, true, owner) == pytest.approx(0, abs=0.01)
    assert path_error(true.roll(3, dims=2), true, owner) == pytest.approx(3, abs=0.05)
    assert math.isnan(path_error(true, true, torch.zeros_like(owner)))


def test_layers_have_as_many_parameters_as_blocks_and_begin_as_nothing() -> None:
    from benchmarks.fusion_frames import blocks
    from benchmarks.fusion_frames.keyframes_task import equalized
    from vidgen.nn.unet import UNet

    for settings in (blocks.Settings(), blocks.SMOKE):
        count = blocks.parameters(settings)
        ratio = count["layers"]["temporal"] / count["blocks"]["temporal"]
        assert ratio == pytest.approx(1, abs=0.02)
    torch.manual_seed(0)
    layers, pictures = (
        UNet(blocks.SMOKE.config(v)) for v in ("conv1d_attn1d_layers", "spatial")
    )  # fmt: skip
    layers.load_state_dict(pictures.state_dict(), strict=False)
    equalized(layers)
    told = {"text": torch.randn(1, 3, 128)}
    z, t = torch.randn(1, 8, 3, 2, 4), torch.rand(1)
    with torch.no_grad():
        torch.testing.assert_close(layers(z, t, **told), pictures(z, t, **told))


def test_a_system_without_claims_is_told_which_have_some(capsys) -> None:
    from benchmarks import claims

    for words in (["unknown"], []):
        with pytest.raises(SystemExit) as ended:
            claims.main(words)
        assert ended.value.code == 2
        assert "there are those of fusion-frames" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        claims.main(["fusion-frames", "z"])
    assert ended.value.code == 2 and "no claim z" in capsys.readouterr().err


def test_a_claim_that_cannot_be_measured_does_not_end_the_others(
    model, tmp_path, monkeypatch, capsys
) -> None:
    from benchmarks.fusion_frames import __main__ as runner
    from benchmarks.fusion_frames import guidance

    still = replace(guidance.SMOKE, moving=1e9)
    with pytest.raises(InputError, match="nowhere 1e\\+09 apart"):
        guidance.measure(model, still)
    measured = []

    def run(claim, options):
        measured.append(claim)
        return guidance.measure(model, still)

    monkeypatch.setattr(runner, "run", run)
    assert runner.main(["c", "b", "--smoke", "--runs", str(tmp_path)]) == 1
    assert measured == ["guidance", "grouped"]
    assert capsys.readouterr().err.count("not measured: neighboring keyframes") == 2


@pytest.mark.slow
def test_grouped_and_guidance_run_and_resume(model, tmp_path, monkeypatch) -> None:
    from benchmarks.fusion_frames import grouped, guidance

    models = {"grouped": model, "masked": model}
    report = grouped.run(tmp_path, models, grouped.SMOKE)
    cost = report["figures"]["costs"]
    # Three steps, guided, a last step without noise; five pictures for each group's one.
    assert cost["grouped"]["evaluations"] == 3 * 2
    assert cost["masked"]["pictures"] == 5 * cost["grouped"]["pictures"]
    assert cost["flops_ratio"] < 0.5
    assert (tmp_path / "fusion-frames-grouped.png").is_file()
    monkeypatch.setattr(grouped, "measure", None)  # not called again
    assert grouped.run(tmp_path, models, grouped.SMOKE) == report
    rows = guidance.run(tmp_path, models, guidance.SMOKE)["figures"]["rows"]
    assert [row["w"] for row in rows] == [0, 0.25, 3]


@pytest.mark.slow
def test_decoders_run(tmp_path) -> None:
    from benchmarks.fusion_frames import decoders

    report = decoders.run(
        tmp_path, ModelFolder.find(), decoders.SMOKE, tmp_path / "runs"
    )  # fmt: skip
    rows = report["figures"]["rows"]
    assert [row["name"] for row in rows] == ["image", *(row.name for row in decoders.ROWS)]
    by_name = {row["name"]: row["parameters"] for row in rows}
    assert by_name["image"] < by_name["3×1×1"] < by_name["3×3×3"] < by_name["3×3×3 + attention"]


def test_blocks_are_better_where_they_have_less() -> None:
    """Of each measure, seed by seed."""
    from benchmarks.fusion_frames import blocks

    less, more, mixed = (0.1, 0.2, 0.3), (2.1, 2.2, 2.3), (0.1, 2.2, 0.3)
    rows = [
        {"variant": name, "seed": seed, "val_loss": a[seed], "distance": b[seed], "path": c[seed]}
        for name, (a, b, c) in {
            "blocks": (less, more, mixed), "layers": ((1.0, 1.2, 1.3),) * 3
        }.items()
        for seed in range(3)
    ]  # fmt: skip
    verdicts = [check.verdict for check in blocks.checks(rows)]
    assert verdicts == ["reproduced", "not reproduced", "undecided"]


@pytest.mark.slow
def test_blocks_run(tmp_path) -> None:
    from benchmarks.claim_report import overall, plain
    from benchmarks.fusion_frames import blocks

    report = blocks.run(
        tmp_path, ModelFolder.find(), blocks.SMOKE, tmp_path / "runs", tmp_path / "cache"
    )  # fmt: skip
    rows = report["figures"]["rows"]
    assert len(rows) == 4
    checks = blocks.checks(rows)
    assert report["checks"] == [plain(check.to_dict()) for check in checks]
    assert report["verdict"] == overall(checks)
    assert report["settings"]["judge"] == blocks.judge_sha256()
    assert len(blocks.judge_sha256()) == 64


@pytest.mark.slow
def test_the_cascade_is_measured_and_says_what_is_missing(tiny_model, tmp_path, capsys) -> None:
    from benchmarks import cascade

    out = tmp_path / "cascade.json"
    cascade.main(["--smoke", "--model", str(tiny_model), "--out", str(out)])
    stages = json.loads(out.read_text())["stages"]
    assert set(stages["upsample"]["better_by"]) == {"bicubic pictures", "bilinear latents"}
    assert stages["decode"] == {"skipped": "no component video_decoder"}
    assert "interpolate: grouped" in capsys.readouterr().out


@pytest.mark.parametrize(("factor", "skipped"), [(1, False), (2, True)])
def test_the_whole_cascade_needs_an_upsampler_where_clips_are_enlarged(
    model, factor, skipped, monkeypatch
) -> None:
    from benchmarks import cascade

    monkeypatch.setattr(cascade.Bench, "__init__", lambda self: None)
    for i, stage in enumerate(("interpolate", "upsample", "decode", "all")):
        values = {measure: [i, i + 1.0] for measure in cascade.MEASURES}
        scores = {"made": values, "other": values}
        monkeypatch.setattr(cascade.Bench, stage, lambda self, scores=scores: scores)
    bench = cascade.Bench()
    bench.models, bench.factor = {"interpolate": model, "upsample": None, "decode": model}, factor
    rows = bench.rows()
    found = {stage for stage, row in rows.items() if "skipped" in row}
    assert found == {"upsample"} | ({"all"} if skipped else set())


def test_the_cascade_finds_what_is_shared(tiny_model, tmp_path) -> None:
    from benchmarks import cascade
    from vidgen.systems.swap import put_in_place

    for name in ("lender", "other"):
        shutil.copytree(tiny_model, tmp_path / name)
    config = tmp_path / "other" / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"guidance_scale": 1.5}))
    place, lender = tmp_path / "paper", ModelFolder(tmp_path / "lender")
    put_in_place(ModelFolder(tmp_path / "other"), place, {}, {}, lender)
    paper = ModelFolder(place)
    assert not (place / "upsampler").exists()
    assert cascade.find(None, "upsampler", paper) is paper
    assert cascade.find(None, "video_decoder", paper) is None


def test_interpolation_costs_are_of_the_shipped_recipe() -> None:
    from benchmarks import video

    assert (video.config_of("grouped").in_channels, video.config_of("grouped").out_channels) == (
        40, 24,
    )  # fmt: skip
    assert video.config_of("masked").out_channels == 8
