"""Clips as a model makes them near to rendered ones, and a video decoder that learns from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from vidgen.errors import UsageError
from vidgen.nn.pixels import from_uint8
from vidgen.stages import redraw
from vidgen.stages.base import Compute
from vidgen.stages.redraw import Redrawer
from vidgen.systems import world
from vidgen.systems.base import ModelFolder
from vidgen.train.distributed import World
from vidgen.train.loop import train
from vidgen.train.recipe import Optim, Recipe
from vidgen.train.task import make_task
from vidgen.train.tasks import latents, redrawn
from vidgen.train.tasks.redrawn import Redrawn, of_seeds, redrawn_clips
from vidgen.world.captions import caption
from vidgen.world.render import render
from vidgen.world.scene import sample_scene

DECODER = {
    "channels": 4, "widths": [8, 8, 8], "blocks": 1, "attention": [], "patch": 2, "groups": 4,
    "temporal": "conv1d",
}  # fmt: skip
ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("parts") / "tiny")


@pytest.fixture
def model(path) -> Redrawer:
    return Redrawer(ModelFolder.find(str(path)), Compute("cpu", batch_size=4))


@pytest.fixture
def shards_of_four(monkeypatch):
    monkeypatch.setattr(latents, "SHARD", 4)
    monkeypatch.setattr(redrawn, "TOGETHER", 2)


def captioned(*seeds: int):
    scenes = [sample_scene(seed) for seed in seeds]
    return scenes, [caption(scene) for scene in scenes]


def latents_of(model: Redrawer, scenes, captions, start: int) -> torch.Tensor:
    return torch.stack([r.torch("latents") for r in model.clips(scenes, captions, start)])


def encoded(model: Redrawer, scenes) -> torch.Tensor:
    g = model.folder.geometry
    frames = render(scenes, times=g.times, height=g.height, width=g.width).frames
    with torch.no_grad():
        vae = world.load_autoencoder(model.folder).float()
        return vae.encode(from_uint8(frames.permute(0, 4, 1, 2, 3)))


def test_what_comes_out_is_what_its_decoder_gets(model):
    scenes, captions = captioned(1, 2)
    made, g = latents_of(model, scenes, captions, 1), model.geometry
    first = model.folder.geometry
    assert model.scale == 2 and (g.height, g.width) == (2 * first.height, 2 * first.width)
    assert made.shape == (2, 4, g.num_frames, g.height // 8, g.width // 8)
    assert g.num_frames == 4 * first.num_frames - 3 and g.fps == 4 * first.fps


def test_a_network_that_knows_the_clip_gives_it_back(model, monkeypatch):
    """Then nothing is left of the noise, from whatever level it begins."""
    scenes, captions = captioned(3, 4)
    true = encoded(model, scenes)
    monkeypatch.setattr(redraw, "denoiser", lambda *_: lambda z, level, cond: true[: len(z)])
    monkeypatch.setattr(redraw.load, "guided", lambda denoise, *_: denoise)
    model.scale = 1
    for start in (0, 2):
        torch.testing.assert_close(latents_of(model, scenes, captions, start)[:, :, ::4], true)


def test_the_more_noise_it_begins_with_the_further_it_goes(model):
    scenes, captions = captioned(5, 6)
    true, model.scale = encoded(model, scenes), 1
    starts = [model.start(sigma) for sigma in (0.9, 0.5, 0.01)]
    errors = [
        float((latents_of(model, scenes, captions, start)[:, :, ::4] - true).square().mean())
        for start in starts
    ]
    assert starts == sorted(starts) and errors == sorted(errors, reverse=True)
    assert starts[-1] == len(model.levels) - 2  # the last level that has noise
    assert float(model.levels[starts[1]].sigma) <= 0.5 < float(model.levels[starts[1] - 1].sigma)


def test_captions_and_scenes_matter_and_draws_do_not_change(model):
    of = [
        of_seeds(model, range(8, 10), "basic", noise, torch.float32) for noise in [(0.6, 0.9)] * 2
    ]
    assert torch.equal(*of)
    other = of_seeds(model, range(10, 12), "basic", (0.6, 0.9), torch.float32)
    assert not torch.allclose(of[0], other)
    scenes, captions = captioned(8, 9)
    model.scale = 1
    one, two = (latents_of(model, scenes, said, 1) for said in (captions, captions[::-1]))
    assert not torch.equal(one, two)


@pytest.mark.usefixtures("shards_of_four")
def test_clips_are_made_once_for_all_that_decides_them(model, tmp_path, monkeypatch):
    said: list[str] = []

    def made(**more):
        wanted = Redrawn(num=3, num_full=2, cache=str(tmp_path), **more)
        return redrawn_clips(model, wanted, dtype=torch.float32, world=ALONE, say=said.append)

    clips = made()
    assert clips.shape[0] == 5 and len(said) == 2
    torch.testing.assert_close(
        clips[3:].float(), of_seeds(model, range(2), "full", (0.3, 0.75), torch.float32),
        rtol=0.01, atol=0.01,
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(Redrawer, "clips", lambda *_: pytest.fail("they are kept"))
        assert torch.equal(made(), clips)
    assert not torch.equal(made(noise=(1.0, 1.0)), clips) and len(said) == 4


def recipe(path: Path, cache: Path, share: float = 1.0) -> Recipe:
    wanted = {"num": 3, "num_full": 2, "share": share, "cache": str(cache)}
    data = {
        "vae": str(path), "sizes": [[32, 64]], "num_frames": [2, 3], "level": "basic",
        "redrawn": wanted,
    }  # fmt: skip
    return Recipe(
        "video-decoder", model=DECODER, data=data, steps=2, batch_size=4, log_every=1,
        optim=Optim(name="adamw"),
    )  # fmt: skip


@pytest.mark.usefixtures("shards_of_four")
def test_a_decoder_is_shown_what_was_rendered(path, tmp_path):
    task = make_task(recipe(path, tmp_path))
    modules = task.build()
    task.prepare(modules, lambda line: None)
    strides = set()
    for step in range(12):
        batch = task.batch(step, 0, 1)
        halves = [task.batch(step, rank, 2) for rank in range(2)]
        for key in ("frames", "latents"):
            assert torch.equal(batch[key], torch.cat([half[key] for half in halves]))
        clip = batch["latents"][0]
        row = next(i for i, x in enumerate(task.redrawn) if _places(clip, x) is not None)
        places = _places(clip, task.redrawn[row])
        strides |= set(torch.tensor(places).diff().tolist())
        level, seed = task.scenes[row]
        g, scene = task.geometry, sample_scene(seed, level=level)
        times = [g.times[i] for i in places]
        true = render([scene], times=times, height=g.height, width=g.width).frames[0]
        assert torch.equal(batch["frames"][0], true)
    assert strides == {1, 4}  # frames one after the other, and keyframes


def _places(clip: torch.Tensor, whole: torch.Tensor) -> list[int] | None:
    """Where in `whole` the frames of a clip are, both `c t h w`."""
    found = []
    for i in range(clip.shape[1]):
        same = (whole == clip[:, i : i + 1]).flatten(2).all(dim=2).all(dim=0).nonzero()
        if not len(same):
            return None
        found.append(int(same[0]))
    return found


@pytest.mark.usefixtures("shards_of_four")
def test_it_trains_on_both_kinds_and_measures_both(path, tmp_path):
    task = make_task(recipe(path, tmp_path / "cache", share=0.5))
    modules = task.build()
    task.prepare(modules, lambda line: None)
    kinds = {"latents" in task.batch(step, 0, 1) for step in range(12)}
    assert kinds == {True, False}
    with torch.no_grad():
        found = task.evaluate(modules, 0)
    assert {"psnr_32x64", "psnr_redrawn", "image_psnr_redrawn"} <= found.keys()
    train(recipe(path, tmp_path / "cache", share=0.5), tmp_path / "run", device="cpu")
    assert "video_decoder" in ModelFolder.find(str(tmp_path / "run" / "model")).index


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"noise": [0.5, 0.2]}, "noise is"),
        ({"noise": [0.0, 0.2]}, "within 0 and 1"),
        ({"share": 1.5}, "share is 1.5"),
        ({"num": 0, "num_full": 0}, "has no clips"),
        ({"number": 5}, "number"),
    ],
)
def test_nonsense_about_redrawn_clips_is_refused(path, tmp_path, wanted, said):
    made = recipe(path, tmp_path)
    with pytest.raises(UsageError, match=said):
        make_task(made.replace(data=made.data | {"redrawn": wanted}))


def test_more_frames_than_a_clip_has_are_refused(path, tmp_path):
    made = recipe(path, tmp_path)
    task = make_task(made.replace(data=made.data | {"num_frames": [2, 40]}))
    with pytest.raises(UsageError, match="that are redrawn have"):
        task.prepare(task.build(), lambda line: None)
