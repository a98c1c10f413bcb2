"""What Wan's network makes of a text is made once for a run of sampling, and changes nothing."""

import gc
import weakref

import pytest
import torch

from vidgen.diffusion.level import Level
from vidgen.diffusion.solvers import euler
from vidgen.nn.wan_dit import Told, WanConfig, WanDiT
from vidgen.systems import wan

SIZES = {"heads": 2, "head_dim": 12, "depth": 2, "mlp_dim": 48, "text_dim": 10, "level_dim": 16}


def network(seed=0, **more):
    torch.manual_seed(seed)
    return WanDiT(WanConfig(**SIZES, **more)).eval().requires_grad_(False)


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def text(words, samples=1, seed=2):
    made = drawn(samples, 512, 10, seed=seed)
    made[:, words:] = 0
    return made


def count(module):
    """How often it is called, and what its results were, while they live."""
    made = []
    module.register_forward_hook(lambda _, __, out: made.append(weakref.ref(out)))
    return made


@pytest.mark.parametrize("picture", [None, 14])
def test_a_call_that_is_told_computes_the_same_bits(picture):
    ours, told = network(image_dim=picture), Told()
    given = {"text": text(7), "image": picture and drawn(1, 5, picture)}
    with torch.no_grad():
        for seed in (3, 4):
            z, t = drawn(1, 16, 2, 4, 6, seed=seed), torch.tensor([900.0 - seed])
            assert torch.equal(ours(z, t, **given, told=told), ours(z, t, **given))
    assert [len(keys) for keys in told.keys] == [2 if picture is None else 4] * 2
    assert told.text.shape[1] == 8  # seven words, and one for all zeros


def test_another_text_is_another_result():
    ours, z, t = network(), drawn(1, 16, 2, 4, 6), torch.tensor([500.0])
    with torch.no_grad():
        one, other = (ours(z, t, text=text(7, seed=s)) for s in (2, 3))
    assert (one - other).norm() > 1e-3 * one.norm()


def test_once_for_each_prompt_of_a_run():
    ours = network()
    texts, keys = count(ours.text_in), count(ours.blocks[0].cross_attn.k)
    cond, uncond = {"text": text(7)}, {"text": text(3, seed=5)}
    denoise = wan.guided(wan.wan_denoiser(wan.called(ours)), uncond, 4.0)
    levels = wan.levels(wan.Settings(3.0), 4)
    z = drawn(1, 16, 2, 4, 6)
    *_, step = euler(denoise, z, levels, cond)
    assert step.i == 3 and len(texts) == len(keys) == 2

    # Guidance in one batch, which puts texts anew behind each other, gives the same.
    together = wan.guided(wan.wan_denoiser(wan.called(ours)), uncond, 4.0, batched=True)
    *_, other = euler(together, z, levels, cond)
    assert len(texts) == 2 + 4
    torch.testing.assert_close(other.z, step.z, rtol=1e-4, atol=1e-5)


def test_the_other_expert_makes_room():
    high, low = network(0), network(1)
    made = count(high.text_in), count(low.text_in)
    raw = wan.called(high, low, 0.875)
    z, conds = drawn(1, 16, 2, 4, 6), [{"text": text(7)}, {"text": text(3, seed=5)}]
    with torch.no_grad():
        for t in (900.0, 890.0, 800.0, 700.0):
            for cond in conds:
                raw(z, torch.tensor([t]), cond)
    gc.collect()
    assert [len(x) for x in made] == [2, 2]
    assert [sum(ref() is not None for ref in x) for x in made] == [0, 2]


def test_one_level_for_all_samples():
    """A level without a batch axis is computed once, to the result of one for each sample."""
    ours, z = network(), drawn(3, 16, 2, 4, 6)
    denoise = wan.wan_denoiser(wan.called(ours))
    rows = count(ours.modulation)
    cond = {"text": text(7, samples=3)}
    with torch.no_grad():
        one = Level(*(torch.tensor(x) for x in (500.0, 0.5, 0.5)))
        found = denoise(z, one.on(z), cond)
        each = Level(*(torch.full((3,), float(x)) for x in one))
        wanted = denoise(z, each.on(z), cond)
    assert len(rows) == 2
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
