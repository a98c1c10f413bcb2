"""LPIPS v0.1: how far apart two pictures are as a network sees them (Zhang et al. 2018, Eq. 1).

The linear heads, which people's judgments trained, come with vidgen (lpips_heads/, with their
license); the network that they sit on, torchvision's AlexNet, VGG16 or SqueezeNet 1.1, does not.
"""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from vidgen.errors import InputError
from vidgen.io.weights import load_safetensors, sha256
from vidgen.metrics.fidelity import check_pair
from vidgen.metrics.state_file import read_state
from vidgen.nn.lpips_backbones import BACKBONES, Backbone, name_of
from vidgen.nn.meta import on_meta
from vidgen.nn.pixels import from_uint8

HEADS = Path(__file__).parent / "lpips_heads"
SHIFT = (-0.030, -0.088, -0.188)  # the scaling layer of v0.1, for pixels of −1 … 1
SCALE = (0.458, 0.448, 0.450)
EPS = 1e-10  # added to the length of a feature, as the reference does


class Lpips(nn.Module):
    """A backbone and its linear heads. `name`: alex, vgg or squeeze; `sha256`: of its weights."""

    shift: Tensor
    scale: Tensor

    def __init__(self, name: str, backbone: Backbone, sha256: str = "") -> None:
        super().__init__()
        self.name, self.backbone, self.sha256 = name, backbone, sha256
        self.heads = [  # `c 1 1` each, not negative
            weight[0]
            for _, weight in sorted(load_safetensors(HEADS / f"{name}.safetensors").items())
        ]
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.eval().requires_grad_(False)

    @property
    def smallest(self) -> int:
        """Pixels that a side must have."""
        return self.backbone.smallest

    @torch.no_grad()
    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        """Of each frame of two clips, uint8 `b t h w 3`: `b t`, lower is better. ValueError for
        frames with a side below `smallest`."""
        check_pair(made, true)
        if min(made.shape[2:4]) < self.smallest:
            raise ValueError(
                f"frames of {made.shape[2]} × {made.shape[3]}, sides are {self.smallest} or more"
            )
        device = self.shift.device
        with torch.backends.cudnn.flags(allow_tf32=False):  # it would leave three digits
            a, b = (self._seen(v.to(device)) for v in (made, true))
        total = torch.zeros(made.shape[0] * made.shape[1], device=device)
        for x, y, head in zip(a, b, self.heads, strict=True):
            apart = (x - y).square() * head.to(device)
            total = total + apart.sum(dim=1).mean(dim=(1, 2))
        return rearrange(total, "(b t) -> b t", b=made.shape[0])

    def _seen(self, clip: Tensor) -> list[Tensor]:
        """What each tap sees of `b t h w 3`, of length 1 at each place: `(b t) c h w`."""
        x = rearrange(from_uint8(clip), "b t h w c -> (b t) c h w")
        taps = self.backbone((x - self.shift) / self.scale)
        return [tap / (tap.square().sum(dim=1, keepdim=True).sqrt() + EPS) for tap in taps]


def load_lpips(path: str | Path) -> Lpips:
    """LPIPS on the backbone of a torchvision weight file (.pth or safetensors), which tells by its
    tensors which of the three it is. InputError for another file."""
    tensors = read_state(Path(path))
    name = name_of(tensors)
    if name is None:
        raise InputError(
            f"{path}: is no backbone of LPIPS",
            why="these are AlexNet, VGG16 and SqueezeNet 1.1, with torchvision's names:"
            " `features.0.weight` and so on",
            next="torchvision's alexnet-owt-7be5be79.pth is one",
        )
    with on_meta():
        backbone = BACKBONES[name]()
    features = {k: v.float() for k, v in tensors.items() if k.startswith("features.")}
    backbone.load_state_dict(features, assign=True)
    return Lpips(name, backbone, sha256(path))
