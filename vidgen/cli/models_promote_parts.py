"""`vidgen models promote`, of parts: no further from rendered clips than what they replace.

A part is compared, clip by clip, with what does the same without it (neighbors blended, frames
enlarged bicubically, the image decoder), and with the part that is in the place now. A decoder is
tried on clips as the model makes them near to rendered ones (`vidgen.stages.redraw`), and all that
have its autoencoder on the same latents. The mean PSNR decides; the numbers of clips that come out
nearer to the truth stand beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen.cli.console import Console
from vidgen.cli.models_find import components
from vidgen.cli.schemas import NUMBER, TEXT, WHOLE, obj, or_null

if TYPE_CHECKING:
    from vidgen.io.record import Record
    from vidgen.stages.base import Compute
    from vidgen.stages.part_model import Given
    from vidgen.systems.base import Geometry, ModelFolder
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


@dataclass(frozen=True)
class Clips:
    """What a part and its rivals are tried on: chosen once, or they would not be comparable.

    models  the folder of a decoder → the model whose clips it is given; none: what its own encoder
            makes
    """

    geometry: Geometry
    models: Mapping[Path, ModelFolder] = field(default_factory=dict)


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
    decoder on what the model `after` promotion makes of them, one in place that has another
    autoencoder on what its own does.
    `kept`: parts in place that stay beside a candidate that is a whole model."""
    from vidgen.stages import part_model as bench
    from vidgen.stages.redraw import redraw, shown
    from vidgen.stages.rendered import clips_of
    from vidgen.systems.base import Enlarged, ModelFolder
    from vidgen.world.captions import caption

    tried: list[Tried] = []
    there = ModelFolder(place) if (place / "model_index.json").is_file() else None
    whole = candidate if "transformer" in components(candidate) or there is None else there
    has = [candidate, whole, *([there] if there and "upsampler" in kept else [])]
    enlarged = [f.sample("upsampler", Enlarged) for f in has if "upsampler" in components(f)]
    scale = enlarged[0].scale(whole.geometry.height) if enlarged else 1

    def chosen(part: str, rival: ModelFolder | None) -> Clips:
        shows = bench.TRIALS[part].shown
        rendered = Clips(clips_of(whole.geometry, scale=scale if shows else 1))
        if not shows:
            return rendered
        model = after or whole
        models = {candidate.path: model}
        if rival is not None:
            models[rival.path] = model if same(candidate, rival, "vae") else rival
        if why := _undrawn(models.values()):
            console.warn(f"{part}: tried on latents of the encoder, which it won't get: {why}")
            return rendered
        return Clips(shown(model), models)

    def scores(
        folder: ModelFolder, part: str, clips: Clips, *, baseline: bool = False
    ) -> list[float]:
        console.note(f"trying {folder.path / part}" + " without it" * baseline)
        model = clips.models.get(folder.path)
        return bench.try_part(
            folder, part, scenes, clips.geometry,
            given=None if model is None else redrawn(model, folder),
            baseline=baseline, compute=compute, notify=console,
        )  # fmt: skip

    def redrawn(model: ModelFolder, folder: ModelFolder) -> Given:
        """What that model makes of scenes, under the name that the folder has for its latents."""
        space = {"latent_space": folder.latent_space}
        return lambda some: [r.replace(attrs=space) for r in made(model.path, tuple(some))]

    @functools.cache  # each clip is made once
    def made(path: Path, some: tuple[Scene, ...]) -> list[Record]:
        captions = [caption(scene) for scene in some]
        return list(redraw(some, captions, ModelFolder(path), STRENGTH, compute=compute))

    for part in parts:
        rival = there if there is not None and part in components(there) else None
        clips = chosen(part, rival)
        rivals = {bench.TRIALS[part].baseline: scores(candidate, part, clips, baseline=True)}
        if rival is not None:
            rivals["the one in place"] = scores(rival, part, clips)
        tried.append(Tried(part, scores(candidate, part, clips), rivals))
    return tried


def _undrawn(models: Collection[ModelFolder]) -> str:
    """Why these models don't all redraw clips of one size, in words; empty: they do."""
    from vidgen.stages.redraw import missing, shown
    from vidgen.stages.sample_keyframes import unable

    for model in models:
        if lacking := missing(model):
            return f"without {', '.join(lacking)} no clip can be redrawn"
        if why := unable(model, STRENGTH):
            return f"with a strength of {STRENGTH:g} no clip can be redrawn: {why}"
    if len({shown(model) for model in models}) > 1:
        return "the model in place makes clips of another size"
    return ""


def parts_as_table(tried: Sequence[Tried]) -> Iterator[str]:
    """A line a part and a line a rival."""
    for t in tried:
        yield f"{t.part:<34}  {t.psnr:6.2f} dB"
        for name, scores in t.rivals.items():
            better = f"{t.wins(name)} of {len(scores)} clips"
            yield f"  {name:<32}  {_mean(scores):6.2f} dB  the candidate is nearer in {better}"


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)
