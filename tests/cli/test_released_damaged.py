"""Released folders that are damaged: what is wrong is told at once, by the stage that needs it."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from released_folders import write
from safetensors.torch import load_file, save_file

from vidgen.errors import Exit
from vidgen.systems import wan

SIZE = ("--steps", "2", "--num-frames", "5", "--size", "32x32")
TEXT, VAE = "text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors"
SHARD = "transformer/diffusion_pytorch_model-00002-of-00002.safetensors"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan")
    write("wan 2.1", folder)
    return folder


@pytest.fixture
def model(written, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(written, tmp_path / "model"))


def cut(path):
    os.truncate(path, path.stat().st_size - 4)


def change(path, edit):
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("file", [TEXT, SHARD, VAE])
def test_a_cut_file_is_told_before_anything_is_computed(vidgen, model, file, monkeypatch):
    for name in ("load_transformer", "load_autoencoder", "load_encoder"):
        monkeypatch.setattr(wan, name, lambda *args: pytest.fail("weights were read"))
    cut(model / file)
    for more in ((), ("--dry-run",)):
        ran = vidgen("generate", "a ball", *SIZE, "--model", str(model), "-o", "x.vgs", *more)
        first, following = ran.err.splitlines()
        assert ran.code == Exit.BAD_INPUT and file in first and "the input ends inside" in first
        assert following == "  next: fetch the file again"


def test_latents_do_not_get_the_name_of_a_cut_autoencoder(vidgen, model):
    text = vidgen("encode-text", "a ball", "--model", str(model)).out
    cut(model / VAE)
    ran = vidgen("sample", *SIZE, "--model", str(model), stdin=text)
    assert ran.code == Exit.BAD_INPUT and VAE in ran.err


def rename(tensors):
    for name in sorted(tensors)[:7]:
        tensors["other." + name] = tensors.pop(name)


def reshape(tensors):
    for name in sorted(tensors)[:2]:
        tensors[name] = torch.zeros(3)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (rename, ("it lacks `encoder.", "and 2 more; it holds `other.encoder.", "16×16")),
        (reshape, ("not of the network's shape: `encoder.", "` (3), where the first should be ")),
        (lambda t: t.update({"more.weight": torch.zeros(2, 3)}), ("holds `more.weight` (2×3)",)),
    ],
)
def test_an_encoder_of_other_tensors_is_told_with_five_of_them(vidgen, model, edit, said):
    change(model / TEXT, edit)
    ran = vidgen("encode-text", "a ball", "--model", str(model))
    (line,) = [x for x in ran.err.splitlines() if x.startswith("vidgen encode-text: /")]
    assert ran.code == Exit.BAD_INPUT and all(words in line for words in said), line


def test_pickles_are_not_read(vidgen, model):
    (model / TEXT).rename(model / "text_encoder" / "pytorch_model.bin")
    ran = vidgen("encode-text", "a ball", "--model", str(model))
    assert ran.code == Exit.BAD_INPUT
    assert "no *.safetensors in it" in ran.err and "other files are not read" in ran.err


def test_a_file_that_git_lfs_left_behind_is_told(vidgen, model):
    (model / TEXT).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\n")
    ran = vidgen("encode-text", "a ball", "--model", str(model))
    assert ran.code == Exit.BAD_INPUT and TEXT in ran.err and "fetch the file again" in ran.err


def test_a_class_of_another_maker_is_told_with_those_known(vidgen, model):
    for file in ("model_index.json", "transformer/config.json", "text_encoder/config.json"):
        path, before = model / file, (model / file).read_text()
        key, value = ("architectures", ["CLIPTextModel"]) if "text" in file else (
            "_class_name", "FluxPipeline",
        )  # fmt: skip
        path.write_text(json.dumps(json.loads(before) | {key: value}))
        ran = vidgen("generate", "a ball", *SIZE, "--model", str(model), "-o", "x.vgs")
        assert ran.code == Exit.BAD_INPUT, file
        assert str(model / file) in ran.err and "known " in ran.err
        path.write_text(before)
