"""How far clips show what was asked for: factor by factor, and everything at once.

What is asked comes from a prompt or from given factors; what is seen, from a judge of pixels.
Nothing is asked of what a prompt leaves open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from random import Random
from typing import Any

from vidgen.metrics.intervals import Share
from vidgen.metrics.judge import (
    CLIP_FACTORS,
    LEVELS,
    OBJECT_FACTORS,
    Seen,
    Verdict,
    likeliest,
)
from vidgen.world.captions import relations
from vidgen.world.scene import Scene, labels

FACTORS = (*OBJECT_FACTORS, *CLIP_FACTORS)
NOTHING = "nothing"  # seen where an object was asked for and none was found
APART = 0.03  # shares of the picture's width by which one object must be left of another


@dataclass(frozen=True)
class Asked:
    """What a clip is to show: for each object the factors that were said, ground, camera (None:
    not said), and (object, words, object) as captions say them."""

    objects: tuple[Mapping[str, str], ...] = ()
    ground: str | None = None
    camera: str | None = None
    relations: tuple[tuple[int, str, int], ...] = ()

    @classmethod
    def of_factors(cls, factors: Mapping[str, str]) -> Asked:
        """From factors as the world names them: "shape", "shape_2", …, where "none" is no
        object."""
        objects = []
        for suffix in ("", "_2", "_3"):
            said = {n: factors[n + suffix] for n in OBJECT_FACTORS if n + suffix in factors}
            if said and "none" not in said.values():
                objects.append(said)
        return cls(tuple(objects), factors.get("ground"), factors.get("camera"))

    @classmethod
    def of_scene(cls, scene: Scene) -> Asked:
        """What the canonical caption of a scene says."""
        asked = cls.of_factors(labels(scene))
        return replace(asked, relations=tuple(relations(scene)[:1]))

    def beyond(self, level: str) -> list[str]:
        """What the world of this level does not have, as `factor value`."""
        values = LEVELS[level]
        said = [(n, v) for thing in self.objects for n, v in thing.items()]
        said += [("ground", self.ground), ("camera", self.camera)]  # type: ignore[list-item]
        return [f"{n} {v}" for n, v in said if v is not None and v not in values[n]]


@dataclass(frozen=True)
class Mark:
    """One clip: (factor, asked, seen) for everything asked, and whether all of it is right."""

    pairs: tuple[tuple[str, str, str], ...]
    everything: bool

    @property
    def wrong(self) -> list[tuple[str, str, str]]:
        return [pair for pair in self.pairs if pair[1] != pair[2]]


def mark(verdict: Verdict, asked: Asked, *, counted: bool) -> Mark:
    """Compare. Objects are paired so that most factors agree; `counted`: there must be as many
    objects as were asked for, if any were."""
    seen = _paired(verdict.objects, asked.objects)
    pairs = [
        (name, said, thing.said(name) if thing else NOTHING)
        for wanted, thing in zip(asked.objects, seen, strict=True)
        for name, said in wanted.items()
    ]
    for name, odds in (("ground", verdict.ground), ("camera", verdict.camera)):
        said = getattr(asked, name)
        if said is not None:
            pairs.append((name, said, likeliest(odds)))
    for i, words, j in asked.relations:
        a, b = seen[i], seen[j]
        holds = a is not None and b is not None and _holds(a, words, b)
        pairs.append(("relation", words, words if holds else f"not {words}"))
    if counted and asked.objects:
        pairs.append(("count", str(len(asked.objects)), str(len(verdict.objects))))
    return Mark(tuple(pairs), all(a == b for _, a, b in pairs))


def _paired(found: Sequence[Seen], wanted: Sequence[Mapping[str, str]]) -> tuple[Seen | None, ...]:
    """The found object for each wanted one."""
    slots = [*found, *[None] * max(0, len(wanted) - len(found))]

    def agreement(order: tuple[Seen | None, ...]) -> int:
        return sum(
            thing is not None and thing.said(name) == said
            for thing, factors in zip(order, wanted, strict=True)
            for name, said in factors.items()
        )

    return max(permutations(slots, len(wanted)), key=agreement)


def _holds(a: Seen, words: str, b: Seen) -> bool:
    if words in ("to the left of", "to the right of"):
        left, right = (a, b) if words == "to the left of" else (b, a)
        return right.start_x - left.start_x > APART
    near, far = (a, b) if words == "in front of" else (b, a)
    return far.start_log_depth > near.start_log_depth


def tally(marks: Sequence[Mark]) -> dict[str, Any]:
    """Shares by factor, and of all at once among the clips of which anything was asked."""
    right: Counter[str] = Counter()
    of: Counter[str] = Counter()
    for one in marks:
        for name, said, seen in one.pairs:
            of[name] += 1
            right[name] += said == seen
        if one.pairs:
            of["all"] += 1
            right["all"] += one.everything
    names = [n for n in (*FACTORS, "relation", "count", "all") if of[n]]
    return {n: Share(right[n], of[n]).to_dict() for n in names}


def confusion(marks: Sequence[Mark]) -> dict[str, dict[str, dict[str, int]]]:
    """factor → asked → seen → how often."""
    table: dict[str, dict[str, Counter[str]]] = {}
    for one in marks:
        for name, said, seen in one.pairs:
            table.setdefault(name, {}).setdefault(said, Counter())[seen] += 1
    return {
        name: {said: dict(sorted(counts.items())) for said, counts in sorted(rows.items())}
        for name, rows in table.items()
    }


def shuffled(
    verdicts: Sequence[Verdict], asked: Sequence[Asked], *, counted: bool, rounds: int = 16
) -> dict[str, Any] | None:
    """The same clips against each other's prompts: what accuracy is worth nothing. Each clip meets
    the prompts of `rounds` other clips, drawn at random but the same every time: neighbors are
    often samples of one prompt. None for fewer than two clips. Marks of one clip are no independent
    trials: the intervals are too narrow."""
    n = len(verdicts)
    if n < 2:
        return None
    draw = Random(0)
    return tally(
        [
            mark(verdict, asked[(i + shift) % n], counted=counted)
            for i, verdict in enumerate(verdicts)
            for shift in draw.sample(range(1, n), min(rounds, n - 1))
        ]
    )


def spread(prompts: Sequence[str], verdicts: Sequence[Verdict], cells: int = 8) -> dict | None:
    """Of prompts with several clips: how many different places (of `cells` across and half of that
    down) the first object takes, by clip; 1 = never twice the same. None without such prompts."""
    places: dict[str, list[tuple[int, int]]] = {}
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        if verdict.objects:
            thing = verdict.objects[0]
            cell = int(thing.x * cells), int(thing.y * cells / 2)
            places.setdefault(prompt, []).append(cell)
    several = [p for p in places.values() if len(p) > 1]
    if not several:
        return None
    clips = sum(map(len, several))
    distinct = sum(len(set(p)) for p in several)
    return {"prompts": len(several), "clips": clips, "places": distinct, "share": distinct / clips}
