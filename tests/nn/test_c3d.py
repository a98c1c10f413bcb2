"""C3D against a forward pass from another layout's names."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vidgen.nn.c3d import C3D, KEYS, from_native, to_native


def small() -> C3D:
    torch.manual_seed(0)
    net = C3D(7, widths=(4, 4, 6, 6, 8), hidden=12)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3)
    return net.eval().requires_grad_(False)


def _plain(theirs: dict[str, Tensor], x: Tensor) -> Tensor:
    """From Chainer's names; pools as reshaping, the last one padded from 7 to 8."""

    def conv(x: Tensor, name: str) -> Tensor:
        w, b = theirs[f"{name}/W"], theirs[f"{name}/b"]
        x = F.pad(x, (1,) * 6)
        columns = x.unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1)  # b c t h w 3 3 3
        out = torch.einsum("bcthwijk,ocijk->bothw", columns, w) + b.view(-1, 1, 1, 1)
        return out.clamp(min=0)

    def halved(x: Tensor, time: int) -> Tensor:
        x = F.pad(x, (0, x.shape[4] % 2, 0, x.shape[3] % 2), value=-torch.inf)
        b, c, t, h, w = x.shape
        return x.view(b, c, t // time, time, h // 2, 2, w // 2, 2).amax(dim=(3, 5, 7))

    x = halved(conv(x, "conv1a"), 1)
    x = halved(conv(x, "conv2a"), 2)
    for n in (3, 4, 5):
        x = halved(conv(conv(x, f"conv{n}a"), f"conv{n}b"), 2)
    x = x.reshape(len(x), -1)
    for n in (6, 7, 8):
        x = x @ theirs[f"fc{n}/W"].T + theirs[f"fc{n}/b"]
        x = x.clamp(min=0) if n < 8 else x
    return x


def test_logits_are_those_of_a_plain_forward() -> None:
    net = small()
    x = torch.randn(2, 3, 16, 112, 112, generator=torch.Generator().manual_seed(1))
    made = net(x)
    expected = _plain(from_native(net.state_dict(), "chainer"), x)
    assert made.shape == (2, 7) and (made[0] - made[1]).abs().max() > 1e-3
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made, torch.cat([net(one[None]) for one in x]), atol=1e-5, rtol=1e-4)


def test_published_sizes() -> None:
    with torch.device("meta"):
        net = C3D()
        assert net(torch.empty(3, 3, 16, 112, 112)).shape == (3, 101)
        for shape in ((1, 3, 15, 112, 112), (1, 3, 16, 112, 128)):
            with pytest.raises(ValueError, match="16 frames of 112"):
                net(torch.empty(shape))
    convolutions = sum(p.numel() for n, p in net.named_parameters() if n.startswith("conv"))
    assert convolutions == 27_655_936  # as of every C3D
    assert net.fc6.weight.shape == (4096, 8192)
    assert sum(p.numel() for p in net.parameters()) == 78_409_573
    assert len(net.state_dict()) == 22
    assert set(KEYS["torch"]) == set(net.state_dict())


@pytest.mark.parametrize("layout", ["torch", "chainer"])
def test_state_dicts_there_and_back(layout) -> None:
    net = small()
    found, ours = to_native(from_native(net.state_dict(), layout), net)
    assert found == layout
    assert all(torch.equal(ours[name], x) for name, x in net.state_dict().items())


def test_what_is_wrong_is_named() -> None:
    net = small()
    theirs = from_native(net.state_dict(), "chainer")
    missing = {name: x for name, x in theirs.items() if name != "fc7/b"}
    with pytest.raises(ValueError, match=r"lacks `fc7/b` \(12\)"):
        to_native(missing, net)
    with pytest.raises(ValueError, match=r"holds `x/y` \(2\) besides"):
        to_native({**theirs, "x/y": torch.zeros(2)}, net)
    with pytest.raises(ValueError, match=r"`fc8/W` \(487×12\).*should be 7×12"):
        to_native({**theirs, "fc8/W": torch.zeros(487, 12)}, net)
    with pytest.raises(ValueError, match="no layout of C3D"):
        to_native({"backbone.conv1.weight": torch.zeros(2)}, net)
