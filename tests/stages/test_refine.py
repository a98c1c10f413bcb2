"""interpolate --refine: what is drawn anew, by hand too, what stays, and what can't be."""

from __future__ import annotations

import json
import re
import shutil
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from latents_records import Listener, record, same

from vidgen.diffusion.noise import Noise
from vidgen.diffusion.prediction import PREDICTIONS, denoiser
from vidgen.diffusion.schedules import linear_flow
from vidgen.diffusion.solvers import euler
from vidgen.errors import InputError, UsageError
from vidgen.io.record import Record
from vidgen.stages import cascade, plan
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.interpolate import Choices, interpolate
from vidgen.stages.refine import Refiner, mended
from vidgen.stages.sample_keyframes import sample_keyframes, text_cond
from vidgen.systems import world
from vidgen.systems.base import ModelFolder

CPU = Compute("cpu")


@pytest.fixture
def model(tiny_model) -> ModelFolder:
    return ModelFolder.find(str(tiny_model))


@pytest.fixture
def keyframes(model) -> list[Record]:
    texts = encode_text([Prompt("a red ball", seed=5), Prompt("a big blue cube spins")], model)
    return list(sample_keyframes(texts, model, compute=CPU))


def made(records, model, *, batch_size=4, notify=None, **choices) -> list[Record]:
    more = {} if notify is None else {"notify": notify}
    compute = Compute("cpu", batch_size=batch_size)
    return list(interpolate(records, model, Choices(**choices), compute=compute, **more))


def wanting(tiny_model, folder, share: float) -> ModelFolder:
    """The tiny model, which wants that share of noise."""
    shutil.copytree(tiny_model, folder)
    path = folder / "interpolation" / "config.json"
    config = json.loads(path.read_text())
    config["sample"]["refine"] = share
    path.write_text(json.dumps(config))
    return ModelFolder.find(str(folder))


@pytest.fixture
def wanting_model(tiny_model, tmp_path) -> ModelFolder:
    return wanting(tiny_model, tmp_path / "tiny", 0.5)


@given(groups=st.integers(1, 40), size=st.integers(2, 16))
def test_every_frame_between_is_in_a_set(groups, size):
    count = 4 * groups + 1
    if count < size:
        return
    geometry = type("Geometry", (), {"num_frames": size})
    refiner = Refiner(type("Folder", (), {"geometry": geometry}), 0.5, None, None)
    sets = refiner.sets(count)
    assert {i for i in range(count) if i % 4} <= {i for frames in sets for i in frames}
    for frames in sets:
        assert len(frames) == len(set(frames)) == size and frames == sorted(frames)
        assert any(i % 4 for i in frames)
        assert frames[0] >= 0 and frames[-1] < count


def test_the_shipped_clip_is_drawn_anew_in_three_sets():
    geometry = type("Geometry", (), {"num_frames": 5})
    refiner = Refiner(type("Folder", (), {"geometry": geometry}), 0.3, None, None)
    assert refiner.sets(17) == [[1, 4, 7, 10, 13], [2, 5, 8, 11, 14], [3, 6, 9, 12, 15]]


@torch.no_grad()
def test_it_is_sdedit_by_the_network_of_the_keyframes(model, keyframes):
    """By hand: nine frames, three at a time, told the times of keyframes; every fourth stays."""
    before = made(keyframes, model)[0].torch("latents")
    (after, _) = (r.torch("latents") for r in made(keyframes, model, refine=0.7))
    levels = linear_flow(3, 2.0)[1:]  # t = 1, 0.8, 0.5, 0: the first with no more than 0.7 …
    levels = [level for level in levels if float(level.sigma) <= 0.7]
    cond, uncond = text_cond(keyframes[:1], torch.device("cpu"))
    for part in (cond, uncond):
        part["times"] = torch.tensor([[0.0, 0.5, 1.0]])
    network = world.load_transformer(model).float()
    plain = denoiser(world.called(network), PREDICTIONS["flow"]())

    def guided(z, level, cond):
        c, u = plain(z, level, cond), plain(z, level, uncond)
        return u + model.sampler.guidance_scale * (c - u)

    expected = before.clone()
    for frames in ([1, 4, 7], [2, 5, 8], [3, 6, 8]):  # the last lacks one: the clip's last
        x0 = before[None, :, frames]
        noise = Noise([(5, keyframes[0].id)], stage="refine 9")
        z = levels[0].alpha * x0 + levels[0].sigma * noise.initial(x0.shape[1:])
        for step in euler(guided, z, levels, cond):
            z = step.z
        change = (z - x0).square().mean(dim=1)[0]  # t h w
        for place, frame in enumerate(frames):
            for y, x in product(range(2), range(4)) if frame % 4 else ():
                around = change[place, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                noises = float(around.max() / min(1.0, (levels[0].sigma / levels[0].alpha) ** 2))
                share = min(max((noises - 0.9) / 0.2, 0), 1)
                old, new = before[:, frame, y, x], z[0, :, place, y, x]
                expected[:, frame, y, x] = old + share * (new - old)
    torch.testing.assert_close(after, expected, rtol=1e-3, atol=2e-4)
    assert not torch.allclose(after[:, 1], before[:, 1], atol=1e-2)


def test_little_changes_are_left_and_large_ones_taken_with_what_is_around():
    x0 = torch.zeros(1, 2, 1, 4, 6)
    drawn = torch.full_like(x0, 0.4)  # mean square 0.16, under 0.9 of (0.3 / 0.7)²
    drawn[..., 1, 1] = 0.45  # 0.2025, over 1.1 of that
    expected = torch.zeros_like(x0)
    expected[..., :3, :3] = drawn[..., :3, :3]
    level = linear_flow(10)[7]
    assert torch.equal(mended(x0, drawn, level), expected)
    # However much noise there was: what is as good as unrelated is taken, what is alike stays.
    for noisy in linear_flow(10)[:6]:
        assert torch.equal(mended(x0, torch.full_like(x0, 1.3), noisy), torch.full_like(x0, 1.3))
        assert torch.equal(mended(x0, drawn, noisy), x0)


@pytest.mark.parametrize("i", [0, 4, 7])
def test_what_is_taken_is_continuous_in_the_change(i):
    """Changes from none to twice the noise, in two thousand steps: none makes a leap."""
    level = linear_flow(10)[i]
    unit = min(1.0, float(level.sigma / level.alpha) if level.alpha > 0 else 1.0)
    drawn = torch.linspace(0, 2 * unit, 2001).view(-1, 1, 1, 1, 1)
    taken = mended(torch.zeros_like(drawn), drawn, level).flatten()
    assert float(taken.diff().abs().max()) <= 25 * unit / 1000
    assert taken[0] == 0 and float(taken[-1]) == pytest.approx(2 * unit)


def test_keyframes_stay_to_the_bit_and_passes_are_a_pipe(model, keyframes):
    once = made(keyframes, model, refine=0.5)
    twice = made(keyframes, model, refine=0.5, passes=2)
    for a, b, c in zip(keyframes, once, twice, strict=True):
        assert torch.equal(b.torch("latents")[:, ::4], a.torch("latents"))
        assert torch.equal(c.torch("latents")[:, ::4], b.torch("latents"))
    for a, b in zip(made(once, model, refine=0.5), twice, strict=True):
        assert torch.equal(a.torch("latents"), b.torch("latents"))
    for a, b in zip(made(keyframes, model, refine=0.5, batch_size=1), once, strict=True):
        same(a, b)  # whatever the batch


def test_the_log_says_by_what_and_zero_is_off(model, keyframes):
    (after, _) = made(keyframes, model, refine=0.5)
    entry = after.log[-1]
    assert entry["argv"] == ["interpolate", "--refine", "0.5"]
    assert (entry["refine"], entry["refine_steps"]) == (0.5, 1)
    assert entry["refined_by"] == model.identity("transformer")
    (off, _) = made(keyframes, model, refine=0.0)
    (plain, _) = made(keyframes, model)
    assert torch.equal(off.torch("latents"), plain.torch("latents"))
    assert not {"refine", "refined_by"} & off.log[-1].keys()


def test_a_model_may_want_it(tiny_model, tmp_path, model, keyframes):
    """And what can't be refined stays as it is, told of; beside what can."""
    wants = wanting(tiny_model, tmp_path / "tiny", 0.5)
    mute = record(wants.latent_space, "mute")
    listener = Listener()
    both_passes = made([keyframes[0], mute, keyframes[1]], wants, notify=listener, passes=2)
    assert listener.warnings == ["`mute`: frames between are not refined: it holds no text"]
    assert ["refine" in r.log[-1] for r in both_passes] == [True, False, True]
    listener = Listener()
    first, second, third = made([keyframes[0], mute, keyframes[1]], wants, notify=listener)
    assert listener.warnings == ["`mute`: frames between are not refined: it holds no text"]
    a, b = made(keyframes, model, refine=0.5)
    same(first, a)
    same(third, b)
    (plain,) = made([mute], model)
    same(second, plain)
    assert "refine" not in second.log[-1] and first.log[-1]["refine"] == 0.5
    quiet = Listener()
    made([mute], wants, notify=quiet, refine=0.0)
    assert not quiet.warnings


def test_a_model_without_the_network_says_so(tiny_model, tmp_path, keyframes):
    wants = wanting(tiny_model, tmp_path / "tiny", 0.5)
    shutil.rmtree(wants.path / "transformer")
    listener = Listener()
    made(keyframes, wants, notify=listener)
    (warning,) = listener.warnings
    assert warning.endswith("has no transformer")
    with pytest.raises(InputError, match="no component `transformer`"):
        made(keyframes, wants, refine=0.5)


def test_what_cannot_be_is_refused(model, keyframes):
    with pytest.raises(InputError, match="`ball` can't be refined: it holds no text"):
        made([record(model.latent_space)], model, refine=0.5)
    wide = keyframes[0].replace(tensors={"latents": torch.randn(4, 3, 4, 4)})
    with pytest.raises(InputError, match=r"its latents are 4 × 4, and .* of the model 2 × 4"):
        made([wide], model, refine=0.5)
    other = keyframes[0].replace(attrs={"text_encoder": "other@1"})
    with pytest.raises(InputError, match="text is encoded by `other@1`"):
        made([other], model, refine=0.5)
    with pytest.raises(UsageError, match=r"--refine 0.1: of 3 steps the last begins at 0.5"):
        made(keyframes, model, refine=0.1)
    with pytest.raises(UsageError, match=r"--refine 0.5: --method linear blends"):
        made(keyframes, None, refine=0.5, method="linear")


def test_progress_counts_the_steps_of_all_rounds(model, keyframes):
    for batch_size, rounds in ((1, 3), (2, 2), (4, 1)):  # of three sets, two steps each
        listener = Listener()
        made(keyframes[:1], model, refine=0.8, notify=listener, batch_size=batch_size)
        of = 2 * rounds
        assert listener.steps[-of:] == [(i + 1, of, "step") for i in range(of)]


def parsed_memory(words: str) -> float:
    """kB that a plan tells."""
    value, unit = re.search(r"memory +about ([\d.]+) (\w+),", words).groups()
    return float(value) * {"B": 1e-3, "kB": 1, "MB": 1e3}[unit]


def test_keyframes_and_the_frames_between_share_one_network(wanting_model, monkeypatch):
    folder, loads = wanting_model, []
    once = world.load_transformer
    monkeypatch.setattr(world, "load_transformer", lambda f: loads.append(f) or once(f))
    texts = encode_text([Prompt("a red ball")], folder)
    (clip,) = cascade.sample(texts, folder, passes=1, compute=CPU)
    assert clip.log[-1]["refine"] == 0.5 and len(loads) == 1


def test_a_plan_counts_it(model, keyframes):
    alone, both = (
        plan.interpolating(model, CPU, keyframes, Choices(refine=share)) for share in (0.0, 0.5)
    )
    assert "refined" not in alone
    assert "2 records, by tiny/transformer, from 0.5 of noise, 1 steps: 2 network calls" in both
    assert parsed_memory(both) > parsed_memory(alone)
    with pytest.raises(InputError, match="`ball` can't be refined"):  # as the stage says it
        plan.interpolating(model, CPU, [record(model.latent_space)], Choices(refine=0.5))
