"""Training the upsampler: pairs of sizes, both spacings, what is told, what is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vidgen.errors import UsageError
from vidgen.io.record import Record
from vidgen.stages.base import Compute
from vidgen.stages.upsample import Choices, upsample
from vidgen.systems import upsampling
from vidgen.systems.base import Geometry, ModelFolder
from vidgen.systems.upsampling import Upsampler
from vidgen.train.recipe import Optim, Recipe
from vidgen.train.tasks.latents import cache_folder, encode_scenes
from vidgen.train.tasks.upsampling import UpsamplingTask

MODEL = {
    "in_channels": 8, "out_channels": 4, "variant": "interpolation", "init_channels": 16,
    "widths": [16, 16], "self_attention": [False, False], "cross_attention": [False, False],
    "blocks": 1, "groups": 4, "time_dim": 32, "level_scale": 1000.0, "text_dim": 0,
    "noise_embedding": "time", "skip_rows": 20,
}  # fmt: skip
SIZES = [[16, 32], [32, 64]]


def task(vae: Path, *, model: dict | None = None, loss: dict | None = None, **data):
    recipe = Recipe(
        "upsampling", model=MODEL | (model or {}), loss={"spread": 0.27} | (loss or {}),
        data={"vae": str(vae), "sizes": SIZES, "num": 16, "num_held": 4, "num_frames": 3} | data,
        steps=1, batch_size=8, optim=Optim(name="adamw"),
    )  # fmt: skip
    return UpsamplingTask(recipe)


def counted(made: UpsamplingTask) -> UpsamplingTask:
    """With latents that say whose they are: scene + 0.1 · frames a second + 1000 · height; what is
    told as if of that height, in the size of what is made."""
    clips = torch.arange(float(made.data.num)).view(-1, 1, 1, 1, 1)
    made.latents = {
        ((h, w), fps): (clips + 0.1 * fps + 1000 * h).expand(-1, 4, 3, h // 8, w // 8)
        for h, w in made.data.sizes for fps in made.data.fps
    }  # fmt: skip
    made.told = {
        (size, fps): made.latents[size, fps][..., :1, :1].expand_as(made.latents[large, fps])
        for size, large in made.pairs for fps in made.data.fps
    }  # fmt: skip
    return made


class Network(nn.Module):
    """Keeps what it is asked; answers with zeros."""

    def forward(self, x, t, **told):
        self.x, self.t, self.told = x, t, told
        return torch.zeros_like(x[:, :4])


# --- pairs ----------------------------------------------------------------------------------------


def test_a_batch_is_scenes_at_two_sizes_and_both_spacings(tiny_model):
    made = counted(task(tiny_model, sizes=[[16, 32], [32, 64], [64, 128]], fps=[2.0, 8.0]))
    heights, skips, scenes = set(), set(), set()
    for step in range(30):
        batch = made.batch(step, 0, 1)
        small, large = (batch[k][:, 0, 0, 0, 0] for k in ("enlarged", "large"))
        low, high = (int(x[0] // 1000) for x in (small, large))
        assert batch["enlarged"].shape == batch["large"].shape and high == 2 * low
        assert batch["large"].shape[3] * 8 == high
        same = small % 1000, large % 1000  # scene and rate
        torch.testing.assert_close(*same, rtol=0, atol=0.01)
        for row, skip in zip(small % 1000, batch["skip"], strict=True):
            scene = int(row)
            assert int(skip) == {0.2: 12, 0.8: 3}[round(float(row) - scene, 1)]
            scenes.add(scene)
        heights.add(low)
        skips.add(tuple(sorted(set(batch["skip"].tolist()))))
    assert heights == {16, 32} and (3, 12) in skips and len(scenes) == 16


def test_processes_share_a_batch(tiny_model):
    made = counted(task(tiny_model))
    whole = made.batch(3, 0, 1)
    parts = [made.batch(3, rank, 2) for rank in range(2)]
    for key, x in whole.items():
        assert torch.equal(x, torch.cat([part[key] for part in parts]))


def test_every_size_and_rate_is_rendered_of_the_same_scenes(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("vidgen.train.tasks.latents.SHARD", 16)
    monkeypatch.setattr("vidgen.train.tasks.latents.CHUNK", 16)
    made = task(tiny_model, cache=str(tmp_path))
    modules = made.build()
    made.prepare(modules, lambda text: None)
    folder, space = ModelFolder(tiny_model), ModelFolder(tiny_model).latent_space
    for (size, fps), latents in made.latents.items():
        geometry = Geometry(3, *size, fps)
        true = encode_scenes(range(16), modules["vae"], "basic", geometry, torch.device("cpu"))
        assert torch.equal(latents, true.to(torch.bfloat16))
        # So called by the keyframes' task, too: what it has rendered isn't rendered again.
        assert cache_folder(tmp_path, space, geometry, torch.float32).is_dir()
    assert made.told.keys() == {((16, 32), fps) for fps in (2.0, 8.0)}
    for key, told in made.told.items():
        true = upsampling.enlarged(made.latents[key].float(), modules["vae"])[:16]
        torch.testing.assert_close(told.float(), true, rtol=0.01, atol=0.01)
    assert len(made.latents) == 4 and folder.geometry.fps == 2.0
    assert made.skips.tolist() == [12, 12, 3, 3]
    assert made.truth.shape == (4, 3, 32, 64, 3)
    assert made.large.shape == (4, 4, 3, 4, 8)


# --- what is told ---------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["x0", "shrunk", "flow", "v"])
def test_the_enlarged_latents_are_told_noised_as_much_as_is_said(tiny_model, prediction):
    made = task(tiny_model, loss={"noise_level": 0.4, "prediction": prediction, "spread": 0.5})
    network = Network()
    enlarged, large = torch.ones(64, 4, 3, 4, 8), torch.full((64, 4, 3, 4, 8), 7.0)
    batch = {"enlarged": enlarged, "large": large, "skip": torch.arange(64) % 12 + 1}
    loss, _ = made.loss({"upsampler": network}, batch, torch.Generator().manual_seed(0))
    assert loss.ndim == 0 and loss.isfinite()
    told, p = network.x[:, 4:], network.told["noise_level"]
    assert ((p >= 0) & (p <= 0.4)).all() and p.max() > 0.35 and p.min() < 0.05
    told = told.flatten(1)  # (1 - p) + p · noise
    torch.testing.assert_close(told.mean(dim=1), 1 - p, rtol=0, atol=0.1)
    torch.testing.assert_close(told.std(dim=1), p, rtol=0.2, atol=0.01)
    assert torch.equal(network.told["skip"], batch["skip"])
    torch.testing.assert_close(network.told["times"][:, 1], batch["skip"] / 24)
    t = network.t
    noisy = network.x[:, :4].flatten(1)  # (1 - t) · 12 + t · eps, since (7 - 1) / 0.5 is 12
    seen = 1 / ((1 - t) ** 2 + t**2) * (1 - t) if prediction == "shrunk" else torch.ones_like(t)
    torch.testing.assert_close(noisy.mean(dim=1), 12 * (1 - t) * seen, rtol=0, atol=0.3)


# --- what is measured -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tiny_model, tmp_path_factory):
    """A task of next to no noise, with its held-out clips, and its modules."""
    made = task(
        tiny_model,
        loss={"noise_level": 1e-6, "spread": 0.5},
        cache=str(tmp_path_factory.mktemp("cache")),
    )
    modules = made.build()
    made._hold(modules["vae"])
    return made, modules


class Answer(nn.Module):
    """A network that always answers with this."""

    def __init__(self, out: Tensor) -> None:
        super().__init__()
        self.out = out

    def forward(self, x: Tensor, t: Tensor, **told) -> Tensor:
        return self.out


def test_a_new_network_is_bicubic_enlargement(prepared):
    made, modules = prepared
    scores = made.evaluate(modules, 0)
    names = {f"psnr{way}" for way in ("", "_bilinear", "_bicubic", "_autoencoder")}
    assert names <= scores.keys() and "val_loss" in scores
    assert scores["psnr"] == pytest.approx(scores["psnr_bicubic"], abs=1e-3)
    assert scores["psnr"] != pytest.approx(scores["psnr_bilinear"], abs=1e-3)
    assert made.evaluate(modules, 0) == scores


def test_a_perfect_network_is_as_good_as_the_autoencoder(prepared):
    made, modules = prepared
    details = (made.large - made.enlarged) / 0.5
    scores = made.evaluate({**modules, "upsampler": Answer(details)}, 0)
    assert scores["psnr"] == pytest.approx(scores["psnr_autoencoder"], abs=1e-3)
    assert scores["val_loss"] < 1e-6


@pytest.mark.parametrize("prediction", ["shrunk", "flow"])
def test_the_error_is_that_of_the_details(prepared, prediction):
    """Whatever the network predicts: here always zeros, of which flow makes the estimate z."""
    made, modules = prepared
    other = task(made.vae_folder.path,
                 loss={"noise_level": 1e-6, "prediction": prediction, "spread": 0.5})  # fmt: skip
    for name in ("small", "enlarged", "large", "truth", "skips"):
        setattr(other, name, getattr(made, name))
    level = []
    other._level = lambda b, draw: level.append(made._level(b, draw)) or level[-1]
    answer = Answer(torch.zeros_like(made.large))
    scores = other.evaluate({**modules, "upsampler": answer}, 0)
    x0 = (made.large - made.enlarged) / 0.5
    t = level[0].t.view(-1, 1, 1, 1, 1)
    # Zeros miss x0; z misses it by t · (eps − x0), and noise is independent of details.
    missed = x0.square() if prediction == "shrunk" else t**2 * (1 + x0.square())
    assert scores["val_loss"] == pytest.approx(float(missed.mean()), rel=0.1)


def test_noisy_levels_come_more_often(tiny_model):
    """t = u^(1/n) has the mean n / (n + 1)."""
    for noisy in (1.0, 3.0):
        made = task(tiny_model, loss={"noisy": noisy})
        level = made._level(4096, torch.Generator().manual_seed(0))
        assert float(level.t.mean()) == pytest.approx(noisy / (noisy + 1), abs=0.02)
        assert torch.equal(level.alpha, 1 - level.t) and torch.equal(level.sigma, level.t)


def test_the_sheet_is_drawn(prepared, tmp_path):
    from PIL import Image

    made, modules = prepared
    made.sample_sheet(modules, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > sheet.height


def test_what_is_exported_is_what_the_stage_samples(tiny_model, tmp_path):
    made = task(tiny_model, loss={"prediction": "flow", "noise_level": 0.3, "spread": 0.2})
    made.export(made.build(), tmp_path / "model")
    model = ModelFolder.find(str(tmp_path / "model"))
    own = Upsampler.of(model).settings
    assert (own.prediction, own.noise_level, own.max_noise_level) == ("flow", 0.05, 0.3)
    assert (own.fps, own.max_skip, own.num_inference_steps, own.spread) == (24.0, 12, 1, 0.2)
    assert own.largest == SIZES[-1][0]
    assert model.latent_space == ModelFolder(tiny_model).latent_space
    record = Record.make(
        "latents", "a",
        {"latents": torch.randn(4, 3, 2, 4), "times": torch.arange(3.0, dtype=torch.float64)},
        {"latent_space": model.latent_space, "height": 16, "width": 32},
    )  # fmt: skip
    (after,) = upsample([record], model, Choices(), compute=Compute("cpu"))
    assert after["latents"].shape == (4, 3, 4, 8)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": {"in_channels": 9}}, "are 9 and 4, latents of 4 channels want 8 and 4"),
        ({"sizes": [[16, 32]]}, "there must be two or more"),
        ({"sizes": [[16, 32], [32, 32]]}, "each twice the one before"),
        ({"sizes": [[12, 32], [24, 64]]}, "the first in multiples of 8"),
        ({"fps": []}, "data.fps are []"),
        ({"fps": [30.0]}, "data.fps are [30.0], must be above 0 and up to 24"),
        ({"fps": [1.0]}, "skip_rows is 20, and a clip of 1 frames a second has a skip of 24"),
        ({"loss": {"noise_level": 0.0}}, "loss.noise_level is 0, must be between 0 and 1"),
        ({"loss": {"noise_level": 1.0}}, "loss.noise_level is 1,"),
        ({"loss": {"prediction": "eps"}}, "loss.prediction"),
        ({"loss": {"spread": 0.0}}, "loss.spread is 0, must be above 0"),
        ({"num_held": 1}, "data.num_held is 1"),
    ],
)
def test_recipes_that_make_no_sense(tiny_model, settings, said):
    with pytest.raises(UsageError) as caught:
        task(tiny_model, **settings)
    assert said in caught.value.what


def test_a_spread_that_is_not_given_is_told(tiny_model, tmp_path):
    """With it, a network that adds nothing is off by one."""
    made = task(tiny_model, loss={"spread": None}, cache=str(tmp_path))
    modules = made.build()
    with pytest.raises(UsageError, match=r"loss\.spread is not given") as caught:
        made.prepare(modules, lambda text: None)
    assert not list(tmp_path.iterdir())  # before anything is rendered for the training
    found = float(caught.value.next.rpartition("=")[2])
    assert caught.value.next == f"--set loss.spread={found:g}"
    settings = task(tiny_model, loss={"spread": found}).settings
    details = settings.details(made.enlarged, made.large)
    assert float(details.square().mean()) == pytest.approx(1, abs=0.01)


def test_it_goes_on_from_an_upsampler_of_the_same_kind(tiny_model, tmp_path) -> None:
    made = task(tiny_model)
    first = made.build()
    with torch.no_grad():
        for p in first["upsampler"].parameters():
            p.add_(0.1 * torch.randn_like(p))
    made.export(first, tmp_path / "model")
    again = task(tiny_model, start=str(tmp_path / "model")).build()
    for name, x in first["upsampler"].state_dict().items():
        torch.testing.assert_close(again["upsampler"].state_dict()[name], x, rtol=0.01, atol=0.01)
    for change in ({"model": {"time_dim": 16}}, {"loss": {"spread": 0.5}}):
        with pytest.raises(UsageError, match=r"data\.start is .*, whose upsampler has other sizes"):
            task(tiny_model, start=str(tmp_path / "model"), **change).build()
