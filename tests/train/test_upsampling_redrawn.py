"""What upsamplers are told in training beside latents: clips that a model drew again, and words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vidgen.diffusion.noise import Noise
from vidgen.errors import UsageError
from vidgen.io.record import Record
from vidgen.stages.base import Compute
from vidgen.stages.interpolate import interpolate
from vidgen.systems.base import Geometry, ModelFolder
from vidgen.train.recipe import Optim, Recipe
from vidgen.train.tasks.latents import encode_scenes
from vidgen.train.tasks.redrawn import Redrawn
from vidgen.train.tasks.shown import importance
from vidgen.train.tasks.upsampling import UpsamplingTask
from vidgen.train.tasks.upsampling_clips import Clips
from vidgen.world.captions import caption
from vidgen.world.scene import sample_scene

MODEL = {
    "in_channels": 8, "out_channels": 4, "variant": "interpolation", "init_channels": 16,
    "widths": [16, 16], "self_attention": [False, False], "cross_attention": [False, False],
    "blocks": 1, "groups": 4, "time_dim": 32, "level_scale": 1000.0, "text_dim": 16, "head_dim": 8,
    "noise_embedding": "time", "skip_rows": 20,
}  # fmt: skip
SIZES = ((16, 32), (32, 64))
CPU = torch.device("cpu")


def task(model: Path, *, loss: dict | None = None, **data) -> UpsamplingTask:
    parts = {"vae": str(model), "text": str(model), "redrawn": str(model), "filled": str(model)}
    small = {"sizes": SIZES, "num": 16, "num_full": 16, "num_held": 4, "num_frames": 3}
    recipe = Recipe(
        "upsampling", model=MODEL, loss={"spread": 0.27} | (loss or {}),
        data={**parts, **small, **data}, steps=1, batch_size=8, optim=Optim(name="adamw"),
    )  # fmt: skip
    return UpsamplingTask(recipe)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("vidgen.train.tasks.latents.SHARD", 16)
    monkeypatch.setattr("vidgen.train.tasks.latents.CHUNK", 16)


@pytest.fixture
def folder(tiny_model) -> ModelFolder:
    return ModelFolder.find(str(tiny_model))


@pytest.fixture
def keyframes(folder) -> torch.Tensor:
    return torch.randn(2, 4, 3, 2, 4, generator=torch.Generator().manual_seed(0))


# --- redrawing ------------------------------------------------------------------------------------


def test_less_noise_changes_less(folder, keyframes):
    """A model of random weights: its estimates are wrong by as much as there was noise."""
    changed = []
    for level in (0.55, 0.85, 1.0):
        again = Redrawn(folder, folder, level, CPU).keyframes(keyframes, "basic", range(2))
        assert again.shape == keyframes.shape
        changed.append(float((again - keyframes).square().mean()))
    assert 0 < changed[0] < changed[1] < changed[2]


def test_a_scene_is_drawn_alike_in_any_company(folder, keyframes):
    redraw = Redrawn(folder, folder, 0.6, CPU)
    both = redraw.keyframes(keyframes, "basic", range(2))
    alone = redraw.keyframes(keyframes[1:], "basic", range(1, 2))
    torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-4)
    full = redraw.keyframes(keyframes[1:], "full", range(1, 2))
    assert not torch.allclose(alone, full, atol=1e-2)  # another caption, other noise


def test_frames_between_are_those_of_the_stage(folder, keyframes, monkeypatch):
    """Without noise, which each draws by names of its own."""
    monkeypatch.setattr(Noise, "initial", lambda self, shape: torch.zeros(len(self), *shape))
    redraw = Redrawn(folder, folder, 0.6, CPU)
    own = redraw.interpolator.settings
    assert own.guidance_scale != 1  # so the stage is asked for none
    records = [
        Record.make(
            "latents", f"clip-{i}",
            {"latents": x, "times": torch.arange(3, dtype=torch.float64) / 2},
            {"latent_space": folder.latent_space, "fps": 2.0, "height": 16, "width": 32},
        )
        for i, x in enumerate(keyframes)
    ]  # fmt: skip
    from vidgen.stages.interpolate import Choices

    made = interpolate(records, folder, Choices(guidance_scale=1.0), compute=Compute("cpu"))
    wanted = torch.stack([r.torch("latents") for r in made])
    assert wanted.shape[2] == 9
    filled = redraw.filled(keyframes, "basic", range(2))
    torch.testing.assert_close(filled, wanted[:, :, :3], rtol=1e-3, atol=1e-4)
    assert torch.equal(filled[:, :, 0], keyframes[:, :, 0])


def test_other_weights_and_levels_have_other_names(folder, other_model):
    names = {Redrawn(folder, folder, level, CPU).name for level in (0.6, 0.8)}
    other = ModelFolder.find(str(other_model))
    names |= {Redrawn(*pair, 0.6, CPU).name for pair in ((other, folder), (folder, other))}
    assert len(names) == 4


def test_what_fits_is_what_the_model_makes(folder):
    redraw = Redrawn(folder, folder, 0.6, CPU)
    assert redraw.rates == (2.0, 8.0)
    assert redraw.fits(Geometry(3, 16, 32, 2.0)) and redraw.fits(Geometry(3, 16, 32, 8.0))
    for other in (Geometry(5, 16, 32, 2.0), Geometry(3, 32, 32, 2.0), Geometry(3, 16, 32, 4.0)):
        assert not redraw.fits(other)


# --- what a batch tells ---------------------------------------------------------------------------


def test_both_kinds_of_clips_are_made_of_the_same_scenes(tiny_model, tmp_path):
    made = task(tiny_model, cache=str(tmp_path), loss={"object_weight": 3.0})
    modules = made.build()
    made.prepare(modules, lambda text: None)
    clips = made.clips
    assert clips.scenes == [(level, i) for level in ("basic", "full") for i in range(16)]
    assert clips.redrawn.keys() == clips.told.keys() == {(SIZES[0], fps) for fps in (2.0, 8.0)}
    assert clips.shown.keys() == {(SIZES[1], fps) for fps in (2.0, 8.0)}
    assert clips.shown[SIZES[1], 2.0].shape == (32, 3, 4, 8)
    for key, told in clips.told.items():
        assert told.shape == clips.redrawn[key].shape == clips.latents[SIZES[1], key[1]].shape
        assert not torch.equal(told, clips.redrawn[key])
    true = encode_scenes(range(16), modules["vae"], "full", Geometry(3, 16, 32, 2.0), CPU)
    assert torch.equal(clips.latents[SIZES[0], 2.0][16:], true.to(torch.bfloat16))
    scores = made.evaluate(modules, 0)
    assert {"psnr_redrawn", "psnr_redrawn_bicubic", "val_loss_redrawn"} <= scores.keys()
    # A new network adds nothing, to either.
    assert scores["psnr_redrawn"] == pytest.approx(scores["psnr_redrawn_bicubic"], abs=1e-3)
    assert scores["psnr_redrawn"] != scores["psnr"]


def counted(made: UpsamplingTask) -> UpsamplingTask:
    """With latents that say whose they are, and are 1000 higher where they are redrawn."""
    scenes = [(level, i) for level in ("basic", "full") for i in range(16)]
    of = torch.arange(32.0).view(-1, 1, 1, 1, 1).expand(-1, 4, 3, 4, 8)
    keys = [(size, fps) for size in SIZES for fps in (2.0, 8.0)]
    told = dict.fromkeys(keys[:2], of)
    redrawn = dict.fromkeys(keys[:2], of + 1000)
    made.clips = Clips(scenes, dict.fromkeys(keys, of), told, redrawn)
    return made


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_a_share_is_redrawn(tiny_model, share, expected):
    made = counted(task(tiny_model, redrawn_share=share))
    seen = torch.cat([made.batch(step, 0, 1)["enlarged"][:, 0, 0, 0, 0] for step in range(40)])
    found = float((seen >= 1000).float().mean())
    assert found == pytest.approx(expected, abs=0.08 if 0 < share < 1 else 0)


def test_captions_are_of_the_scenes_in_the_batch(tiny_model):
    made = counted(task(tiny_model, canonical=1.0, drop_caption=0.0))
    levels = set()
    for step in range(4):
        batch = made.batch(step, 0, 1)
        for row, ids in zip(batch["large"][:, 0, 0, 0, 0].tolist(), batch["ids"], strict=True):
            level, seed = made.clips.scenes[int(row)]
            said = made.captions.tokens([caption(sample_scene(seed, level=level))])["ids"][0]
            assert ids[: len(said)].tolist() == said.tolist()
            levels.add(level)
    assert levels == {"basic", "full"}


def test_captions_are_told(tiny_model):
    made, told = counted(task(tiny_model)), {}

    class Network(torch.nn.Module):
        def forward(self, x, t, **cond):
            told.update(cond)
            return torch.zeros_like(x[:, :4])

    batch = made.batch(0, 0, 1)
    modules = {**made.build(), "upsampler": Network()}
    made.loss(modules, batch, torch.Generator().manual_seed(0))
    assert told["text"].shape == (*batch["ids"].shape, 16)
    assert torch.equal(told["text_mask"], batch["ids"] != made.captions.pad)


def test_objects_count_for_more(tiny_model):
    """The loss is the weighted mean of squares; by hand, for a network that answers zeros."""
    seen = torch.zeros(1, 1, 2, 2)
    seen[0, 0, 0, 0] = 1
    weights = importance(seen, 3.0)
    assert weights.shape == (1, 1, 1, 2, 2) and float(weights.mean()) == pytest.approx(1)
    assert float(weights[0, 0, 0, 0, 0] / weights[0, 0, 0, 1, 1]) == pytest.approx(3)


# --- what is refused ------------------------------------------------------------------------------


def refused(made: UpsamplingTask) -> UsageError:
    with pytest.raises(UsageError) as caught:
        made.prepare(made.build(), lambda text: None)
    return caught.value


@pytest.mark.parametrize("key", ["redrawn", "filled"])
def test_models_of_other_latents_are_refused(tiny_model, other_model, tmp_path, key):
    made = task(tiny_model, cache=str(tmp_path), **{key: str(other_model)})
    what = refused(made).what
    assert f"data.{key} is" in what and "whose latents are others" in what
    assert not list(tmp_path.iterdir())


def test_frames_between_need_an_interpolation(tiny_model, tmp_path):
    assert "without data.filled" in refused(task(tiny_model, cache=str(tmp_path), filled=None)).what


@pytest.mark.parametrize("settings", [{"num_frames": 5}, {"fps": [8.0]}, {"fps": [2.0, 4.0]}])
def test_clips_that_the_model_does_not_make_are_refused(tiny_model, tmp_path, settings):
    made = task(tiny_model, cache=str(tmp_path), **settings)
    error = refused(made)
    assert "which makes 3 keyframes of 16 × 32, 2 a second, and 8 with those" in error.what


def test_a_level_below_all_steps_is_refused(tiny_model, tmp_path):
    made = task(tiny_model, cache=str(tmp_path), redrawn_level=0.01)
    assert "data.redrawn_level is 0.01" in refused(made).what
