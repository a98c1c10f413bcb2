"""Snap Video: latent tokens carried along, and a model folder that samples like any other."""

from dataclasses import asdict, replace
from itertools import pairwise

import pytest
import torch

from tests import tiny
from vidgen.diffusion.level import Level
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import Snap, denoiser
from vidgen.diffusion.schedules import snap
from vidgen.errors import InputError
from vidgen.nn.fit import FIT, FITConfig
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.sample_keyframes import Choices, sample_keyframes
from vidgen.systems import load, save
from vidgen.systems.base import ModelFolder, Sampler
from vidgen.systems.snap_video import PRESETS, WORLD, called, load_transformer, sample_shape
from vidgen.systems.verify import verify

SMALL = FITConfig(
    in_channels=4, out_channels=4, num_frames=3, height=2, width=4, patch=(1, 1, 2),
    group=(3, 2, 1), dim=32, latents=8, latent_dim=32, context_dim=16, text_dim=16, blocks=1,
    global_layers=1, head_dim=16, latent_head_dim=16, dropout=0.0,
)  # fmt: skip


def network(seed=0):
    torch.manual_seed(seed)
    made = FIT(SMALL)
    with torch.no_grad():
        made.previous_norm.weight.add_(1.0)  # which starts at 0, and latents wouldn't matter
    return made.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> ModelFolder:
    """The tiny model, its transformer a FIT."""
    path = tiny.make(tmp_path_factory.mktemp("snap") / "tiny")
    config = {"_class_name": "FIT"} | SMALL.to_dict()
    made = ModelFolder(path)
    config["sample"] = asdict(made.geometry)
    save.write_component(path / "transformer", config, network())
    sampler = Sampler("snap", "snap", "heun", 3, 2.0, sigma_in=2.0, sigma_data=1.0)
    save.write_json(path / "scheduler" / "scheduler_config.json", asdict(sampler))
    parts = ["text_encoder", "tokenizer", "transformer", "vae", "scheduler"]
    save.write_index(path, "tiny-snap", "snap-video", parts, {"transformer": "FIT"})
    return ModelFolder(path)


@pytest.mark.parametrize(("name", "millions"), [
    ("500m", 494.966), ("3.9b", 3910.892), ("3.9b-upsampler", 4060.382),
])  # fmt: skip
def test_published_presets_build_and_have_these_weights(name, millions):
    """As the module's docstring says of table 8's 494.8 and 3,910.6."""
    with torch.device("meta"):
        network = FIT(PRESETS[name])
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=1e-3)


@pytest.mark.parametrize("name", WORLD)
def test_presets_of_the_world_build(name):
    with torch.device("meta"):
        FIT(WORLD[name])


def cond(b=2):
    draw = torch.Generator().manual_seed(1)
    return {
        "text": torch.randn(b, 4, 16, generator=draw),
        "text_mask": torch.ones(b, 4, dtype=torch.bool),
        "pooled": torch.randn(b, 16, generator=draw),
        "times": torch.arange(3.0).expand(b, -1) / 2,
    }


@torch.no_grad()
def test_each_call_is_told_what_the_one_before_ended_with():
    fit, given = network(), cond()
    run, z, t = called(fit), torch.randn(2, 4, 3, 2, 4), torch.zeros(2)
    known = {
        "text": given["text"],
        "text_mask": given["text_mask"],
        "period": torch.full((2,), 0.5),
    }
    out, latents = fit(z, t, **known)
    assert torch.equal(run(z, t, given), out)
    again = fit(z, t, latents=latents, **known)[0]
    assert torch.equal(run(z, t, given), again)
    assert (again - out).abs().max() > 1e-4


def test_sampling_is_heun_on_the_modified_process(folder):
    """Algorithm by hand: dz/dsigma = (z − D/sigma_in)/sigma, the last step Euler's, then times
    sigma_in (§3.2)."""
    (text,) = encode_text([Prompt("a red ball bounces")], folder)
    (record,) = sample_keyframes(
        [text], folder, Choices(guidance_scale=1.0), compute=Compute("cpu")
    )
    si, fit = 2.0, load_transformer(folder).float()
    levels = snap(3, sigma_in=si)
    told = {
        "text": text.torch("text.embeds").float()[None],
        "text_mask": text.torch("text.mask").bool()[None],
        "times": torch.tensor([[0.0, 0.5, 1.0]]),
    }
    look, meaning = called(fit), Snap(1.0)

    def slope(z, sigma):
        at = Level(sigma[None], torch.tensor([1 / si]), sigma[None])
        with torch.no_grad():
            x0 = denoiser(look, meaning)(z, at, told)
        return (z - x0 / si) / sigma

    noise = Noise([(0, text.id)], stage="sample-keyframes")
    z = noise.initial((4, 3, 2, 4)) * levels[0].sigma
    for here, there in pairwise(levels):
        step = there.sigma - here.sigma
        first = slope(z, here.sigma)
        if there.sigma > 0:
            first = (first + slope(z + step * first, there.sigma)) / 2
        z = z + step * first
    torch.testing.assert_close(record.torch("latents"), (z * si)[0], rtol=1e-4, atol=1e-4)


def test_its_folder_is_whole_and_says_what_it_is(folder):
    index = {k: tuple(v) for k, v in folder.index.items() if isinstance(v, list)}
    assert index["transformer"] == ("vidgen", "FIT")
    assert not [problem for _, problems in verify(folder, index) for problem in problems]
    assert load.prediction(folder) == Snap(1.0)
    assert float(load.levels(folder, 4)[0].alpha) == 0.5


def test_a_grid_that_is_too_small_is_refused(folder):
    with pytest.raises(InputError, match="3 frames of 2 × 4, and the network is made for 3 of 1"):
        sample_shape(folder, replace(SMALL, height=1, group=(3, 1, 1)))


@torch.no_grad()
def test_a_batch_equals_its_singles(folder):
    texts = list(encode_text([Prompt("a red ball"), Prompt("a blue cube spins")], folder))
    both = list(sample_keyframes(texts, folder, compute=Compute("cpu", batch_size=2)))
    for text, one in zip(texts, both, strict=True):
        (alone,) = sample_keyframes([text], folder, compute=Compute("cpu", batch_size=1))
        torch.testing.assert_close(
            alone.torch("latents"), one.torch("latents"), rtol=1e-4, atol=1e-4
        )
