"""`vidgen evaluate-motion`: whether clips move as others do, how much, and how smoothly."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from vidgen.cli.clip_scores import INTERVAL, PAIRS_ONLY, Better, SkipBad, mean_scores
from vidgen.cli.console import Console
from vidgen.cli.eval_clips import Kept
from vidgen.cli.evaluate_motion_read import RATE, Moving, read
from vidgen.cli.options import argument, option
from vidgen.cli.page import Page
from vidgen.cli.reporting import REPORT_SCHEMA, Reporting
from vidgen.errors import Exit, InputError, UsageError
from vidgen.metrics.report import Report, Score

PAGE = Page(
    name="evaluate-motion",
    summary="whether clips move as others do, and how smoothly",
    description="""\
With REF and MADE, motion fidelity: points are followed through both clips, and each track of MADE
is held against the one of REF that goes most alike (fidelity), which may be anywhere in the
picture, and against the one that begins at the same point (fidelity_place); 1 is the same motion,
−1 the opposite. Clips are paired by their ids; a REF of one clip is that of all. Size doesn't
count, directions do.

With one input, and of MADE, how much a clip moves and how smoothly: VBench's formulas, but on
classical optical flow (pyramidal Lucas-Kanade) instead of RAFT and AMT. These numbers compare with
each other, not with those of papers. A clip that stands still is perfectly smooth: look at both.

Tracks are those that records carry (`motion.tracks`, `truth.tracks` or `tracks` [N, T, 2] in
pixels, and `visibility` [N, T] beside them; an .npz of a tracker such as CoTracker will do), else
points of a regular grid, followed with Lucas-Kanade. Report and settings say which.""",
    reads="videos, folders of them, or records with frames or tracks",
    writes="a table, or JSON, to standard output",
    examples=[
        ("vidgen evaluate-motion clip.mp4", "how much it moves, and how smoothly"),
        ("vidgen evaluate-motion clip.mp4 clip.mp4 --min fidelity=0.9",
         "a clip moves as it does; exit code 4 if not"),
    ],
    notes={
        "SCORES": """\
fidelity: mean over the tracks of MADE of the cosine with the best track of REF; fidelity_back: of
REF's tracks with MADE's; fidelity_both: the mean of the two. The best of many is lenient: where REF
moves all ways at once, as in an orbit or a zoom, the opposite motion finds its like, too.
fidelity_place: mean over points of the cosine of the two tracks that begin there, strict where MADE
has another layout than REF; only where the tracks begin at the same points, as those followed here
do. followed in the items: the share of steps that could be followed, of REF and MADE; what
dissolves is lost, not punished. fidelity_ditflow, with --ditflow: as
the code of that paper computes it, where hidden points count and a track may not match the one of
its own number. Steps shorter than --still px are rests; tracks that rest throughout are left out
and counted in the items; `undefined` counts clips of which nothing is left.

dynamic_degree: the share of clips of which a quarter of the steps are fast (the fastest 5 % of
pixels go more than 6/256 of the shorter side, about 8 frames a second taken); speed: that mean, in
shares of the shorter side. smoothness: 1 where every second frame is what the motion between its
neighbors says.""",
    },
    see_also=["vidgen-evaluate-camera(1)", "vidgen-evaluate-quality(1)", "vidgen-world(1)"],
)  # fmt: skip

Ref = Annotated[str, argument("REF", "clips or tracks of the source; alone, the clips to judge")]
Made = Annotated[str | None, argument("MADE", "clips or tracks that should move as REF does")]
TracksFrom = Annotated[
    Literal["auto", "pixels"],
    option("--tracks", metavar="FROM",
           help="auto: those that records carry, if any; pixels: always followed here"),
]  # fmt: skip
Still = Annotated[
    float,
    option("--still", metavar="PX", min=0, max=100,
           help="steps that are shorter, in pixels, are rests"),
]  # fmt: skip
Ditflow = Annotated[bool, option("--ditflow", help="the fidelity of DiTFlow's published code, too")]

SCHEMAS = {"vidgen.report/1": REPORT_SCHEMA}
_MORE: Better = "higher"
KINDS: dict[str, tuple[Better, str]] = {
    "fidelity": (_MORE, ""),
    "fidelity_back": (_MORE, ""),
    "fidelity_both": (_MORE, ""),
    "fidelity_place": (_MORE, ""),
    "fidelity_ditflow": (_MORE, ""),
    "dynamic_degree": (None, ""),
    "speed": (None, ""),
    "smoothness": (_MORE, ""),
}
COUNTS = ("undefined", "failed")
PAIRED, ALONE = tuple(KINDS)[:5], tuple(KINDS)[5:]


def evaluate_motion(
    console: Console,
    ref: Ref,
    reporting: Reporting,
    made: Made = None,
    tracks: TracksFrom = "auto",
    still: Still = 0.1,
    ditflow: Ditflow = False,
    skip_bad: SkipBad = False,
) -> Exit:
    settings: dict[str, Any] = {
        "flow": "pyramidal Lucas-Kanade (not RAFT)", "interpolation": "flow (not AMT)", **INTERVAL,
    }  # fmt: skip
    if made is not None:
        settings |= {"tracks": tracks, "still_px": still, "tracker": "pyramidal Lucas-Kanade"}
    elif ditflow:
        raise UsageError("--ditflow is of two inputs, REF and MADE")
    allowed = [*(PAIRED if made is not None else ()), *ALONE, *COUNTS]
    others = dict.fromkeys(PAIRED, PAIRS_ONLY)
    reporting.check(allowed, others=others, tool=PAGE.name, settings=settings)
    if made == ref == "-":
        raise UsageError("standard input (`-`) can be read only once")
    kept = Kept(console)
    failed: dict[str, str] = {}
    items, inputs = [], []
    sources: dict[str, Moving] = {}
    wanted = None if made is None else tracks
    errors = failed if skip_bad else None
    if made is not None:
        sources = {c.id: c for c in read(ref, wanted, kept, errors, with_frames=False)}
        inputs.append(_input("reference", ref, list(sources.values())))
    judged: list[tuple[str, str]] = []
    for clip in read(made or ref, wanted, kept, errors, with_frames=True):
        judged.append((clip.id, clip.digest))
        try:
            item = _alone(clip, kept)
            if made is not None:
                source = _source(sources, clip, made)
                item |= _paired(source, clip, still, ditflow, kept)
        except InputError as error:
            if not skip_bad:
                raise
            failed[clip.id] = error.what
            continue
        items.append(item)
        if sources:
            console.step(len(items), max(len(items), len(sources)), "clip")
    if made is not None:
        _all_there(sources, {id for id, _ in judged}, failed, skip_bad)
    if not items:
        raise InputError(f"{made or ref}: none of {len(failed)} clips can be used",
                         why=next(iter(failed.values()), None))  # fmt: skip
    if failed:
        kept.warn(f"{len(failed)} of {len(items) + len(failed)} clips failed: no score has them")
    scores = mean_scores(items, KINDS)
    if made is not None:
        scores["undefined"] = Score(float(_doubts(items, kept)), better="lower", n=len(items))
    scores["failed"] = Score(float(len(failed)), better="lower", n=len(items) + len(failed))
    inputs.append(_input("made", made or ref, judged))
    items += [{"id": id, "failed": why} for id, why in failed.items()]
    report = Report(PAGE.name, settings, inputs, scores, kept.warnings, items)
    if reporting.html is None:
        return reporting.finish(report, console)
    from vidgen.cli.report_media import media_of

    media = media_of(made or ref, ref if made else None, one_ref=len(sources) == 1)
    return reporting.finish(report, console, media)


def _doubts(items: list[dict[str, Any]], kept: Kept) -> int:
    """How many clips have no fidelity. Warns of them, and of other doubts about their numbers."""
    lost = sum(item["fidelity"] is None for item in items)
    if lost:
        kept.warn(f"{lost} of {len(items)} clips have no fidelity: nothing moves, or is seen")
    elsewhere = sum(item["fidelity_place"] is None for item in items) - lost
    if elsewhere > 0:
        kept.warn(f"{elsewhere} of {len(items)} clips have no fidelity_place: their tracks begin"
                  " elsewhere than REF's; --tracks pixels follows the same points")  # fmt: skip
    dissolved = sum(item["followed"][1] < item["followed"][0] / 2 for item in items)
    if dissolved:
        kept.warn(f"{dissolved} of {len(items)} clips could be followed less than half as long as"
                  " REF: their fidelity is of the rest alone")  # fmt: skip
    return lost


def _alone(clip: Moving, kept: Kept) -> dict[str, Any]:
    """How much a clip moves, and how smoothly, where it has frames for it."""
    from vidgen.metrics.motion import dynamic_degree, smoothness

    found: dict[str, Any] = {"id": clip.id}
    if clip.frames is None:
        return found
    if len(clip.frames) > clip.stride:
        degree = dynamic_degree(clip.frames, clip.stride)
        found |= {"dynamic_degree": float(degree.dynamic), "speed": degree.speed}
    if len(clip.frames) > 2:
        found["smoothness"] = smoothness(clip.frames)
    found["rate"] = clip.rate and clip.rate / clip.stride
    if clip.rate is None:
        kept.warn(f"{clip.id}: doesn't say how many frames a second it has, taken as {RATE}:"
                  " its dynamic_degree and speed are of neighbors")  # fmt: skip
    if len(found) < 5:
        kept.warn(f"{clip.id}: {len(clip.frames)} frames are too few for all scores")
    return found


def _paired(
    source: Moving, made: Moving, still: float, with_ditflow: bool, kept: Kept
) -> dict[str, Any]:
    """How far the one moves as the other does."""
    from vidgen.metrics.motion import by_place, ditflow, fidelity

    assert source.tracks is not None and made.tracks is not None
    lengths = [t.at.shape[1] for t in (source.tracks, made.tracks)]
    if min(lengths) < 2:
        raise InputError(f"{made.id}: one frame does not move")
    if lengths[0] != lengths[1]:
        kept.warn(f"{made.id}: {lengths[0]} frames and {lengths[1]}: the first {min(lengths)}"
                  " are compared")  # fmt: skip
    found = fidelity(source.tracks, made.tracks, still)
    scale = 1.0, 1.0
    if source.size and made.size:
        scale = made.size[0] / source.size[0], made.size[1] / source.size[1]
    item: dict[str, Any] = {
        "tracks": [source.origin, made.origin],
        "followed": [t.cut(min(lengths)).followed for t in (source.tracks, made.tracks)],
        "fidelity_place": by_place(source.tracks, made.tracks, still, scale),
    }
    item |= {"fidelity": None, "fidelity_back": None, "fidelity_both": None}
    if found is not None:
        item |= {
            "fidelity": found.forward, "fidelity_back": found.back, "fidelity_both": found.both,
            "compared": found.tracks, "alone": found.alone,
            "still": [found.still_source, found.still_made],
            "hidden": [found.hidden_source, found.hidden_made],
        }  # fmt: skip
    if with_ditflow:
        item["fidelity_ditflow"] = ditflow(source.tracks, made.tracks)
        if item["fidelity_ditflow"] is None:
            kept.warn(f"{made.id}: no fidelity_ditflow: that code fails for tracks that rest, or"
                      " of other numbers")  # fmt: skip
    return item


def _source(sources: dict[str, Moving], clip: Moving, made: str) -> Moving:
    if clip.id in sources:
        return sources[clip.id]
    if len(sources) == 1:
        return next(iter(sources.values()))
    raise InputError(f"{made}: `{clip.id}` has no counterpart among {len(sources)} clips of REF")


def _all_there(
    sources: dict[str, Moving], judged: set[str], failed: dict[str, str], skip_bad: bool
) -> None:
    """InputError if a reference clip has no counterpart; with `skip_bad` it is counted."""
    lost = [id for id in sources if id not in judged and id not in failed and len(sources) > 1]
    if lost and not skip_bad:
        raise InputError(f"`{lost[0]}`: no clip of this id was made",
                         why=f"{len(lost)} clips of REF have no counterpart",
                         next="--skip-bad counts them as failed")  # fmt: skip
    failed.update(dict.fromkeys(lost, "no clip of this id was made"))


def _input(role: str, name: str, found: list[Any]) -> dict[str, Any]:
    pairs = sorted((c.id, c.digest) if isinstance(c, Moving) else c for c in found)
    digest = hashlib.sha256("".join(f"{id}\0{d}\n" for id, d in pairs).encode()).hexdigest()
    return {"role": role, "name": name, "clips": len(pairs), "sha256": digest}
