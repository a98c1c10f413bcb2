"""Training the interpolation: what is cut out of clips, how keyframes are told, what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.tiny import change
from vidgen.cli.models_find import components
from vidgen.diffusion import groups
from vidgen.diffusion.groups import PACKINGS
from vidgen.diffusion.schedules import cosine_betas
from vidgen.errors import InputError, UsageError
from vidgen.io.record import Record
from vidgen.nn.group_dit import GroupDiT
from vidgen.stages.base import Compute
from vidgen.stages.interpolate import Choices, interpolate
from vidgen.stages.plan import interpolating
from vidgen.systems.base import ModelFolder
from vidgen.systems.interpolation import Interpolator
from vidgen.systems.save import WEIGHTS
from vidgen.systems.verify import verify
from vidgen.train.recipe import Optim, Recipe
from vidgen.train.tasks.interpolation import InterpolationTask
from vidgen.train.tasks.latents import encode_scenes
from vidgen.world.scene import VALIDATION_SEEDS

MODEL = {
    "in_channels": 20, "out_channels": 12, "variant": "interpolation", "init_channels": 16,
    "widths": [16, 16], "self_attention": [False, True], "cross_attention": [False, False],
    "blocks": 1, "head_dim": 8, "groups": 4, "time_dim": 32, "text_dim": 0,
    "noise_embedding": "time", "skip_rows": 20,
}  # fmt: skip
MASKED = {"in_channels": 9, "out_channels": 4, "variant": "conv1d_attn1d_blocks"}
FRAMES = 49


def task(vae: Path, *, model: dict | None = None, loss: dict | None = None, **data):
    recipe = Recipe(
        "interpolation", model=MODEL | (model or {}), loss=loss or {},
        data={"vae": str(vae), "height": 16, "width": 32, "num_frames": FRAMES} | data,
        steps=1, batch_size=8, optim=Optim(name="adamw"),
    )  # fmt: skip
    return InterpolationTask(recipe)


def counted(made: InterpolationTask, clips: int = 5) -> InterpolationTask:
    """With latents that say which clip and which frame they are: 1000·clip + frame."""
    frames = torch.arange(clips)[:, None] * 1000.0 + torch.arange(FRAMES)
    made.latents = frames[:, None, :, None, None].expand(-1, 4, -1, 2, 4)
    return made


class Network(nn.Module):
    """Keeps what it is asked; answers with zeros."""

    def __init__(self, out: int):
        super().__init__()
        self.out = out

    def forward(self, x, t, **told):
        self.x, self.t, self.told = x, t, told
        return torch.zeros_like(x[:, : self.out])


# --- what is cut out ------------------------------------------------------------------------------


def test_a_batch_is_groups_of_one_skip_from_within_clips(tiny_model):
    made = counted(task(tiny_model, groups=4, skips=[1, 3, 5, 12]))
    seen = set()
    for step in range(40):
        batch = made.batch(step, 0, 1)
        skip = int(batch["skip"][0])
        assert (batch["skip"] == skip).all()
        frames = batch["clip"][:, 0, :, 0, 0]
        assert (frames.diff(dim=1) == skip).all()
        assert frames.shape == (8, 1 + 4 * {1: 4, 3: 4, 5: 2, 12: 1}[skip])
        first, last = frames[:, 0] % 1000, frames[:, -1] % 1000
        assert (last >= first).all() and float(last.max()) < FRAMES
        seen |= {(skip, int(x)) for x in first}
    assert {skip for skip, _ in seen} == {1, 3, 5, 12}
    assert {x for skip, x in seen if skip == 3} == {0}  # which takes the whole clip
    assert max(x for skip, x in seen if skip == 1) > 20


def test_a_batch_is_a_function_of_its_step_and_shared_by_rank(tiny_model):
    one, two = counted(task(tiny_model)), counted(task(tiny_model))
    two.batch(0, 0, 1)
    whole, again = one.batch(7, 0, 1), two.batch(7, 0, 1)
    parts = [two.batch(7, rank, 2) for rank in (0, 1)]
    for key in whole:
        assert torch.equal(whole[key], again[key])
        assert torch.equal(whole[key], torch.cat([part[key] for part in parts]))


# --- how keyframes are told -----------------------------------------------------------------------


def asked(made: InterpolationTask, method: str = "grouped") -> tuple[Network, torch.Tensor]:
    """The network, and the keyframes of its batch, after one loss."""
    network = Network(PACKINGS[method].channels(4)[1])
    clip = torch.randn(200, 4, 9, 2, 4, generator=torch.Generator().manual_seed(1))
    batch = {"clip": clip, "skip": torch.full((200,), 3)}
    loss, _ = made.loss({"interpolation": network}, batch, torch.Generator().manual_seed(2))
    assert 0.5 < float(loss) < 1.5  # of v, whose spread is one
    return network, clip[:, :, ::4]


def test_keyframes_are_noised_by_the_level_that_is_told(tiny_model):
    network, keyframes = asked(task(tiny_model, loss={"drop": 0.0}))
    level = network.told["noise_level"]
    assert level.min() < 20 and 230 < level.max() <= 250 and (network.told["skip"] == 3).all()
    alpha_bar = torch.cumprod(1 - cosine_betas(), 0).float()
    for row, p in enumerate(level.long().tolist()):
        alpha = alpha_bar[p - 1] ** 0.5 if p else torch.tensor(1.0)
        noise = network.x[row, :4, 0] - alpha * keyframes[row, :, 0]
        spread = float((1 - alpha**2) ** 0.5)
        assert float(noise.std()) == pytest.approx(spread, rel=0.5, abs=1e-6)


def test_keyframes_are_left_out_now_and_then(tiny_model):
    network, _ = asked(task(tiny_model, loss={"drop": 0.1}))
    told = network.x[:, [*range(4), *range(16, 20)]].abs().amax(dim=(1, 2, 3, 4))
    assert 5 < int((told == 0).sum()) < 40  # 20 of 200 are expected


def test_without_noise_and_drops_keyframes_are_told_as_they_are(tiny_model):
    network, keyframes = asked(task(tiny_model, loss={"drop": 0.0, "perturb": 0}))
    assert torch.equal(network.x[:, :4], keyframes[:, :, :-1])
    assert torch.equal(network.x[:, 16:], keyframes[:, :, 1:])
    assert not network.told["noise_level"].any()


def test_the_baseline_is_told_a_mask(tiny_model):
    made = task(tiny_model, model=MASKED, loss={"drop": 0.0, "perturb": 0}, method="masked")
    network, keyframes = asked(made, "masked")
    assert network.x.shape == (400, 9, 5, 2, 4)
    assert torch.equal(network.x[::2, 4:8, 0], keyframes[:, :, 0])
    assert network.x[0, 8, :, 0, 0].tolist() == [1, 0, 0, 0, 1]


def test_some_keyframes_are_told_without_noise(tiny_model):
    network, _ = asked(task(tiny_model, loss={"clean": 0.5}))
    assert 70 < int((network.told["noise_level"] == 0).sum()) < 130


# --- what is made: frames, or what they have beside a blend ---------------------------------------

RESIDUAL = {"target": "residual", "prediction": "shrunk", "spread": 0.1}


@pytest.mark.parametrize("method", list(PACKINGS))
def test_a_residual_and_its_blend_are_the_frames(tiny_model, method):
    more = MASKED if method == "masked" else {}
    settings = task(tiny_model, model=more, loss=RESIDUAL, method=method).settings
    clip, skip = torch.randn(2, 4, 9, 2, 4), torch.tensor([1, 3])
    keyframes, between = groups.split(clip)
    z = settings.packed(method, keyframes, between, skip)
    torch.testing.assert_close(settings.unpacked(method, keyframes, z, skip), between)
    rest = PACKINGS[method].unpack(z) * torch.tensor([0.1, 0.3])[:, None, None, None, None]
    torch.testing.assert_close(rest, between - groups.linear(keyframes))
    assert method == "grouped" or not z[:, :, [0, 4, 5, 9]].any()  # keyframes have no residual


def test_frames_are_made_as_they_are(tiny_model):
    settings, skip = task(tiny_model).settings, torch.tensor([1, 3])
    keyframes, between = groups.split(torch.randn(2, 4, 9, 2, 4))
    z = settings.packed("grouped", keyframes, between, skip)
    assert torch.equal(z, PACKINGS["grouped"].pack(keyframes, between))
    assert torch.equal(settings.unpacked("grouped", keyframes, z, skip), between)


@pytest.mark.parametrize("method", list(PACKINGS))
def test_an_untrained_network_blends(tiny_model, method):
    more = MASKED if method == "masked" else {}
    made = task(tiny_model, model=more, loss=RESIDUAL | {"guidance_scale": 1.0}, method=method)
    made.held, made.held_skip = torch.randn(3, 4, 17, 2, 4), 3
    found = made.evaluate(made.build(), 0)
    assert found["psnr"] == pytest.approx(found["psnr_linear"], abs=1e-4)


# --- what is measured and written -----------------------------------------------------------------


def test_blending_measures_perfect_where_latents_move_evenly(tiny_model):
    made = task(tiny_model)
    made.held = torch.linspace(-1, 1, 17)[None, None, :, None, None].expand(3, 4, -1, 2, 4)
    made.held_skip = 3
    found = made.evaluate({"interpolation": Network(12)}, 0)
    assert found["psnr_linear"] > 100 > found["psnr"]
    assert 0 < found["val_loss"] < 2
    assert found == made.evaluate({"interpolation": Network(12)}, 5)


def test_what_is_exported_interpolates(tiny_model, tmp_path):
    made = task(tiny_model, skips=[1, 2, 3])
    made.export(made.build(), tmp_path / "model")
    model, source = ModelFolder.find(str(tmp_path / "model")), ModelFolder(tiny_model)
    assert model.latent_space == source.latent_space
    settings = Interpolator.of(model, "grouped").settings
    assert (settings.fps, settings.max_skip, settings.guidance_scale) == (24.0, 3, 1.25)
    assert settings.num_inference_steps <= 10 and settings.prediction == "v"
    latents = torch.randn(4, 3, 2, 4)
    times = torch.tensor([0, 0.5, 1], dtype=torch.float64)
    attrs = {"latent_space": source.latent_space, "fps": 2.0}
    record = Record.make("latents", "x", {"latents": latents, "times": times}, attrs)
    (finer,) = interpolate([record], model, Choices(), compute=Compute("cpu"))
    assert torch.equal(groups.split(finer.torch("latents")[None])[0][0], latents)


def test_an_untrained_residual_is_exported_as_a_blend(tiny_model, tmp_path):
    made = task(tiny_model, loss=RESIDUAL | {"guidance_scale": 1.0, "steps": 2}, skips=[1, 2, 3])
    made.export(made.build(), tmp_path / "model")
    model = ModelFolder.find(str(tmp_path / "model"))
    settings = Interpolator.of(model, "grouped").settings
    assert (settings.target, settings.spread, settings.num_inference_steps) == ("residual", 0.1, 2)
    tensors = {"latents": torch.randn(4, 3, 2, 4), "times": torch.arange(3).double() / 2}
    record = Record.make("latents", "x", tensors, {"latent_space": model.latent_space, "fps": 2.0})
    one, other = (
        next(interpolate([record], model, Choices(method=method), compute=Compute("cpu")))
        for method in ("grouped", "linear")
    )
    torch.testing.assert_close(one.torch("latents"), other.torch("latents"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": {"in_channels": 40}}, "model.in_channels and out_channels are 40 and 12"),
        ({"method": "masked"}, "data.method masked wants 9 and 4"),
        ({"skips": [0, 1]}, r"data.skips are \[0, 1\]"),
        ({"skips": [13]}, "room for 1 to 12"),
        ({"skips": []}, "data.skips are"),
        ({"model": {"skip_rows": 12}}, "model.skip_rows is 12, and a skip 12"),
        ({"loss": {"perturb": 1000}}, "loss.perturb is 1000"),
        ({"groups": 0}, "data.groups is 0"),
        ({"loss": {"spread": 0.0}}, "loss.spread is 0, must be above 0"),
        ({"loss": {"steps": 0}}, "loss.steps is 0"),
    ],
)
def test_recipes_that_make_no_sense(tiny_model, settings, said):
    with pytest.raises(UsageError, match=said):
        task(tiny_model, **settings)


def test_a_spread_that_is_not_given_is_told(tiny_model, tmp_path, monkeypatch):
    """With it, residuals have a mean square of one; without residuals none is needed."""
    data = {"cache": str(tmp_path), "num": 4, "num_held": 3, "skips": [2], "groups": 2}
    made = task(tiny_model, loss=RESIDUAL | {"spread": None}, **data)
    modules = made.build()
    with pytest.raises(UsageError, match=r"loss\.spread is not given") as caught:
        made.prepare(modules, lambda text: None)
    assert not list(tmp_path.iterdir())  # before anything is rendered for the training
    found = float(caught.value.next.rpartition("=")[2])
    settings = task(tiny_model, loss=RESIDUAL | {"spread": found}, **data).settings
    held = encode_scenes(
        range(VALIDATION_SEEDS.start, VALIDATION_SEEDS.start + 3), modules["vae"], "basic",
        made.geometry, made.device,
    )[:, :, torch.arange(9) * 2]  # fmt: skip
    keyframes, between = groups.split(held)
    x0 = settings.packed("grouped", keyframes, between, torch.full((3,), 2))
    assert float(x0.square().mean()) == pytest.approx(1, abs=0.01)
    monkeypatch.setattr("vidgen.train.tasks.latents.SHARD", 4)
    monkeypatch.setattr("vidgen.train.tasks.latents.CHUNK", 4)
    task(tiny_model, **data).prepare(modules, lambda text: None)


# --- a transformer in the U-Net's place -----------------------------------------------------------

GROUPS = {
    "network": "GroupDiT", "in_channels": 20, "out_channels": 12, "patch": [1, 2], "dim": 32,
    "depth": 1, "heads": 2, "rope_dims": [4, 6, 6],
}  # fmt: skip


def of_groups(vae: Path, **more) -> InterpolationTask:
    recipe = Recipe(
        "interpolation", model=GROUPS, loss=RESIDUAL | {"guidance_scale": 1.0},
        data={"vae": str(vae), "height": 16, "width": 32, "num_frames": FRAMES, **more},
        steps=1, batch_size=8, optim=Optim(name="adamw"),
    )  # fmt: skip
    return InterpolationTask(recipe)


def test_a_transformer_over_groups_blends_at_first_and_is_exported_with_its_name(
    tiny_model, tmp_path
):
    made = of_groups(tiny_model, skips=[1, 2, 3])
    made.held, made.held_skip = torch.randn(3, 4, 17, 2, 4), 3
    modules = made.build()
    found = made.evaluate(modules, 0)
    assert found["psnr"] == pytest.approx(found["psnr_linear"], abs=1e-4)
    made.export(modules, tmp_path / "model")
    model = ModelFolder.find(str(tmp_path / "model"))
    assert model.index["interpolation"] == ["vidgen", "GroupDiT"]
    assert isinstance(Interpolator.of(model, "grouped").load(), GroupDiT)
    assert [problems for _, problems in verify(model, components(model))] == [[], []]
    tensors = {"latents": torch.randn(4, 3, 2, 4), "times": torch.arange(3).double() / 2}
    record = Record.make("latents", "x", tensors, {"latent_space": model.latent_space, "fps": 2.0})
    one, other = (
        next(interpolate([record], model, Choices(method=method), compute=Compute("cpu")))
        for method in ("grouped", "linear")
    )
    torch.testing.assert_close(one.torch("latents"), other.torch("latents"))
    plan = interpolating(model, Compute("cpu"), [record], Choices())
    assert "tiny/interpolation" in plan and "FLOPs" in plan


def test_a_transformer_over_groups_goes_on_from_another(tiny_model, tmp_path):
    made = of_groups(tiny_model, skips=[1, 2, 3])
    first = made.build()
    with torch.no_grad():
        for p in first["interpolation"].parameters():
            p.add_(0.1 * torch.randn_like(p))
    made.export(first, tmp_path / "model")
    told = {
        "z": torch.randn(2, 20, 2, 2, 4), "t": torch.rand(2), "times": torch.arange(2.0)[None] / 2,
        "skip": torch.tensor([1, 2]),
    }  # fmt: skip

    def again(**model):
        own = of_groups(tiny_model, skips=[1, 2, 3], start=str(tmp_path / "model"))
        own.config = replace(own.config, **model)
        return own

    def out(modules):
        return modules["interpolation"].float()(**told)

    was = out(first)  # its file is bfloat16
    torch.testing.assert_close(out(again().build()), was, rtol=0.02, atol=0.02)
    with pytest.raises(UsageError, match=r"data\.start is .*other sizes"):
        again(depth=2).build()
    for key, value in {"spread": 0.5, "target": "frames", "prediction": "x0", "fps": 8.0}.items():
        other = again()
        other.settings = replace(other.settings, **{key: value})
        with pytest.raises(UsageError, match="predicts something else"):
            other.build()
    change(tmp_path / "model" / "vae" / WEIGHTS)
    with pytest.raises(UsageError, match="whose vae is not that of"):
        again().build()


def test_networks_of_another_name_are_refused(tiny_model, tmp_path):
    made = of_groups(tiny_model, skips=[1, 2, 3])
    made.export(made.build(), tmp_path / "model")
    path = tmp_path / "model" / "interpolation" / "config.json"
    path.write_text(path.read_text().replace("GroupDiT", "Warp"))
    with pytest.raises(InputError, match="_class_name is `Warp`, must be UNet or GroupDiT"):
        Interpolator.of(ModelFolder(tmp_path / "model"), "grouped")
    with pytest.raises(UsageError, match=r"model\.network is Warp"):
        task(tiny_model, model={"network": "Warp"})
