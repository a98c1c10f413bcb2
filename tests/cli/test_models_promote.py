"""`vidgen models promote`: a worse model is refused, and no failure loses the one in place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from json_schema import faults
from safetensors.torch import load_file, save_file

from vidgen.cli.models import SCHEMAS
from vidgen.cli.models_promote import OFFSET, in_words
from vidgen.metrics.intervals import Paired
from vidgen.metrics.judge import JudgeConfig, WorldJudge
from vidgen.metrics.world_accuracy import Mark
from vidgen.stages import judge_model as bench
from vidgen.systems import base, save
from vidgen.world.scene import VALIDATION_SEEDS

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def judge(tmp_path: Path) -> Path:
    """A tiny judge that has learned nothing."""
    config = JudgeConfig(widths=(8, 8), dim=24, depth=1, heads=2)
    folder = tmp_path / "judge"
    named = {"_class_name": "WorldJudge"} | config.to_dict()
    save.write_component(folder, named, WorldJudge(config), filename="model.safetensors")
    return folder


@pytest.fixture
def place(tiny_model: Path, tmp_path: Path, monkeypatch) -> Path:
    """The shipped model, with a card."""
    place = Path(shutil.copytree(tiny_model, tmp_path / "shipped" / "world"))
    (place / "README.md").write_text("the card\n")
    monkeypatch.setattr(base, "SHIPPED", tmp_path / "shipped")
    return place


@pytest.fixture
def candidate(other_model: Path, tmp_path: Path) -> Path:
    """A whole model, as it is trained: without parts for its latents."""
    folder = Path(shutil.copytree(other_model, tmp_path / "run" / "model"))
    without(folder, *save.PARTS)
    return folder


def without(folder: Path, *parts: str) -> None:
    """Take these components out of a model."""
    index = json.loads((folder / "model_index.json").read_text())
    for part in parts:
        shutil.rmtree(folder / part, ignore_errors=True)
        index.pop(part, None)
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture
def scored(monkeypatch):
    """`scored(old, new)`: how many of four clips are said to be right; the order of the looks."""
    looks: list[str] = []

    def set_scores(old: int, new: int) -> list[str]:
        def judge_model(folder, judge, scenes, *args, **kwargs) -> list[Mark]:
            looks.append(folder.path.name)
            right = old if folder.path.name == "world" else new
            pairs = [("shape", "ball", "ball" if i < right else "cube") for i in range(4)]
            return [Mark((pair,), pair[1] == pair[2]) for pair in pairs]

        monkeypatch.setattr(bench, "judge_model", judge_model)
        return looks

    return set_scores


@pytest.fixture
def promote(vidgen, judge, place, candidate):
    def run(*words: str):
        return vidgen("models", "promote", str(candidate), "--judge", str(judge), "--num", "4",
                      *words)  # fmt: skip

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_better_model_takes_the_place_and_the_card_stays(
    promote, scored, place, candidate
) -> None:
    scored(2, 3)
    ran = promote()
    assert ran.code == 0 and f"{place} is now the model of {candidate}" in ran.err
    assert (place / WEIGHTS).read_bytes() == (candidate / WEIGHTS).read_bytes()
    assert (place / "README.md").read_text() == "the card\n"
    assert base.ModelFolder.find("world").name == "world"
    assert [p.name for p in place.parent.iterdir()] == ["world"]


def test_an_equal_model_is_no_worse(promote, scored) -> None:
    scored(3, 3)
    assert promote().code == 0


def test_a_worse_model_is_refused_and_nothing_changes(promote, scored, place) -> None:
    before = contents(place.parent)
    scored(3, 2)
    ran = promote()
    assert ran.code == 4
    assert ran.err.splitlines() == [
        f"vidgen models: {place} stays as it is: all is right in 2 of the candidate's 4 clips,"
        " in 3 of its own",
        "  why:  clips that one alone gets right: the candidate 0, the model in place 1;"
        " p = 1 if both are equally good",
    ]
    assert contents(place.parent) == before


def test_both_are_told_side_by_side(promote, scored) -> None:
    looks = scored(2, 3)
    head, shape, whole, paired = promote().text.splitlines()
    assert head.split() == "in place 95 % interval candidate 95 % interval gain".split()
    assert shape.split()[:3] == ["shape", "50.0", "%"] and shape.split()[-1] == "+25.0"
    assert whole.split()[0] == "all"
    assert paired == in_words(Paired(2, 0, 1, 1)) and ": the candidate 1, the" in paired
    assert looks == ["world", "model"]


@pytest.mark.parametrize(("old", "new", "code"), [(1, 2, 0), (2, 1, 4)])
def test_json_follows_its_schema(promote, scored, old, new, code) -> None:
    scored(old, new)
    ran = promote("--json", "-q")
    report = json.loads(ran.text)
    assert ran.code == code and report["promoted"] is (code == 0)
    assert faults(report, SCHEMAS["vidgen.models-promote/1"]) == []
    assert (report["old"]["all"]["right"], report["new"]["all"]["right"]) == (old, new)


def test_the_difference_is_judged_clip_by_clip(promote, monkeypatch) -> None:
    """Nine clips that only one gets right, eight of them the candidate: p = 2 · (1 + 9) / 2⁹."""
    right = {"world": [True] * 4 + [False] * 8, "model": [True] * 3 + [False] + [True] * 8}

    def judge_model(folder, judge, scenes, *args, **kwargs) -> list[Mark]:
        assert len(scenes) == 12
        pairs = [("shape", "ball", "ball" if r else "cube") for r in right[folder.path.name]]
        return [Mark((pair,), pair[1] == pair[2]) for pair in pairs]

    monkeypatch.setattr(bench, "judge_model", judge_model)
    ran = promote("--num", "12", "--json", "-q")
    assert ran.code == 0
    assert json.loads(ran.text)["paired"] == {
        "both": 3, "old": 1, "new": 8, "neither": 0, "p": 20 / 512,
    }  # fmt: skip


def test_its_scenes_are_those_by_which_nothing_was_chosen(promote, monkeypatch) -> None:
    """Training and the benchmarks look at the first validation scenes."""
    seeds: list[int] = []

    def judge_model(folder, judge, scenes, *args, **kwargs) -> list[Mark]:
        seeds.extend(scene.seed for scene in scenes)
        return [Mark((), True) for _ in scenes]

    monkeypatch.setattr(bench, "judge_model", judge_model)
    assert promote().code == 0
    first = VALIDATION_SEEDS.start + OFFSET
    assert OFFSET >= 100_000
    assert seeds == [*range(first, first + 4)] * 2
    assert first + 100_000 <= VALIDATION_SEEDS.stop


def test_where_no_model_is_there_is_nothing_to_beat(promote, scored, place) -> None:
    looks = scored(4, 0)
    ran = promote("--as", "second", "--json", "-q")
    report = json.loads(ran.text)
    assert ran.code == 0 and report["old"] is None and report["paired"] is None
    assert looks == ["model"]
    assert base.ModelFolder.find("second").name == "second"
    assert place.is_dir()


def test_another_folder_of_models(promote, scored, place, tmp_path) -> None:
    scored(4, 0)
    (tmp_path / "mine").mkdir()
    before = contents(place)
    assert promote("--models-dir", "mine").code == 0
    assert (tmp_path / "mine" / "world" / "model_index.json").is_file()
    assert contents(place) == before


def test_a_dry_run_looks_at_nothing_and_changes_nothing(promote, scored, place) -> None:
    looks, before = scored(0, 4), contents(place.parent)
    ran = promote("-n")
    assert (ran.code, ran.err, looks) == (0, "", [])
    assert "4 validation captions" in ran.text and str(place) in ran.text
    assert contents(place.parent) == before


def test_a_model_that_is_not_whole_is_not_tried(promote, scored, place, candidate) -> None:
    looks = scored(0, 4)
    tensors = load_file(candidate / WEIGHTS)
    tensors.popitem()
    save_file(tensors, candidate / WEIGHTS)
    ran = promote()
    assert ran.code == 3 and "the model is not whole" in ran.err and "transformer: lacks" in ran.err
    assert looks == []


@pytest.mark.parametrize("broken", ["copytree", "copy2"])
def test_a_copy_that_fails_leaves_the_old_model(
    promote, scored, place, monkeypatch, broken
) -> None:
    scored(0, 4)
    before = contents(place.parent)

    def fail(*args, **kwargs):
        raise OSError("the disk is gone")

    monkeypatch.setattr(shutil, broken, fail)
    assert promote().code == 1
    assert contents(place.parent) == before
    assert [p.name for p in place.parent.iterdir()] == ["world"]


@pytest.mark.parametrize(("error", "code"), [(OSError("no"), 1), (KeyboardInterrupt(), 130)])
def test_a_swap_that_stops_halfway_brings_the_old_model_back(
    promote, scored, place, monkeypatch, error, code
) -> None:
    scored(0, 4)
    before, rename = contents(place.parent), Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    assert promote().code == code
    assert contents(place.parent) == before
    assert [p.name for p in place.parent.iterdir()] == ["world"]


def test_weights_that_change_under_our_hands_are_refused(
    promote, scored, place, candidate, other_model, monkeypatch
) -> None:
    scored(0, 4)
    before, judged = contents(place.parent), bench.judge_model

    def meanwhile(folder, *args, **kwargs):
        tensors = {k: v.clone() for k, v in load_file(candidate / WEIGHTS).items()}
        next(iter(tensors.values())).view(-1)[0] += 1
        save_file(tensors, candidate / WEIGHTS)
        return judged(folder, *args, **kwargs)

    monkeypatch.setattr(bench, "judge_model", meanwhile)
    ran = promote()
    assert ran.code == 3 and "transformer: has changed meanwhile" in ran.err
    assert contents(place.parent) == before


def test_real_clips_are_looked_at(promote, place, candidate) -> None:
    """Nothing is replaced here: both models sample, and the judge looks, at five small frames."""
    for folder in (place, candidate):
        path = folder / "transformer" / "config.json"
        config = json.loads(path.read_text())
        config["sample"]["num_frames"] = 5
        path.write_text(json.dumps(config))
    ran = promote("--json", "-q")
    report = json.loads(ran.text)
    assert ran.code in (0, 4) and report["clips"] == 4
    assert report["old"]["all"]["of"] == report["new"]["all"]["of"] == 4


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("promote",), 2, "which model is to be promoted?"),
        (("promote", "none"), 2, "none: is no folder"),
        (("promote", "judge"), 3, "judge: a folder without model_index.json"),
        (("promote", "run/model", "--as", "../x"), 2, "--as ../x: is no name of a model"),
        (("promote", "run/model", "--models-dir", "no"), 2, "--models-dir no: is no folder"),
        (("promote", "run/model", "--judge", "run"), 2, "no judge in run"),
        (("promote", "shipped/world"), 2, "shipped/world: is that model already"),
        (("promote", "run/model", "-o", "x"), 2, "--output is for `vidgen models card`"),
        (("list", "-n"), 2, "`vidgen models promote`, not for list"),
    ],
)
def test_mistakes_are_told(vidgen, judge, place, candidate, words, code, said) -> None:
    ran = vidgen("models", *words)
    assert ran.code == code and said in ran.err


def test_a_part_of_a_model_is_no_candidate(promote, candidate) -> None:
    path = candidate / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in index.items() if k != "text_encoder"}))
    ran = promote("-n")
    assert ran.code == 3 and "has no text_encoder" in ran.err
