"""The U-Net that Snap Video is compared with, as a model folder like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import Snap, denoiser
from vidgen.diffusion.schedules import snap
from vidgen.diffusion.solvers import SOLVERS
from vidgen.errors import InputError
from vidgen.nn.adm_unet import AdmUNet
from vidgen.stages import plan
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.sample_keyframes import Choices, sample_keyframes
from vidgen.systems.base import ModelFolder
from vidgen.systems.snap_video import load_transformer, sample_shape
from vidgen.systems.verify import verify
from vidgen.train.recipe import load_recipe
from vidgen.train.task import make_task

CPU = Compute("cpu")


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory) -> ModelFolder:
    """Of random weights."""
    path = tmp_path_factory.mktemp("unet") / "model"
    recipe = load_recipe(
        "world-snap-video-unet", preset="tiny", overrides=[f"data.text={tiny_model}"]
    )
    task = make_task(recipe)
    torch.manual_seed(0)
    modules = task.build()
    with torch.no_grad():
        for p in modules["transformer"].parameters():  # a new network returns zero
            p.add_(0.05 * torch.randn_like(p))
    task.export(modules, path)
    return ModelFolder(path)


def test_its_folder_is_whole_and_says_what_it_is(folder):
    index = {k: tuple(v) for k, v in folder.index.items() if isinstance(v, list)}
    assert index["transformer"] == ("vidgen", "AdmUNet") and folder.system == "snap-video"
    assert not [problem for _, problems in verify(folder, index) for problem in problems]
    assert isinstance(load_transformer(folder), AdmUNet)


@torch.no_grad()
def test_samples_are_the_solvers_on_plain_calls(folder):
    """By hand: nothing is carried, and frames are told as seconds from one to the next."""
    (text,) = encode_text([Prompt("a red ball")], folder)
    (record,) = sample_keyframes([text], folder, Choices(guidance_scale=1.0), compute=CPU)
    assert record["latents"].shape == (3, 3, 6, 16) and "padding" not in record.log[-1]
    network, sampler = load_transformer(folder).float(), folder.sampler
    words = text.torch("text.embeds").float()[None]
    mask = text.torch("text.mask").bool()[None]

    def raw(z, t, cond):
        return network(z, t, text=words, text_mask=mask, period=torch.tensor([0.5]))

    noise = Noise([(0, text.id)], stage="sample-keyframes")
    levels = snap(2, sigma_in=sampler.sigma_in)
    z = noise.initial((3, 3, 6, 16)) * levels[0].sigma
    for step in SOLVERS["heun"](denoiser(raw, Snap(sampler.sigma_data)), z, levels, {}, noise):
        z = step.z
    torch.testing.assert_close(record.torch("latents"), z[0], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_a_batch_equals_its_singles(folder):
    texts = list(encode_text([Prompt("a red ball"), Prompt("a blue cube spins")], folder))
    both = list(sample_keyframes(texts, folder, compute=Compute("cpu", batch_size=2)))
    for text, one in zip(texts, both, strict=True):
        (alone,) = sample_keyframes([text], folder, compute=Compute("cpu", batch_size=1))
        a, b = (record.torch("latents") for record in (alone, one))
        torch.testing.assert_close(a, b, rtol=0, atol=float(1e-4 * b.abs().max()))


def test_it_has_a_plan(folder):
    said = plan.sampling(folder, CPU, 1, Choices())
    assert "[3, 3, 6, 16] float32" in said and "heun, 2 steps" in said


def changed(folder: ModelFolder, to: Path, **keys) -> ModelFolder:
    made = ModelFolder(Path(shutil.copytree(folder.path, to)))
    config = made.config("transformer") | keys
    (to / "transformer" / "config.json").write_text(json.dumps(config))
    return ModelFolder(to)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"_class_name": "Warp"}, "_class_name is `Warp`, must be FIT or AdmUNet"),
        ({"_class_name": "FIT"}, "the weights are not those of its config.json"),
        ({"base": 32}, "the weights are not those of its config.json"),
        ({"multipliers": [1]}, "attention and multipliers need one entry a level"),
    ],
)
def test_configs_of_other_networks_are_refused(folder, tmp_path, keys, said):
    with pytest.raises(InputError, match=said):
        load_transformer(changed(folder, tmp_path / "other", **keys))


def test_sizes_that_it_can_not_halve_are_refused(folder, tmp_path):
    sample = folder.config("transformer")["sample"] | {"height": 7}
    made = changed(folder, tmp_path / "odd", sample=sample)
    with pytest.raises(InputError, match="7 × 16, and the network halves sides once: they must be"):
        sample_shape(made, load_transformer(made).config)
