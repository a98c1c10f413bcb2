"""upsample: sizes, what a network adds to enlarged frames, noise, and how far apart they are."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from latents_records import Listener, image, record, same
from torch import nn

from vidgen.diffusion.noise import Noise
from vidgen.io.log import broken_links
from vidgen.io.record import Record
from vidgen.io.stream import read_stream
from vidgen.nn.unet import UNet, start_at_zero
from vidgen.stages.base import Compute
from vidgen.stages.decode import decode
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.sample_keyframes import Choices as Samples
from vidgen.stages.sample_keyframes import sample_keyframes
from vidgen.stages.upsample import METHODS, Choices, upsample
from vidgen.systems import upsampling, world
from vidgen.systems.base import ModelFolder
from vidgen.systems.upsampling import Settings, Upsampler


@pytest.fixture(scope="module")
def vae(tiny_model):
    return world.load_autoencoder(ModelFolder.find(str(tiny_model))).float()


@pytest.fixture
def model(tiny_model) -> ModelFolder:
    return ModelFolder.find(str(tiny_model))


def larger(records, model, *, batch_size=4, notify=None, **choices) -> list[Record]:
    more = {} if notify is None else {"notify": notify}
    compute = Compute("cpu", batch_size=batch_size)
    return list(upsample(records, model, Choices(**choices), compute=compute, **more))


# --- sizes, and what stays ------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_sides_grow_and_all_else_stays(model, method, scale):
    texts = encode_text([Prompt("a red ball", seed=5)], model)
    (before,) = sample_keyframes(texts, model, compute=Compute("cpu"))
    (after,) = larger([before], model, method=method, scale=scale)
    c, t, h, w = before["latents"].shape
    assert after["latents"].shape == (c, t, scale * h, scale * w)
    assert after["latents"].dtype == "F32"
    height, width = before.attrs["height"], before.attrs["width"]
    assert after.attrs == before.attrs | {"height": scale * height, "width": scale * width}
    for name in before.tensors.keys() - {"latents"}:
        assert torch.equal(after.torch(name), before.torch(name)), name
    assert (after.kind, after.id) == (before.kind, before.id)


def test_a_size_that_latents_are_cropped_to_is_doubled_too(model):
    (after,) = larger([record(model.latent_space, width=30)], model)
    (shown,) = decode([after], model, compute=Compute("cpu"))
    assert shown["frames"].shape == (3, 32, 60, 3)


def test_the_log_says_what_was_done(model):
    before = record(model.latent_space, seed=7)
    (after,) = larger([before], model, scale=4, noise_level=0.25)
    entry = after.log[-1]
    assert entry["tool"] == "upsample"
    assert entry["argv"] == ["upsample", "--noise-level", "0.25", "--scale", "4"]
    assert entry["model"] == model.identity("upsampler")
    assert (entry["method"], entry["seed"], entry["steps"]) == ("diffusion", 7, 4)
    assert (entry["noise_level"], entry["skip"]) == (0.25, 12)
    assert entry["inputs"] == [before.digest] and not broken_links(after.log)


def test_bilinear_is_noted_as_such(model):
    (after,) = larger([record(model.latent_space)], model, method="bilinear")
    entry = after.log[-1]
    assert entry["method"] == "bilinear" and entry["argv"] == ["upsample", "--method", "bilinear"]
    assert not {"model", "seed", "noise", "torch", "skip", "steps"} & entry.keys()


def test_bicubic_names_the_autoencoder_that_it_went_through(model):
    (after,) = larger([record(model.latent_space)], model, method="bicubic")
    entry = after.log[-1]
    assert entry["method"] == "bicubic" and entry["model"] == model.identity("vae")
    assert entry["device"] == "cpu" and not {"seed", "skip", "steps"} & entry.keys()


# --- without a network -------------------------------------------------------------------------


def doubled(x: np.ndarray, axis: int) -> np.ndarray:
    """By hand: each new cell is three quarters of the nearest old one and a quarter of the next,
    which at the border is the same."""
    x = np.moveaxis(x, axis, 0)
    before, after = np.concatenate([x[:1], x[:-1]]), np.concatenate([x[1:], x[-1:]])
    pairs = np.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=1)
    return np.moveaxis(pairs.reshape(2 * len(x), *x.shape[1:]), 0, axis)


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 7), st.integers(1, 7)),
    scale=st.sampled_from([2, 4]),
)
def test_bilinear_is_by_hand(shape, scale):
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))
    (after,) = larger([record(latents=latents)], None, method="bilinear", scale=scale)
    slow = latents.numpy()
    for _ in range({2: 1, 4: 2}[scale]):
        slow = doubled(doubled(slow, 2), 3)
    np.testing.assert_allclose(after.numpy("latents"), slow, rtol=1e-5, atol=1e-6)


def test_bilinear_is_torchs_frame_by_frame():
    before = record(count=5)
    (after,) = larger([before], None, method="bilinear")
    for i in range(5):
        frame = before.torch("latents")[:, i]
        torch.testing.assert_close(
            after.torch("latents")[:, i],
            F.interpolate(frame[None], scale_factor=2, mode="bilinear")[0],
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_enlarged_in_float32(dtype):
    latents = torch.randn(4, 3, 2, 4).to(dtype)
    half, full = (
        larger([record(latents=x)], None, method="bilinear")[0].torch("latents")
        for x in (latents, latents.float())
    )
    assert half.dtype == torch.float32 and torch.equal(half, full)


def test_bicubic_is_frames_enlarged_one_by_one(model, vae):
    """Also over more frames than go through pixels at once."""
    before = record(model.latent_space, count=upsampling.FRAMES + 3)
    (after,) = larger([before], model, method="bicubic")
    for i in range(upsampling.FRAMES + 3):
        frame = vae.decode(before.torch("latents")[None, :, i : i + 1])[:, :, 0]
        frame = F.interpolate(frame.clamp(-1, 1), scale_factor=2, mode="bicubic").clamp(-1, 1)
        torch.testing.assert_close(
            after.torch("latents")[:, i], vae.encode(frame[:, :, None])[0, :, 0],
            rtol=1e-3, atol=1e-4,
        )  # fmt: skip


def test_bicubic_computes_in_the_dtype_that_is_asked_for(model):
    half, full = (
        next(iter(upsample([record(model.latent_space)], model, Choices(method="bicubic"),
                           compute=Compute("cpu", dtype=dtype))))
        for dtype in ("bf16", "fp32")
    )  # fmt: skip
    assert half.log[-1]["dtype"] == "bfloat16" and half["latents"].dtype == "F32"
    assert not torch.equal(half.torch("latents"), full.torch("latents"))
    torch.testing.assert_close(half.torch("latents"), full.torch("latents"), rtol=0, atol=0.2)


# --- what the network is told, and what becomes of it ---------------------------------------------


def pretend(monkeypatch, denoise) -> None:
    """A denoiser in the place of the model's."""
    network = nn.Module()
    network.config = SimpleNamespace(skip_rows=20, noise_embedding="time")
    monkeypatch.setattr(Upsampler, "load", lambda self: network)
    monkeypatch.setattr(Upsampler, "denoiser", lambda self, network: denoise)


@pytest.mark.parametrize("scale", [2, 8])
def test_a_perfect_denoiser_gives_back_the_truth(model, monkeypatch, scale):
    """Through noise, solver and repeats: the truth of the last size."""
    draw = torch.Generator().manual_seed(0)
    truth = {n: torch.randn(4, 3, 2 * n, 4 * n, generator=draw) for n in (2, 4, 8)}
    seen = []

    def perfect(z, level, cond):
        seen.append(z.shape[3] // 2)
        return (truth[seen[-1]] - cond["told"]) / 0.27  # without noise on it

    pretend(monkeypatch, perfect)
    before = [record(model.latent_space, id) for id in ("a", "b")]
    for after in larger(before, model, scale=scale, noise_level=0.0):
        torch.testing.assert_close(after.torch("latents"), truth[scale], rtol=0, atol=1e-5)
    assert seen == [n for n in (2, 4, 8) if n <= scale for _ in range(4)]


def test_what_is_told(model, vae, monkeypatch):
    """Enlarged latents with noise of their own on them, how much, and how far apart they are."""
    told = {}

    def listen(z, level, cond):
        told.update(cond, z=z)
        return cond["told"]

    pretend(monkeypatch, listen)
    records = [record(model.latent_space, "a"), record(model.latent_space, "b", spacing=0.125)]
    large = upsampling.enlarged(torch.stack([r.torch("latents") for r in records]), vae)
    for level in (0.0, 0.3):
        larger(records, model, noise_level=level, num_inference_steps=1)
        noise = Noise([(1, "a"), (1, "b")], "upsample-told 2x4").initial(large.shape[1:])
        expected = (1 - level) * large + level * noise
        torch.testing.assert_close(told["told"], expected, rtol=0, atol=1e-6)
        assert told["noise_level"].tolist() == pytest.approx([level] * 2)
        assert not torch.allclose(told["z"], noise)  # another draw
    assert told["skip"].tolist() == [12, 3]
    torch.testing.assert_close(told["times"], torch.tensor([[0, 0.5, 1], [0, 0.125, 0.25]]))


def test_a_new_network_adds_nothing(model, monkeypatch):
    """Whatever the number of steps."""
    found = Upsampler.of(model)
    network = start_at_zero(UNet(found.config))
    monkeypatch.setattr(Upsampler, "load", lambda self: network)
    before = record(model.latent_space)
    (plain,) = larger([before], model, method="bicubic")
    for steps in (1, 3):
        (after,) = larger([before], model, noise_level=0.0, num_inference_steps=steps)
        same(plain, after)


def test_steps_noise_and_spacing_matter(model):
    before = record(model.latent_space)
    (base,) = larger([before], model)
    for change in ({"num_inference_steps": 2}, {"noise_level": 0.3}, {"method": "bilinear"},
                   {"method": "bicubic"}):  # fmt: skip
        (changed,) = larger([before], model, **change)
        assert not torch.allclose(base.torch("latents"), changed.torch("latents"), atol=1e-4)
    (near,) = larger([record(model.latent_space, spacing=0.125)], model)
    assert not torch.allclose(base.torch("latents"), near.torch("latents"), atol=1e-5)


def test_frames_see_their_neighbors(model):
    """Another last frame is another first, since it is one clip."""
    a, b = torch.randn(2, 4, 3, 2, 4, generator=torch.Generator().manual_seed(1))
    b[:, :2] = a[:, :2]
    one, two = larger([record(model.latent_space, latents=x) for x in (a, b)], model, batch_size=1)
    assert not torch.allclose(one.torch("latents")[:, 0], two.torch("latents")[:, 0], atol=1e-6)


# --- noise ----------------------------------------------------------------------------------------


def test_a_batch_equals_its_singles(model):
    """Also where it holds clips of several lengths, and those come in their order."""
    records = [record(model.latent_space, id, count=n) for id, n in
               (("a", 3), ("b", 3), ("c", 1), ("d", 3), ("e", 4))]  # fmt: skip
    one, four = (larger(records, model, batch_size=n, scale=4) for n in (1, 4))
    assert [r.id for r in one] == [r.id for r in four] == ["a", "b", "c", "d", "e"]
    for a, b in zip(one, four, strict=True):
        same(a, b)


@pytest.mark.parametrize("method", METHODS)
def test_two_passes_are_two_stages_in_a_pipe(model, method):
    before = [record(model.latent_space)]
    (once,) = larger(before, model, method=method, scale=4)
    (piped,) = larger(larger(before, model, method=method), model, method=method)
    assert torch.equal(once.torch("latents"), piped.torch("latents"))
    assert once.attrs == piped.attrs


def test_seed_source_and_size_decide_the_noise(model, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "vidgen.stages.upsample.Noise",
        lambda samples, stage: drawn.append((samples, stage)) or Noise(samples, stage),
    )
    named = record(model.latent_space, "ball-s7", seed=7, source="ball")
    larger([named, record(model.latent_space, "b", seed=2)], model, scale=4)
    samples = [(7, "ball"), (2, "b")]
    stages = ["upsample 2x4", "upsample-told 2x4", "upsample 4x8", "upsample-told 4x8"]
    assert drawn == [(samples, stage) for stage in stages]


def test_a_sample_of_several_is_that_sample_alone(model):
    texts = list(encode_text([Prompt("a red ball")], model))
    ranged, alone = (
        list(sample_keyframes(texts, model, Samples(seeds=s), compute=Compute("cpu")))[-1]
        for s in ((7, 8), (8,))
    )
    assert ranged.id != alone.id
    same(*larger([ranged, alone], model))


def test_stages_through_bytes_equal_stages_in_one_process(model):
    """Law L5, with noise and networks."""
    texts = list(encode_text([Prompt("a red ball"), Prompt("a blue cube")], model))
    compute = Compute("cpu")
    sampled = image(sample_keyframes(texts, model, compute=compute))
    piped = image(larger(read_stream(io.BytesIO(sampled)), model))
    assert piped == image(larger(sample_keyframes(texts, model, compute=compute), model))


# --- how far apart --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spacing", "skip", "warned"),
    [(0.5, 12, 0), (0.125, 3, 0), (0.13, 3, 0), (4.0, 12, 1), (0.01, 1, 1)],
)
def test_the_skip_follows_from_the_times(model, spacing, skip, warned):
    heard = Listener()
    (after,) = larger([record(model.latent_space, spacing=spacing)], model, notify=heard)
    assert after.log[-1]["skip"] == skip
    assert len(heard.warnings) == warned
    assert all("tiny" in line and "trained on" in line for line in heard.warnings)
    assert heard.steps == [(i + 1, 4, "step") for i in range(4)]


def test_a_single_latent_is_told_as_a_keyframe_far_from_others(model):
    heard = Listener()
    (after,) = larger([record(model.latent_space, count=1)], model, notify=heard)
    assert after.log[-1]["skip"] == 12 and not heard.warnings


def test_settings_of_a_shift_are_used(model):
    found = Upsampler.of(model)
    assert isinstance(found.settings, Settings)
    plain = [float(level.t) for level in found.levels(4)]
    assert plain == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    from dataclasses import replace

    shifted = replace(found, settings=replace(found.settings, shift=3.0))
    assert [float(level.t) for level in shifted.levels(2)] == pytest.approx([1, 0.75, 0])


def test_pictures_beyond_what_it_learned_are_warned_of_once(tiny_model, tmp_path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = folder / "upsampler" / "config.json"
    config = json.loads(path.read_text())
    config["sample"]["largest"] = 32
    path.write_text(json.dumps(config))
    model, heard = ModelFolder(folder), Listener()
    small = [record(model.latent_space) for _ in range(3)]
    larger(small, model, notify=heard, batch_size=1)
    assert not heard.warnings
    larger(small, model, notify=heard, batch_size=1, scale=4)
    (line,) = heard.warnings
    assert "64 pixels high are beyond" in line and line.endswith("learned, 32")
