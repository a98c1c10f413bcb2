"""Recorded calls: what they must not mix up, on a CPU with a stand-in for a graph; that networks
can be recorded at all; and on CUDA that what is replayed is what is computed."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from vidgen.nn import attention, graphs
from vidgen.nn.cogvideox_dit import CogVideoXConfig, CogVideoXDiT
from vidgen.nn.dit import DiTConfig, VideoDiT
from vidgen.nn.fit import FIT, FITConfig
from vidgen.nn.unet import UNet, UNetConfig
from vidgen.nn.wan_dit import Told, WanConfig, WanDiT


class Again:
    """Stands in for a graph: reads and writes the places that the real one would."""

    recorded = 0

    def __init__(self, compute):
        Again.recorded += 1
        self.compute, self.made = compute, compute()
        for x in tree_iter(self.made):
            x.fill_(torch.nan)  # recording computes nothing

    def replay(self):
        for place, x in zip(tree_iter(self.made), tree_iter(self.compute()), strict=True):
            place.copy_(x)


def again(compute):
    graph = Again(compute)
    return graph, graph.made


@pytest.fixture(autouse=True)
def none_recorded():
    Again.recorded = 0


@torch.no_grad()
def test_replayed_calls_compute_what_calls_compute():
    calls = []

    def call(z, *, text=None, scale=1.0):
        calls.append(scale)
        return z * scale + (0 if text is None else text), z - 1

    recorded = graphs.Recorded(call, again)
    draw = torch.Generator().manual_seed(0)
    kept = []
    for i in range(24):
        z, text = (torch.randn(2 + i // 12, 3, generator=draw) for _ in range(2))
        given = [{}, {"text": text}, {"text": text, "scale": 2.0}][i % 3]
        kept.append((recorded(z, **given), call(z, **given)))
    for found, expected in kept:  # at the end: nothing that was returned has changed since
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert Again.recorded == 6  # three ways to call it, at two sizes


@torch.no_grad()
def test_things_among_the_arguments_are_told_apart():
    class Kept:
        value = None

    def call(z, kept):
        if kept.value is None:
            kept.value = z.mean()
        return z + kept.value

    recorded, things = graphs.Recorded(call, again), [Kept(), Kept()]
    for z in torch.arange(12.0).reshape(6, 2):
        for i, kept in enumerate(things):
            out = recorded(z * (i + 1), kept)
            assert torch.equal(out, z * (i + 1) + 0.5 * (i + 1))
    assert Again.recorded == 2


@torch.no_grad()
def test_old_graphs_go_and_so_do_those_of_another_size():
    recorded = graphs.Recorded(lambda z, kind: z + kind, again)
    for kind in range(2 * graphs.KEPT):
        for _ in range(3):
            recorded(torch.ones(2), kind)
    assert len(recorded._calls) == graphs.KEPT
    assert Again.recorded == 2 * graphs.KEPT
    recorded(torch.ones(3), 0)
    assert len(recorded._calls) == 1


def test_nothing_is_recorded_with_gradients():
    recorded = graphs.Recorded(lambda z: z.square(), again)
    z = torch.ones(2, requires_grad=True)
    for _ in range(3):
        recorded(z).sum().backward()
    assert Again.recorded == 0
    assert torch.equal(z.grad, 6 * torch.ones(2))


@torch.no_grad()
def test_the_kernels_of_what_is_replayed_are_told():
    q = torch.randn(1, 2, 4, 8)
    recorded = graphs.Recorded(lambda q: attention.attend(q, q, q), again)
    used = []
    for _ in range(4):
        with attention.kernel("auto") as kernels:
            recorded(q)
        used.append(kernels)
    assert used[0] and all(kernels == used[0] for kernels in used)


# --- networks -------------------------------------------------------------------------------------


def dit():
    network = VideoDiT(DiTConfig(dim=32, depth=2, heads=2, text_dim=12, pooled_dim=10,
                                 rope_dims=(4, 6, 6), self_conditioned=True))  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    told = {
        "text": torch.randn(2, 5, 12, generator=draw),
        "pooled": torch.randn(2, 10, generator=draw),
        "text_mask": torch.ones(2, 5, dtype=torch.bool),
        "times": torch.arange(3.0).expand(2, -1) / 2,
    }
    return network, (2, 8, 3, 4, 6), told


def fit():
    config = FITConfig(
        num_frames=4, height=8, width=12, patch=(1, 2, 2), group=(4, 2, 3), dim=16, latents=12,
        latent_dim=24, context_dim=20, text_dim=10, blocks=2, head_dim=4, latent_head_dim=8,
        dropout=0.0,
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    told = {
        "text": torch.randn(2, 5, 10, generator=draw),
        "text_mask": torch.arange(5).expand(2, -1) < 4,
        "period": torch.rand(2, generator=draw),
        "size": torch.rand(2, 2, generator=draw),
    }
    return FIT(config), (2, 3, 4, 8, 12), told


def unet():
    config = UNetConfig(
        in_channels=20, out_channels=12, variant="interpolation", init_channels=8, widths=(8, 16),
        self_attention=(False, True), cross_attention=(False, True), blocks=2, head_dim=8,
        groups=4, time_dim=16, text_dim=12, level_scale=1000.0, noise_embedding="time",
        skip_rows=20,
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    told = {
        "text": torch.randn(2, 5, 12, generator=draw),
        "text_mask": torch.arange(5).expand(2, -1) < 4,
        "pooled": torch.randn(2, 12, generator=draw),
        "skip": torch.tensor([3, 7]),
        "noise_level": torch.rand(2, generator=draw),
    }
    return UNet(config), (2, 20, 1, 4, 6), told


def wan():
    config = WanConfig(heads=4, head_dim=12, depth=2, mlp_dim=96, text_dim=24, level_dim=32)
    draw = torch.Generator().manual_seed(0)
    told = {"text": torch.randn(2, 512, 24, generator=draw), "told": Told()}
    return WanDiT(config), (2, 16, 3, 6, 8), told


def cogvideox():
    config = CogVideoXConfig(
        in_channels=4, out_channels=4, heads=2, head_dim=16, depth=2, text_dim=24, time_dim=32,
        text_tokens=6, sample=(3, 8, 12),
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    return CogVideoXDiT(config), (2, 4, 3, 8, 12), {"text": torch.randn(2, 6, 24, generator=draw)}


NETWORKS = [dit, fit, unet, wan, cogvideox]


class _OnDevice(TorchDispatchMode):
    """Refuses what can't be recorded: numbers that come from the CPU, or go to it. (On the meta
    device, which has no numbers, torch itself refuses to give any.)"""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        found = [x for x in tree_iter((args, kwargs, out)) if isinstance(x, torch.Tensor)]
        assert {x.device.type for x in found} <= {"meta"}, func
        return out


@pytest.mark.parametrize("made", NETWORKS)
@torch.no_grad()
def test_networks_can_be_recorded(made):
    """A call after the first one asks for nothing that isn't on the device."""
    network, shape, told = made()
    network = network.eval().to("meta")
    told = {k: x.to("meta") if isinstance(x, torch.Tensor) else x for k, x in told.items()}
    z, t = torch.empty(shape, device="meta"), torch.empty(shape[0], device="meta")
    network(z, t, **told)
    with _OnDevice():
        network(z, t, **told)


@pytest.mark.parametrize("made", NETWORKS)
@torch.no_grad()
def test_a_recorded_network_computes_what_it_computed(made, monkeypatch):
    torch.manual_seed(0)
    network, shape, told = made()
    network = network.eval()
    for p in network.parameters():
        p.add_(0.1 * torch.randn_like(p))
    calls = [(torch.randn(shape), torch.rand(shape[0])) for _ in range(4)]
    plain = [network(*call, **told) for call in calls]
    monkeypatch.setattr(graphs, "OnCuda", lambda: again)
    assert graphs.record(graphs.record(network)) is network
    assert_same([network(*call, **told) for call in calls], plain)
    assert Again.recorded == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("made", NETWORKS)
@torch.no_grad()
def test_graphs_on_cuda(made):
    torch.manual_seed(0)
    network, shape, told = made()
    network = network.eval().cuda()
    for p in network.parameters():
        p.add_(0.1 * torch.randn_like(p))
    told = {k: x.cuda() if isinstance(x, torch.Tensor) else x for k, x in told.items()}
    calls = [(torch.randn(shape).cuda(), torch.rand(shape[0]).cuda()) for _ in range(6)]
    plain = [network(*call, **told) for call in calls]
    graphs.record(network)
    assert_same([network(*call, **told) for call in calls], plain)


def assert_same(found, expected):
    for a, b in zip(tree_iter(found), tree_iter(expected), strict=True):
        torch.testing.assert_close(a, b)
