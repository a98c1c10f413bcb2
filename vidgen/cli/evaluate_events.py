"""`vidgen evaluate-events`: whether things happen when they should, and cuts nobody asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vidgen.cli.clip_scores import INTERVAL, PAIRS_ONLY, Better, SkipBad, mean_scores
from vidgen.cli.console import Console
from vidgen.cli.eval_clips import Kept, clips, expand
from vidgen.cli.evaluate_motion_read import rendered
from vidgen.cli.media import content_of, own_rate
from vidgen.cli.options import argument, option
from vidgen.cli.page import Page
from vidgen.cli.reporting import REPORT_SCHEMA, Reporting
from vidgen.cli.rows import numbered
from vidgen.cli.sources import free_id
from vidgen.errors import Exit, InputError, UsageError
from vidgen.metrics.report import Report, Score

if TYPE_CHECKING:
    from numpy import ndarray

    from vidgen.io.record import Record
    from vidgen.metrics.events import Span

PAGE = Page(
    name="evaluate-events",
    summary="whether things happen in order and in time",
    description="""\
Compares the events of MADE with those of REF: their order, when they begin and end, and how much
they overlap. vidgen doesn't find events in pixels: MADE is what a person or another program wrote
down on seeing the clips, as JSONL rows, or rendered clips, whose events are true. Clips that
a model made carry the events that were asked for, not those that are seen: as MADE they are
refused, and so are videos. Clips are paired by their ids.

Of one input alone, and of rendered clips, cuts are counted: places where the colors of the whole
picture change from a frame to the next.

Events are JSONL rows, an event or a clip a row: {"id": "a", "start": 0, "end": 1.5, "text": "a ball
bounces"} or {"id": "a", "events": [[0, 1.5, "a ball bounces"], …]}; or records with an attr
`events`, as `vidgen world` writes them.""",
    reads="JSONL rows, records or, for cuts alone, videos",
    writes="a table, or JSON, to standard output",
    examples=[
        ("vidgen evaluate-events clip.mp4 --max cuts=0", "exit code 4 if a clip is cut"),
        ("vidgen world --level full --set events=2 -o w.safetensors", "a clip with its events"),
        ("vidgen evaluate-events w.safetensors w.safetensors --min iou=1", "held to itself"),
    ],
    notes={
        "SCORES": """\
Events are matched by their words (text, caption, label or motion), which have to be equal but for
case and spaces, wherever in the clip they are; or by overlap where one side has no words. order:
share of pairs of events, of those that begin one after the other, that were both found and begin
so. iou: overlap by union, 0 for events that weren't found. found: share of REF's events that were
matched; right: of MADE's. start, end, boundary: mean errors of matched events in seconds.
cuts: per clip; a cut is where more than --cut of the histograms differ. In rendered clips
neighbors differ by 0.06 at most, and pictures of two clips by 0.35 or more.""",
    },
    see_also=["vidgen-world(1)", "vidgen-evaluate-motion(1)"],
)  # fmt: skip

Ref = Annotated[str, argument("REF", "events as they should be; alone, clips whose cuts to count")]
Made = Annotated[
    str | None, argument("MADE", "events as a person or program saw them in the clips")
]
Cut = Annotated[
    float,
    option("--cut", metavar="X", min=0, max=1, help="how much of the colors changes at a cut"),
]

SCHEMAS = {"vidgen.report/1": REPORT_SCHEMA}
KINDS: dict[str, tuple[Better, str]] = {
    "order": ("higher", ""),
    "iou": ("higher", ""),
    "found": ("higher", ""),
    "right": ("higher", ""),
    "start": ("lower", "s"),
    "end": ("lower", "s"),
    "boundary": ("lower", "s"),
    "cuts": ("lower", ""),
}
TEXTS = ("text", "caption", "label", "motion")
ROWS = (".jsonl", ".ndjson")


def evaluate_events(
    console: Console,
    ref: Ref,
    reporting: Reporting,
    made: Made = None,
    cut: Cut = 0.3,
    skip_bad: SkipBad = False,
) -> Exit:
    settings: dict[str, Any] = {"cut": cut, **INTERVAL}
    allowed = [*KINDS, "failed"] if made is not None else ["cuts", "failed"]
    others = dict.fromkeys(KINDS, PAIRS_ONLY)
    reporting.check(allowed, others=others, tool=PAGE.name, settings=settings)
    if made == ref == "-":
        raise UsageError("standard input (`-`) can be read only once")
    kept = Kept(console)
    failed: dict[str, str] = {}
    asked: dict[str, list[Span]] = {}
    inputs: list[dict[str, Any]] = []
    if made is not None:
        asked = {id: spans for id, spans, _ in _read(ref, kept, None, wants="spans") if spans}
        if not asked:
            raise InputError(f"{ref}: no events in it")
        inputs.append(_input("reference", ref, asked))
    items, judged = [], {}
    wants = "cuts" if made is None else "seen"
    for id, spans, frames in _read(made or ref, kept, failed if skip_bad else None, wants=wants):
        try:
            items.append(_item(id, spans, frames, asked if made is not None else None, cut))
        except InputError as error:
            if not skip_bad:
                raise
            failed[id] = error.what
        judged[id] = spans if frames is None else hashlib.sha256(frames.tobytes()).hexdigest()
    lost = [id for id in asked if id not in judged and id not in failed]
    if lost and not skip_bad:
        raise InputError(f"`{lost[0]}`: no events of this id were found",
                         why=f"{len(lost)} clips of REF have no counterpart",
                         next='a row {"id": …, "events": []} says that there are none')  # fmt: skip
    failed.update(dict.fromkeys(lost, "no events of this id were found"))
    if not items:
        raise InputError(f"{made or ref}: none of {len(failed)} clips can be used",
                         why=next(iter(failed.values()), None))  # fmt: skip
    if failed:
        kept.warn(f"{len(failed)} of {len(items) + len(failed)} clips failed: no score has them")
    scores = mean_scores(items, KINDS)
    scores["failed"] = Score(float(len(failed)), better="lower", n=len(items) + len(failed))
    inputs.append(_input("made", made or ref, judged))
    rows = items + [{"id": id, "failed": why} for id, why in failed.items()]
    report = Report(PAGE.name, settings, inputs, scores, kept.warnings, rows)
    if reporting.html is None or Path(made or ref).suffix.lower() in ROWS:
        return reporting.finish(report, console)
    from vidgen.cli.report_media import media_of

    return reporting.finish(report, console, media_of(made or ref))


def _item(
    id: str, spans: list[Span], frames: ndarray | None, asked: dict[str, list[Span]] | None,
    cut: float,
) -> dict[str, Any]:  # fmt: skip
    from dataclasses import asdict

    from vidgen.metrics.events import cuts, event_scores

    item: dict[str, Any] = {"id": id}
    if asked is not None:
        if id not in asked:
            raise InputError(f"`{id}`: no events of REF are of this id")
        try:
            item |= asdict(event_scores(asked[id], spans))
        except ValueError as error:
            raise InputError(f"`{id}`: {error}") from None
    if frames is not None:
        at = cuts(frames, cut)
        item |= {"cuts": float(len(at)), "cut_at": at}
    return item


# --- reading --------------------------------------------------------------------------------------


def _read(
    path: str, kept: Kept, failed: dict[str, str] | None, *, wants: str
) -> Iterator[tuple[str, list[Span], ndarray | None]]:
    """Id, events and frames of each clip. `wants`: spans, as REF states them; seen, spans that
    were found, and frames where there are any; cuts, frames alone."""
    from vidgen.io.stream import read_stream

    taken: set[str] = set()
    if Path(path).suffix.lower() in ROWS:
        if wants == "cuts":
            raise UsageError(f"{path}: one input alone is looked at for cuts, and rows have none",
                             next=f"vidgen evaluate-events REF {path}")  # fmt: skip
        yield from ((id, spans, None) for id, spans in _rows(Path(path)).items())
        return
    for source in expand([path], kept):
        try:
            if content_of(source) == "video":
                if wants != "cuts":
                    raise InputError(f"{source}: a video says nothing of its events",
                                     next="give rows or records of events; or count its cuts:"
                                     f" vidgen evaluate-events {source}")  # fmt: skip
                for clip in clips([source], None, kept):
                    id = free_id(clip.id, taken)
                    taken.add(id)
                    yield id, [], clip.frames
                continue
            for record in read_stream(source):
                found = _usable(record, wants, taken, failed)
                if found is not None:
                    yield found
        except InputError as error:
            if failed is None:
                raise
            failed[source] = error.what


def _usable(
    record: Record, wants: str, taken: set[str], failed: dict[str, str] | None
) -> tuple[str, list[Span], ndarray | None] | None:
    """Id, events and frames of a record. Of those with one id each is numbered where cuts are
    counted; where clips are paired, InputError, or None with `failed`, which gets why."""
    id = record.id
    try:
        if wants == "cuts":
            id = free_id(id, taken)
        elif id in taken:
            raise InputError(f"`{id}`: is there twice", why="clips are paired by their ids")
        taken.add(id)
        return id, _spans(record, wants), _frames(record, wants)
    except InputError as error:
        if failed is None:
            raise
        failed[free_id(id, failed)] = error.what
        return None


def _spans(record: Record, wants: str) -> list[Span]:
    if wants == "cuts":
        return []
    if wants == "seen" and record.kind != "events" and not rendered(record):
        raise InputError(
            f"record `{record.id}`: its events are those that were asked for, not those seen in it",
            next="give what was found in the clips, as JSONL rows, instead",
        )
    events = record.attrs.get("events")
    if not isinstance(events, list):
        raise InputError(f"record `{record.id}` has no attr `events`")
    return [_span(event, f"record `{record.id}`") for event in events]


def _frames(record: Record, wants: str) -> ndarray | None:
    from vidgen.cli.media import frames_at

    if wants == "spans" or (wants == "seen" and "frames" not in record):
        return None
    return frames_at(record, own_rate(record) or 8)[0]


def _rows(path: Path) -> dict[str, list[Span]]:
    """Events by the clip's id."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as text: {error}") from None
    found: dict[str, list[Span]] = {}
    for n, line in numbered(text):
        where = f"{path}: line {n}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: not JSON: {error}") from None
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise InputError(f"{where}: a row is an object with an `id`")
        events = row.get("events", [row])
        if not isinstance(events, list):
            raise InputError(f"{where}: `events` is not a list")
        found.setdefault(row["id"], []).extend(_span(event, where) for event in events)
    return found


def _span(event: Any, where: str) -> Span:
    """[start, end, text] or an object of the three."""
    from vidgen.metrics.events import Span

    if isinstance(event, list) and 2 <= len(event) <= 3:
        event = dict(zip(("start", "end", "text"), event, strict=False))
    if not isinstance(event, dict):
        raise InputError(f"{where}: an event is [start, end, text], or an object of these")
    ends = event.get("start"), event.get("end")
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in ends):
        raise InputError(f"{where}: an event has numbers `start` and `end`, in seconds")
    text = next((event[key] for key in TEXTS if isinstance(event.get(key), str)), "")
    try:
        return Span(float(ends[0]), float(ends[1]), text)  # type: ignore[arg-type]
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: {error}, which is not a time that passes") from None


def _input(role: str, name: str, clips: dict[str, Any]) -> dict[str, Any]:
    text = "".join(f"{id}\0{clips[id]}\n" for id in sorted(clips))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"role": role, "name": name, "clips": len(clips), "sha256": digest}
