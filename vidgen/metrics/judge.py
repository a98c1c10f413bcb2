"""A judge that looks at pixels alone and says what a clip of the world shows.

Convolutions read each of five frames; the frames' features are joined cell by cell, and attention
lets every cell know of all others, so that a camera's motion can be told from an object's. As in
CenterNet (Zhou et al. 2019), an object is a peak in a heat map, over its center halfway through
the clip, and its factors and where it was at the start are read off at the peak. Ground and camera
belong to the whole picture.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidgen.errors import InputError
from vidgen.io.weights import load_safetensors
from vidgen.nn.attention import SelfAttention
from vidgen.nn.pixels import from_uint8
from vidgen.world.vocabulary import BASIC, FULL

SHIPPED = Path(__file__).parent / "judges"  # a folder for each level of the world
FRAMES = 5
TIMES = (0.0, 0.5, 1.0, 1.5, 2.0)  # seconds of the frames that it is trained on
HEIGHT, WIDTH = 40, 64
BATCH = 32  # clips that are made and judged at a time, where many are
STRIDE = 4  # pixels from cell to cell
OBJECT_FACTORS = ("shape", "color", "motion")
CLIP_FACTORS = ("ground", "camera")
LEVELS = {"basic": BASIC, "full": FULL}
PRESENT = 0.3  # heat from which a further peak is an object


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Sizes of a `WorldJudge`."""

    level: str = "basic"  # of the world: which values there are
    widths: tuple[int, int] = (48, 96)  # of the convolutions, at half and quarter size
    dim: int = 192
    depth: int = 3
    heads: int = 6

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # JSON has lists

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class Seen:
    """One object: its place halfway through the clip (shares of the picture's width and height),
    where it is at the start (share of the width, log meters from the camera), as relations are said
    of it, and for each factor the values' probabilities."""

    x: float
    y: float
    start_x: float
    start_log_depth: float
    heat: float
    factors: dict[str, dict[str, float]]

    def said(self, factor: str) -> str:
        """The likeliest value."""
        return likeliest(self.factors[factor])


@dataclass(frozen=True)
class Verdict:
    """What a clip shows: ground and camera with their probabilities, objects by heat."""

    ground: dict[str, float]
    camera: dict[str, float]
    objects: tuple[Seen, ...]


def likeliest(odds: dict[str, float]) -> str:
    return max(odds, key=odds.__getitem__)


class ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class Block(nn.Module):
    """Attention of all cells and the clip's token to each other, and an MLP."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"{heads} heads don't divide a width of {dim}")
        self.norm1, self.attn = nn.LayerNorm(dim), SelfAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class WorldJudge(nn.Module):
    """Frames `b 5 3 40 64` in −1 … 1 → logits on a grid of 10 × 16 cells, and of the clip."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        self.values = LEVELS[config.level]
        narrow, wide = config.widths
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, narrow, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(narrow, wide, 3, stride=2, padding=1),
            ResBlock(wide),
        )
        self.join = nn.Linear(FRAMES * wide, config.dim)
        cells = (HEIGHT // STRIDE) * (WIDTH // STRIDE)
        self.places = nn.Parameter(0.02 * torch.randn(cells + 1, config.dim))  # last: the clip
        self.blocks = nn.ModuleList(Block(config.dim, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)
        self.heat = nn.Linear(config.dim, 1)
        nn.init.constant_(self.heat.bias, -4.0)  # almost every cell is empty
        self.start = nn.Linear(config.dim, 2)  # share of the width, log depth
        self.heads = nn.ModuleDict(
            {name: nn.Linear(config.dim, len(values)) for name, values in self.values.items()}
        )

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """heat `b n`; start `b n 2`; shape, color, motion `b n values`; ground, camera `b values`;
        n = 160 cells, row by row."""
        b = len(frames)
        x = rearrange(frames, "b t c h w -> (b t) c h w").to(memory_format=torch.channels_last)
        x = rearrange(self.stem(x), "(b t) c h w -> b (h w) (t c)", b=b)
        x = self.join(x)
        clip = self.places[-1:].expand(b, 1, -1).to(x.dtype)
        x = torch.cat((x + self.places[:-1].to(x.dtype), clip), dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        cells, clip = x[:, :-1], x[:, -1]
        return {
            "heat": self.heat(cells).squeeze(-1),
            "start": self.start(cells),
            **{name: self.heads[name](cells) for name in OBJECT_FACTORS},
            **{name: self.heads[name](clip) for name in CLIP_FACTORS},
        }

    @torch.no_grad()
    def judge(self, frames: Tensor) -> list[Verdict]:
        """Clips `b 5 40 64 3` uint8, as `prepared` makes them → what each shows."""
        device = self.places.device
        out = {k: x.float().cpu() for k, x in self(normalized(frames).to(device)).items()}
        heat = out["heat"].sigmoid()
        odds = {name: out[name].softmax(dim=-1) for name in self.values}
        verdicts = []
        for i in range(len(frames)):
            seen = [
                Seen(
                    *_place(heat[i], cell),
                    float(out["start"][i, cell, 0]),
                    float(out["start"][i, cell, 1]),
                    float(heat[i, cell]),
                    {name: self._named(name, odds[name][i, cell]) for name in OBJECT_FACTORS},
                )
                for cell in peaks(heat[i], 1 if self.config.level == "basic" else 3)
            ]
            ground, camera = (self._named(name, odds[name][i]) for name in CLIP_FACTORS)
            verdicts.append(Verdict(ground, camera, tuple(seen)))
        return verdicts

    def _named(self, factor: str, odds: Tensor) -> dict[str, float]:
        return dict(zip(self.values[factor], odds.tolist(), strict=True))


def peaks(heat: Tensor, most: int) -> list[int]:
    """Cells `n` that are hotter than their neighbors: the hottest always, others if hot enough."""
    grid = heat.view(1, 1, HEIGHT // STRIDE, WIDTH // STRIDE)
    top = F.max_pool2d(grid, 3, stride=1, padding=1) == grid
    order = torch.where(top.view(-1), heat, -1).argsort(descending=True)[:most].tolist()
    return [c for rank, c in enumerate(order) if rank == 0 or heat[c] >= PRESENT]


def _place(heat: Tensor, cell: int) -> tuple[float, float]:
    """Where the middle of the heat around a cell is, in shares of the picture."""
    rows, columns = HEIGHT // STRIDE, WIDTH // STRIDE
    grid = heat.view(rows, columns)
    row, column = divmod(cell, columns)
    around = [
        (r, c)
        for r in range(max(0, row - 1), min(rows, row + 2))
        for c in range(max(0, column - 1), min(columns, column + 2))
    ]
    total = sum(float(grid[r, c]) for r, c in around)
    x = sum(float(grid[r, c]) * (c + 0.5) for r, c in around) / total
    y = sum(float(grid[r, c]) * (r + 0.5) for r, c in around) / total
    return x / columns, y / rows


def normalized(frames: Tensor) -> Tensor:
    """uint8 `… t h w 3` → float32 `… t 3 h w` in −1 … 1."""
    return from_uint8(rearrange(frames, "... t h w c -> ... t c h w"))


def prepared(frames: Tensor) -> Tensor:
    """Any clip, uint8 `t h w 3` → what the judge looks at: five frames, first and last among them,
    of 40 × 64, anti-aliased; another aspect is squeezed. Raises InputError for what is no such clip
    and for fewer than five frames: motion needs them."""
    if frames.dtype != torch.uint8 or frames.shape[3:] != (3,) or not all(frames.shape[1:]):
        said = f"{str(frames.dtype).removeprefix('torch.')} {list(frames.shape)}"
        raise InputError(f"frames are {said}, not uint8 [T, H, W, 3]")
    if len(frames) < FRAMES:
        raise InputError(
            f"{len(frames)} frames, and the judge looks at {FRAMES}",
            why="motion is seen from several moments",
        )
    chosen = torch.linspace(0, len(frames) - 1, FRAMES).round().long()
    x = rearrange(frames[chosen].float(), "t h w c -> t c h w")
    if x.shape[-2:] != (HEIGHT, WIDTH):
        x = F.interpolate(x, (HEIGHT, WIDTH), mode="bilinear", antialias=True)
    return rearrange(x.round().clamp(0, 255).to(torch.uint8), "t c h w -> t h w c")


def squeezed(frames: Tensor) -> bool:
    """Whether `prepared` changes the aspect of a clip `t h w 3`, by more than a row of it."""
    height, width = frames.shape[1:3]
    return abs(height - width * HEIGHT / WIDTH) > 1


def load_judge(folder: Path, device: str | torch.device = "cpu") -> WorldJudge:
    """The judge in a folder of `config.json` and safetensors weights. InputError if it is not
    one."""
    state = load_safetensors(folder / "model.safetensors")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict) or config.pop("_class_name", None) != "WorldJudge":
            raise ValueError("its config.json is not that of a WorldJudge")
        judge = WorldJudge(JudgeConfig(**config))
        judge.load_state_dict(state)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, ArithmeticError) as error:
        raise InputError(f"{folder}: not a judge", why=str(error).splitlines()[0]) from None
    return judge.float().eval().requires_grad_(False).to(device)
