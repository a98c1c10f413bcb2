"""Calls that are captured: what they must not mix up, on a CPU with a stand-in for a graph; that
networks can be captured at all; and on CUDA that what is replayed is what is computed."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from vidgen.nn import attention, graphs
from vidgen.nn.dit import DiTConfig, VideoDiT
from vidgen.nn.fit import FIT, FITConfig
from vidgen.nn.unet import UNet, UNetConfig


class Traced:
    """Stands in for a graph: the operations that were seen, on the very tensors that they were seen
    on. What Python does beside them is not done again."""

    count = 0

    def __init__(self, compute):
        Traced.count += 1
        self.again = make_fx(compute)()
        self.made = self.again()
        for x in tree_iter(self.made):
            x.fill_(torch.nan)  # capturing computes nothing

    def replay(self):
        for place, x in zip(tree_iter(self.made), tree_iter(self.again()), strict=True):
            place.copy_(x)


def traced(compute, device):
    graph = Traced(compute)
    return graph, graph.made


@pytest.fixture(autouse=True)
def none_captured():
    Traced.count = 0


@torch.no_grad()
def test_replayed_calls_compute_what_calls_compute():
    called = []

    def call(z, *, text=None, scale=1.0):
        called.append(scale)
        return z * scale + (0 if text is None else text), z - 1

    captured = graphs.Graphed(call, traced)
    draw = torch.Generator().manual_seed(0)
    kept = []
    for i in range(24):
        z, text = (torch.randn(2 + i % 2, 3, generator=draw) for _ in range(2))
        given = [{}, {"text": text}, {"text": text, "scale": 2.0}][i % 3]
        kept.append((captured(z, **given), call(z, **given)))
    for found, expected in kept:  # at the end: nothing that was returned has changed since
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert Traced.count == 6  # three ways to call it, at two sizes
    assert len(called) == 24 + 2 * 6  # and only the first call and the capture run it


@torch.no_grad()
def test_what_is_expanded_and_what_is_turned():
    captured = graphs.Graphed(lambda z, t: z * t[:, None], traced)
    for i in range(4):
        z, t = torch.randn(3, 2).T, torch.tensor(float(i)).expand(2)
        assert torch.equal(captured(z, t), z * i)
    assert Traced.count == 1


@torch.no_grad()
def test_calls_of_further_shapes_are_made_as_ever():
    captured = graphs.Graphed(lambda z: z + 1, traced)
    for size in [*range(1, 2 * graphs.MOST)] * 3:
        assert torch.equal(captured(torch.ones(size)), torch.full((size,), 2.0))
    assert Traced.count == graphs.MOST


def test_nothing_is_captured_with_gradients():
    captured = graphs.Graphed(lambda z: z.square(), traced)
    z = torch.ones(2, requires_grad=True)
    for _ in range(3):
        captured(z).sum().backward()
    assert Traced.count == 0
    assert torch.equal(z.grad, 6 * torch.ones(2))


@torch.no_grad()
def test_what_is_called_back_is_called_each_time():
    seen = []
    captured = graphs.Graphed(lambda z, probe: probe(z) or z, traced)
    for _ in range(4):
        captured(torch.ones(1), seen.append)
    assert len(seen) == 4 and Traced.count == 0


@torch.no_grad()
def test_the_kernels_of_what_is_replayed_are_told():
    captured = graphs.Graphed(lambda q: attention.attend(q, q, q), traced)
    used = []
    for _ in range(4):
        with attention.kernel("auto") as kernels:
            captured(torch.randn(1, 2, 4, 8))
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


NETWORKS = [dit, fit, unet]


class _OnDevice(TorchDispatchMode):
    """Refuses what can't be captured: numbers that come from the CPU, or go to it. (On the meta
    device, which has no numbers, torch itself refuses to give any.)"""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        found = [x for x in tree_iter((args, kwargs, out)) if isinstance(x, torch.Tensor)]
        assert {x.device.type for x in found} <= {"meta"}, func
        return out


@pytest.mark.parametrize("made", NETWORKS)
@torch.no_grad()
def test_networks_can_be_captured(made):
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
def test_a_captured_network_computes_what_it_computed(made, monkeypatch):
    torch.manual_seed(0)
    network, shape, told = made()
    network = network.eval()
    for p in network.parameters():
        p.add_(0.1 * torch.randn_like(p))
    calls = [(torch.randn(shape), torch.rand(shape[0])) for _ in range(4)]
    plain = [network(*call, **told) for call in calls]
    monkeypatch.setattr(graphs, "OnCuda", lambda: traced)
    assert graphs.graphed(graphs.graphed(network)) is network
    assert_same([network(*call, **told) for call in calls], plain)
    assert Traced.count == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.no_grad()
def test_graphs_on_cuda():
    """Three networks by turn, each of two sizes of batches, many times."""
    torch.manual_seed(0)
    plain, captured, cases = [], [], []
    for made in NETWORKS:
        network, shape, told = made()
        network = network.eval().cuda()
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
        told = {k: x.cuda() for k, x in told.items()}
        for size in (2, 1):
            cases.append((network, shape, {k: x[:size] for k, x in told.items()}, size))
    calls = [
        (network, torch.randn(size, *shape[1:]).cuda(), torch.rand(size).cuda(), told)
        for _ in range(6)
        for network, shape, told, size in cases
    ]
    for found in (plain, captured):
        found += [network(z, t, **told) for network, z, t, told in calls]
        for network, *_ in cases:
            graphs.graphed(network)
    assert_same(captured, plain)


def assert_same(found, expected):
    for a, b in zip(tree_iter(found), tree_iter(expected), strict=True):
        torch.testing.assert_close(a, b)
