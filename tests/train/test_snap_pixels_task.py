"""Training of pixels: images as videos, rates and sizes that are told, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

from tests import tiny
from vidgen.errors import InputError, UsageError
from vidgen.nn.adm_unet import AdmUNet
from vidgen.nn.fit import FIT, FITConfig
from vidgen.systems.base import SCHEDULER, ModelFolder
from vidgen.systems.snap_video import NETWORKS, PRESETS, told
from vidgen.train.optim import rate
from vidgen.train.recipe import Recipe, Schedule, load_recipe, network_section, section
from vidgen.train.task import Task, make_task


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("vidgen.train.tasks.latents.SHARD", 64)


@pytest.fixture
def task(tiny_model, tmp_path):
    def make(*settings: str, stage: str = "pixels") -> Task:
        own = [f"data.text={tiny_model}", f"data.cache={tmp_path / 'cache'}"]
        recipe = load_recipe(
            f"world-snap-video-{stage}", preset="tiny", overrides=[*own, *settings]
        )
        return make_task(recipe)

    return make


def prepared(made: Task) -> Task:
    made.prepare(made.build(), lambda text: None)
    return made


def test_images_are_one_frame_repeated_and_clips_have_their_rates(task) -> None:
    made = prepared(task("data.images=0.5", "data.coarse=0"))
    batch = made.batch(0, 0, 1)
    cond = told({**made.told(made.build(), batch, torch.Generator()), "pooled": None})
    still = (batch["frames"] == batch["frames"][:, :1]).flatten(1).all(dim=1)
    periods = cond["period"]
    assert 0 < int((periods == 0).sum()) < 16
    assert still[periods == 0].all()
    assert set(periods[periods > 0].tolist()) <= {0.5, 0.25}
    assert {made.moment(seed)[0] for seed in range(0, 4096, 16)} == {2.0, 4.0}
    assert torch.equal(batch["size"], torch.ones(16, 2))
    again = made.batch(0, 0, 1)
    assert all(torch.equal(batch[k], again[k]) for k in batch)


def test_each_repetition_of_an_image_has_noise_of_its_own(task) -> None:
    made, seen = prepared(task("data.images=1", "loss.self_conditioned=0")), []

    class Listening(torch.nn.Linear):  # of some dtype, as a network is
        def forward(self, z, t, **told):
            seen.append(z)
            return torch.zeros_like(z), None

    modules = {**made.build(), "transformer": Listening(1, 1)}
    made.loss(modules, made.batch(0, 0, 1), torch.Generator().manual_seed(0))
    (z,) = seen
    assert (z[:, :, 0] != z[:, :, 1]).all() and (z[:, :, 1] != z[:, :, 2]).all()


def test_images_may_be_of_scenes_of_their_own(task) -> None:
    made = prepared(task("data.images=1", "data.num_images=4"))
    batch = made.batch(0, 0, 1)
    assert made.stills.shape == (4, 6, 16, 3)
    for frames in batch["frames"]:
        assert any((frames == still).all() for still in made.stills)
    assert not batch["times"].any()


def test_a_clip_is_what_is_rendered_at_its_moment(task) -> None:
    from vidgen.world.render import render
    from vidgen.world.scene import sample_scene

    made = prepared(task())
    for seed in (3, 40):
        fps, start = made.moment(seed)
        times = [start + i / fps for i in range(3)]
        assert start >= 0 and times[-1] <= 2.0
        true = render([sample_scene(seed, level="basic")], times=times, height=6, width=16).frames
        assert torch.equal(made.video[seed], true[0])


def test_coarse_clips_are_told_so(task) -> None:
    sharp, coarse = (prepared(task(f"data.coarse={x}", "data.images=0")) for x in (0, 1))
    a, b = sharp.batch(1, 0, 1), coarse.batch(1, 0, 1)
    assert torch.equal(b["size"], torch.full((16, 2), 0.5))
    edges = [x["frames"].float().diff(dim=3).abs().mean() for x in (a, b)]
    assert edges[1] < edges[0]
    torch.testing.assert_close(  # the mean of a frame stays
        a["frames"].float().mean((2, 3)), b["frames"].float().mean((2, 3)), atol=1.0, rtol=0
    )


def test_the_small_video_of_the_second_stage_is_a_mean_with_noise(tiny_model, tmp_path) -> None:
    base = tiny.pixels(tmp_path / "base", tiny_model)
    recipe = load_recipe(
        "world-snap-video-upsampler", preset="tiny",
        overrides=[f"data.base={base}", f"data.cache={tmp_path}", "data.images=0"],
    )  # fmt: skip
    made = prepared(make_task(recipe))
    batch, x0 = made.batch(0, 0, 1), None
    x0 = made.x0(batch)
    cond = made.told(made.build(), batch, torch.Generator().manual_seed(0))
    levels = cond["noise_level"]
    assert levels.min() >= 0 and 0.2 < levels.max() <= 0.5
    quiet = made._low(x0, torch.zeros(16), torch.Generator())["low"]
    means = x0.unflatten(-1, (16, 2)).unflatten(-3, (6, 2)).mean((-1, -3))
    inner = torch.stack([quiet[..., 1:-1:2, 1:-1:2], quiet[..., 2::2, 2::2]]).mean(0)
    assert (inner - means[..., :-1, :-1]).abs().mean() < 0.1  # the pixels around a mean
    noisy = (cond["low"] - quiet).flatten(1).std(dim=1)
    torch.testing.assert_close(noisy, levels, rtol=0.1, atol=0.01)
    with pytest.raises(UsageError, match="model is no upsampler"):
        make_task(recipe.replace(model={**recipe.model, "dim": 64, "head_dim": 16})).build()
    with pytest.raises(UsageError, match="must be 2, 4 or 8 times the base's 6 × 16"):
        make_task(recipe.replace(data={**recipe.data, "height": 16}))
    thrice = {"num_frames": 3, "height": 24, "width": 48, "group": [3, 12, 12]}
    with pytest.raises(UsageError, match="data are 18 × 48, must be 2, 4 or 8 times"):
        make_task(
            recipe.replace(
                model={**recipe.model, **thrice}, data={**recipe.data, "height": 18, "width": 48}
            )
        )


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("loss.sigma_in=0", "loss.sigma_in is 0, must be above 0"),
        ("loss.sigma_data=-1", "loss.sigma_data is -1"),
        ("loss.steps=0", "loss.steps is 0, must be above 0"),
        ("loss.threshold=1.5", "recipe: loss.threshold is 1.5, must be above 0 and up to 1"),
        ("loss.hold=0", "loss.hold is 0, must be above 0"),
        ("model.group=[3,5,4]", "recipe: model: groups of 5 don't divide 4 rows of patches"),
        ("model.context_dim=20", "recipe: model: heads of 16 don't divide a width of 20"),
        ("model.text_dim=32", "makes vectors of 16"),
        ("data.fps=[0.5]", "don't fit into the 2 s of a clip"),
        ("data.num_images=-1", "data.num_images -1"),
        ("data.images=1.5", "data.images is 1.5, must be from 0 to 1"),
        ("data.height=9", "the network is made for 3 of 8 × 16"),
        ("ema_half_life=0", "ema_half_life is 0, must be more than 0"),
        ("schedule.decay=steps", "schedule.decay"),
    ],
)
def test_refusals(task, setting, said) -> None:
    with pytest.raises(UsageError, match=said):
        task(setting).build()


def test_averages_by_half_life_and_a_cosine() -> None:
    assert Recipe("x", ema_half_life=10).ema_decay ** 10 == pytest.approx(0.5)
    assert Recipe("x", ema=0.9).ema_decay == 0.9
    schedule = Schedule(warmup_steps=0, decay_fraction=1.0, decay="cosine", final=0.2)
    assert [rate(schedule, 9, used) for used in (0, 0.5, 1)] == pytest.approx([1, 0.6, 0.2])


def test_exported_folders_hold_no_autoencoder(task, tmp_path) -> None:
    made = task("loss.threshold=0.9", "loss.low_guidance_scale=1")
    made.export(made.build(), Path(tmp_path / "model"))
    assert ModelFolder(tmp_path / "model").world_level == made.data.level == "basic"
    sampler = ModelFolder(tmp_path / "model").sampler
    assert sampler == made.sampler and sampler.low_guidance_scale == 1
    settings = json.loads((tmp_path / "model" / SCHEDULER).read_text())
    (tmp_path / "model" / SCHEDULER).write_text(json.dumps(settings | {"threshold": 2}))
    with pytest.raises(InputError, match="threshold is 2, must be above 0 and up to 1"):
        ModelFolder(tmp_path / "model").sampler  # noqa: B018
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "model_index.json", "scheduler", "text_encoder", "tokenizer", "transformer",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.network=UNet", "recipe: model.network is UNet, must be FIT or AdmUNet"),
        ("model.latents=8", "recipe: unknown key `model.latents`"),
        ("loss.self_conditioned=0.9", "loss.self_conditioned is 0.9, and an AdmUNet has no latent"),
        ("data.coarse=0.1", "data.coarse is 0.1, and an AdmUNet isn't told which clips were small"),
        ("data.height=7", "of 7 × 16, and the network halves sides once: they must be multiples"),
        ("model.out_channels=4", "model.out_channels is 4, pixels have 3"),
        ("model.text_dim=32", "makes vectors of 16"),
    ],
)
def test_refusals_of_the_opponent(task, setting, said) -> None:
    with pytest.raises(UsageError, match=said):
        task(setting, stage="unet").build()


@pytest.mark.parametrize("preset", [None, "base", "tiny"])
def test_the_opponent_differs_in_its_network_alone(preset) -> None:
    fit, unet = (load_recipe(f"world-snap-video-{x}", preset=preset) for x in ("pixels", "unet"))
    own = {"data": {"coarse": 0.0}, "loss": {"self_conditioned": 0.0}}
    for key, value in unet.to_dict().items():
        wanted = getattr(fit, key)
        if key in own:
            assert value == fit.to_dict()[key] | own[key]
        elif key == "optim":
            names = {"muon_match", "muon_kernels"}
            assert {k: v for k, v in value.items() if k not in names} == {
                k: v for k, v in fit.to_dict()["optim"].items() if k not in names
            }
        elif key != "model":
            assert getattr(unet, key) == wanted, key
    made, config = network_section(unet.model, NETWORKS, "FIT")
    assert made == "AdmUNet"
    assert not config.unfit(*(unet.data[k] for k in ("num_frames", "height", "width")))
    with torch.device("meta"):
        networks = FIT(section(FITConfig, fit.model, where="model")), AdmUNet(config)
    one, other = (sum(p.numel() for p in network.parameters()) for network in networks)
    assert preset == "tiny" or other == pytest.approx(one, rel=0.1)


def test_the_opponents_call_is_told_all_but_sizes_and_trains_as_it_samples(task) -> None:
    made = prepared(task(stage="unet"))
    modules = made.build()
    network = modules["transformer"]
    with torch.no_grad():
        network.out.weight.add_(torch.randn(network.out.weight.shape) / 10)
    batch = made.batch(0, 0, 1)
    cond = made.told(modules, batch, torch.Generator())
    z, t = torch.randn(16, 3, 3, 6, 16), torch.zeros(16)
    known = {k: x for k, x in told(cond).items() if k != "size"}
    assert set(known) == {"text", "text_mask", "period"}
    wanted = network(z, t, **known)
    for call in (made.called(modules), made.trained(modules, torch.Generator())):
        for _ in range(2):  # nothing is carried
            assert torch.equal(call(z, t, cond), wanted)


def test_all_but_the_ends_of_the_opponent_is_a_block_of_its_own(task) -> None:
    made = task(stage="unet")
    modules = made.build()
    assert {*made.blocks(modules)} == {*modules["transformer"].blocks}


def test_an_upsampler_does_not_begin_as_the_opponent(task, tmp_path) -> None:
    made = task(stage="unet")
    made.export(made.build(), tmp_path / "unet")
    own = [f"data.base={tmp_path / 'unet'}", f"data.cache={tmp_path}"]
    recipe = load_recipe("world-snap-video-upsampler", preset="tiny", overrides=own)
    with pytest.raises(UsageError, match="whose transformer is an AdmUNet; an upsampler begins"):
        make_task(recipe).build()
    with pytest.raises(UsageError, match=r"model.network is AdmUNet, must be FIT$"):
        make_task(recipe.replace(model={"network": "AdmUNet"}))


@pytest.mark.parametrize("stage", ["pixels", "upsampler"])
def test_recipes_are_the_presets_of_the_system(stage) -> None:
    preset = {"pixels": "world-pixels", "upsampler": "world-pixels-upsampler"}[stage]
    config = section(FITConfig, load_recipe(f"world-snap-video-{stage}").model, where="model")
    assert config == PRESETS[preset]
    large = load_recipe(f"world-snap-video-{stage}", preset="base")
    with torch.device("meta"):
        FIT(section(FITConfig, large.model, where="model"))
