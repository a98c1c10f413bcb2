"""How `vidgen evaluate-fvd` comes by the features of its two sides: from files, or from clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen.cli.eval_clips import Clip, Sampling, Warns, clips
from vidgen.cli.media import content_of
from vidgen.errors import InputError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from vidgen.cli.console import Console
    from vidgen.metrics.extractors import Extractor
    from vidgen.metrics.feature_file import FeatureSet

READERS = 8  # clips read at a time, at most: more only wait for each other
SHOWN = 6  # clips of a side on the page that --html writes


@dataclass
class Side:
    """REAL or FAKE: the files it stands for, apart by what they hold."""

    role: str
    given: str
    clips: list[str]
    files: list[str]  # of features
    bad: list[str] = field(default_factory=list)  # clips that were left out
    shown: list[tuple[str, np.ndarray]] = field(default_factory=list)
    seen: dict[str, Counter[str]] = field(
        default_factory=lambda: {"sizes": Counter(), "rates": Counter()}
    )

    @classmethod
    def of(cls, role: str, given: str, paths: list[str]) -> Side:
        """`paths`: what `expand` found for what was given."""
        from vidgen.metrics.feature_file import is_feature_file

        files = [p for p in paths if content_of(p) == "records" and is_feature_file(p)]
        return cls(role, given, [p for p in paths if p not in set(files)], files)

    @cached_property
    def sets(self) -> list[FeatureSet]:
        """What its files of features hold."""
        from vidgen.metrics.feature_file import read_features

        return [read_features(path) for path in self.files]

    @property
    def count(self) -> int | None:
        """How many clips it is; None where only reading them tells."""
        if any(content_of(path) != "video" for path in self.clips):
            return None
        return len(self.clips) + sum(len(s) for s in self.sets)


@dataclass(frozen=True)
class Extraction:
    """How clips become features here."""

    extractor: Extractor
    sampling: Sampling
    batch_size: int
    skip_bad: bool
    keep: bool  # a few clips of each side, to be shown

    def check(self) -> None:
        """UsageError if the network needs more frames than are taken."""
        most, least = self.sampling.num_frames, self.extractor.min_frames
        if most is not None and most < least:
            raise UsageError(
                f"--num-frames {most}: the features `{self.extractor.name}` need {least}",
                why="clips that are shorter can't be compared by them",
                next=f"--num-frames {least}, and clips of as many frames",
            )

    def expected(self) -> FeatureSet:
        """No features, of these settings: what files are held against before the work."""
        import torch

        from vidgen.metrics.feature_file import FeatureSet

        none = torch.empty(0, self.extractor.dim)
        name = f"--features {self.extractor.name}"
        return FeatureSet(none, (), (), self.extractor.settings, self.sampling.settings(), name)

    def of(self, side: Side, console: Console, warns: Warns) -> FeatureSet:
        import torch

        from vidgen.metrics.extraction import extract

        sampling = replace(self.sampling, least=self.extractor.min_frames)
        read = clips(
            side.clips, sampling, warns, skip_bad=self.skip_bad, bad=side.bad,
            readers=min(torch.get_num_threads(), READERS),
        )  # fmt: skip
        found = extract(
            self._pixels(read, side),
            self.extractor,
            sampling=self.sampling.settings(),
            name=f"{side.role} {side.given}",
            batch_size=self.batch_size,
            on_batch=lambda done: console.step(done, max(done, len(side.clips)), "clip"),
        )
        return replace(found, seen={what: dict(counts) for what, counts in side.seen.items()})

    def _pixels(self, read: Iterator[Clip], side: Side) -> Iterator[tuple[str, np.ndarray]]:
        for clip in read:
            if self.keep and len(side.shown) < SHOWN:
                side.shown.append((clip.id, clip.frames))
            height, width = clip.frames.shape[1:3]
            side.seen["sizes"][f"{width}x{height}"] += 1
            side.seen["rates"]["unknown" if clip.rate is None else f"{clip.rate:.4g}"] += 1
            yield clip.id, clip.frames


def feature_sets(
    sides: tuple[Side, Side], extraction: Extraction | None, console: Console, warns: Warns
) -> tuple[FeatureSet, FeatureSet]:
    """The features of both sides, made alike. What can be refused is refused before the work."""
    from vidgen.metrics.feature_file import joined, require_same

    read = [list(side.sets) for side in sides]
    alike = [s for sets in read for s in sets]
    if extraction is not None:
        alike.insert(0, extraction.expected())
    for other in alike[1:]:
        require_same(alike[0], other)
    found = []
    for side, sets in zip(sides, read, strict=True):
        if side.clips:
            assert extraction is not None
            sets.append(extraction.of(side, console, warns))
        found.append(joined(sets))
        if len(found[-1]) < 2:
            raise InputError(
                f"{side.role} {side.given}: is one clip, and no distance can be told from one",
                why="a spread takes two at least, an FVD worth its name hundreds",
            )
    return found[0], found[1]


def check_weights(name: str, weights: str | None) -> None:
    """UsageError, before torch is imported, for weights that are needed or given and not there."""
    if weights is not None and not Path(weights).exists():
        raise UsageError(f"--weights {weights}: no such file")
    if weights is None and (name == "clip" or name.startswith("i3d:")):
        what = "a folder of CLIP" if name == "clip" else "a file of I3D; the help says which"
        raise UsageError(
            f"{name} needs weights, which vidgen does not ship",
            why=f"--weights takes {what}", next="--weights FILE",
        )  # fmt: skip


def warn_of(real: FeatureSet, fake: FeatureSet, warns: Warns) -> None:
    """What of the clips themselves makes a distance another than it looks."""
    if real.sha256 == fake.sha256:
        warns.warn("REAL and FAKE are the same clips")
    elif shared := len({*real.digests} & {*fake.digests}):
        warns.warn(
            f"{shared} clips are in REAL and in FAKE: fvd is too small for clips it wasn't given"
        )
    for role, of in (("REAL", real), ("FAKE", fake)):
        if copies := len(of) - len({*of.digests}):
            warns.warn(
                f"{copies} of {len(of)} clips of {role} are copies of others, and count as new ones"
            )
    for what, next in (
        ("sizes", "resizing is part of the distance"),
        ("rates", "--fps makes them one"),
    ):
        a, b = (of.seen.get(what, {}).keys() - {"unknown"} for of in (real, fake))
        if a and b and a != b:
            there = " and ".join(", ".join(sorted(side)[:3]) for side in (a, b))
            warns.warn(f"REAL and FAKE are of different {what}, {there}: {next}")


def check_asked(found: FeatureSet, asked: dict[str, dict[str, Any]]) -> None:
    """Hold features that come from files alone to what the command line says of them."""
    if not found.known:
        if any(asked.values()):
            raise UsageError(
                f"{found.name}: nothing says how its features were made, so no option can",
                next="leave out --features, --protocol and what tells of frames",
            )
        return
    for key, values in asked.items():
        for name, value in values.items():
            there = found.settings[key].get(name)
            if there != value:
                raise InputError(f"{found.name}: its {name} is {there}, asked for is {value}")


def media(real: Sequence[Any], fake: Sequence[Any]) -> Iterator[tuple[str, Any, Any]]:
    """Pairs to look at: they show what was compared, and belong to each other in no other way."""
    for i, (id, frames) in enumerate(islice(fake, SHOWN)):
        beside = real[i] if i < len(real) else None
        yield (f"{id} | {beside[0]}", frames, beside[1]) if beside else (id, frames, None)
