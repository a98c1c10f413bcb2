"""The video decoder's task: what it begins with, what is trained, what is measured and written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import tiny
from vidgen.errors import UsageError
from vidgen.nn.autoencoder import AutoencoderConfig
from vidgen.nn.movq import CONFIGS, MoVQConfig, MoVQDecoder
from vidgen.stages.base import Compute
from vidgen.stages.decode import decode
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.sample_keyframes import sample_keyframes
from vidgen.systems.base import ModelFolder
from vidgen.systems.video_decoder import load_video_decoder
from vidgen.train.loop import train
from vidgen.train.recipe import Optim, Recipe, load_recipe, section
from vidgen.train.task import generator, make_task
from vidgen.train.tasks.pixels import PixelLoss, clip_scores, noisy, pixel_loss

IMAGE = {"channels": 4, "widths": [8, 8, 8], "blocks": 1, "attention": [], "patch": 2, "groups": 4}
SMALL = {"sizes": [[16, 32]], "num_frames": [2, 3], "level": "basic"}


def recipe(model: dict, data: dict, **more) -> Recipe:
    settings = {"steps": 2, "batch_size": 2, "log_every": 1, "optim": Optim(name="adamw"), **more}
    return Recipe("video-decoder", model=model, data=SMALL | data, **settings)


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("parts") / "tiny")


@pytest.fixture(scope="module")
def image(vae, tmp_path_factory) -> Path:
    """A model folder with an image decoder of two steps."""
    run = tmp_path_factory.mktemp("run") / "image"
    train(recipe(IMAGE, {"vae": str(vae)}), run, device="cpu")
    return run / "model"


def test_the_shipped_recipe_is_the_world_config():
    found = load_recipe("world-video-decoder")
    assert section(MoVQConfig, found.model, where="model") == CONFIGS["world"]
    assert set(make_task(found).build()) == {"video_decoder", "vae"}  # begins as the shipped one
    make_task(load_recipe("world-video-decoder", preset="tiny")).build()
    base = section(MoVQConfig, load_recipe("world-video-decoder", preset="base").model, where="")
    beside = section(
        AutoencoderConfig, load_recipe("world-autoencoder", preset="base").model, where=""
    )
    assert (base.widths, base.blocks) == (beside.decoder_widths, beside.decoder_blocks)
    with torch.device("meta"):
        assert MoVQDecoder(base)(torch.empty(1, 8, 2, 5, 8)).shape == (1, 3, 2, 40, 64)


def test_what_is_written_decodes_the_latents_of_its_autoencoder(image, vae):
    made, source = ModelFolder.find(str(image)), ModelFolder.find(str(vae))
    assert made.sha256("vae") == source.sha256("vae")
    assert made.index.keys() >= {"vae", "video_decoder"}
    texts = encode_text([Prompt("a red ball bounces")], source)
    (record,) = sample_keyframes(texts, source, compute=Compute("cpu"))
    record = record.replace(kind="latents", attrs={"latent_space": made.latent_space})
    (frames,) = decode([record], made, compute=Compute("cpu"))
    assert frames.torch("frames").shape == (3, 16, 32, 3)
    assert frames.log[-1]["model"]["name"] == f"{source.name}/video_decoder"


@pytest.mark.parametrize("temporal", ["conv1d", "resnet"])
def test_training_time_alone_leaves_the_image_decoder_as_it_was(image, vae, tmp_path, temporal):
    data = {"vae": str(vae), "start": str(image), "trained": "temporal"}
    task = make_task(recipe(IMAGE | {"temporal": temporal}, data))
    new = task.build()["video_decoder"]
    before = load_video_decoder(ModelFolder(image)).float()
    latents = torch.randn(1, 4, 3, 2, 4)
    with torch.no_grad():
        torch.testing.assert_close(new(latents), before(latents))
    train(task.recipe.replace(steps=3), tmp_path / "run", device="cpu")
    after = load_video_decoder(ModelFolder(tmp_path / "run" / "model")).float()
    old, now = before.state_dict(), after.state_dict()
    assert all(torch.equal(now[name], x) for name, x in old.items())
    assert after.config == replace(before.config, temporal=temporal)
    assert any(now[name].abs().max() > 0 for name in now.keys() - old.keys() if "gate" in name
               or ".conv2." in name)  # fmt: skip
    with torch.no_grad():
        assert not torch.equal(after(latents), before(latents))


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        ({"channels": 8}, {}, "channels of model is 8, that of data.vae is 4"),
        ({"patch": 1}, {}, "stride of model is 4, that of data.vae is 8"),
        ({}, {"trained": "temporal"}, "without data.start"),
        ({}, {"num_frames": [3, 2]}, "from less to more"),
        ({"temporal": "4d"}, {}, "model.temporal is"),
    ],
)
def test_nonsense_is_refused(vae, model, data, said):
    with pytest.raises(UsageError, match=said):
        make_task(recipe(IMAGE | model, {"vae": str(vae)} | data))


def test_a_beginning_that_does_not_fit_is_refused(image, vae):
    data = {"vae": str(vae), "start": str(image)}
    with pytest.raises(UsageError, match=r"data\.start: of another decoder"):
        make_task(recipe(IMAGE | {"blocks": 2}, data)).build()
    with pytest.raises(UsageError, match="nothing of `inflate` is for time only"):
        make_task(recipe(IMAGE | {"temporal": "inflate"}, data | {"trained": "temporal"})).build()


def test_a_beginning_of_another_autoencoder_is_refused(image, tmp_path):
    """Though all of its tensors would fit."""
    other = tiny.make(tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match=r"data\.start is .*, whose vae is not that of"):
        make_task(recipe(IMAGE, {"vae": str(other), "start": str(image)})).build()


def test_it_begins_as_the_decoder_of_the_autoencoder(vae):
    """The latents of `tests.tiny` have 4 channels, its decoder widths of 8."""
    model = {
        "body": "autoencoder", "channels": 4, "widths": [8, 8, 8], "blocks": 1, "attention": [],
        "patch": 2, "temporal": "conv1d",
    }  # fmt: skip
    task = make_task(recipe(model, {"vae": str(vae), "start": "vae"}))
    modules = task.build()
    latents = torch.randn(1, 4, 3, 2, 4)
    with torch.no_grad():
        made, expected = modules["video_decoder"](latents), modules["vae"].decode(latents)
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match=r"data\.start: of another decoder"):
        make_task(recipe(IMAGE, {"vae": str(vae), "start": "vae"})).build()


def test_noise_on_latents_has_the_spread_that_is_told():
    latents = torch.zeros(64, 2, 8, 4, 4)
    made = noisy(latents, PixelLoss(latent_noise=0.2), generator(0, "n"))
    assert made.square().mean().sqrt() == pytest.approx(0.2, rel=0.02)


def test_what_changes_from_frame_to_frame_counts_more_than_what_stays():
    weights = PixelLoss(changes=2.0)
    stays = torch.full((1, 3, 4, 2, 2), 0.5)
    comes = stays * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]
    (still, _), (trembling, _) = pixel_loss(stays, weights), pixel_loss(comes, weights)
    assert trembling - still == pytest.approx(2.0 * 1.0)  # each change is of 1
    alone, _ = pixel_loss(stays[:, :, :1], weights)
    assert alone == still


def test_a_batch_is_clips_and_a_function_of_its_step(vae):
    data = {"vae": str(vae), "sizes": [[16, 32], [32, 64]], "fps": [8, 2], "num_frames": [2, 4]}
    one, two = (make_task(recipe(IMAGE, data, batch_size=8)) for _ in range(2))
    assert torch.equal(one.batch(3, 0, 1)["frames"], two.batch(3, 0, 1)["frames"])
    shapes = [tuple(one.batch(step, 0, 1)["frames"].shape) for step in range(12)]
    assert {s[1] for s in shapes} == {2, 3, 4}
    assert {(s[0], *s[2:]) for s in shapes} == {(8, 16, 32, 3), (2, 32, 64, 3)}
    ranks = [one.batch(3, rank, 2)["frames"] for rank in (0, 1)]
    assert ranks[0].shape == ranks[1].shape and not torch.equal(*ranks)


def test_measures_of_clips():
    frames = torch.zeros(2, 4, 3, 5, 3, dtype=torch.uint8)
    frames[:, :, 0, 0] = torch.tensor([0, 50, 100, 150], dtype=torch.uint8)[:, None]  # moves
    assert clip_scores(frames, frames)["flicker"] == 0
    made = frames.clone()
    made += 10
    made[:, 1::2] += 10  # up and down by ten everywhere: 5 off their mean
    found = clip_scores(made, frames)
    assert found["flicker"] == pytest.approx(5)
    of_frames = 20 * (torch.tensor([255 / 10, 255 / 20])).log10()
    assert found["psnr"] == pytest.approx(of_frames.mean().item())
    assert "flicker" not in clip_scores(made[:, :, :1, :1], frames[:, :, :1, :1])
    steady = made.clone()
    steady[:] = 7  # wrong, and still
    found = clip_scores(steady, frames)
    assert found["flicker"] == 0 and found["psnr"] < 40
