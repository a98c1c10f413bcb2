"""I3D, the network whose logits FVD compares: Inception-v1 with its kernels inflated over time.

Carreira & Zisserman 2017 (arXiv 1705.07750), trained on Kinetics-400. Parameters are named as in
the port of piergiaj (`Mixed_3b.b1a.conv3d.weight`); `i3d_keys` has the other layouts' names.

Two numbers are not in a file of weights and differ between the ports that FVD is computed with:
the epsilon of the norms, and how a pool over an odd number of frames is aligned. Both are
arguments; `vidgen.metrics.extractors` says which belong to which protocol.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 400
DIM = 1024  # of the pooled features
SIZE = 224  # pixels of a side
MIN_FRAMES = 9  # fewer leave less than the two steps that the last pool averages

# Published inputs → outputs: b0; b1a, b1b; b2a, b2b; b3b.
MIXED: dict[str, tuple[int, tuple[int, int, int, int, int, int]]] = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
Pools = Literal["tensorflow", "hassony2"]
Sizes = tuple[int, int, int]  # of time, height, width


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """What TensorFlow's "SAME" puts before and after an axis; the smaller half comes first."""
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


def pool(x: Tensor, kernel: Sizes, stride: Sizes, pools: Pools = "tensorflow") -> Tensor:
    """Max pool with "SAME" padding, of what is nowhere negative.

    `hassony2`: that port pads time as if its length were even, so that windows over an odd number
    of steps begin one step later than TensorFlow's. Equal for 16, 32, 64 … frames.
    """
    fronts = [same_padding(n, k, s)[0] for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    late = pools == "hassony2" and x.shape[2] % stride[0] != 0
    if late:
        x = F.pad(x, (0, 0, 0, 0, 0, max(kernel[0] - stride[0], 0)))
        fronts[0] = 0
    # Rounding up makes room for what is padded behind.
    return F.max_pool3d(x, kernel, stride, padding=tuple(fronts), ceil_mode=True)


class Norm(nn.Module):
    """Batch norm with the statistics it was trained to: there is no training mode."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight, self.bias = (nn.Parameter(f(width)) for f in (torch.ones, torch.zeros))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.epsilon
        )


class Unit(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(
        self, width_in: int, width: int, kernel: int, epsilon: float, stride: int = 1
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(width_in, width, kernel, stride, bias=False)
        self.bn = Norm(width, epsilon)

    def forward(self, x: Tensor) -> Tensor:
        pads = [same_padding(n, self.kernel, self.stride) for n in x.shape[2:]]
        if all(front == back for front, back in pads):
            padding = tuple(front for front, _ in pads)
            x = F.conv3d(x, self.conv3d.weight, stride=self.stride, padding=padding)
        else:
            x = self.conv3d(F.pad(x, [p for pair in reversed(pads) for p in pair]))
        return F.relu(self.bn(x), inplace=True)


class Mixed(nn.Module):
    """Four branches side by side: 1; 1, 3; 1, 3; a pool, 1."""

    def __init__(self, width_in: int, widths: tuple[int, ...], epsilon: float) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = Unit(width_in, b0, 1, epsilon)
        self.b1a, self.b1b = Unit(width_in, b1a, 1, epsilon), Unit(b1a, b1b, 3, epsilon)
        self.b2a, self.b2b = Unit(width_in, b2a, 1, epsilon), Unit(b2a, b2b, 3, epsilon)
        self.b3b = Unit(width_in, b3b, 1, epsilon)

    def forward(self, x: Tensor) -> Tensor:
        last = self.b3b(pool(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat((self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), last), dim=1)


class Head(nn.Module):
    """The layer that makes logits: a 1×1×1 convolution, as files hold it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(DIM, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.conv3d.weight.flatten(1), self.conv3d.bias)


class I3D(nn.Module):
    """Frames `b 3 t 224 224` in −1 … 1, t ≥ 9 → logits `b classes`, before any softmax."""

    def __init__(
        self, classes: int = CLASSES, *, epsilon: float = 1e-3, pools: Pools = "tensorflow"
    ) -> None:
        super().__init__()
        self.pools = pools
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, epsilon, stride=2)
        self.Conv3d_2b_1x1 = Unit(64, 64, 1, epsilon)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3, epsilon)
        for name, (width_in, widths) in MIXED.items():
            self.add_module(name, Mixed(width_in, widths, epsilon))
        self.logits = Head(classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.pooled(x))

    def pooled(self, x: Tensor) -> Tensor:
        """`b 1024`: the mean over steps of two neighboring times. The logits are linear in it, so
        this is the same as the mean of each step's logits."""
        if x.shape[2] < MIN_FRAMES or tuple(x.shape[3:]) != (SIZE, SIZE):
            t, h, w = x.shape[2:]
            raise ValueError(f"{t} × {h} × {w}; I3D takes {MIN_FRAMES} frames or more of {SIZE}")
        return F.avg_pool3d(self.cells(x), (2, 7, 7), stride=1).mean(dim=(2, 3, 4))

    def cells(self, x: Tensor) -> Tensor:
        """What the last block makes: `b 1024 t/8 h/32 w/32`, rounded up."""
        x = pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in MIXED:
            if name == "Mixed_4b":
                x = pool(x, (3, 3, 3), (2, 2, 2), self.pools)
            if name == "Mixed_5b":
                x = pool(x, (2, 2, 2), (2, 2, 2))
            x = getattr(self, name)(x)
        return x
