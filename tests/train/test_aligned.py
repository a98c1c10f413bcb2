"""What latents show, as the renderer knows it, and what asking for it does to a training."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch

from tests.train.test_tasks import DIT, recipe, trained  # noqa: F401
from vidgen.errors import UsageError
from vidgen.systems.base import Geometry
from vidgen.train.task import make_task
from vidgen.train.tasks.aligned import CHANNELS, Aligned, shown_surfaces, surfaces_name
from vidgen.world import motion
from vidgen.world.render import CHECK_FADE_M, GROUND, TILE, geometry
from vidgen.world.scene import sample_scene

CLIP = Geometry(3, 24, 32, 2.0)


@pytest.mark.parametrize("level", ["basic", "full"])
def test_ground_objects_and_nearness_are_those_of_the_pixels(level) -> None:
    found = shown_surfaces(range(6), level, CLIP, 6, 8).float() / 127
    assert found.shape == (6, CHANNELS, 3, 6, 8)
    for seed in range(6):
        z, owner = geometry(sample_scene(seed, level=level), CLIP.times, 6, 8)
        assert torch.equal(found[seed, 0] == 1, owner == GROUND)
        assert torch.equal(found[seed, 1] == 1, owner > GROUND)
        near = torch.where(z == torch.inf, 0.0, 1 / z.clamp(min=1))
        torch.testing.assert_close(found[seed, 2], near, atol=0.005, rtol=0)


def test_checks_are_waves_and_objects_are_seen_in_their_own_axes() -> None:
    """One ray after another, from the camera's and the object's poses."""
    seen = 0
    for seed in range(8):
        scene = sample_scene(seed, level="basic")
        found = shown_surfaces(range(seed, seed + 1), "basic", CLIP, 6, 8)[0].float() / 127
        z, owner = geometry(scene, CLIP.times, 6, 8)
        camera = motion.camera_path(scene.camera, CLIP.times)
        ((center, rotation, size, _),) = motion.object_paths(scene, CLIP.times)
        for t, i, j in np.ndindex(3, 6, 8):
            if z[t, i, j] == torch.inf:
                assert not found[3:, t, i, j].any()
                continue
            focal, c2w = float(camera.focal[t]), np.array(camera.c2w[t])
            x = ((j + 0.5) / 8 - 0.5) / focal
            y = ((i + 0.5) / 6 - 0.5) * (6 / 8) / focal
            place = c2w[:, 3] + float(z[t, i, j]) * (c2w[:, :3] @ np.array([x, y, 1.0]))
            if owner[t, i, j] == GROUND:
                fade = math.exp(-float(z[t, i, j]) / CHECK_FADE_M)
                waves = [fade * f(math.pi * place[k] / TILE) for k in (0, 2)
                         for f in (math.sin, math.cos)]  # fmt: skip
                np.testing.assert_allclose(found[3:7, t, i, j], waves, atol=0.02)
                assert not found[7:, t, i, j].any()
            else:
                own = rotation[t].T @ (place - center[t]) / size[t]
                np.testing.assert_allclose(found[7:, t, i, j], own.clip(-1, 1), atol=0.01)
                seen += 1
    assert seen > 20


def test_other_clips_have_another_name() -> None:
    other = Geometry(3, 24, 32, 8.0)
    names = {surfaces_name(CLIP, 3, 4), surfaces_name(CLIP, 6, 8), surfaces_name(other, 3, 4)}
    assert len(names) == 3


def test_a_token_tells_of_its_own_patch() -> None:
    torch.manual_seed(0)
    head, tokens = Aligned(16, (1, 2, 4)), torch.randn(1, 2 * 3 * 2, 16)
    before, changed = head(tokens, 6, 8), tokens.clone()
    changed[0, 2 * 3 + 2 * 1 + 1] += 1  # second frame, second row of patches, second column
    where = (head(changed, 6, 8) - before).abs().amax(dim=1)[0] > 0
    assert where[1, 2:4, 4:].all() and int(where.sum()) == 8


def test_it_is_learned_beside_the_loss_and_not_exported(trained, tmp_path, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setattr("vidgen.train.tasks.latents.SHARD", 32)
    monkeypatch.setattr("vidgen.train.tasks.latents.CHUNK", 16)
    cache = tmp_path / "cache"
    shutil.copytree(trained / "cache", cache)
    data = {
        "vae": str(trained / "vae" / "model"), "text": str(trained / "text" / "model"),
        "cache": str(cache), "num": 40, "num_frames": 3, "height": 16, "width": 32,
    }  # fmt: skip
    task = make_task(recipe("keyframes", DIT | {"depth": 3}, data, loss={"align": 0.5}))
    plain = make_task(recipe("keyframes", DIT | {"depth": 3}, data))
    torch.manual_seed(0)
    modules = task.build()
    for made in (task, plain):
        made.prepare(modules, lambda _: None)
    batch = task.batch(0, 0, 1)
    loss, told = task.loss(modules, batch, torch.Generator().manual_seed(1))
    alone, _ = plain.loss(modules, plain.batch(0, 0, 1), torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss, alone + 0.5 * told["align"])
    loss.backward()
    blocks = modules["transformer"].blocks
    grads = [block.self_attn.qkv.weight.grad is not None for block in blocks]
    assert grads == [True, True, True]
    assert modules["aligned"].out.weight.grad.abs().max() > 0
    task.export(modules, tmp_path / "model")
    assert not (tmp_path / "model" / "aligned").exists()
    with pytest.raises(UsageError, match=r"loss\.align is -1"):
        make_task(recipe("keyframes", DIT, data, loss={"align": -1.0}))
