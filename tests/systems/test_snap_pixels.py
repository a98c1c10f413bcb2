"""Snap Video in pixels: samples without an autoencoder, the second stage, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tests import tiny
from tests.stages.latents_records import Listener
from vidgen.diffusion import guidance
from vidgen.diffusion.level import Level
from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import Snap, denoiser
from vidgen.diffusion.schedules import snap
from vidgen.diffusion.solvers import SOLVERS
from vidgen.errors import InputError, OutOfMemory, UsageError
from vidgen.io import int8
from vidgen.io.weights import load_safetensors
from vidgen.nn.fit import FIT
from vidgen.nn.pixels import to_uint8
from vidgen.stages import cascade, memory, plan
from vidgen.stages.base import Compute
from vidgen.stages.decode import decode
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.sample_keyframes import Choices, sample_keyframes, text_cond
from vidgen.stages.upsample import Choices as Larger
from vidgen.stages.upsample import upsample
from vidgen.stages.upsample_pixels import SecondStage
from vidgen.systems import save, snap_video
from vidgen.systems.base import SCHEDULER, ModelFolder
from vidgen.systems.snap_video import (
    begun_from,
    called,
    load_transformer,
    load_upsampler,
    low_cond,
)
from vidgen.systems.verify import verify

CPU = Compute("cpu")


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory) -> ModelFolder:
    return ModelFolder(tiny.pixels(tmp_path_factory.mktemp("pixels") / "model", tiny_model))


@pytest.fixture(scope="module")
def small(folder):
    """Two records that the base makes."""
    texts = encode_text([Prompt("a red ball"), Prompt("a blue cube spins")], folder)
    return list(sample_keyframes(texts, folder, Choices(), compute=CPU))


def test_a_folder_of_both_stages_is_whole(folder):
    assert folder.in_pixels and folder.latent_space == "pixels"
    assert folder.name == "snap-video-pixels"  # as its base: text of the one is text of the other
    index = {k: tuple(v) for k, v in folder.index.items() if isinstance(v, list)}
    assert index["upsampler"] == ("vidgen", "FIT") and "vae" not in index
    assert not [problem for _, problems in verify(folder, index) for problem in problems]


def test_samples_are_pixels_that_decode_without_an_autoencoder(folder, small):
    for record in small:
        assert record["latents"].shape == (3, 3, 6, 16)
        assert record.attrs["latent_space"] == "pixels"
        assert record.log[-1]["padding"] == "6 × 16 padded to 8 × 16 and cropped back"
    (frames,) = decode(small[:1], ModelFolder.find(), compute=CPU)  # whatever the model
    latents = small[0].torch("latents")
    assert torch.equal(frames.torch("frames"), to_uint8(latents).permute(1, 2, 3, 0))
    assert "model" not in frames.log[-1] and "latents" not in frames


def test_the_second_stage_is_heun_on_more_pixels_told_the_small_ones(folder, small):
    """By hand: bilinear, noise of its own, guidance, the published solver (§3.5)."""
    made = list(upsample(small, folder, compute=CPU))
    assert [r["latents"].shape for r in made] == [(3, 3, 12, 32)] * 2
    assert (made[0].attrs["height"], made[0].attrs["width"]) == (12, 32)
    assert made[0].log[-1]["padding"] == "12 × 32 padded to 16 × 32 and cropped back"
    record, shape = small[0], (3, 3, 12, 32)
    source = [(0, record.attrs["source"])]
    pixels = record.torch("latents").permute(1, 0, 2, 3)  # t c h w
    large = F.interpolate(pixels, (12, 32), mode="bilinear").permute(1, 0, 2, 3)[None]
    noise = Noise(source, stage="upsample-told 6x16").initial(shape)
    cond, uncond = text_cond([record], torch.device("cpu"))
    more = low_cond(large, noise, torch.tensor([0.1])) | {"times": record.torch("times")[None]}
    torch.testing.assert_close(more["low"], large + 0.1 * noise)
    network = load_upsampler(folder).float()
    denoise = guidance.cfg(denoiser(called(network), Snap(0.5)), uncond | more, 2.5)
    levels, own = snap(2, sigma_in=4.0), Noise(source, stage="upsample 6x16")
    z = own.initial(shape) * levels[0].sigma
    with torch.no_grad():
        for step in SOLVERS["heun"](denoise, z, levels, cond | more, own):
            z = step.z
    torch.testing.assert_close(made[0].torch("latents"), z[0], rtol=1e-3, atol=1e-3)


def test_guidance_oscillates_and_estimates_are_clipped_where_the_model_says_so(folder, tmp_path):
    """Both stages against the solver by hand; guidance off is off."""
    keys = {"num_inference_steps": 3, "low_guidance_scale": 1.0, "hold": 1, "threshold": 0.9}
    made = changed(folder, tmp_path / "tamed", "upsampler",
                   sample=folder.config("upsampler")["sample"] | keys)  # fmt: skip
    path = made.path / SCHEDULER
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    (text,) = encode_text([Prompt("a red ball")], made)
    (record,) = sample_keyframes([text], made, Choices(guidance_scale=9.0), compute=CPU)
    levels, shape = snap(3, sigma_in=folder.sampler.sigma_in), (3, 3, 6, 16)
    network, times = load_transformer(made).float(), record.torch("times").float()[None]
    cond, uncond = (part | {"times": times} for part in text_cond([record], torch.device("cpu")))
    plain, scales = denoiser(called(network), Snap(folder.sampler.sigma_data)), []

    def by_hand(z, level, cond):
        both = {k: torch.cat((cond[k], uncond[k])) for k in cond}
        twice = Level(*(x.expand(2) for x in level.on(z)))
        c, u = plain(torch.cat((z, z)), twice, both).chunk(2)
        scales.append((9.0, 9.0, 1.0, 1.0, 9.0)[len(scales)])  # two calls a step, but for the last
        x0 = u + scales[-1] * (c - u)
        s = torch.quantile(x0.abs(), 0.9).clamp(min=1)
        return x0.clamp(-s, s) / s

    noise = Noise([(0, text.id)], stage="sample-keyframes")
    with torch.no_grad():
        z = noise.initial(shape) * levels[0].sigma
        for step in SOLVERS["heun"](by_hand, z, levels, cond, noise):
            z = step.z
    assert len(scales) == 5
    torch.testing.assert_close(record.torch("latents"), z[0], rtol=1e-3, atol=1e-3)
    assert record.torch("latents").abs().max() <= 1  # the last step arrives at an estimate
    (large,) = upsample([record], made, compute=CPU)
    assert large.torch("latents").abs().max() <= 1
    (loose,) = upsample([record], folder, compute=CPU)
    assert loose.torch("latents").abs().max() > 1


def test_a_clip_may_be_asked_for_as_if_it_had_been_smaller(folder, small, monkeypatch):
    """Told as in training: shares of rows and columns, to both branches of guidance."""
    seen, context = [], FIT._context

    def listening(self, t, text, mask, period, size, noise_level):
        seen.append(size)
        return context(self, t, text, mask, period, size, noise_level)

    monkeypatch.setattr(FIT, "_context", listening)
    texts = list(encode_text([Prompt("a red ball"), Prompt("a blue cube spins")], folder))

    def latents(size):
        seen.clear()
        choices = Choices(original_size=size)
        return [r.torch("latents") for r in sample_keyframes(texts, folder, choices, compute=CPU)]

    none = latents(None)
    assert seen and all(size is None for size in seen)
    full = latents((16, 6))
    assert all(torch.equal(size, torch.ones(4, 2)) for size in seen)
    half = latents((8, 3))
    assert all(torch.equal(size, torch.full((4, 2), 0.5)) for size in seen)
    latents((4, 3))
    assert seen[0].tolist() == [[0.5, 0.25]] * 4
    for a, b, c, record in zip(none, full, half, small, strict=True):
        assert torch.equal(a, b) and torch.equal(a, record.torch("latents"))
        assert not torch.equal(a, c)


def test_sizes_that_a_model_did_not_learn_from_are_warned_of(folder, tmp_path):
    texts = list(encode_text([Prompt("a red ball"), Prompt("a blue cube spins")], folder))
    sample = folder.config("transformer")["sample"]
    silent = {k: v for k, v in sample.items() if k != "sizes"}
    older = changed(folder, tmp_path / "older", "transformer", sample=silent)
    assert sample["sizes"] == [1.0, 0.5]
    for model, size, said in (
        (folder, (16, 6), []), (folder, (8, 3), []), (folder, (8, 6), ["16x6 or 8x3"]),
        (older, (16, 6), []), (older, (8, 3), ["16x6"]),
    ):  # fmt: skip
        listener = Listener()
        list(sample_keyframes(texts, model, Choices(original_size=size), compute=CPU,
                              notify=listener))  # fmt: skip
        told = f"and is told {size[0]}x{size[1]}"
        assert listener.warnings == [
            f"`snap-video-pixels` says that it learned from clips of {x}, {told}" for x in said
        ]


def test_other_methods_and_noise_levels(folder, small):
    (plain,) = upsample(small[:1], folder, Larger(2, "bicubic"), compute=CPU)
    assert plain["latents"].shape == (3, 3, 12, 32) and plain.log[-1]["method"] == "bicubic"
    (straight,) = upsample(small[:1], folder, Larger(2, "bilinear"), compute=CPU)
    frames = small[0].torch("latents").permute(1, 0, 2, 3)  # t c h w
    by_hand = F.interpolate(frames, scale_factor=2, mode="bilinear").clamp(-1, 1)
    torch.testing.assert_close(straight.torch("latents"), by_hand.permute(1, 0, 2, 3))
    (own,) = upsample(small[:1], folder, compute=CPU)
    (other,) = upsample(small[:1], folder, Larger(noise_level=0.4), compute=CPU)
    assert not torch.equal(own.torch("latents"), other.torch("latents"))
    assert (own.log[-1]["noise_level"], other.log[-1]["noise_level"]) == (0.1, 0.4)


def test_plans_of_pixels(folder, small):
    assert "[3, 3, 12, 32] float32" in plan.enlarging(folder, CPU, small, Larger())
    assert plan.decoding(folder, CPU, small).endswith("[3, 6, 16, 3] uint8")


# --- the start from the base ----------------------------------------------------------------------


def test_an_upsampler_begins_as_the_base_on_a_larger_grid(folder):
    base, large = load_transformer(folder).float(), load_upsampler(folder).config
    made = begun_from(base, large)
    assert torch.equal(made.patch_in.weight[:, :12], base.patch_in.weight)
    assert not made.patch_in.weight[:, 12:].any()
    assert torch.equal(made.latents, base.latents)
    # A grid whose sides are the same keeps its positions, in other groups, too.
    regrouped = replace(base.config, in_channels=6, levels=2, group=(3, 4, 2))
    again = begun_from(base, regrouped)
    z = torch.arange(8 * 16.0).view(1, 1, 1, 8, 16).expand(1, 3, 3, -1, -1)
    for network, wide in ((base, z), (again, torch.cat((z, z), dim=1))):
        # Where a patch lies, by the number of its first pixel → its position.
        places = network._grouped(wide)[..., 0].flatten().tolist()
        assert len(places) == len(network.positions)
    by_place = [
        dict(zip(zip(n._grouped(w)[..., 0].flatten().tolist(), _frame(n), strict=True),
                 n.positions, strict=True))
        for n, w in ((base, z), (again, torch.cat((z, z), dim=1)))
    ]  # fmt: skip
    assert by_place[0].keys() == by_place[1].keys()
    for place, position in by_place[0].items():
        torch.testing.assert_close(by_place[1][place], position)
    with pytest.raises(ValueError, match="dim is 64, and the base's is 32"):
        begun_from(base, replace(large, dim=64))


def _frame(network: FIT) -> list[float]:
    """The frame of each patch, in the order of the groups."""
    c = network.config
    t = torch.arange(float(c.num_frames)).view(1, 1, -1, 1, 1)
    t = t.expand(1, c.in_channels, -1, c.height, c.width)
    return network._grouped(t)[..., 0].flatten().tolist()


# --- what is refused ------------------------------------------------------------------------------


def changed(folder: ModelFolder, to: Path, component: str, **keys) -> ModelFolder:
    made = ModelFolder(Path(shutil.copytree(folder.path, to)))
    config = made.config(component) | keys
    (to / component / "config.json").write_text(json.dumps(config))
    return made


def test_refusals_name_what_and_why(folder, small, tiny_model, tmp_path):
    with pytest.raises(UsageError, match="makes sides 2 times as long"):
        list(upsample(small, folder, Larger(4), compute=CPU))
    with pytest.raises(UsageError, match=r"--noise-level 0.9: .* was trained on 0 to 0.5"):
        list(upsample(small, folder, Larger(noise_level=0.9), compute=CPU))
    foreign = [r.replace(attrs={"latent_space": "vae@1"}) for r in small]
    with pytest.raises(InputError, match=r"in space `vae@1`, .* upsamples `pixels`"):
        list(upsample(foreign, folder, compute=CPU))
    with pytest.raises(InputError, match="in space `vae@1`"):
        list(decode(foreign, folder, compute=CPU))
    with pytest.raises(InputError, match="in space `pixels`"):
        list(upsample(small, ModelFolder(tiny_model), compute=CPU))
    cut = [r.replace(tensors={"latents": r.torch("latents")[..., :8].contiguous()}) for r in small]
    with pytest.raises(InputError, match=r"`latents` is F32 \[3, 3, 6, 8\]"):
        list(upsample(cut, folder, compute=CPU))
    longer = [r.replace(tensors={"latents": torch.zeros(3, 5, 6, 16)}) for r in small]
    with pytest.raises(InputError, match=r"are 5 frames, the upsampler of .* is made for 3"):
        list(upsample(longer, folder, compute=CPU))
    settings = folder.config("upsampler")["sample"] | {"schedule": "none"}
    unknown = changed(folder, tmp_path / "unknown", "upsampler", sample=settings)
    with pytest.raises(InputError, match="no schedule is called `none`"):
        list(upsample(small, unknown, compute=CPU))
    wide = changed(folder, tmp_path / "wide", "upsampler", text_dim=32)
    with pytest.raises(InputError, match=r"text.embeds` is F32 \[\d+, 16\].* \[n 32\]"):
        list(upsample(small, wide, compute=CPU))


def test_clips_that_do_not_fit_into_memory_are_refused(folder, small, monkeypatch):
    needed = SecondStage.of(folder, Larger()).memory_bytes(CPU, 2)
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed)
    monkeypatch.setattr(snap_video, "load_upsampler", None)  # before any weights
    cascade.check(folder, 2, 0, 2, CPU)
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed - 1)
    for attempt in (
        lambda: list(upsample(small, folder, compute=CPU)),
        lambda: cascade.check(folder, 2, 0, 2, CPU),
    ):
        with pytest.raises(OutOfMemory, match=r"--scale 2 of 2 clips takes about"):
            attempt()


def test_weights_take_memory_as_they_are_computed_with_however_they_are_stored(folder, tmp_path):
    small = changed(folder, tmp_path / "small", "upsampler")
    (file,) = small.weight_files("upsampler")
    state = load_safetensors(file)
    numbers = sum(x.numel() for x in state.values())
    save_file(int8.packed(state), file.with_name("packed"))
    file.with_name("packed").replace(file)
    taken = [
        SecondStage.of(f, Larger()).memory_bytes(Compute("cpu", dtype=dtype), 0)
        for f in (folder, small) for dtype in ("fp32", "bf16")
    ]  # fmt: skip
    assert taken == [4 * numbers, 2 * numbers] * 2


def test_networks_of_the_other_stage_are_refused_before_they_compute(folder, small, tmp_path):
    base, large = load_transformer(folder).config, load_upsampler(folder).config
    texts = list(encode_text([Prompt("a red ball")], folder))
    alone = changed(folder, tmp_path / "alone", "upsampler")
    rewrite(alone, "upsampler", replace(large, in_channels=3, levels=1))
    with pytest.raises(InputError, match="in_channels is 3, and of this model's upsampler it is 6"):
        list(upsample(small, alone, compute=CPU))
    rewrite(alone, "transformer", replace(base, in_channels=6, levels=2))
    with pytest.raises(InputError, match=r"in_channels is 6, .*'s transformer it is 3"):
        list(sample_keyframes(texts, alone, Choices(), compute=CPU))
    rewrite(alone, "transformer", replace(base, in_channels=4, out_channels=4))
    with pytest.raises(InputError, match=r"out_channels is 4, .*'s transformer it is 3"):
        list(sample_keyframes(texts, alone, Choices(), compute=CPU))


def rewrite(folder: ModelFolder, component: str, config) -> None:
    """A whole component with this network."""
    settings = folder.config(component) | config.to_dict()
    save.write_component(folder.path / component, settings, FIT(config))


def test_a_checkpoint_of_the_other_preset_is_told_by_its_first_key_and_both_shapes(
    folder, tmp_path
):
    made = changed(folder, tmp_path / "other", "transformer", dim=64, latent_dim=64)
    with pytest.raises(InputError, match=r"the shape of `positions` .* is 96×32, .*'s is 96×64"):
        load_transformer(made)
    made = changed(folder, tmp_path / "deeper", "transformer", blocks=2, latent_dim=64)
    with pytest.raises(InputError, match=r"lacks `blocks.1.*; the shape of `latents` .* is 8×32"):
        load_transformer(made)
    network, text = load_transformer(folder), torch.zeros(1, 2, 32)
    with pytest.raises(ValueError, match="text is 32 wide, the network takes 16"):
        network(torch.zeros(1, 3, 3, 6, 16), torch.zeros(1), text=text)
