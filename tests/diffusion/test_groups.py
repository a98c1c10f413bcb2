"""Groups of a clip: where every frame goes, in both packings, and context guidance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidgen.diffusion import groups
from vidgen.diffusion.groups import PACKINGS
from vidgen.diffusion.guidance import guided_by
from vidgen.diffusion.level import Level

B, C, H, W = 2, 3, 2, 3


def clip(g: int) -> torch.Tensor:
    """Latents of 4g + 1 frames; a value says which sample, frame, channel and place it is of."""
    shape = (B, C, 4 * g + 1, H, W)
    return torch.arange(np.prod(shape), dtype=torch.float32).reshape(shape)


# --- where frames go ------------------------------------------------------------------------------


@given(g=st.integers(1, 9))
def test_a_clip_comes_apart_and_together(g):
    x = clip(g)
    keyframes, between = groups.split(x)
    assert torch.equal(keyframes, torch.stack([x[:, :, 4 * i] for i in range(g + 1)], 2))
    others = [i for i in range(4 * g + 1) if i % 4]
    assert torch.equal(between, x[:, :, others])
    assert torch.equal(groups.join(keyframes, between), x)


@given(g=st.integers(1, 5), method=st.sampled_from(sorted(PACKINGS)))
def test_a_packing_loses_nothing(g, method):
    packing, (keyframes, between) = PACKINGS[method], groups.split(clip(g))
    z = packing.pack(keyframes, between)
    assert z.shape == (B, *packing.shape(keyframes.shape[1:]))
    assert torch.equal(packing.unpack(z), between)


class Network:
    """Keeps what it is asked, and answers with the first channels of it."""

    def __init__(self, method: str):
        self.inputs, self.outputs = PACKINGS[method].channels(C)

    def __call__(self, x, t, **told):
        assert x.shape[1] == self.inputs
        self.x, self.t, self.told = x, t, told
        return 2 * x[:, -self.outputs :]


def ask(method: str, g: int, z: torch.Tensor, keyframes: torch.Tensor):
    network, packing = Network(method), PACKINGS[method]
    told = {"skip": torch.tensor([3, 5]), "times": packing.times(g, torch.tensor([0.5, 0.25]))}
    t = torch.tensor([10.0, 20.0])
    out = packing.ask(network, z, t, packing.context(keyframes), **told)
    assert out.shape == z.shape
    return network, out


def test_grouped_is_left_noisy_right_with_groups_on_the_time_axis():
    x, g = clip(3), 3
    z = torch.randn(B, 3 * C, g, H, W)
    network, _ = ask("grouped", g, z, groups.split(x)[0])
    for i in range(g):
        left, noisy, right = network.x[:, :, i].split((C, 3 * C, C), dim=1)
        assert torch.equal(left, x[:, :, 4 * i])
        assert torch.equal(noisy, z[:, :, i])
        assert torch.equal(right, x[:, :, 4 * i + 4])
    assert network.t.tolist() == [10, 20] and network.told["skip"].tolist() == [3, 5]
    assert network.told["times"].tolist() == [[0, 2, 4], [0, 1, 2]]  # of the left keyframes


def test_grouped_channels_are_frame_by_frame():
    x = clip(2)
    z = PACKINGS["grouped"].pack(*groups.split(x))
    for k in range(3):
        for i in range(2):
            assert torch.equal(z[:, C * k : C * (k + 1), i], x[:, :, 4 * i + 1 + k])


def test_masked_is_a_clip_of_five_for_each_pair():
    x, g = clip(2), 2
    keyframes, between = groups.split(x)
    z = PACKINGS["masked"].pack(keyframes, between)
    network, out = ask("masked", g, z, keyframes)
    assert network.x.shape == (B * g, 2 * C + 1, 5, H, W)
    for b in range(B):
        for i in range(g):
            noisy, known, mask = network.x[b * g + i].split((C, C, 1))
            assert torch.equal(noisy, x[b, :, 4 * i : 4 * i + 5])
            assert torch.equal(known[:, [0, 4]], x[b][:, [4 * i, 4 * i + 4]])
            assert not known[:, 1:4].any()
            assert mask[0, :, 0, 0].tolist() == [1, 0, 0, 0, 1]
    assert network.t.tolist() == [10, 10, 20, 20]
    assert network.told["skip"].tolist() == [3, 3, 5, 5]
    assert network.told["times"].tolist()[2] == [0, 0.25, 0.5, 0.75, 1]
    # The network answers with its last C channels, the known frames but for the first channel.
    assert torch.equal(out, 2 * PACKINGS["masked"].context(keyframes)[:, 1:])


# --- blending, times ------------------------------------------------------------------------------


@given(g=st.integers(1, 6), seed=st.integers(0, 99))
def test_linear_is_numpys(g, seed):
    keyframes = torch.randn(B, C, g + 1, H, W, generator=torch.Generator().manual_seed(seed))
    found = groups.join(keyframes, groups.linear(keyframes)).numpy()
    at = np.arange(4 * g + 1) / 4
    flat = keyframes.numpy().transpose(0, 1, 3, 4, 2).reshape(-1, g + 1)
    slow = np.stack([np.interp(at, np.arange(g + 1), row) for row in flat])
    slow = slow.reshape(B, C, H, W, -1).transpose(0, 1, 4, 2, 3)
    np.testing.assert_allclose(found, slow, rtol=1e-5, atol=1e-6)


@given(
    count=st.integers(2, 40),
    start=st.floats(-100, 100),
    spacing=st.floats(1e-3, 100),
    passes=st.integers(1, 3),
)
def test_times_are_divided_and_those_of_keyframes_kept(count, start, spacing, passes):
    times = torch.tensor([start + i * spacing for i in range(count)], dtype=torch.float64)
    fine = times
    for _ in range(passes):
        fine = groups.finer(fine)
    n = 4**passes
    assert len(fine) == n * (count - 1) + 1
    assert torch.equal(fine[::n], times)
    even = [start + i * spacing / n for i in range(len(fine))]
    np.testing.assert_allclose(fine.numpy(), even, rtol=1e-12, atol=1e-12)
    assert (fine.diff() > 0).all()


# --- guidance -------------------------------------------------------------------------------------


def toy(z, level, cond):
    return 0.3 * z + cond["context"].mean(dim=(1, 2, 3, 4), keepdim=True) + cond["skip"].sum()


def test_context_guidance_is_the_papers():
    """(1 + w)·net(c) − w·net(0), with w = scale − 1, and nothing dropped but the context."""
    z = torch.randn(B, C, 1, H, W)
    level = Level(torch.tensor(5.0), torch.tensor(0.6), torch.tensor(0.8))
    cond = {"context": torch.randn(B, 2 * C, 1, H, W), "skip": torch.tensor([3.0, 1.0])}
    for w in (0.25, 0.5, 3.0):
        found = guided_by(toy, cond, "context", 1 + w)(z, level, cond)
        zero = {**cond, "context": torch.zeros_like(cond["context"])}
        # `toy` sums skips over the batch, which guidance doubles.
        twice = {"skip": torch.cat([cond["skip"]] * 2)}
        expected = (1 + w) * toy(z, level, {**cond, **twice}) - w * toy(z, level, {**zero, **twice})
        torch.testing.assert_close(found, expected)


def test_without_guidance_the_network_is_asked_once():
    cond = {"context": torch.ones(B, 1, 1, 1, 1)}
    assert guided_by(toy, cond, "context", 1.0) is toy


@pytest.mark.parametrize("method", sorted(PACKINGS))
def test_a_context_of_zeros_shows_no_keyframe(method):
    keyframes, between = groups.split(clip(2))
    packing, network = PACKINGS[method], Network(method)
    z = torch.zeros_like(packing.pack(keyframes, between))
    context = torch.zeros_like(packing.context(keyframes))
    packing.ask(network, z, torch.zeros(B), context)
    assert not network.x.any()
