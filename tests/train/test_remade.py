"""True clips as a model makes them again: how far they go, at which rates, and who is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.train.test_upsampling_task import counted, task
from vidgen.diffusion import groups
from vidgen.errors import UsageError
from vidgen.systems import world
from vidgen.systems.base import Geometry, ModelFolder
from vidgen.train.distributed import World
from vidgen.train.tasks import remade
from vidgen.train.tasks.latents import encode_scenes
from vidgen.train.tasks.remade import Remaker, beginnings
from vidgen.world.captions import caption
from vidgen.world.scene import sample_scene

CPU = torch.device("cpu")
SCENES = range(3)


@pytest.fixture(scope="module")
def shipped() -> ModelFolder:
    return ModelFolder.find("world")


@pytest.fixture(scope="module")
def maker(shipped) -> Remaker:
    return Remaker(shipped, CPU)


@pytest.fixture(scope="module")
def true(shipped) -> torch.Tensor:
    return encode_scenes(
        SCENES, world.load_autoencoder(shipped).float(), "basic", shipped.geometry, CPU
    )


CAPTIONS = [caption(sample_scene(seed, level="basic")) for seed in SCENES]


def test_the_more_noise_the_further_from_the_true_clip(shipped, maker, true) -> None:
    starts = beginnings(shipped, 0.1, 0.95)
    few, many = starts[-1], starts[0]
    assert few[0].sigma < 0.2 and many[0].sigma > 0.9 and few[-1].sigma == many[-1].sigma == 0
    errors = [
        float((maker.keyframes(true, CAPTIONS, levels) - true).square().mean())
        for levels in (few, starts[len(starts) // 2], many)
    ]
    assert errors[0] < 0.05 < errors[1] < errors[2]


def test_a_scene_is_remade_the_same_each_time(maker, shipped, true) -> None:
    levels = beginnings(shipped, 0.1, 0.2)[0]
    a, b = (maker.keyframes(true, CAPTIONS, levels) for _ in range(2))
    assert torch.equal(a, b)


def test_finer_clips_hold_the_keyframes_and_something_like_their_blend(maker, true) -> None:
    made = maker.finer(true)
    assert made.shape[2] == 4 * true.shape[2] - 3
    assert torch.equal(made[:, :, ::4], true)
    _, between = groups.split(made)
    blend = groups.linear(true)
    off = (between - blend).square().mean()
    assert 0 < off < 0.5 * (blend - blend.mean()).square().mean()


def test_beginnings_lie_between_the_two_sigmas(shipped) -> None:
    found = beginnings(shipped, 0.3, 0.7)
    assert len(found) > 3
    assert all(0.3 <= levels[0].sigma <= 0.7 and levels[-1].sigma == 0 for levels in found)
    with pytest.raises(UsageError, match=r"none of the noise levels of `world`"):
        beginnings(shipped, 0.31, 0.32)


def test_clips_are_made_once_at_the_rates_that_are_wanted(shipped, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("vidgen.train.tasks.latents.SHARD", 4)
    monkeypatch.setattr("vidgen.train.tasks.latents.CHUNK", 2)
    said: list[str] = []

    def clips() -> dict[float, torch.Tensor]:
        return remade.cached_clips(
            shipped, "basic", 3, (8.0, 2.0, 24.0), (0.1, 0.3),
            folder=lambda fps: tmp_path / f"{fps:g}", finish=lambda x: x[..., :4],
            vae=world.load_autoencoder(shipped).float(), dtype=torch.float32,
            world=World(0, 1, CPU), say=said.append,
        )  # fmt: skip

    made = clips()
    assert made.keys() == {2.0, 8.0}
    assert all(x.shape == (3, 8, 5, 5, 4) for x in made.values())
    # The first keyframe is at both rates; an eighth of a second later is not half a second later.
    assert torch.equal(made[2.0][:, :, 0], made[8.0][:, :, 0])
    assert torch.equal(made[2.0][:, :, 1], made[8.0][:, :, 4])
    assert len(said) == 4  # true keyframes, remade ones, and finished at two rates
    again = clips()
    assert len(said) == 4 and all(torch.equal(again[fps], x) for fps, x in made.items())


def test_a_batch_tells_as_many_remade_clips_as_it_should(tiny_model) -> None:
    for share in (0.5, 1.0):
        made = counted(task(tiny_model, num=64, remade_share=share))
        made.remade = {2.0: torch.full_like(made.told[(16, 32), 2.0], -1.0)}
        told, slow = [], []
        for step in range(20):
            batch = made.batch(step, 0, 1)
            told.append(batch["enlarged"][:, 0, 0, 0, 0] == -1)
            slow.append(batch["skip"] == 12)
            assert (batch["large"] != -1).all()
        one, two = torch.cat(told), torch.cat(slow)
        assert not (one & ~two).any()  # there are none of the other rate
        assert float(one[two].float().mean()) == pytest.approx(share, abs=0.15)


def test_a_model_of_other_clips_is_refused(tiny_model, other_model) -> None:
    own = ModelFolder(Path(tiny_model))
    g = own.geometry
    remade.check(own, own.latent_space, [g])
    with pytest.raises(UsageError, match=r"data\.vae's latents are others"):
        remade.check(own, ModelFolder(Path(other_model)).latent_space, [g])
    with pytest.raises(UsageError, match=r"which makes \d+ keyframes of"):
        remade.check(own, own.latent_space, [Geometry(g.num_frames + 1, g.height, g.width, g.fps)])


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_that_is_none_is_refused(tiny_model, share) -> None:
    with pytest.raises(UsageError, match=r"remade_share is"):
        task(tiny_model, remade=str(tiny_model), remade_share=share)
