"""I3D against a forward pass written another way, and its tensors against the published counts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vidgen.nn.i3d import I3D, MIXED, pool, same_padding
from vidgen.nn.i3d_keys import KEYS, UNITS, from_native, to_native


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Random weights that keep activations at their size, with norms that do something."""
    torch.manual_seed(0)
    made = I3D().state_dict()
    for name, x in made.items():
        if x.ndim == 5:
            x.normal_(std=(2 / x[0].numel()) ** 0.5)
        elif name.endswith(("bn.weight", "running_var")):
            x.uniform_(0.5, 1.5)
        else:
            x.normal_(std=0.1)
    return made


def _net(state: dict[str, Tensor], **settings) -> I3D:
    net = I3D(**settings)
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


LENGTHS = (*range(9, 18), 24, 25, 31, 32, 33, 47, 48, 63, 64, 81)


# A forward pass from the names of the other port, with padding as TensorFlow's documentation says
# it (from the size of the output) or as that port does it.


def _padded(x: Tensor, kernel: tuple, stride: tuple, value: float, ported: bool) -> Tensor:
    pads: list[int] = []
    for n, k, s in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        total = max(k - s, 0) if ported else max((-(-n // s) - 1) * s + k - n, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


def _max(x: Tensor, kernel: tuple, stride: tuple, ported: bool) -> Tensor:
    x = _padded(x, kernel, stride, 0.0 if ported else -torch.inf, ported)
    return F.max_pool3d(x, kernel, stride, ceil_mode=ported)


def _plain(theirs: dict[str, Tensor], x: Tensor, epsilon: float, ported: bool) -> Tensor:
    def unit(x: Tensor, name: str, stride: int = 1) -> Tensor:
        w = theirs[f"{name}.conv3d.weight"]
        x = F.conv3d(_padded(x, w.shape[2:], (stride,) * 3, 0.0, False), w, stride=stride)
        scale, shift, mean, var = (
            theirs[f"{name}.batch3d.{part}"].view(-1, 1, 1, 1)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return ((x - mean) / (var + epsilon).sqrt() * scale + shift).clamp(min=0)

    def mixed(x: Tensor, name: str) -> Tensor:
        branches = [unit(x, f"{name}.branch_0")]
        for i in (1, 2):
            branches.append(unit(unit(x, f"{name}.branch_{i}.0"), f"{name}.branch_{i}.1"))
        branches.append(unit(_max(x, (3, 3, 3), (1, 1, 1), ported), f"{name}.branch_3.1"))
        return torch.cat(branches, dim=1)

    x = _max(unit(x, "conv3d_1a_7x7", 2), (1, 3, 3), (1, 2, 2), ported)
    x = unit(unit(x, "conv3d_2b_1x1"), "conv3d_2c_3x3")
    x = mixed(mixed(_max(x, (1, 3, 3), (1, 2, 2), ported), "mixed_3b"), "mixed_3c")
    x = _max(x, (3, 3, 3), (2, 2, 2), ported)
    for letter in "bcdef":
        x = mixed(x, f"mixed_4{letter}")
    x = _max(x, (2, 2, 2), (2, 2, 2), ported)
    return mixed(mixed(x, "mixed_5b"), "mixed_5c")


def _plain_logits(theirs: dict[str, Tensor], cells: Tensor) -> Tensor:
    steps = F.avg_pool3d(cells, (2, 7, 7), (1, 1, 1))
    w, b = (theirs[f"conv3d_0c_1x1.conv3d.{part}"] for part in ("weight", "bias"))
    return F.conv3d(steps, w, b).squeeze(3).squeeze(3).mean(2)


@pytest.mark.parametrize(
    ("t", "epsilon", "pools"),
    [
        (16, 1e-3, "tensorflow"),
        (9, 1e-5, "tensorflow"),
        (9, 1e-3, "hassony2"),
        (30, 1e-3, "hassony2"),
    ],
)
def test_cells_are_those_of_a_plain_forward(
    state: dict[str, Tensor], t: int, epsilon: float, pools
) -> None:
    x = torch.randn(1, 3, t, 32, 32, generator=torch.Generator().manual_seed(t))
    made = _net(state, epsilon=epsilon, pools=pools).cells(x)
    theirs = from_native(state, "hassony2")
    expected = _plain(theirs, x, epsilon, pools == "hassony2")
    torch.testing.assert_close(made, expected, atol=2e-4, rtol=1e-4)
    assert expected.std() > 0.05  # nothing has died on the way


def test_logits_are_those_of_a_plain_forward(state: dict[str, Tensor]) -> None:
    x = torch.randn(1, 3, 9, 224, 224, generator=torch.Generator().manual_seed(9))
    net = _net(state)
    cells = net.cells(x)
    net.cells = lambda x: cells  # type: ignore[method-assign]
    expected = _plain_logits(from_native(state, "hassony2"), cells)
    torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-4)
    assert cells.shape == (1, 1024, 2, 7, 7)


def test_several_steps_are_averaged(state: dict[str, Tensor]) -> None:
    cells = torch.randn(2, 1024, 8, 7, 7)  # of 64 frames
    net = _net(state)
    net.cells = lambda x: cells  # type: ignore[method-assign]
    made = net(torch.empty(2, 3, 64, 224, 224, device="meta"))
    expected = _plain_logits(from_native(state, "hassony2"), cells)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-4)


def test_epsilon_and_pools_change_what_comes_out(state: dict[str, Tensor]) -> None:
    x = torch.randn(1, 3, 9, 32, 32, generator=torch.Generator().manual_seed(0))
    base = _net(state).cells(x)
    for settings in ({"epsilon": 1e-5}, {"pools": "hassony2"}):
        assert (_net(state, **settings).cells(x) - base).abs().max() > 1e-4
    even = torch.randn(1, 3, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_net(state).cells(even), _net(state, pools="hassony2").cells(even))


def test_a_batch_is_its_clips_one_by_one(state: dict[str, Tensor]) -> None:
    x = torch.randn(3, 3, 10, 48, 32, generator=torch.Generator().manual_seed(0))
    net = _net(state)
    singles = torch.cat([net.cells(one[None]) for one in x])
    torch.testing.assert_close(net.cells(x), singles, atol=1e-4, rtol=1e-4)
    mean = (2, 3, 4)
    torch.testing.assert_close(net.cells(x).mean(mean), singles.mean(mean), atol=1e-5, rtol=1e-4)


def test_shapes_for_every_length() -> None:
    with torch.device("meta"):
        nets = [I3D(pools="tensorflow"), I3D(pools="hassony2")]
        steps = {t: nets[t % 2].cells(torch.empty(1, 3, t, 224, 224)).shape for t in LENGTHS}
        for net, t in zip(nets, (9, 64), strict=True):
            x = torch.empty(2, 3, t, 224, 224)
            assert net(x).shape == (2, 400) and net.pooled(x).shape == (2, 1024)
    for t, shape in steps.items():
        assert shape == (1, 1024, (t + 7) // 8, 7, 7)  # three halvings, each rounded up
    assert [steps[t][2] for t in (9, 16, 17, 33, 64, 81)] == [2, 2, 3, 5, 8, 11]


@pytest.mark.parametrize("shape", [(1, 3, 8, 224, 224), (1, 3, 16, 112, 112), (1, 3, 16, 224, 256)])
def test_other_sizes_are_refused(shape: tuple[int, ...]) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="9 frames or more of 224"):
        I3D()(torch.empty(shape))


@pytest.mark.parametrize("k", range(1, 8))
@pytest.mark.parametrize("s", [1, 2])
def test_same_padding(k: int, s: int) -> None:
    for n in range(1, 20):
        front, back = same_padding(n, k, s)
        if n + front + back >= k:
            assert (n + front + back - k) // s + 1 == -(-n // s)
        assert 0 <= back - front <= 1


def test_pools_take_the_largest_that_is_there() -> None:
    x = torch.arange(1.0, 6).view(1, 1, 5, 1, 1)
    kernel, stride = (3, 1, 1), (2, 1, 1)
    assert pool(x, kernel, stride).flatten().tolist() == [2, 4, 5]  # windows −1…1, 1…3, 3…5
    assert pool(x, kernel, stride, "hassony2").flatten().tolist() == [3, 5, 5]  # 0…2, 2…4, 4…6
    even = x[:, :, :4]
    assert torch.equal(pool(even, kernel, stride), pool(even, kernel, stride, "hassony2"))


def test_published_counts() -> None:
    with torch.device("meta"):
        net = I3D()
    parameters = dict(net.named_parameters())
    convolutions = sum(p.numel() for p in parameters.values() if p.ndim == 5)
    assert sum(p.numel() for p in parameters.values()) == 12_697_264
    assert convolutions == 12_272_704 + 1024 * 400
    assert sum(p.numel() for n, p in parameters.items() if ".bn." in n) == 14_560
    assert len(net.state_dict()) == 287
    assert len(UNITS) == 57 == sum(n.endswith("running_var") for n in net.state_dict())
    assert set(KEYS["piergiaj"]) == set(net.state_dict())


@pytest.mark.parametrize("layout", ["piergiaj", "hassony2"])
def test_state_dicts_there_and_back(state: dict[str, Tensor], layout) -> None:
    theirs = from_native(state, layout)
    assert len(theirs) == 287
    counters = {f"{name}.num_batches_tracked": torch.tensor(0) for name in ("x", "y")}
    found, ours = to_native({**theirs, **counters})
    assert found == layout
    assert list(ours) == list(I3D().state_dict())
    assert all(torch.equal(ours[name], x) for name, x in state.items())


def test_names_of_the_layouts() -> None:
    """One of each kind, as the ports print them."""
    ours = ["Conv3d_1a_7x7.conv3d.weight", "Mixed_4f.b2b.bn.running_mean", "Mixed_3b.b3b.bn.bias"]
    ours += ["Mixed_5b.b2b.conv3d.weight", "Mixed_5c.b2b.conv3d.weight", "logits.conv3d.bias"]
    assert [KEYS["hassony2"][name] for name in ours] == [
        "conv3d_1a_7x7.conv3d.weight", "mixed_4f.branch_2.1.batch3d.running_mean",
        "mixed_3b.branch_3.1.batch3d.bias", "mixed_5b.branch_2.1.conv3d.weight",
        "mixed_5c.branch_2.1.conv3d.weight", "conv3d_0c_1x1.conv3d.bias",
    ]  # fmt: skip
    prefix = "RGB/inception_i3d/"
    assert [KEYS["tensorflow"][name].removeprefix(prefix) for name in ours] == [
        "Conv3d_1a_7x7/conv_3d/w", "Mixed_4f/Branch_2/Conv3d_0b_3x3/batch_norm/moving_mean",
        "Mixed_3b/Branch_3/Conv3d_0b_1x1/batch_norm/beta",
        "Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w", "Mixed_5c/Branch_2/Conv3d_0b_3x3/conv_3d/w",
        "Logits/Conv3d_0c_1x1/conv_3d/b",
    ]  # fmt: skip


def test_tensorflow_has_kernels_turned_and_no_scales(state: dict[str, Tensor]) -> None:
    unscaled = {n: torch.ones_like(x) if n.endswith("bn.weight") else x for n, x in state.items()}
    theirs = from_native(unscaled, "tensorflow")
    stem = theirs["RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w"]
    assert stem.shape == (7, 7, 7, 3, 64)
    assert stem[1, 2, 3, 0, 5] == state["Conv3d_1a_7x7.conv3d.weight"][5, 0, 1, 2, 3]
    found, ours = to_native({f"{name}:0": x for name, x in theirs.items()})
    assert found == "tensorflow"
    assert all(torch.equal(ours[name], x) for name, x in unscaled.items())
    with pytest.raises(ValueError, match="norms scale"):
        from_native(state, "tensorflow")


def test_what_is_wrong_is_named(state: dict[str, Tensor]) -> None:
    theirs = from_native(state, "hassony2")
    few = dict(list(theirs.items())[6:])
    with pytest.raises(
        ValueError, match=r"lacks `conv3d_1a_7x7\.conv3d\.weight` \(64×3×7×7×7\)"
    ) as e:
        to_native(few)
    assert str(e.value).count("`") == 10 and "and 1 more" in str(e.value)
    with pytest.raises(ValueError, match=r"holds `fc\.weight` \(2×3\) besides"):
        to_native({**theirs, "fc.weight": torch.zeros(2, 3)})
    flow = {**theirs, "conv3d_1a_7x7.conv3d.weight": torch.zeros(64, 2, 7, 7, 7)}
    with pytest.raises(ValueError, match=r"64×2×7×7×7.*should be 64×3×7×7×7"):
        to_native(flow)
    with pytest.raises(ValueError, match=r"`conv1\.weight` \(64×3\), which no layout of I3D has"):
        to_native({"conv1.weight": torch.zeros(64, 3)})
    with pytest.raises(ValueError, match="holds nothing"):
        to_native({})


def test_widths_of_the_blocks_follow_each_other() -> None:
    made = 192
    for width_in, (b0, _, b1b, _, b2b, b3b) in MIXED.values():
        assert width_in == made
        made = b0 + b1b + b2b + b3b
    assert made == 1024
