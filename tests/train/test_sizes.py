"""Sizes in a recipe that make no network: one clear line, before anything is computed."""

from __future__ import annotations

import pytest

from vidgen.errors import UsageError
from vidgen.train.export import build
from vidgen.train.loop import train
from vidgen.train.recipe import load_recipe
from vidgen.train.task import make_task


@pytest.mark.parametrize(
    ("recipe", "setting", "said"),
    [
        ("world-keyframes", "model.dim=65", "recipe: model: rope_dims (16, 24, 24) must add up to"),
        ("world-keyframes", "model.heads=0", "recipe: model: sizes divided by 0: heads `0`"),
        ("world-keyframes", "model.rope_dims=[15,24,25]", "rope_dims (15, 24, 25) must be even"),
        ("world-keyframes", "model.depth=-1", "recipe: model.depth is `-1`, must be 0 or more"),
        ("world-keyframes", "model.patch=[1,-1,2]", "recipe: model.patch is `(1, -1, 2)`"),
        ("world-keyframes", "model.mlp_ratio=-1", "recipe: model.mlp_ratio is `-1.0`"),
        ("world-snap-video", "model.head_dim=0", "heads of 0 don't divide a width of 16"),
        ("world-snap-video", "model.group=[0,5,1]", "sizes divided by 0: group `(0, 5, 1)`"),
        ("world-snap-video", "model.latents=33", "recipe: model: 2 groups don't divide 33 latents"),
        ("world-snap-video", "model.head_dim=31", "heads of 31 don't divide a width of 16"),
        ("world-snap-video", "model.dropout=-1", "recipe: model.dropout is `-1.0`"),
        ("world-snap-video-unet", "model.base=0", "base is 0, must be even and above 0"),
        ("world-snap-video-unet", "model.head_dim=0", "heads of 0 don't divide a width of 32"),
        ("world-judge", "model.heads=13", "13 heads don't divide a width of"),
        ("world-features", "model.heads=0", "0 heads don't divide a width of"),
        ("world-features", "model.dim=-8", "recipe: model.dim is `-8`"),
        ("world-autoencoder", "model.channels=-4", "recipe: model.channels is `-4`"),
    ],
)
def test_sizes_that_make_no_network(tiny_model, recipe, setting, said):
    given = [f"data.text={tiny_model}", f"data.vae={tiny_model}", "model.text_dim=16"]
    mine = given if recipe in ("world-keyframes", "world-snap-video") else []
    if recipe == "world-snap-video-unet":
        mine = given[:1]
    preset = "tiny" if recipe.startswith("world-snap-video") else None
    with pytest.raises(UsageError) as caught:
        build(make_task(load_recipe(recipe, preset=preset, overrides=[*mine, setting])))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.in_channels=5", "recipe: model.in_channels is 5, and latents of"),
        ("model.out_channels=3", "recipe: model.out_channels is 3, and latents of"),
        (
            "data.num_frames=6",
            "data are 6 latents of 2 × 4, and the network is made for 3 of",
        ),
        ("data.width=64", "data are 3 latents of 2 × 8"),
        ("model.levels=2", "model.levels is 2, and of this task it is 1"),
        ("model.text_dim=32", "model.text_dim is 32, and the text encoder of"),
    ],
)
def test_a_fit_that_is_not_made_for_its_latents(tiny_model, setting, said):
    given = [f"data.text={tiny_model}", f"data.vae={tiny_model}"]
    with pytest.raises(UsageError) as caught:
        make_task(load_recipe("world-snap-video", preset="tiny", overrides=[*given, setting]))
    assert said in str(caught.value)


def test_sizes_that_fail_in_the_first_step_are_told_as_such(recipe, tmp_path, monkeypatch):
    from tiny_task import Mlp

    def wrong(self, x):
        return self.patch_in(x[:, :3])

    monkeypatch.setattr(Mlp, "predict", wrong)
    with pytest.raises(UsageError, match=r"recipe: the first step fails: mat1 and mat2") as caught:
        train(recipe(), tmp_path / "run", device="cpu")
    assert caught.value.next == "--debug tells where in the code"


def test_what_fails_later_is_a_bug_and_looks_like_one(recipe, tmp_path, monkeypatch):
    from tiny_task import Mlp

    calls, good = [], Mlp.predict

    def wrong(self, x):
        calls.append(1)
        return good(self, x if len(calls) < 3 else x[:, :3])

    monkeypatch.setattr(Mlp, "predict", wrong)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(recipe(), tmp_path / "run", device="cpu")
