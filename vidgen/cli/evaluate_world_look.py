"""How `vidgen evaluate-world` looks at clips: verdicts, and the shares they add up to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidgen.cli.console import Console
from vidgen.cli.evaluate_world_rows import Row, row_for
from vidgen.cli.rows import row_id
from vidgen.cli.sources import records_of
from vidgen.errors import InputError

if TYPE_CHECKING:
    from vidgen.metrics.judge import Verdict, WorldJudge


@dataclass
class Judged:
    """The clips of a run, judged."""

    ids: list[str]
    rows: list[Row]
    verdicts: list[Verdict]
    models: set[tuple[str, str]]  # name and SHA-256 of what sampled them, as their logs say
    thumbnails: list[Any]  # five frames each, uint8 arrays `5 h w 3`; none unless wanted


def clips(paths: Sequence[str]) -> Iterator[Any]:
    for record in records_of(paths, "evaluate-world"):
        if "frames" not in record:
            raise InputError(
                f"record `{record.id}` holds {record.kind}, and the judge looks at frames",
                next="put `vidgen decode` in front of it",
            )
        yield record


def look(
    network: WorldJudge,
    records: Iterator[Any],
    rows: dict[str, Row] | None,
    console: Console,
    *,
    thumbnails: bool,
) -> Judged:
    """Judge every clip, a batch at a time; of its pixels nothing is kept but `thumbnails`."""
    import torch

    from vidgen.metrics.judge import BATCH, prepared, squeezed

    done = Judged([], [], [], set(), [])
    waiting: list[Any] = []
    odd: list[str] = []  # clips of another aspect

    def flush() -> None:
        if waiting:
            done.verdicts.extend(network.judge(torch.stack(waiting)))
            waiting.clear()
            console.step(len(done.verdicts), len(done.ids), "clip")

    for record in records:
        done.rows.append(row_for(record, rows, network.config.level))
        done.ids.append(record.id)
        done.models.update(_samplers(record.log))
        frames = torch.from_numpy(record.numpy("frames").copy())
        try:
            clip = prepared(frames)
        except InputError as error:
            raise InputError(f"record `{record.id}`: {error.what}", why=error.why) from None
        if squeezed(frames):
            odd.append(f"`{record.id}` is {frames.shape[2]} × {frames.shape[1]}")
        if thumbnails:
            done.thumbnails.append(clip.numpy())
        waiting.append(clip)
        if len(waiting) == BATCH:
            flush()
    flush()
    if not done.ids:
        raise InputError("no clips to judge")
    if not any(_asks(row.asked) for row in done.rows):
        raise InputError("no prompt asks for anything that the world has")
    if odd:
        console.warn(
            f"{len(odd)} of {len(done.ids)} clips are not 8:5, as the judge knows the world, and"
            f" were squeezed: {', '.join(odd[:3])}"
        )
    if beyond := list(dict.fromkeys(word for row in done.rows for word in row.beyond)):
        console.warn(
            f"prompts say what no scene has, and that is not judged: {', '.join(beyond[:3])}"
        )
    if rows is not None and (unused := set(rows) - {row_id(id, rows) for id in done.ids}):
        console.warn(f"{len(unused)} prompts have no clip: {', '.join(sorted(unused)[:3])}")
    return done


def _asks(asked: Any) -> bool:
    return bool(asked.objects or asked.ground or asked.camera)


def _samplers(log: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Name and SHA-256 of the models that sampled, as a log has them, which may be anybody's."""
    for entry in log:
        model = entry.get("model") if entry.get("tool") == "sample-keyframes" else None
        if isinstance(model, dict):
            name, digest = model.get("name"), model.get("sha256")
            if isinstance(name, str) and isinstance(digest, str):
                yield name, digest


def evaluate(network: WorldJudge, judged: Judged, ceiling: int, console: Console) -> dict[str, Any]:
    """All shares, and the marks they come from."""
    from vidgen.metrics.rendered import judge_rendered
    from vidgen.metrics.world_accuracy import confusion, mark, shuffled, spread, tally
    from vidgen.world.scene import HELD_OUT

    counted = network.config.level == "full"
    asked = [row.asked for row in judged.rows]
    marks = [mark(v, a, counted=counted) for v, a in zip(judged.verdicts, asked, strict=True)]
    unseen = [
        any((t.get("shape"), t.get("color"), t.get("motion")) in HELD_OUT for t in a.objects)
        for a in asked
    ]
    tried = None
    if ceiling:
        console.note(f"trying the judge on {ceiling} rendered clips")
        tried = tally(judge_rendered(network, ceiling))

    def part(wanted: bool) -> dict[str, Any] | None:
        chosen = [m for m, u in zip(marks, unseen, strict=True) if u is wanted and m.pairs]
        return tally(chosen) if any(unseen) and chosen else None

    return {
        "clips": len(marks),
        "level": network.config.level,
        "ceiling": tried,
        "floor": shuffled(judged.verdicts, asked, counted=counted),
        "scores": tally(marks),
        "unseen": part(True),
        "seen": part(False),
        "places": spread([row.prompt for row in judged.rows], judged.verdicts),
        "confusion": confusion(marks),
        "marks": marks,
    }
