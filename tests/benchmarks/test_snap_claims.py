"""Snap Video's claims: what they measure with, their verdicts, and that they run and resume."""

from __future__ import annotations

import json

import pytest
import torch

from vidgen.systems.base import ModelFolder


def test_unrelated_frames_are_the_same_ones_of_other_clips() -> None:
    from benchmarks.snap_video.arms import unrelated

    clips = (10 * torch.arange(5)[:, None] + torch.arange(4)).view(5, 4, 1, 1, 1)
    mixed = unrelated(clips).flatten(1)
    assert (mixed % 10 == torch.arange(4)).all()  # each in its place in time
    assert all(len(set((clip // 10).tolist())) == 4 for clip in mixed)
    assert sorted(mixed.flatten().tolist()) == sorted(clips.flatten().tolist())


def test_what_is_unexplained_is_1_of_knowing_the_mean_and_0_of_knowing_all() -> None:
    from types import SimpleNamespace

    from benchmarks.snap_video.scaling import unexplained
    from vidgen.diffusion.prediction import X0

    x0 = torch.randn(6, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    for answer, share in ((x0, 0.0), (x0.mean(0, keepdim=True).expand_as(x0), 1.0)):
        task = SimpleNamespace(
            weights=SimpleNamespace(sigma_in=2.0), prediction=X0(),
            called=lambda modules, answer=answer: lambda z, t, cond: answer,
        )  # fmt: skip
        assert unexplained(task, {}, x0, {}, 3.0, draw) == pytest.approx(share, abs=1e-6)


def row(sigma_in: float, share: float, distances: list[float]) -> dict:
    unexplained = [[share, 1.1 * share, 0.9 * share]] * 2
    return {"arm": f"in {sigma_in:g}", "sigma_in": sigma_in, "sigma_data": 0.5,
            "unexplained": unexplained, "distances": distances}  # fmt: skip


def test_verdicts_of_scaling() -> None:
    from benchmarks.snap_video.scaling import checks, shares

    single = {"unexplained": [[0.5, 0.5, 0.5]] * 2}
    worse, better, mixed = [9.0, 9.5, 10.0], [4.0, 4.4, 5.1], [4.6, 4.9, 4.4]
    rows = [row(1.0, 0.1, worse), row(4.0, 0.49, better)]
    control = [row(1.0, 0.0, mixed), row(4.0, 0.0, [5.1, 5.2, 5.0])]
    found = [check.verdict for check in checks(rows, control, single)]
    assert found == ["reproduced"] * 3
    assert shares(rows, single)["in 1"] == pytest.approx([0.2, 0.2])
    swapped = [row(1.0, 0.49, better), row(4.0, 0.1, worse)]
    found = [check.verdict for check in checks(swapped, control[::-1], single)]
    assert found[:2] == ["not reproduced"] * 2
    # Clips that gain no more than unrelated frames do show nothing.
    alike = [row(1.0, 0.1, better), row(4.0, 0.49, mixed)]
    assert checks(alike, control, single)[2].verdict == "undecided"


def test_verdict_of_images() -> None:
    from benchmarks.snap_video.images import ARMS, checks

    def rows(*values: tuple[float, ...]) -> list[dict]:
        return [
            {"kind": kind, "seed": seed, "frames": v}
            for seed, pair in enumerate(values)
            for kind, v in zip(ARMS, pair, strict=True)
        ]

    def verdicts(*values: tuple[float, ...]) -> list[str]:
        return [check.verdict for check in checks(rows(*values))]

    apart_alike = ((3.0, 2.0, 2.0), (3.2, 2.1, 2.2), (3.1, 2.3, 2.2))
    assert verdicts(*apart_alike) == ["reproduced", "undecided"]
    assert verdicts((3.0, 2.5, 2.0), (3.2, 2.6, 2.1), (3.1, 2.6, 2.2)) == ["reproduced"] * 2
    assert verdicts((3.0, 1.0, 2.0), (3.2, 1.1, 5.1), (3.1, 1.2, 2.2))[0] == "undecided"


def test_images_apart_are_single_images_with_their_own_level() -> None:
    from benchmarks.snap_video.arms import apart
    from vidgen.diffusion.level import Level

    eps = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    level = Level(*(torch.full((2,), x) for x in (0.5, 0.25, 0.5)))
    made, at = apart(eps, level, torch.tensor([True, False]))
    assert (made[0] == eps[0, :, :1]).all() and torch.equal(made[1], eps[1])
    assert at.alpha.tolist() == [1.0, 0.25] and torch.equal(at.sigma, level.sigma)


def test_the_upsamplers_cost_is_linear_in_frames_without_local_layers(tmp_path) -> None:
    from benchmarks.snap_video import frames

    report = frames.run(tmp_path, frames.SMOKE)
    assert (tmp_path / "snap-video-frames.png").is_file()
    for name, found in report["figures"].items():
        growth = found["FLOPs over the shortest's"][-1]
        assert growth < 2 if name == frames.LINEAR else found["GFLOPs"][-1] > 0
    flops = [frames._flops(frames.config_of(t, 0)) for t in (4, 8, 16)]
    assert flops[2] - flops[1] == pytest.approx(2 * (flops[1] - flops[0]))
    flops = [frames._flops(frames.config_of(t, 1)) for t in (4, 8, 16)]
    assert flops[2] - flops[1] > 2.05 * (flops[1] - flops[0])


@pytest.mark.slow
@pytest.mark.parametrize("claim", ["scaling", "images", "binding"])
def test_claims_run_and_resume(claim, tmp_path, monkeypatch, capsys) -> None:
    from benchmarks.snap_video import __main__ as runner
    from benchmarks.snap_video import arms

    monkeypatch.setattr("vidgen.train.tasks.latents.SHARD", 64)
    words = [claim, "--smoke", "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    words += ["--out", str(tmp_path)]
    assert runner.main(words) == 0
    report = json.loads((tmp_path / f"snap-video-{claim}.json").read_text())
    assert report["settings"]["text_encoder"] == ModelFolder.find().text_encoder
    assert len(report["figures"]["rows"]) == {"scaling": 2, "images": 6, "binding": 6}[claim]
    assert (tmp_path / f"snap-video-{claim}.png").is_file()
    # Without its report it is put together from what was measured of each arm.
    (tmp_path / f"snap-video-{claim}.json").unlink()
    monkeypatch.setattr(arms, "train", None)
    assert runner.main(words) == 0
    again = json.loads((tmp_path / f"snap-video-{claim}.json").read_text())
    assert again["figures"] == report["figures"]


def test_arms_of_binding_differ_from_the_plain_one_in_what_they_are_called_for() -> None:
    from benchmarks.snap_video import binding

    folder = ModelFolder.find()
    plain, *others = (
        binding.recipe(name, binding.Settings(), folder, "cache").to_dict()
        for name in binding.ARMS if name != "latents"
    )  # fmt: skip
    assert plain["loss"]["self_conditioned"] == plain["model"]["local_layers"] == 0
    changed = [
        {f"{part}.{key}" for part in ("model", "data", "loss") for key in plain[part]
         if other[part][key] != plain[part][key]}
        for other in others
    ]  # fmt: skip
    assert changed == [
        {"loss.self_conditioned"}, {"model.local_layers"}, {"model.latents"}, {"data.images"},
    ]  # fmt: skip


def test_times_of_a_curve_go_on_from_the_last_step_that_was_logged(tmp_path) -> None:
    from benchmarks.snap_video.binding import read_curve

    rows = [
        {"step": 0, "samples": 0, "eval.val_loss": 2.0},
        {"step": 20, "seconds": 3.0, "samples": 40, "samples_per_s": 20.0, "loss": 1.0},
        {"step": 20, "samples": 40, "eval.val_loss": 1.5},
        {"step": 25, "samples": 50, "eval.val_loss": 1.25},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_curve(tmp_path / "metrics.jsonl") == [[3.0, 40, 1.5], [3.5, 50, 1.25]]
