"""The shipped model's tasks: a few steps of each at small size, and a model folder that works."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from vidgen.cli import app
from vidgen.errors import UsageError
from vidgen.io.weights import load_safetensors, parameters
from vidgen.nn.autoencoder import VideoAutoencoder
from vidgen.nn.pixels import from_uint8
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.sample_keyframes import sample_keyframes
from vidgen.systems import world
from vidgen.systems.base import ModelFolder
from vidgen.systems.verify import verify
from vidgen.train.export import export
from vidgen.train.loop import train
from vidgen.train.recipe import Optim, Recipe, load_recipe, shipped_recipes
from vidgen.train.task import make_task
from vidgen.train.tasks.text import TextTask
from vidgen.train.tasks.tokenizer import build_tokenizer
from vidgen.train.tasks.wording import contradicted, padded, typo
from vidgen.world.captions import caption
from vidgen.world.scene import TRAIN_SEEDS, VALIDATION_SEEDS, sample_scene
from vidgen.world.vocabulary import BASIC

VAE = {"channels": 4, "encoder_widths": [8, 8, 8], "decoder_widths": [8, 8, 8],
       "encoder_blocks": 1, "decoder_blocks": 1}  # fmt: skip
TEXT = {"dim": 16, "depth": 1, "heads": 2, "max_length": 24}
DIT = {"channels": 4, "dim": 32, "depth": 1, "heads": 2, "text_dim": 16, "pooled_dim": 16,
       "rope_dims": [4, 6, 6]}  # fmt: skip


def recipe(task: str, model: dict, data: dict | None = None, **more) -> Recipe:
    optim = Optim(name="adamw")
    settings = {"steps": 2, "batch_size": 8, "log_every": 1, "optim": optim, **more}
    return Recipe(task, model=model, data=data or {}, **settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """All three parts, two steps each: a complete, useless model."""
    runs = tmp_path_factory.mktemp("runs")
    sizes = {"sizes": [[16, 32], [32, 64]]}
    train(recipe("autoencoder", VAE, sizes), runs / "vae", device="cpu")
    train(recipe("text", TEXT), runs / "text", device="cpu")
    data = {
        "vae": str(runs / "vae" / "model"), "text": str(runs / "text" / "model"),
        "cache": str(runs / "cache"), "num": 40, "num_frames": 3, "height": 16, "width": 32,
    }  # fmt: skip
    small = pytest.MonkeyPatch()
    small.setattr("vidgen.train.tasks.latents.SHARD", 32)
    small.setattr("vidgen.train.tasks.latents.CHUNK", 16)
    train(recipe("keyframes", DIT, data), runs / "keyframes", device="cpu")
    small.undo()
    return runs


def test_the_three_parts_make_a_model_that_samples(trained):
    model = ModelFolder.find(str(trained / "keyframes" / "model"))
    assert model.geometry.num_frames == 3
    texts = encode_text([Prompt("a red ball bounces")], model)
    (record,) = sample_keyframes(texts, model, compute=Compute("cpu"))
    assert record.torch("latents").shape == (4, 3, 2, 4)
    assert record.torch("latents").isfinite().all()


def going_on(trained) -> dict:
    """The data of a training that begins with the trained keyframes."""
    return {
        "vae": str(trained / "vae" / "model"), "text": str(trained / "text" / "model"),
        "cache": str(trained / "cache"), "num": 32, "num_frames": 3, "height": 16, "width": 32,
        "start": str(trained / "keyframes" / "model"),
    }  # fmt: skip


def test_a_self_conditioned_model_goes_on_from_one_that_is_not(trained, tmp_path):
    data = going_on(trained)
    model = DIT | {"self_conditioned": True}
    result = train(recipe("keyframes", model, data), tmp_path / "run", device="cpu")
    assert math.isfinite(result.measures["val_loss"])
    network = world.load_transformer(ModelFolder(tmp_path / "run" / "model"))
    assert network.previous.weight.abs().max() > 0  # learned in two steps
    folder = ModelFolder.find(str(tmp_path / "run" / "model"))
    texts = list(encode_text([Prompt("a red ball bounces")], folder))
    (record,) = sample_keyframes(texts, folder, compute=Compute("cpu"))
    assert record.torch("latents").isfinite().all()
    with pytest.raises(UsageError, match="self_conditioned is 2, must be"):
        make_task(recipe("keyframes", model, data, loss={"self_conditioned": 2.0}))
    with pytest.raises(UsageError, match="the model is not self-conditioned"):
        make_task(recipe("keyframes", DIT, data, loss={"self_conditioned": 0.9}))
    with pytest.raises(UsageError, match="other sizes"):
        start = {**data, "start": str(tmp_path / "run" / "model")}
        make_task(recipe("keyframes", DIT, start)).network()


def test_a_model_goes_on_with_other_patches_and_another_prediction(trained, tmp_path):
    """Its blocks do; with the patches it had, its last layer would be misunderstood."""
    data = going_on(trained)
    told = {"prediction": "x0_flow"}
    with pytest.raises(UsageError, match="which predicts `flow`, and"):
        make_task(recipe("keyframes", DIT, data, loss=told)).network()
    task = make_task(recipe("keyframes", DIT | {"patch": [1, 2, 4]}, data, loss=told))
    network, old = task.network(), world.load_transformer(ModelFolder(Path(data["start"])))
    kept = network.blocks[0].mlp[0].weight, old.blocks[0].mlp[0].weight.float()
    assert torch.equal(*kept) and not network.final.weight.any()


def test_a_model_can_be_stored_in_eight_bits(trained, tmp_path):
    """Half the bytes, the same tensors but for rounding, and a folder like any other."""
    out = tmp_path / "run"
    shutil.copytree(trained / "keyframes", out)
    again = load_recipe(out / "recipe.yaml", overrides=["export_dtype=int8"])
    assert train(again, out, device="cpu").step == 2  # which is all that it was to do
    name = "transformer/diffusion_pytorch_model.safetensors"
    stored, whole = out / "model" / name, trained / "keyframes" / "model" / name
    assert stored.stat().st_size < 0.65 * whole.stat().st_size
    assert parameters(stored) == parameters(whole)
    was = load_safetensors(whole)
    for key, x in load_safetensors(stored).items():
        step = was[key].float().abs().max() / 127
        assert x.dtype == was[key].dtype and (x - was[key]).abs().max() <= step, key
    folder = ModelFolder(out / "model")
    assert dict(verify(folder, {"transformer": ("vidgen", "VideoDiT")})) == {"transformer": []}


def test_a_run_is_exported_again_as_its_recipe_says_or_as_it_is_told(trained, tmp_path):
    out, name = tmp_path / "run", "model/transformer/diffusion_pytorch_model.safetensors"
    shutil.copytree(trained / "keyframes", out)

    def bytes_of(*words: str) -> bytes:
        assert app.main(["train", "--export", "--out", str(out), *words]) == 0
        return (out / name).read_bytes()

    whole = (out / name).read_bytes()
    eighth = bytes_of("--set", "export_dtype=int8")
    assert len(eighth) < 0.65 * len(whole)
    train(load_recipe(out / "recipe.yaml", overrides=["export_dtype=int8"]), out, device="cpu")
    assert bytes_of() == eighth  # the recipe's, though the checkpoint is older
    assert bytes_of("--set", "export_dtype=bfloat16") == whole
    with pytest.raises(UsageError, match="holds a run of a different recipe: batch_size"):
        export(out, out / "model", load_recipe(out / "recipe.yaml", overrides=["batch_size=4"]))


@pytest.mark.parametrize(("task", "model"), [("autoencoder", VAE), ("text", TEXT)])
def test_what_others_read_is_not_stored_in_eight_bits(task, model):
    with pytest.raises(UsageError, match=f"task {task} is stored in bfloat16 only"):
        make_task(recipe(task, model, export_dtype="int8"))


def test_the_model_keeps_the_autoencoder_it_was_trained_on(trained):
    """Byte for byte: otherwise its latents would be in another space than their name says."""
    made, part = (ModelFolder(trained / x / "model") for x in ("keyframes", "vae"))
    assert made.sha256("vae") == part.sha256("vae")
    assert made.latent_space.partition("@")[2] == part.latent_space.partition("@")[2]


def test_every_run_leaves_metrics_a_plot_and_a_sheet(trained):
    for run in ("vae", "keyframes"):
        assert (trained / run / "metrics.jsonl").is_file()
        assert (trained / run / "loss.png").is_file()
        assert list((trained / run / "samples").glob("*.png"))


def test_latents_come_out_with_zero_mean_and_unit_spread(trained):
    vae = world.load_autoencoder(ModelFolder(trained / "vae" / "model")).float()
    assert isinstance(vae, VideoAutoencoder)
    task = make_task(recipe("autoencoder", VAE, {"sizes": [[16, 32]]}))
    frames = from_uint8(task._render(range(64), [0.0, 1.0], 16, 32))
    latents = vae.encode(frames.permute(0, 4, 1, 2, 3))
    assert latents.mean(dim=(0, 2, 3, 4)).abs().max() < 0.25
    assert (latents.std(dim=(0, 2, 3, 4)) - 1).abs().max() < 0.25


def test_training_the_decoder_alone_leaves_latents_as_they_were(trained, tmp_path):
    data = {"start": str(trained / "vae" / "model"), "decoder_only": True, "sizes": [[16, 32]]}
    train(recipe("autoencoder", VAE, data, steps=3), tmp_path / "run", device="cpu")
    before = world.load_autoencoder(ModelFolder(trained / "vae" / "model")).float()
    after = world.load_autoencoder(ModelFolder(tmp_path / "run" / "model")).float()
    frames = torch.rand(1, 3, 2, 16, 32) * 2 - 1
    assert torch.equal(before.encode(frames), after.encode(frames))
    latents = before.encode(frames)
    assert not torch.equal(before.decode(latents), after.decode(latents))


def test_a_batch_is_a_function_of_its_step(trained):
    for name, model, data in (("autoencoder", VAE, {"sizes": [[16, 32]]}), ("text", TEXT, {})):
        one, two = (make_task(recipe(name, model, data)) for _ in range(2))
        two.batch(0, 0, 1)
        a, b = one.batch(5, 0, 1), two.batch(5, 0, 1)
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        other = one.batch(6, 0, 1)
        assert any(a[k].shape != other[k].shape or not torch.equal(a[k], other[k]) for k in a)


def test_training_never_sees_validation_scenes():
    assert TRAIN_SEEDS.stop <= VALIDATION_SEEDS.start


def test_the_tokenizer_knows_every_word_of_the_world_and_spells_the_others():
    tokenizer = build_tokenizer(64)
    draw = random.Random(1)
    for seed in range(5_000, 5_300):
        text = caption(sample_scene(seed), draw)
        pieces = [p for p in tokenizer.encode(text).tokens if p.isalpha() or p.startswith("##")]
        assert all(len(p) > 1 or p in "ai" for p in pieces), text
        assert not any(p.startswith("##") for p in pieces), text
    assert tokenizer.encode("Zebra!").tokens == [
        "[CLS]",
        "z",
        "##e",
        "##b",
        "##r",
        "##a",
        "!",
        "[SEP]",
    ]
    assert tokenizer.encode("BALL").tokens[1] == "ball"


def test_the_pooled_vector_learns_what_a_caption_says():
    """Five hundred small steps: the heads do better than the best guess without reading, which is
    the spread of the basic world's words."""
    data = {"full": 0.0, "typos": 0.0, "filler": 0.0, "contradictions": 0.0}
    task = TextTask(recipe("text", TEXT, data, batch_size=32))
    torch.manual_seed(0)
    modules = task.build()
    optimizer = torch.optim.AdamW(modules["tower"].parameters(), lr=3e-3)
    losses = []
    for step in range(500):
        loss, _ = task.loss(modules, task.batch(step, 0, 1), torch.Generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    blind = 1.5 * sum(math.log(len(values)) for values in BASIC.values())
    assert losses[0] > blind
    assert sum(losses[-20:]) / 20 < 0.85 * blind


def test_the_tower_starts_from_one_that_is_there(trained):
    start = trained / "text" / "model"
    task = TextTask(recipe("text", TEXT, {"start": str(start)}))
    encoder = task.build()["tower"].encoder
    there = world.load_text_tower(ModelFolder(start)).encoder.state_dict()
    assert all(torch.equal(x, there[k]) for k, x in encoder.state_dict().items())
    other = TextTask(recipe("text", TEXT | {"dim": 32}, {"start": str(start)}))
    with pytest.raises(UsageError, match=r"data\.start .* other sizes"):
        other.build()


def test_the_tower_does_not_start_from_one_that_reads_other_words(trained, tmp_path):
    """As many of them, and two in each other's place."""
    start = Path(shutil.copytree(trained / "text" / "model", tmp_path / "start"))
    path = start / "tokenizer" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    numbers = tokenizer["model"]["vocab"]
    numbers["red"], numbers["blue"] = numbers["blue"], numbers["red"]
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(UsageError, match=r"data\.start .* reads other words"):
        TextTask(recipe("text", TEXT, {"start": str(start)})).build()


def test_captions_can_be_canonical():
    data = {"canonical": 1.0, "typos": 0.0, "filler": 0.0, "contradictions": 0.0, "full": 0.5}
    task = TextTask(recipe("text", TEXT, data))
    ids = task.batch(0, 0, 1)["ids"]
    said = {caption(sample_scene(seed, level=x)) for seed in range(8) for x in ("basic", "full")}
    wanted = {tuple(task.tokenizer.encode(text).ids) for text in said}
    assert all(tuple(int(i) for i in row if i != task.pad) in wanted for row in ids)


def test_a_typo_is_one_letter():
    draw = random.Random(0)
    for _ in range(50):
        wrong = typo("a red ball bounces", draw)
        assert abs(len(wrong) - len("a red ball bounces")) <= 1
        assert wrong.split()[0] == "a"
    assert typo("", draw) == ""


def test_a_filler_word_leaves_the_others_as_they_were():
    draw = random.Random(0)
    for _ in range(50):
        words = padded("a red ball bounces", draw).split()
        assert len(words) == 5
        assert any(words[:i] + words[i + 1 :] == ["a", "red", "ball", "bounces"] for i in range(5))


def test_a_contradiction_puts_the_wrong_color_first():
    draw = random.Random(0)
    for _ in range(20):
        words = contradicted("a red ball bounces", draw).split()
        assert words[0] == "a" and words[2:] == ["red", "ball", "bounces"]
    assert contradicted("a ball bounces", draw) == "a ball bounces"


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_read(name):
    load_recipe(name)


@pytest.mark.parametrize(
    "model, data, said",
    [({"level": "moon"}, {}, "model.level is `moon`"), ({}, {"full": 0.5}, "data.full is 0.5")],
)
def test_a_judge_of_what_it_has_no_names_for_is_refused(model, data, said) -> None:
    with pytest.raises(UsageError, match=said):
        make_task(recipe("judge", model, data))


def test_a_judges_sheet_renders_no_more_than_it_shows(tmp_path, monkeypatch) -> None:
    """Twelve clips, of a large batch too."""
    from vidgen.train.tasks import judge

    rendered: list[int] = []

    def render(scenes, **size):
        rendered.append(len(scenes))
        return judge_render(scenes, **size)

    judge_render = judge.render
    monkeypatch.setattr(judge, "render", render)
    task = make_task(recipe("judge", {}, batch_size=256))
    task.sample_sheet({}, tmp_path / "sheet.png")
    assert rendered == [12]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (5 * 64, 12 * 40)
