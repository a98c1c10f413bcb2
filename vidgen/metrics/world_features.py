"""Features of clips by a small network that knows the procedural world: FVD with nothing to
download.

It looks at 16 frames of 40 × 64, sampled evenly over a clip's duration. Convolutions read every
frame together with what changed since the one before it, and mix neighboring frames; the frames'
summaries then attend to each other. What it was trained on, and what its features are worth:
`features/world/README.md`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.errors import InputError
from vidgen.io.weights import load_safetensors, sha256
from vidgen.metrics.judge import Block, normalized

SHIPPED = Path(__file__).parent / "features" / "world"
FRAMES = 16
HEIGHT, WIDTH = 40, 64
BATCH = 32  # clips that go through the network at a time


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """Sizes of a `FeatureNetwork`."""

    widths: tuple[int, int, int] = (16, 32, 64)  # at half, quarter and eighth size
    layout: int = 16  # channels of the eighth size that keep their places
    dim: int = 128  # of a frame's summary
    depth: int = 2
    heads: int = 4
    features: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # JSON has lists

    def to_dict(self) -> dict:
        return asdict(self)


class Mix(nn.Module):
    """A residual convolution, of which a quarter of the channels comes from the frame before and
    a quarter from the one after (a temporal shift, Lin et al. 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = rearrange(F.silu(self.norm(x)), "(b t) c h w -> b t h w c", t=FRAMES)
        k = h.shape[-1] // 4
        before = torch.cat((h[:, :1, ..., :k], h[:, :-1, ..., :k]), dim=1)
        after = torch.cat((h[:, 1:, ..., k : 2 * k], h[:, -1:, ..., k : 2 * k]), dim=1)
        h = torch.cat((before, after, h[..., 2 * k :]), dim=-1)
        return x + self.conv(rearrange(h, "b t h w c -> (b t) c h w"))


class FeatureNetwork(nn.Module):
    """Frames `b 16 3 40 64` in −1 … 1 → features `b d`."""

    def __init__(self, config: FeaturesConfig) -> None:
        super().__init__()
        self.config = config
        half, quarter, eighth = config.widths
        self.convolutions = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(24, half, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(half, quarter, 3, stride=2, padding=1),
            Mix(quarter),
            Mix(quarter),
            nn.Conv2d(quarter, eighth, 3, stride=2, padding=1),
            Mix(eighth),
            Mix(eighth),
            Mix(eighth),
        )
        self.layout = nn.Conv2d(eighth, config.layout, 1)
        cells = (HEIGHT // 8) * (WIDTH // 8)
        self.summary = nn.Linear(config.layout * cells + 3 * eighth, config.dim)
        self.moments = nn.Parameter(0.02 * torch.randn(FRAMES, config.dim))
        self.blocks = nn.ModuleList(Block(config.dim, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)
        self.out = nn.Linear(2 * config.dim, config.features)

    def forward(self, frames: Tensor) -> Tensor:
        unshuffle, rest = self.convolutions[0], self.convolutions[1:]
        x = unshuffle(frames.flatten(0, 1)).unflatten(0, (-1, FRAMES))  # first: less to move
        change = x - torch.cat((x[:, :1], x[:, :-1]), dim=1)
        x = torch.cat((x, 2 * change), dim=2).flatten(0, 1)
        x = rest(x.contiguous(memory_format=torch.channels_last))
        spread = (x.float().var(dim=(2, 3), correction=0) + 1e-4).sqrt()
        cells = x.mean(dim=(2, 3)), x.amax(dim=(2, 3)), spread.to(x.dtype)
        parts = (self.layout(x).flatten(1), *cells)
        x = rearrange(self.summary(torch.cat(parts, dim=1)), "(b t) d -> b t d", t=FRAMES)
        x = x + self.moments.to(x.dtype)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x.float())
        spread = (x.var(dim=1, correction=0) + 1e-4).sqrt()
        return self.out(torch.cat((x.mean(dim=1), spread), dim=1))


def prepared(clips: Tensor) -> Tensor:
    """Clips uint8 `b t h w 3` → what the network looks at: 16 frames, first and last among them, of
    40 × 64, anti-aliased; another aspect is squeezed. InputError for fewer frames."""
    if clips.dtype != torch.uint8 or clips.ndim != 5 or clips.shape[4] != 3 or not clips.numel():
        said = f"{str(clips.dtype).removeprefix('torch.')} {list(clips.shape)}"
        raise InputError(f"clips are {said}, not uint8 [B, T, H, W, 3]")
    if clips.shape[1] < FRAMES:
        raise InputError(
            f"{clips.shape[1]} frames, and the features `world` need {FRAMES}",
            why="a frame shown twice would look like a video that stutters",
        )
    x = clips
    if clips.shape[1] > FRAMES:
        x = clips[:, torch.linspace(0, clips.shape[1] - 1, FRAMES).round().long()]
    if x.shape[2:4] == (HEIGHT, WIDTH):
        return x
    # Planes of their own: resizing interleaved ones takes twice as long.
    planes = rearrange(x, "b t h w c -> (b t c) 1 h w").float()
    planes = F.interpolate(planes, (HEIGHT, WIDTH), mode="bilinear", antialias=True)
    planes = planes.round().clamp(0, 255).to(torch.uint8)
    return rearrange(planes, "(b t c) 1 h w -> b t h w c", t=FRAMES, c=3)


class WorldFeatures:
    """The network as an extractor: uint8 `b t h w 3` → float32 `b d` on the CPU."""

    name = "world"
    min_frames = FRAMES

    def __init__(self, network: FeatureNetwork, digest: str, device: torch.device) -> None:
        self.network, self.sha256, self.device = network, digest, device
        self.dim = network.config.features
        self.by_threads = device.type == "cpu"  # a batch each: pays, with a network this small
        self.settings: dict[str, Any] = {
            "extractor": self.name,
            "layer": "before the heads of training",
            "weights_sha256": digest,
            "preprocessing": f"{FRAMES} frames evenly from first to last; {HEIGHT} × {WIDTH} "
            "straight, bilinear, antialiased, rounded to 8 bits; 2x/255 − 1",
        }

    @torch.no_grad()
    def __call__(self, clips: Tensor) -> Tensor:
        parts = clips.split(BATCH)
        found = [self.network(normalized(prepared(part).to(self.device))) for part in parts]
        return torch.cat(found).float().cpu()


def load_network(folder: Path) -> FeatureNetwork:
    """The network in a folder of `config.json` and safetensors weights. InputError if it is not
    one."""
    state = load_safetensors(folder / "model.safetensors")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict) or config.pop("_class_name", None) != "FeatureNetwork":
            raise ValueError("its config.json is not that of a FeatureNetwork")
        network = FeatureNetwork(FeaturesConfig(**config))
        network.load_state_dict(state)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, ArithmeticError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"{folder}: not a network of features", why=why) from None
    return network.float().eval().requires_grad_(False)


def load(device: torch.device | str = "cpu", folder: Path = SHIPPED) -> WorldFeatures:
    """The shipped extractor, or one that `vidgen train world-features` made."""
    network = load_network(folder)
    device = torch.device(device)
    return WorldFeatures(network.to(device), sha256(folder / "model.safetensors"), device)
