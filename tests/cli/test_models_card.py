"""`vidgen models card`: every figure comes from its files, and bad files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_report import report, run_folder
from safetensors.torch import load_file

from vidgen.cli.models_card import read_report, read_run
from vidgen.errors import InputError
from vidgen.systems.base import ModelFolder

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def files(clean: Path) -> Path:
    """report.json, runs/keyframes and two pictures."""
    Path("report.json").write_text(json.dumps(report()))
    run_folder(Path("runs/keyframes"))
    Path("out").mkdir()
    for picture in ("wrong clips.png", "runs/keyframes/loss.png"):
        Path(picture).write_bytes(b"PNG")
    return clean


@pytest.fixture
def card(vidgen, files, tiny_model):
    """The card's text, with more options if given."""

    def make(*words: str) -> str:
        ran = vidgen("models", "card", str(tiny_model), "--report", "report.json", *words)
        assert (ran.code, ran.err) == (0, "")
        return ran.text

    return make


def row(text: str, first: str, *, after: str = "") -> list[str]:
    """The cells of the table's row that begins so."""
    for line in text[text.index(after) :].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if cells[0] == first:
            return cells
    raise AssertionError(f"no row {first}\n{text}")


def sections(text: str) -> list[str]:
    return [line[3:] for line in text.splitlines() if line.startswith("## ")]


def test_parts_are_those_of_the_model(card, tiny_model) -> None:
    text, folder = card(), ModelFolder(tiny_model)
    count = sum(x.numel() for x in load_file(tiny_model / "vae" / WEIGHTS).values())
    cells = row(text, "`vae`")
    assert cells[1:3] == ["vidgen.VideoAutoencoder", f"{count:,}"]
    assert cells[-1] == f"`{folder.sha256('vae')[:12]}`"
    assert folder.latent_space in text and folder.text_encoder in text
    assert "3 keyframes, 0.5 s apart, of 32 × 16 pixels" in text
    assert "Then three frames between any two of them and sides twice as long." in text


def test_shares_have_intervals_ceiling_and_floor(card) -> None:
    text = card()
    part = "## How often it is right"
    assert row(text, "motion", after=part) == [
        "motion", "82.4 %", "78.9 – 85.5", "512", "100.0 %", "14.3 %",
    ]  # fmt: skip
    assert "512 clips" in text and "`abababababab`" in text


def test_further_reports_have_a_table_each(card) -> None:
    Path("full world.json").write_text(json.dumps(report(level="full", clips=77)))
    text = card("--also", "full world.json")
    part = "## How often it is right: `full world`"
    assert row(text, "motion", after=part)[1] == "82.4 %"
    assert "77 clips of the full world" in text[text.index(part) :]
    assert text.index("512 clips of the basic world") < text.index(part)
    assert "shape: ball, cube, cylinder, cone, ring" in text


def test_unseen_stand_beside_the_others(card) -> None:
    cells = row(card(), "all", after="## Combinations never trained on")
    assert cells[1] == "46.9 %" and cells[3] == "64"
    assert cells[4] == "84.8 %" and cells[6] == "448"


def test_confusions_come_by_how_often(card) -> None:
    text = card()
    text = text[text.index("## What is taken for what") :]
    assert row(text, "motion") == ["motion", "spins", "stays", "90", "230"]
    assert text.index("| motion | spins |") < text.index("| color | red |")


def test_limits_name_what_is_surely_weak_and_what_is_open(card) -> None:
    text = card()
    limits = text[text.index("## Limits") :]
    assert "lie below 95 %: motion (82.4 %), all (80.1 %)." in limits
    assert "too few clips to tell: color (" in limits and "shape" not in limits
    assert "intervals apart: motion, all." in limits
    assert "32 × 16 pixels, 3 frames, 2 a second" in limits


def test_runs_tell_samples_minutes_losses_and_measures(card) -> None:
    text = card("--run", "runs/keyframes")
    assert row(text, "`keyframes`") == [
        "`keyframes`", "keyframes", "10,240", "64", "12.0", "0.6", "0.35", "muon", "bfloat16",
    ]  # fmt: skip
    measures = row(text, "val_loss")
    assert len(measures) == 7 and measures[1] == "0.59" and measures[-1] == "0.34"


def test_a_device_is_told_where_the_run_knows_it(card) -> None:
    path = Path("runs/keyframes/metrics.jsonl")
    path.write_text(json.dumps({"step": 1, "samples": 8, "loss": 1.0, "device": "cuda"}) + "\n")
    assert row(card("--run", "runs/keyframes"), "`keyframes`")[-1] == "cuda"


def test_pictures_are_linked_from_where_the_card_is(card) -> None:
    card("--failures", "wrong clips.png", "--curve", "runs/keyframes/loss.png",
         "-o", "out/README.md")  # fmt: skip
    text = Path("out/README.md").read_text()
    assert "](../wrong%20clips.png)" in text and "](../runs/keyframes/loss.png)" in text


def test_the_same_files_give_the_same_card(card) -> None:
    assert card("--run", "runs/keyframes") == card("--run", "runs/keyframes")


def test_what_the_report_lacks_is_left_out(card) -> None:
    lacking = {"ceiling": None, "floor": None, "unseen": None, "seen": None, "places": None}
    Path("report.json").write_text(json.dumps(report(**lacking, confusion={}, wrong=[])))
    text = card()
    gone = {
        "How it was trained", "Combinations never trained on", "Diversity",
        "What is taken for what",
    }  # fmt: skip
    assert not gone & set(sections(text))
    assert "Something is wrong in 0 of 512 clips." in text
    assert row(text, "all", after="## How often")[-2:] == ["–", "–"]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"schema": "vidgen.inspect/1"}, "no report of evaluate-world"),
        ({"clips": "many"}, "`clips` is not as"),
        ({"scores": {"all": {"share": 1}}}, "`scores.all.right` is not as"),
        ({"scores": {}}, "`scores.all` is not as"),
        ({"judge": {"name": "x"}}, "`judge.sha256` is not as"),
        ({"confusion": {"shape": {"ball": 3}}}, "`confusion.shape.ball` is not as"),
        ({"floor": {"all": None}}, "`floor.all` is not as"),
        ({"wrong": [3]}, "`wrong.0` is not as"),
    ],
)
def test_a_report_of_another_shape_is_refused(vidgen, files, tiny_model, changes, place) -> None:
    Path("report.json").write_text(json.dumps(report(**changes)))
    ran = vidgen("models", "card", str(tiny_model), "--report", "report.json")
    assert ran.code == 3 and place in ran.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "a card is written from a report"),
        (("--report", "none.json"), 3, "none.json: cannot be read"),
        (("--report", "report.json", "--run", "out"), 3, "out: is no folder of a run"),
        (("--report", "report.json", "--curve", "no.png"), 2, "no.png: there is no such picture"),
        (("--report", "report.json", "-o", "report.json"), 2, "is there already"),
        (("--report", "report.json", "-o", "{id}.md"), 2, "one file"),
    ],
)
def test_mistakes_are_told(vidgen, files, tiny_model, words, code, said) -> None:
    ran = vidgen("models", "card", str(tiny_model), *words)
    assert ran.code == code and said in ran.err


@pytest.mark.parametrize(
    "words",
    [("--report", "report.json"), ("-o", "x.md"), ("--run", "x"), ("-f",)],
)
def test_options_of_the_card_are_the_cards_alone(vidgen, files, words) -> None:
    ran = vidgen("models", "list", *words)
    assert ran.code == 2 and "`vidgen models card`, not for list" in ran.err


@pytest.mark.parametrize(
    "text", ["[" * 100_000, json.dumps(report(clips=1)).replace("0.625", "1" * 400)]
)
def test_numbers_and_depths_that_python_cannot_hold(tmp_path, text) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_report(str(path))


@pytest.mark.parametrize("seconds", ["soon", None, [1]])
def test_a_run_that_does_not_tell_its_time(tmp_path, seconds) -> None:
    folder = run_folder(tmp_path / "run")
    (folder / "metrics.jsonl").write_text(
        json.dumps({"samples": 64, "loss": 0.5, "seconds": seconds})
    )
    assert read_run(folder).seconds == 0
