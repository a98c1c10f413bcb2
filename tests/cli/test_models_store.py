"""`vidgen models add` and `remove`, and what a name means: by reference, from disk and the hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from fake_hub import COMMIT, Hub, serving

from vidgen.io import model_store
from vidgen.systems import base
from vidgen.systems.base import ModelFolder

WEIGHTS = "diffusion_pytorch_model.safetensors"
REPO = "makers/Tiny-Diffusers"


@pytest.fixture(autouse=True)
def nothing_shipped(tmp_path, monkeypatch) -> None:
    """Only the models of the test are there."""
    monkeypatch.setattr(base, "SHIPPED", tmp_path / "shipped")


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A model to damage, and a variant of its weights that nobody reads."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "tiny"))
    shutil.copy(
        folder / "vae" / WEIGHTS, folder / "vae" / "diffusion_pytorch_model.fp16.safetensors"
    )
    (folder / "README.md").write_text("a model")
    return folder


@pytest.fixture
def hub(copy: Path, monkeypatch, tmp_path: Path):
    """A hub that has it, and an empty cache."""
    from huggingface_hub import constants

    with serving(Hub({REPO: copy})) as served:
        files = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield served


def only_change(path: Path) -> None:
    """Another byte at the end; size and time are as they were."""
    before = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# --- of a folder ----------------------------------------------------------------------------------


def test_a_folder_gets_a_name_and_nothing_is_copied(vidgen, copy) -> None:
    ran = vidgen("models", "add", "tiny", "--as", "small")
    assert ran.code == 0 and "by reference" in ran.err
    stored = Path(".data/vidgen/models/small").absolute()
    links = [p for p in stored.rglob("*") if p.is_file() and p.name != "manifest.json"]
    assert links and all(Path(os.readlink(p)) == copy / p.relative_to(stored) for p in links)
    names = {p.relative_to(stored).as_posix() for p in links}
    assert f"vae/{WEIGHTS}" in names and "tokenizer/tokenizer.json" in names
    assert not {name for name in names if "fp16" in name or "README" in name}
    files = json.loads((stored / "manifest.json").read_text())["files"]
    assert {name: (len(data), hashlib.sha256(data).hexdigest()) for name in names
            for data in [(copy / name).read_bytes()]} == {
        name: (row["bytes"], row["sha256"]) for name, row in files.items()
    }  # fmt: skip


def test_the_name_is_a_model_for_every_command(vidgen, copy) -> None:
    vidgen("models", "add", "tiny", "--as", "small")
    by_name = vidgen("encode-text", "a red ball", "--no-cache", "--model", "small")
    assert by_name.code == 0
    assert by_name.out == vidgen("encode-text", "a red ball", "--no-cache", "--model", "tiny").out
    own, same = ModelFolder.find("small"), ModelFolder.find("tiny")
    assert (own.latent_space, own.text_encoder) == (same.latent_space, same.text_encoder)


def test_list_and_show_tell_of_names_sources_and_shared_weights(vidgen, copy, tiny_model) -> None:
    vidgen("models", "add", "tiny", "--as", "one")
    vidgen("models", "add", str(tiny_model), "--as", "two")
    table = vidgen("models", "--dir", ".").text
    assert [line.split()[-1] for line in table.splitlines()[1:3]] == ["one", "two"]
    assert "the same weights: one/text_encoder, two/text_encoder" in table
    (row,) = json.loads(vidgen("models", "show", "one", "--json").text)["models"]
    assert row["stored"] == {"folder": str(copy)} and row["name"] == "one"
    shared = {c["name"]: c["same_as"] for c in row["components"]}
    assert shared["vae"] == ["two/vae"] and shared["scheduler"] == []
    assert "same weights as  two/vae" in " ".join(vidgen("models", "show", "one").text.split("\n"))


def test_other_weights_are_not_said_to_be_shared(vidgen, copy, other_model) -> None:
    vidgen("models", "add", "tiny")
    vidgen("models", "add", str(other_model))
    assert "same weights" not in vidgen("models").text


def test_verify_tells_what_is_no_longer_as_it_was_added(vidgen, copy) -> None:
    vidgen("models", "add", "tiny")
    assert vidgen("models", "verify", "tiny").code == 0
    only_change(copy / "transformer" / WEIGHTS)
    os.truncate(copy / "vae" / WEIGHTS, 100)
    (copy / "tokenizer" / "tokenizer.json").unlink()
    with (copy / "model_index.json").open("a") as f:
        f.write("\n")
    ran = vidgen("models", "verify", "tiny")
    assert ran.code == 3
    found = {line.split()[1]: line for line in ran.text.splitlines()}
    assert "changed: its SHA-256 is another" in found["transformer"]
    assert "truncated: 100 of " in found["vae"] and "missing: " in found["tokenizer"]
    assert "changed: " in found["model_index.json:"]
    assert found["text_encoder"].split()[2] == "whole,"


def test_the_same_name_twice_wants_force(vidgen, copy, other_model) -> None:
    vidgen("models", "add", "tiny")
    ran = vidgen("models", "add", str(other_model), "--as", "tiny")
    assert ran.code == 2 and "there is a stored model `tiny` already" in ran.err
    assert vidgen("models", "add", str(other_model), "--as", "tiny", "-f").code == 0
    assert model_store.Stored(model_store.home() / "tiny").source["folder"] == str(other_model)


def test_a_name_is_forgotten_and_files_stay(vidgen, copy) -> None:
    vidgen("models", "add", "tiny")
    assert vidgen("models", "remove", "tiny").code == 0
    assert (copy / "vae" / WEIGHTS).is_file() and not list(model_store.home().iterdir())
    ran = vidgen("models", "remove", "tiny")
    assert ran.code == 2 and "no stored model is called `tiny`" in ran.err


def test_a_model_that_was_moved_is_told(vidgen, copy) -> None:
    vidgen("models", "add", "tiny", "--as", "small")
    copy.rename(copy.with_name("moved"))
    ran = vidgen("encode-text", "a ball", "--model", "small")
    assert ran.code == 3 and f"the stored model `small`: {copy} is gone" in ran.err
    assert "left out the stored model `small`" in vidgen("models").err


def test_what_is_no_whole_model_gets_no_name(vidgen, copy) -> None:
    os.truncate(copy / "vae" / WEIGHTS, 100)
    assert vidgen("models", "add", "tiny").code == 3
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    ran = vidgen("models", "add", "tiny")
    assert ran.code == 3 and "FluxPipeline, which is not known here" in ran.err
    assert not model_store.home().exists()


def test_a_model_without_some_components_may_have_a_name(vidgen, copy) -> None:
    shutil.rmtree(copy / "text_encoder")
    ran = vidgen("models", "add", "tiny")
    assert ran.code == 0 and "no files of text_encoder" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add",), "which folder is to be added?"),
        (("add", "nonesuch"), "nonesuch: no such folder"),
        (("add", "makers/nonesuch"), "neither a folder nor in the hub's cache"),
        (("add", "tiny", "--as", "a/b"), "`a/b` is no name of a model"),
        (("show", "tiny", "--as", "x"), "--as is for `vidgen models add` and"),
        (("list", "--download"), "--download is for `vidgen models add`, not for list"),
        (("remove",), "which model is to be forgotten?"),
    ],
)
def test_mistakes_are_told(vidgen, copy, hub, words, said) -> None:
    ran = vidgen("models", *words)
    assert ran.code == 2 and said in ran.err


# --- names ----------------------------------------------------------------------------------------


def test_a_name_of_several_models_is_none_of_them(vidgen, copy, other_model, monkeypatch) -> None:
    vidgen("models", "add", str(other_model), "--as", "tiny")  # and ./tiny is another
    ran = vidgen("encode-text", "a ball", "--model", "tiny")
    assert ran.code == 2 and "several models are called `tiny`" in ran.err
    assert "stored: " in ran.err and "a folder here: tiny" in ran.err
    assert vidgen("encode-text", "a ball", "--model", "./tiny").code == 0
    monkeypatch.setenv("VIDGEN_MODELS", str(other_model.parent))
    assert ModelFolder.find("other").path == other_model.resolve()


def test_a_stored_model_and_its_own_folder_are_one(vidgen, copy, monkeypatch) -> None:
    vidgen("models", "add", "tiny")
    monkeypatch.setenv("VIDGEN_MODELS", str(copy.parent))
    assert ModelFolder.find("tiny").path == (model_store.home() / "tiny").resolve()
    assert len(vidgen("models").text.splitlines()) == 2  # the header, and it


def test_an_unknown_name_is_told_with_those_there_are(vidgen, copy, monkeypatch, hub) -> None:
    vidgen("models", "add", "tiny", "--as", "small")
    ran = vidgen("decode", "--model", "smal", stdin=b"")
    assert ran.code == 2 and "neither a folder nor one of: small" in ran.err
    ran = vidgen("decode", "--model", "makers/Tiny", stdin=b"")
    assert ran.code == 2 and "vidgen models add --download makers/Tiny" in ran.err


# --- the hub --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["runs/base--v2", "runs/my..model", "runs/x.", "runs/x.git", "runs/" + 97 * "x"]
)
def test_a_path_that_is_no_name_of_the_hubs(vidgen, path) -> None:
    """huggingface_hub refuses to look for these."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    with pytest.raises(HFValidationError):
        validate_repo_id(path)
    ran = vidgen("encode-text", "a ball", "--model", path)
    assert ran.code == 2 and f"no model called `{path}`" in ran.err
    ran = vidgen("models", "add", path)
    assert ran.code == 2 and "no such folder" in ran.err
    ran = vidgen("models", "add", "--download", path)
    assert ran.code == 2 and "is no name of a model of the hub" in ran.err


def test_nothing_is_fetched_unless_asked(vidgen, hub) -> None:
    ran = vidgen("models", "add", REPO)
    assert ran.code == 2 and f"vidgen models add --download {REPO}" in ran.err
    assert hub.asked == []


def test_a_download_is_what_vidgen_reads_with_a_name_and_its_commit(vidgen, hub, copy) -> None:
    plan = vidgen("models", "add", "--download", REPO, "-n")
    assert plan.code == 0 and "to fetch" in plan.text
    assert hub.asked == ["model_index.json:0"] and not model_store.stored()
    ran = vidgen("models", "add", "--download", REPO)
    assert ran.code == 0, ran.err
    (stored,) = model_store.stored()
    assert stored.name == "Tiny-Diffusers"
    assert (stored.source["repo"], stored.source["commit"]) == (REPO, COMMIT)
    asked = {path.partition(":")[0] for path in hub.asked}
    assert asked == set(model_store.local_files(copy, ModelFolder(copy).index))
    hub.asked.clear()
    assert ModelFolder.find(REPO).path == ModelFolder.find("Tiny-Diffusers").path
    assert vidgen("models", "add", REPO, "--as", "again").code == 0  # out of the cache
    assert vidgen("models", "verify", "again").code == 0
    assert hub.asked == []


def test_weights_that_a_stored_model_has_are_not_fetched(vidgen, hub, tiny_model, copy) -> None:
    only_change(copy / "vae" / WEIGHTS)  # but those
    vidgen("models", "add", str(tiny_model), "--as", "mine")
    ran = vidgen("models", "add", "--download", REPO)
    assert ran.code == 0 and f"weights of transformer are those of {tiny_model}" in ran.err
    asked = [path for path in hub.asked if "safetensors" in path]
    assert asked == [f"vae/{WEIGHTS}:0"]
    folder = ModelFolder.find("Tiny-Diffusers")
    assert folder.sha256("transformer") == ModelFolder(tiny_model).sha256("transformer")
    ran = vidgen("models", "remove", "mine")
    assert "`Tiny-Diffusers` refers to files of `mine`" in ran.err


def test_what_was_interrupted_goes_on(vidgen, hub, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    file = f"transformer/{WEIGHTS}"
    hub.cut[file] = 5000
    ran = vidgen("models", "add", "--download", REPO)
    assert ran.code == 1 and "can't be fetched" in ran.err and "goes on where" in ran.err
    assert not model_store.stored()
    hub.asked.clear()
    assert vidgen("models", "add", "--download", REPO).code == 0
    (start,) = [int(x.rpartition(":")[2]) for x in hub.asked if x.startswith(file)]
    assert start > 0
    assert vidgen("models", "verify", "Tiny-Diffusers").code == 0


def test_progress_is_told(vidgen, hub) -> None:
    ran = vidgen("models", "add", "--download", REPO, "--progress", "json")
    steps = [row for row in map(json.loads, ran.err.splitlines()) if row["event"] == "step"]
    assert {row["unit"] for row in steps} == {"MB fetched", "MB read"}


def test_bytes_that_are_not_what_the_hub_says_are_refused(vidgen, hub) -> None:
    hub.lies.add(f"vae/{WEIGHTS}")
    ran = vidgen("models", "add", "--download", REPO)
    assert ran.code == 3 and "its bytes are not those that its source says" in ran.err
    assert not model_store.stored()


@pytest.mark.parametrize(
    ("repo", "said"),
    [
        ("makers/nonesuch", "the hub has no such model"),
        (f"{REPO}@v2", "the hub has no such revision"),
        ("nonesuch", "`nonesuch` is no name of a model of the hub"),
    ],
)
def test_what_the_hub_has_not(vidgen, hub, repo, said) -> None:
    ran = vidgen("models", "add", "--download", repo)
    assert ran.code == 2 and said in ran.err


def test_offline_means_offline(vidgen, hub, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    ran = vidgen("models", "add", "--download", REPO)
    assert ran.code == 2 and "HF_HUB_OFFLINE is set" in ran.err and hub.asked == []


def test_a_model_of_another_class_is_refused_before_its_weights(vidgen, hub, copy) -> None:
    (copy / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    ran = vidgen("models", "add", "--download", REPO)
    assert ran.code == 3 and "FluxPipeline" in ran.err and hub.asked == ["model_index.json:0"]


# --- what nobody means to happen ------------------------------------------------------------------


def test_what_a_killed_command_left_is_no_model(vidgen, copy) -> None:
    vidgen("models", "add", "tiny")
    for left in (".tiny.0a1b2c.tmp", ".tiny.0a1b2c.old"):
        shutil.copytree(model_store.home() / "tiny", model_store.home() / left, symlinks=True)
    assert [model.name for model in model_store.stored()] == ["tiny"]
    assert len(json.loads(vidgen("models", "--json").text)["models"]) == 1


@pytest.mark.parametrize("words", [("remove", "tiny"), ("add", "tiny", "-f")])
def test_files_that_are_not_the_stores_are_not_deleted(vidgen, copy, words) -> None:
    vidgen("models", "add", "tiny")
    own = model_store.home() / "tiny" / "vae" / "notes.txt"
    own.write_text("mine")
    ran = vidgen("models", *words)
    assert ran.code == 2 and f"{own}: is not the store's" in ran.err
    assert own.read_text() == "mine"
    own.unlink()
    assert vidgen("models", *words).code == 0


def test_a_folder_linked_into_the_store_is_not_deleted(vidgen, copy) -> None:
    model_store.home().mkdir(parents=True)
    (model_store.home() / "other").symlink_to(copy)
    ran = vidgen("models", "remove", "other")
    assert ran.code == 2 and "is not the store's" in ran.err
    assert (copy / "model_index.json").is_file()


def test_of_two_that_add_the_same_name_the_second_is_told(vidgen, copy, monkeypatch) -> None:
    hashed = model_store._hashed

    def slowly(*args):
        monkeypatch.setattr(model_store, "_hashed", hashed)
        assert vidgen("models", "add", "tiny").code == 0
        return hashed(*args)

    monkeypatch.setattr(model_store, "_hashed", slowly)
    ran = vidgen("models", "add", "tiny")
    assert ran.code == 2 and "there is a stored model `tiny` already" in ran.err
    assert [path.name for path in model_store.home().iterdir()] == ["tiny"]


def test_the_store_does_not_refer_to_itself(vidgen, copy) -> None:
    vidgen("models", "add", "tiny")
    links = model_store.home() / "tiny"
    for more in (["--as", "again"], ["-f"]):
        ran = vidgen("models", "add", str(links), *more)
        assert ran.code == 2 and "is the stored model `tiny`" in ran.err
    assert (links / "model_index.json").resolve() == copy / "model_index.json"


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": "vidgen.model-manifest/1", "source": {"repo": "a/b"}, "files": {"x": {}}}',
        '{"schema": "vidgen.model-manifest/1", "source": {"folder": "/"}, "files": {"x": {}}}',
        "[]",
    ],
)
def test_a_damaged_manifest_is_told(vidgen, copy, text) -> None:
    vidgen("models", "add", "tiny", "--as", "small")
    (model_store.home() / "small" / "manifest.json").write_text(text)
    ran = vidgen("models", "verify", "small")
    assert ran.code == 3 and "is no manifest of a model" in ran.err
    assert vidgen("models", "remove", "small").code == 0


def test_weights_that_changed_since_are_fetched(vidgen, hub, tiny_model, copy) -> None:
    mine = Path(shutil.copytree(tiny_model, copy.with_name("mine")))
    vidgen("models", "add", "mine")
    only_change(mine / "transformer" / WEIGHTS)
    os.utime(mine / "transformer" / WEIGHTS)
    ran = vidgen("models", "add", "--download", REPO)
    assert ran.code == 0 and "weights of transformer" not in ran.err
    stored = ModelFolder.find("Tiny-Diffusers")
    assert stored.sha256("transformer") == ModelFolder(copy).sha256("transformer")
