"""The three networks that LPIPS looks through, up to the last layer it taps: AlexNet (Krizhevsky
2014), VGG16 (Simonyan & Zisserman 2015) and SqueezeNet 1.1 (Iandola et al. 2016), with the tensor
names of torchvision's weight files: `features.0.weight` and so on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vidgen.nn.meta import on_meta


class Backbone(nn.Module):
    """Layers one after the other, some of them tapped.

    taps      index of each tapped layer
    channels  of what is tapped, in the same order
    smallest  side of a picture in pixels that leaves a pixel at every tap
    """

    def __init__(
        self, layers: list[nn.Module], taps: tuple[int, ...], channels: tuple[int, ...],
        smallest: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.taps, self.channels, self.smallest = taps, channels, smallest

    def forward(self, x: Tensor) -> list[Tensor]:
        """`n 3 h w` → what each tap sees, `n c h w` each."""
        seen = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                seen.append(x)
        return seen


class Fire(nn.Module):
    """A 1 × 1 convolution to few channels, then 1 × 1 and 3 × 3 side by side, all rectified."""

    def __init__(self, dim: int, few: int, each: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(dim, few, 1)
        self.expand1x1 = nn.Conv2d(few, each, 1)
        self.expand3x3 = nn.Conv2d(few, each, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], dim=1)


def alex() -> Backbone:
    layers = [
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip
    return Backbone(layers, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256), smallest=31)


def vgg() -> Backbone:
    layers: list[nn.Module] = []
    taps, dim = [], 3
    for depth, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        if layers:
            layers.append(nn.MaxPool2d(2))
        for _ in range(depth):
            layers += [nn.Conv2d(dim, width, 3, padding=1), nn.ReLU()]
            dim = width
        taps.append(len(layers) - 1)
    return Backbone(layers, tuple(taps), (64, 128, 256, 512, 512), smallest=16)


def squeeze() -> Backbone:
    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    layers = [
        nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), pool(),
        Fire(64, 16, 64), Fire(128, 16, 64), pool(),
        Fire(128, 32, 128), Fire(256, 32, 128), pool(),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    ]  # fmt: skip
    taps, channels = (1, 4, 7, 9, 10, 11, 12), (64, 128, 256, 384, 384, 512, 512)
    return Backbone(layers, taps, channels, smallest=17)


BACKBONES = {"alex": alex, "vgg": vgg, "squeeze": squeeze}


def name_of(tensors: Mapping[str, Tensor]) -> str | None:
    """Which of the three a torchvision state dict is, by names and shapes; None for another."""
    found = {k: tuple(v.shape) for k, v in tensors.items() if k.startswith("features.")}
    for name, make in BACKBONES.items():
        with on_meta():
            expected = {k: tuple(v.shape) for k, v in make().state_dict().items()}
        if found == expected:
            return name
    return None
