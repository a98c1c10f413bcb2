"""`vidgen models`: what is listed, what is shown, and damage that `verify` must find."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vidgen.cli.models import SCHEMAS
from vidgen.systems import base

MODEL = SCHEMAS["vidgen.models/1"]["properties"]["models"]["items"]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def nothing_shipped(tmp_path, monkeypatch) -> None:
    """Only the models of the test are there."""
    monkeypatch.setattr(base, "SHIPPED", tmp_path / "shipped")


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A model to damage, in a folder of models."""
    return Path(shutil.copytree(tiny_model, tmp_path / "models" / "tiny"))


def change(path: Path, edit) -> None:
    """Edit the tensors of a weight file."""
    tensors = {k: v.clone() for k, v in load_file(path).items()}
    edit(tensors)
    save_file(tensors, path)


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_without_any_model_the_list_says_so(vidgen) -> None:
    ran = vidgen("models")
    assert (ran.code, ran.err) == (0, "")
    assert "there are no models here" in ran.text


def test_a_folder_of_models_is_listed_with_what_to_give_to_model(vidgen, copy) -> None:
    header, line = vidgen("models", "--dir", "models").text.splitlines()
    assert header.split()[0] == "model" and header.endswith("--model")
    assert line.startswith("tiny") and line.endswith(str(copy))
    assert "3 frames of 32x16 at 2 fps" in line
    assert "sample-keyframes, interpolate, upsample, encode-video, decode" in line


def test_the_variable_and_a_model_itself_are_places_too(
    vidgen, copy, other_model, monkeypatch
) -> None:
    monkeypatch.setenv("VIDGEN_MODELS", f"models{os.pathsep}{other_model}")
    names = [line.split()[0] for line in vidgen("models").text.splitlines()]
    assert names == ["model", "tiny", "other"]


def test_shipped_models_come_first_and_go_by_name(vidgen, copy, monkeypatch) -> None:
    monkeypatch.setattr(base, "SHIPPED", copy.parent)
    assert vidgen("models").text.splitlines()[1].endswith("  tiny")
    (row,) = json.loads(vidgen("models", "--json").text)["models"]
    assert row["shipped"] is True


def test_show_tells_configs_sizes_hashes_and_names(vidgen, copy) -> None:
    text = vidgen("models", "show", "tiny", "--dir", "models").text
    folder = base.ModelFolder(copy)
    assert folder.latent_space in text and folder.text_encoder in text
    assert hashlib.sha256((copy / "vae" / WEIGHTS).read_bytes()).hexdigest() in text
    count = sum(x.numel() for x in load_file(copy / "transformer" / WEIGHTS).values())
    assert f"transformer: vidgen.VideoDiT, {count:,} parameters" in text
    assert "solver euler" in text and "guidance_scale 2.0" in text


def test_json_has_the_keys_of_its_schema(vidgen, copy) -> None:
    (row,) = json.loads(vidgen("models", "show", str(copy), "--json").text)["models"]
    assert set(row) == set(MODEL["required"])
    part = MODEL["properties"]["components"]["items"]
    assert all(set(c) == set(part["required"]) for c in row["components"])
    assert row["geometry"] == {"num_frames": 3, "height": 16, "width": 32, "fps": 2.0}
    assert [c["name"] for c in row["components"]] == sorted(c["name"] for c in row["components"])


def test_verify_finds_a_whole_model_whole(vidgen, copy) -> None:
    ran = vidgen("models", "verify", "tiny", "--dir", "models")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[2].strip(",") for line in ran.text.splitlines()] == ["whole"] * 8


def drop(tensors: dict) -> None:
    tensors.pop("conv_in.weight", None) or tensors.popitem()


def widen(tensors: dict) -> None:
    name = next(k for k, v in tensors.items() if v.ndim == 1)
    tensors[name] = torch.zeros(len(tensors[name]) + 1)


def add(tensors: dict) -> None:
    tensors["no.such.tensor"] = torch.zeros(1)


def poison(tensors: dict) -> None:
    next(iter(tensors.values())).view(-1)[0] = torch.nan


@pytest.mark.parametrize(
    ("edit", "said"),
    [(drop, "lacks `"), (add, "holds `no.such.tensor`"), (widen, "the shape of `"),
     (poison, "not all of it is finite")],
)  # fmt: skip
@pytest.mark.parametrize(
    ("part", "file"),
    [("vae", WEIGHTS), ("transformer", WEIGHTS), ("text_encoder", "model.safetensors")],
)
def test_verify_finds_tensors_that_do_not_fit(vidgen, copy, part, file, edit, said) -> None:
    change(copy / part / file, edit)
    ran = vidgen("models", "verify", str(copy))
    assert ran.code == 3
    (line,) = [x for x in ran.text.splitlines() if "whole" not in x]
    assert line.split()[1] == part and said in line
    assert ran.err.splitlines()[0] == f"vidgen models: {copy}: the model is not whole"


def test_verify_finds_bytes_that_changed_behind_our_back(vidgen, copy) -> None:
    path = copy / "vae" / WEIGHTS
    os.utime(path, ns=(10**18, 10**18))
    vidgen("models", "show", str(copy))  # remembers the hash
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(10**18, 10**18))
    ran = vidgen("models", "verify", str(copy))
    assert ran.code == 3 and "its bytes have changed" in ran.text


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("scheduler/scheduler_config.json", {"solver": "ouler"}, "its solver is `ouler`"),
        ("text_encoder/config.json", {"vocab_size": 3}, "the text encoder has vectors for 3"),
        ("vae/config.json", {"channels": 5}, "the shape of `"),
        ("transformer/config.json", {"heads": "two"}, "config.json builds no VideoDiT"),
        ("model_index.json", {"vae": ["vidgen", "Nonesuch"]}, "nothing is known of its class"),
    ],
)
def test_verify_finds_settings_that_do_not_fit(vidgen, copy, file, changes, said) -> None:
    edit_json(copy / file, **changes)
    ran = vidgen("models", "verify", str(copy))
    assert ran.code == 3 and said in ran.text


@pytest.mark.parametrize("part", ["vae", "transformer", "text_encoder", "tokenizer"])
def test_verify_finds_a_component_that_is_gone(vidgen, copy, part) -> None:
    shutil.rmtree(copy / part)
    ran = vidgen("models", "verify", str(copy), "--json")
    assert ran.code == 3
    (row,) = json.loads(ran.text)["models"]
    assert [c["name"] for c in row["components"] if c["problems"]] == [part]


def test_a_folder_with_a_damaged_index_is_left_out_with_a_warning(vidgen, copy) -> None:
    (copy / "model_index.json").write_text("{")
    ran = vidgen("models", "--dir", "models")
    assert ran.code == 0 and "left out" in ran.err and "not JSON" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show",), "which model is to be shown?"),
        (("show", "nonesuch"), "no model called `nonesuch`"),
        (("shou", "tiny"), "remove, show, verify, promote, card; did you mean show?"),
        (("--dir", "nonesuch"), "--models nonesuch: is no folder"),
    ],
)
def test_mistakes_are_told(vidgen, words, said) -> None:
    ran = vidgen("models", *words)
    assert ran.code == 2 and said in ran.err


def test_list_and_show_need_no_torch(copy) -> None:
    code = (
        "import sys; from vidgen.cli import app\n"
        f"assert app.main(['models', 'show', {str(copy)!r}]) == 0\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'av')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
