"""`vidgen models promote`, of parts: no further from rendered clips than what they replace.

A part is compared, clip by clip, with what does the same without it (neighbors blended, frames
enlarged bicubically, the image decoder), and with the part that is in the place now. A decoder is
tried on clips as the model makes them near to rendered ones (`vidgen.stages.redraw`). The mean PSNR
decides; the numbers of clips that come out nearer to the truth stand beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen.cli.console import Console
from vidgen.cli.models_find import components
from vidgen.cli.schemas import NUMBER, TEXT, WHOLE, obj, or_null

if TYPE_CHECKING:
    from vidgen.io.record import Record
    from vidgen.stages.base import Compute
    from vidgen.stages.part_model import Given
    from vidgen.systems.base import ModelFolder
    from vidgen.world.scene import Scene

STRENGTH = 0.5  # with which clips are redrawn that a decoder is tried on

_RIVAL = obj({"name": TEXT, "psnr": NUMBER, "wins": WHOLE})
PART_SCORE = obj(
    {"part": TEXT, "clips": WHOLE, "psnr": NUMBER, "baseline": _RIVAL, "in_place": or_null(_RIVAL)}
)


@dataclass(frozen=True)
class Tried:
    """A part and its rivals on the same clips, dB each; the first rival is the one without it."""

    part: str
    scores: Sequence[float]
    rivals: Mapping[str, Sequence[float]]

    @property
    def psnr(self) -> float:
        return _mean(self.scores)

    @property
    def worse(self) -> bool:
        return any(self.psnr < _mean(scores) for scores in self.rivals.values())

    def wins(self, rival: str) -> int:
        """Clips in which it is nearer to the truth."""
        return sum(a > b for a, b in zip(self.scores, self.rivals[rival], strict=True))

    def in_words(self) -> str:
        """The first rival that is better."""
        name = next(name for name, scores in self.rivals.items() if self.psnr < _mean(scores))
        return (
            f"{self.part} is at {self.psnr:.2f} dB from what was rendered, {name} at"
            f" {_mean(self.rivals[name]):.2f} dB"
        )

    def to_dict(self) -> dict[str, Any]:
        baseline, *present = [
            {"name": name, "psnr": _mean(scores), "wins": len(scores) - self.wins(name)}
            for name, scores in self.rivals.items()
        ]
        return {
            "part": self.part,
            "clips": len(self.scores),
            "psnr": self.psnr,
            "baseline": baseline,
            "in_place": present[0] if present else None,
        }


def same(a: ModelFolder, b: ModelFolder, component: str) -> bool:
    """Whether two models have the same component: config and weights, whatever they are called."""
    if not all(component in components(folder) for folder in (a, b)):
        return False
    return a.config(component) == b.config(component) and a.sha256(component) == b.sha256(component)


def try_parts(
    candidate: ModelFolder,
    place: Path,
    parts: Sequence[str],
    scenes: Sequence[Scene],
    compute: Compute,
    console: Console,
    *,
    kept: Sequence[str] = (),
    after: ModelFolder | None = None,
) -> list[Tried]:
    """Each part on the same scenes, rendered at the size and rate of the model that it is for; a
    decoder on what its model makes of them, that of the candidate in the model `after` promotion.
    `kept`: parts in place that stay beside a candidate that is a whole model."""
    from vidgen.stages import part_model as bench
    from vidgen.stages.redraw import missing, redraw, shown
    from vidgen.stages.rendered import clips_of
    from vidgen.systems.base import Enlarged, ModelFolder
    from vidgen.world.captions import caption

    tried: list[Tried] = []
    there = ModelFolder(place) if (place / "model_index.json").is_file() else None
    whole = candidate if "transformer" in components(candidate) or there is None else there
    has = [candidate, whole, *([there] if there and "upsampler" in kept else [])]
    enlarged = [f.sample("upsampler", Enlarged) for f in has if "upsampler" in components(f)]
    scale = enlarged[0].scale(whole.geometry.height) if enlarged else 1
    made = {candidate.path: after or whole}  # the models that clips of a part are seen in

    def scores(folder: ModelFolder, part: str, *, baseline: bool = False) -> list[float]:
        console.note(f"trying {folder.path / part}" + " without it" * baseline)
        model, trial = made.get(folder.path, folder), bench.TRIALS[part]
        given, geometry = None, clips_of(whole.geometry, scale=scale if trial.shown else 1)
        if trial.shown and not (lacking := missing(model)):
            folder, geometry, given = model, shown(model), redrawn(model)
        elif trial.shown:
            console.warn(
                f"{part}: tried on latents of the encoder, which it won't get: without"
                f" {', '.join(lacking)} no clip can be redrawn"
            )
        return bench.try_part(
            folder, part, scenes, geometry,
            given=given, baseline=baseline, compute=compute, notify=console,
        )  # fmt: skip

    @functools.cache
    def redrawn(model: ModelFolder) -> Given:
        """What that model makes of scenes, each made once."""

        @functools.cache
        def clips(some: tuple[Scene, ...]) -> list[Record]:
            captions = [caption(scene) for scene in some]
            return list(redraw(some, captions, model, STRENGTH, compute=compute))

        return lambda some: clips(tuple(some))

    for part in parts:
        rivals = {bench.TRIALS[part].baseline: scores(candidate, part, baseline=True)}
        if there is not None and part in components(there):
            rivals["the one in place"] = scores(there, part)
        tried.append(Tried(part, scores(candidate, part), rivals))
    return tried


def parts_as_table(tried: Sequence[Tried]) -> Iterator[str]:
    """A line a part and a line a rival."""
    for t in tried:
        yield f"{t.part:<34}  {t.psnr:6.2f} dB"
        for name, scores in t.rivals.items():
            better = f"{t.wins(name)} of {len(scores)} clips"
            yield f"  {name:<32}  {_mean(scores):6.2f} dB  the candidate is nearer in {better}"


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)
