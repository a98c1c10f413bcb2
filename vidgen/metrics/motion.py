"""How things move: whether a clip moves as another does, how much, and how smoothly.

Fidelity compares tracks (Yatim et al. 2024; DiTFlow): each step of a track as a direction, two
tracks by the mean cosine of their steps, and each made track by its best source track. The best of
many is lenient: where a scene has motion of all ways, as in an orbit, some source track goes along
with anything. `by_place` takes the source track that begins at the same point instead. Published
code has three faults, which `ditflow` keeps for comparison and `fidelity` doesn't: an identity
matrix is subtracted, so that no track may match the source track of its own number; a step of
length 0 makes everything NaN; and what is hidden counts.

Degree and smoothness are VBench's formulas on classical flow (`warping`), instead of RAFT and AMT:
their numbers compare with each other, not with VBench's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from vidgen.metrics.fidelity import LEVELS
from vidgen.metrics.warping import GRAY, flow, trusted_flow, warp

STILL_PX = 0.1  # a step that is shorter is none
SAME_PX = 0.5  # that two tracks' first points may be apart and are the same
FASTEST = 0.05  # share of the pixels whose flow can be trusted, the fastest, whose mean counts
DYNAMIC = 6 / 256  # of the shorter side from frame to frame, where VBench calls a pair moving
DYNAMIC_PAIRS = 4 / 16  # of all pairs that have to move


@dataclass(frozen=True)
class Tracks:
    """Positions `n t 2` in pixels; bool `n t`, whether each can be trusted."""

    at: Tensor
    seen: Tensor

    @property
    def followed(self) -> float:
        """The share of steps that were seen."""
        steps = self.seen[:, 1:] & self.seen[:, :-1]
        return float(steps.double().mean()) if steps.numel() else 0.0

    def cut(self, frames: int) -> Tracks:
        return Tracks(self.at[:, :frames], self.seen[:, :frames])


@dataclass(frozen=True)
class Fidelity:
    """Mean cosine, −1 … 1, of each made track with its best source track; and the other way.

    still_source, still_made     tracks that never move, and were left out
    hidden_source, hidden_made   tracks of which no step was seen, left out too
    alone                        made tracks that no source track was seen along with
    """

    forward: float
    back: float
    tracks: int
    still_source: int
    still_made: int
    hidden_source: int
    hidden_made: int
    alone: int

    @property
    def both(self) -> float:
        return (self.forward + self.back) / 2


def fidelity(source: Tracks, made: Tracks, still_px: float = STILL_PX) -> Fidelity | None:
    """None where neither moves, or nothing was seen of one: then there is nothing to compare.

    A step is at rest if it is shorter than `still_px`; two at rest agree (1), one at rest and one
    that moves don't (0). Tracks that rest throughout are left out; if all of one clip do, nothing
    of the other's motion is in it: 0. Two tracks are compared over the steps that both were seen
    for, at least half of those of the one that is matched.
    """
    frames = min(source.at.shape[1], made.at.shape[1])
    if frames < 2:
        raise ValueError("tracks of one frame have no steps")
    a, b = (_Steps.of(x.cut(frames), still_px) for x in (source, made))
    counts = (a.still, b.still, a.hidden, b.hidden)
    if a.seen.numel() + a.still == 0 or b.seen.numel() + b.still == 0:
        return None
    if not len(a.seen) and not len(b.seen):
        return None
    if not len(a.seen) or not len(b.seen):
        return Fidelity(0.0, 0.0, len(b.seen), *counts, alone=0)
    both = torch.einsum("ms,ns->mn", b.seen, a.seen)
    cosine = torch.einsum("msc,nsc->mn", b.way, a.way) + torch.einsum("ms,ns->mn", b.rest, a.rest)
    cosine = cosine / both.clamp(min=1)
    forward = _best(cosine, both, b.seen.sum(1))
    back = _best(cosine.T, both.T, a.seen.sum(1))
    if not len(forward) or not len(back):
        return None
    return Fidelity(
        float(forward.mean()), float(back.mean()), len(forward), *counts,
        alone=len(b.seen) - len(forward),
    )  # fmt: skip


def by_place(
    source: Tracks, made: Tracks, still_px: float = STILL_PX, scale: tuple[float, float] = (1, 1)
) -> float | None:
    """Mean cosine, −1 … 1, of each made track with the source track that begins at the same point,
    over the steps that both were seen for, rests as in `fidelity`; points that rest in both are
    left out. `scale`: width and height of the made picture by those of the source. None where the
    tracks begin elsewhere, or nothing moves that both were seen for."""
    frames = min(source.at.shape[1], made.at.shape[1])
    begin = source.at[:, 0].double() * torch.tensor(scale, dtype=torch.float64)
    if len(source.at) != len(made.at) or not len(begin):
        return None
    if (begin - made.at[:, 0].double()).abs().max() > SAME_PX:
        return None
    a, b = (_steps(x.cut(frames), still_px) for x in (source, made))
    both = a.seen & b.seen
    cosine = (a.way * b.way).sum(-1) + (both & ~a.moves & ~b.moves)
    kept = (both & (a.moves | b.moves)).any(1)
    if not kept.any():
        return None
    cosine, both = cosine[kept], both[kept]
    return float((torch.where(both, cosine, 0.0).sum(1) / both.sum(1)).mean())


def _best(cosine: Tensor, both: Tensor, own: Tensor) -> Tensor:
    """Of each row's track the best partner that was seen for half of its steps; rows that have
    none are left out."""
    enough = both >= own[:, None] / 2
    best = torch.where(enough, cosine, -2.0).amax(dim=1)
    return best[best >= -1.5]


@dataclass(frozen=True)
class _Steps:
    """Of the tracks that move, float64: unit steps `n s 2`, 0 where at rest or not seen; seen and
    at rest `n s`, 1 and 0. And how many don't move, or were never seen."""

    way: Tensor
    seen: Tensor
    rest: Tensor
    still: int
    hidden: int

    @classmethod
    def of(cls, tracks: Tracks, still_px: float) -> _Steps:
        all = _steps(tracks, still_px)
        kept, known = all.moves.any(1), all.seen.any(1)
        return cls(
            all.way[kept], all.seen[kept].double(), (all.seen & ~all.moves)[kept].double(),
            int((known & ~kept).sum()), int((~known).sum()),
        )  # fmt: skip


class _AllSteps(NamedTuple):
    """Of all tracks: unit steps `n s 2`, 0 where at rest or not seen; bool `n s`, which were seen,
    and which of these move."""

    way: Tensor
    seen: Tensor
    moves: Tensor


def _steps(tracks: Tracks, still_px: float) -> _AllSteps:
    step = tracks.at.double().diff(dim=1)
    seen = tracks.seen[:, 1:] & tracks.seen[:, :-1]
    step = torch.where(seen[..., None], step, 0.0)
    length = step.norm(dim=-1)
    moves = seen & (length > max(still_px, 1e-9))
    way = torch.where(moves[..., None], step / length.clamp(min=1e-9)[..., None], 0.0)
    return _AllSteps(way, seen, moves)


def ditflow(source: Tracks, made: Tracks) -> float | None:
    """The score as the published code computes it: all tracks, seen or not, the diagonal of the
    similarities lowered by 1, made tracks against source tracks only. None where that code gives
    NaN, for a step of length 0, or fails, for other numbers of tracks."""
    frames = min(source.at.shape[1], made.at.shape[1])
    a, b = (x.cut(frames).at.double().diff(dim=1) for x in (source, made))
    if len(a) != len(b) or any((x.norm(dim=-1) == 0).any() for x in (a, b)):
        return None
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in (a, b))
    similar = torch.einsum("nsc,msc->nm", a, b) / a.shape[1] - torch.eye(len(a)).double()
    return float(similar.amax(dim=0).mean())


# --- one clip -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Degree:
    """dynamic: whether enough pairs of frames move; speed: mean over pairs of the mean of the
    fastest 5 % of pixels, in shares of the shorter side."""

    dynamic: bool
    speed: float
    pairs: int


def dynamic_degree(frames: Tensor, stride: int = 1) -> Degree:
    """Of a clip, uint8 `t h w 3`, of which every `stride`-th frame is taken (VBench: about 8 a
    second)."""
    taken = _gray(frames[::stride])
    if len(taken) < 2:
        raise ValueError("one frame moves nowhere")
    side = min(frames.shape[1:3])
    speeds = []
    for i in range(len(taken) - 1):
        moved, trusted = trusted_flow(taken[i : i + 1], taken[i + 1 : i + 2])
        length = moved.norm(dim=1)[trusted[:, 0] > 0]
        fastest = length.topk(math.ceil(FASTEST * len(length))).values
        speeds.append(float(fastest.mean()) / side if len(length) else 0.0)
    moving = sum(speed > DYNAMIC for speed in speeds)
    needed = max(1, round(DYNAMIC_PAIRS * len(speeds)))
    return Degree(moving >= needed, sum(speeds) / len(speeds), len(speeds))


def smoothness(frames: Tensor) -> float:
    """1 where each frame in between is what its neighbors' motion says, less where it isn't: every
    odd frame of a clip, uint8 `t h w 3`, against one made of the frames before and after it, each
    carried half of the way along the flow; (255 − mean difference)/255. Three frames at least."""
    if len(frames) < 3:
        raise ValueError("nothing is between two frames")
    color = rearrange(frames.float(), "t h w c -> t c h w")
    light = _gray(frames)
    apart = []
    for i in range(1, len(frames) - 1, 2):
        before, after = slice(i - 1, i), slice(i + 1, i + 2)
        there, back = flow(light[before], light[after]), flow(light[after], light[before])
        # A pixel in the middle comes from half of the way: what moves by `there` from the first.
        middle = (warp(color[before], -there / 2) + warp(color[after], -back / 2)) / 2
        apart.append(float((middle - color[i : i + 1]).abs().mean()))
    return 1 - sum(apart) / len(apart) / LEVELS


def _gray(frames: Tensor) -> Tensor:
    """uint8 `t h w 3` → luma of 0 … 1, `t 1 h w`."""
    return ((frames.float() / LEVELS) @ torch.tensor(GRAY))[:, None]
