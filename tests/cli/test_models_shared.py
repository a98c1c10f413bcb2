"""A model that shares components with another: one paper's network on the shipped latents."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vidgen.errors import InputError
from vidgen.io.video import read_video
from vidgen.systems import base
from vidgen.systems.base import ModelFolder
from vidgen.systems.swap import put_in_place

PROMPT = ("--prompt", "a red ball bounces", "--seed", "3")


@pytest.fixture
def home(tiny_model: Path, tmp_path: Path) -> Path:
    """A folder with `world` in it, and beside it `paper`, which has a network alone."""
    home = tmp_path / "home"
    shutil.copytree(tiny_model, home / "world")
    candidate = Path(shutil.copytree(tiny_model, tmp_path / "run"))
    config = candidate / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"guidance_scale": 1.5}))
    put_in_place(ModelFolder(candidate), home / "paper", {}, {}, ModelFolder(home / "world"))
    return home


def edited(folder: Path, **shared: str) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index["shared"] |= shared
    (folder / "model_index.json").write_text(json.dumps(index))


def test_only_what_differs_is_copied(home: Path) -> None:
    there = sorted(p.name for p in (home / "paper").iterdir())
    assert there == ["model_index.json", "scheduler"]
    paper, world = ModelFolder(home / "paper"), ModelFolder(home / "world")
    assert paper.has("vae") and paper.place("vae") == world.path / "vae"
    assert (paper.latent_space, paper.text_encoder) == (world.latent_space, world.text_encoder)
    assert paper.identity("vae") == world.identity("vae")
    assert paper.sampler.guidance_scale == 1.5


def test_its_clips_are_those_of_a_whole_copy(vidgen, home: Path, tmp_path: Path) -> None:
    """What it makes goes on through the commands, and `--system` is `--model`."""
    clips = []
    for flag, model in (("--system", home / "paper"), ("--model", tmp_path / "run")):
        texts = vidgen("encode-text", PROMPT[1], "--model", str(home / "world"))
        made = vidgen("sample", flag, str(model), "--seed", "3", stdin=texts.out)
        assert made.code == 0, made.err
        ran = vidgen("decode", flag, str(model), "-o", f"{model.name}.mp4", stdin=made.out)
        assert ran.code == 0, ran.err
        clips.append(read_video(Path(f"{model.name}.mp4"))[0])
    assert (clips[0] == clips[1]).all()


def test_models_says_where_a_component_lies(vidgen, home: Path) -> None:
    ran = vidgen("models", "show", str(home / "paper"), "--json")
    row, lender = json.loads(ran.text)["models"][0], ModelFolder(home / "world").name
    assert {c["name"]: c["of"] for c in row["components"]} == {
        c["name"]: None if c["name"] == "scheduler" else lender for c in row["components"]
    }
    assert "shared with" in vidgen("models", "show", str(home / "paper")).text
    assert vidgen("models", "verify", str(home / "paper")).code == 0


def test_another_autoencoder_is_refused(vidgen, home: Path) -> None:
    edited(home / "paper", latent_space="world-vae@000000000000")
    ran = vidgen("sample", "--model", str(home / "paper"), *PROMPT)
    assert ran.code == 3 and ran.out == b""
    assert "made for the latent space `world-vae@000000000000`" in ran.err


def test_a_lender_that_is_gone_is_named(home: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(base, "SHIPPED", tmp_path / "nothing")
    edited(home / "paper", model="gone")
    with pytest.raises(InputError, match="no model `gone` beside it"):
        ModelFolder(home / "paper").latent_space  # noqa: B018


def test_a_new_part_leaves_the_others_shared(home: Path, other_model: Path) -> None:
    """As `models promote` puts a part into a model that shares the rest."""
    paper = ModelFolder(home / "paper")
    put_in_place(paper, home / "paper", {}, {"upsampler": ModelFolder(other_model)}, paper.lender)
    after = ModelFolder(home / "paper")
    assert after.owner("upsampler") is after or not after.has("upsampler")
    assert after.owner("vae").path == home / "world"


def test_one_that_shares_copies_whole_where_nobody_lends(home: Path, tmp_path: Path) -> None:
    put_in_place(ModelFolder(home / "paper"), tmp_path / "alone" / "paper", {})
    alone = ModelFolder(tmp_path / "alone" / "paper")
    assert alone.lender is None and alone.owner("vae") is alone and alone.has("vae")


def test_a_stored_name_shares_with_the_shipped_model(vidgen, home: Path, monkeypatch) -> None:
    monkeypatch.setattr(base, "SHIPPED", home)
    ran = vidgen("models", "add", str(home / "paper"), "--as", "mine")
    assert ran.code == 0 and "no files of" not in ran.err, ran.err
    assert vidgen("models", "verify", "mine").code == 0
    edited(home / "paper", model="gone")
    monkeypatch.setattr(base, "SHIPPED", home / "nothing")
    ran = vidgen("models", "add", str(home / "paper"), "--as", "other")
    assert ran.code == 3 and "no model `gone` beside it" in ran.err


def test_one_without_its_lender_does_not_hide_the_others(vidgen, home: Path) -> None:
    edited(home / "paper", text_encoder="world-text@000000000000")
    ran = vidgen("models", "--models", str(home))
    assert ran.code == 0 and str(home / "world") in ran.text, ran.err
    assert "left out" in ran.err and "made for the text encoder" in ran.err


def tried(vidgen, run: Path, home: Path, name: str) -> str:
    """What promoting it would do."""
    ran = vidgen("models", "promote", str(run), "--as", name, "-n", "--models-dir", str(home))
    assert ran.code == 0, ran.err
    assert "would be sampled" in ran.text
    return ran.text


def test_parts_that_are_shared_are_not_tried(vidgen, home: Path, tmp_path: Path) -> None:
    """The candidate's interpolation is that of `world` beside the place; not where nothing is
    beside it, where that of `world` differs, or where the place has one of its own."""
    run, said = tmp_path / "run", "interpolation: would be tried"
    assert said not in tried(vidgen, run, home, "other")
    assert said not in tried(vidgen, run, home, "paper")  # which shares it
    (tmp_path / "alone").mkdir()
    assert said in tried(vidgen, run, tmp_path / "alone", "other")
    shutil.copytree(home / "world" / "interpolation", home / "paper" / "interpolation")
    config = home / "paper" / "interpolation" / "config.json"
    own = json.loads(config.read_text())
    own["sample"]["num_inference_steps"] += 1
    config.write_text(json.dumps(own))
    assert said in tried(vidgen, run, home, "paper")
    shutil.copy(config, home / "world" / "interpolation" / "config.json")
    assert said in tried(vidgen, run, home, "other")
