"""Cells with objects count for more: where they are, and what that does to a loss."""

from __future__ import annotations

import shutil

import pytest
import torch

from tests.train.test_tasks import DIT, recipe, trained  # noqa: F401
from vidgen.diffusion import losses
from vidgen.diffusion.level import Level
from vidgen.diffusion.prediction import PREDICTIONS
from vidgen.errors import UsageError
from vidgen.systems.base import Geometry
from vidgen.train.task import make_task
from vidgen.train.tasks.shown import shown, shown_name
from vidgen.world.render import GROUND, geometry
from vidgen.world.scene import sample_scene

CLIP = Geometry(3, 24, 32, 2.0)


@pytest.mark.parametrize("level", ["basic", "full"])
def test_latents_beside_an_object_show_it(level) -> None:
    """Against every pixel in turn: half a latent is 4 pixels here."""
    found = shown(range(4), level, CLIP, 3, 4)
    assert 0 < found.float().mean() < 1
    for seed in range(4):
        _, owner = geometry(sample_scene(seed, level=level), CLIP.times, 24, 32)
        for t, i, j in torch.cartesian_prod(torch.arange(3), torch.arange(3), torch.arange(4)):
            rows = slice(max(0, 8 * int(i) - 4), 8 * int(i) + 12)
            columns = slice(max(0, 8 * int(j) - 4), 8 * int(j) + 12)
            assert found[seed, t, i, j] == int((owner[t, rows, columns] > GROUND).any())


def test_another_grid_has_another_name() -> None:
    names = {
        shown_name(CLIP, 3, 4),
        shown_name(CLIP, 6, 8),
        shown_name(Geometry(3, 24, 32, 8.0), 3, 4),
    }
    assert len(names) == 3


def test_the_loss_is_the_weighted_mean() -> None:
    """A network that says nothing: the error of each number is its target, eps − x0."""
    draw = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 2, 3, 3, 5, generator=draw).unbind(0)
    weights = torch.rand(4, 1, 3, 3, 5, generator=draw)
    t = torch.rand(4, generator=draw)
    loss = losses.training_loss(
        lambda z, t, cond: torch.zeros_like(z), PREDICTIONS["flow"](), x0, None,
        Level(t, 1 - t, t), eps, weights,
    )  # fmt: skip
    wanted = [sum((weights[i] * (eps - x0)[i] ** 2).flatten()) / x0[0].numel() for i in range(4)]
    torch.testing.assert_close(loss, torch.stack(wanted))


FIT = {
    "in_channels": 4, "out_channels": 4, "num_frames": 3, "height": 2, "width": 4,
    "group": [3, 2, 1], "patch": [1, 1, 2], "dim": 32, "latents": 8, "latent_dim": 32,
    "context_dim": 16, "text_dim": 16, "blocks": 1, "head_dim": 16, "latent_head_dim": 16,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "model"), [("keyframes", DIT), ("snap-video", FIT)])
def test_weights_are_one_on_average_and_more_where_objects_are(
    trained,  # noqa: F811
    monkeypatch,
    kind,
    model,
) -> None:
    monkeypatch.setattr("vidgen.train.tasks.latents.SHARD", 32)
    monkeypatch.setattr("vidgen.train.tasks.latents.CHUNK", 16)
    cache = trained / f"shown-cache-{kind}"
    shutil.copytree(trained / "cache", cache)
    data = {
        "vae": str(trained / "vae" / "model"), "text": str(trained / "text" / "model"),
        "cache": str(cache), "num": 40, "num_frames": 3, "height": 16, "width": 32,
    }  # fmt: skip
    task = make_task(recipe(kind, model, data, loss={"object_weight": 5.0}))
    task.prepare(task.build(), lambda _: None)
    batch = task.batch(0, 0, 1)
    weights = task.importance(batch)
    assert weights.shape == (8, 1, 3, 2, 4)
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))
    inside, outside = weights[:, 0][batch["shown"] == 1], weights[:, 0][batch["shown"] == 0]
    torch.testing.assert_close(inside, 5 * outside.mean().expand_as(inside))


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_a_weight_that_is_none_is_refused(trained, weight) -> None:  # noqa: F811
    data = {"vae": str(trained / "vae" / "model"), "text": str(trained / "text" / "model")}
    with pytest.raises(UsageError, match=r"loss\.object_weight is"):
        make_task(recipe("keyframes", DIT, data, loss={"object_weight": weight}))


def test_a_fit_goes_on_from_one_of_its_sizes_and_scales(trained, tmp_path) -> None:  # noqa: F811
    data = {"vae": str(trained / "vae" / "model"), "text": str(trained / "text" / "model")}
    data |= {"num_frames": 3, "height": 16, "width": 32}
    first = make_task(recipe("snap-video", FIT, data))
    modules = first.build()
    first.export(modules, tmp_path / "model")
    data["start"] = str(tmp_path / "model")
    again = make_task(recipe("snap-video", FIT, data)).build()["transformer"].state_dict()
    for name, value in modules["transformer"].state_dict().items():
        torch.testing.assert_close(again[name], value, rtol=0.01, atol=0.01)  # bfloat16 between
    for model, loss, key in (({"latents": 4}, {}, "model.latents is 4"),
                             ({}, {"sigma_data": 0.5}, "loss.sigma_data is 0.5")):  # fmt: skip
        with pytest.raises(UsageError, match=rf"{key}, and that of data\.start, .* is \d"):
            make_task(recipe("snap-video", FIT | model, data, loss=loss)).build()


def test_a_u_net_goes_on_from_a_u_net_alone(trained, tmp_path) -> None:  # noqa: F811
    """On latents, as a FIT does; of 2 × 4 here, which can be halved once."""
    data = {"vae": str(trained / "vae" / "model"), "text": str(trained / "text" / "model")}
    data |= {"num_frames": 3, "height": 16, "width": 32}
    channels = FIT["in_channels"]
    model = {"network": "AdmUNet", "in_channels": channels, "out_channels": channels, "base": 8,
             "multipliers": [1, 2], "attention": [False, True], "blocks": 1, "head_dim": 8,
             "cond_dim": 16, "text_dim": FIT["text_dim"]}  # fmt: skip
    own = {"self_conditioned": 0.0}
    first = make_task(recipe("snap-video", model, data, loss=own))
    first.export(first.build(), tmp_path / "model")
    data["start"] = str(tmp_path / "model")
    begun = make_task(recipe("snap-video", model, data, loss=own)).build()["transformer"]
    assert begun.config == first.config
    with pytest.raises(
        UsageError, match=r"model.network is FIT, and that of data\.start, .* is Adm"
    ):
        make_task(recipe("snap-video", FIT, data)).build()
    deeper = {"multipliers": [1, 2, 2], "attention": [False, True, True]}
    with pytest.raises(UsageError, match=r"2 × 4, and the network halves sides twice: .* of 4"):
        make_task(recipe("snap-video", model | deeper, data, loss=own))
