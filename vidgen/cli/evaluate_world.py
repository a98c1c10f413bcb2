"""`vidgen evaluate-world`: whether clips of the world show what was asked for."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vidgen.cli import schemas
from vidgen.cli.console import Console, printable
from vidgen.cli.options import Device, Json, argument, option
from vidgen.cli.page import Page
from vidgen.cli.runner import print_json, print_text, require_stdin
from vidgen.cli.schemas import NUMBER, SHA256, TEXT, WHOLE, array, obj, or_null
from vidgen.cli.sources import records_of
from vidgen.errors import Exit, InputError, ThresholdError, UsageError
from vidgen.io.files import atomic_write

if TYPE_CHECKING:
    from vidgen.metrics.judge import Verdict, WorldJudge
    from vidgen.metrics.world_accuracy import Asked, Mark

PAGE = Page(
    name="evaluate-world",
    summary="whether clips of the world show what was asked for",
    description="""\
A judge looks at five frames of each clip, at pixels and nothing else, and says shape, color and
motion of the objects, ground and camera. What it saw is compared with what the clip's prompt asks
for; of what the prompt leaves open nothing is asked. The report gives the share that is right for
each factor, and for everything at once, with Wilson intervals of 95 %.

The judge was trained on rendered clips alone, roughened by blur, compression, noise and light,
never on generated ones. Each report begins with two scales: the ceiling is what the judge says of
freshly rendered clips, whose truth is known, sent through the same video encoder; the floor is
what the clips score against each other's prompts. A share near the ceiling can't be told from
perfect; a share near the floor is chance.

Prompts are those that the clips carry, or rows of --prompts: objects with `id` and `prompt`, and
if wanted `factors`, as `vidgen world --rows` writes them, which are then believed instead of
the prompt's words. Clips that know their factors already (rendered ones) are held to them.""",
    reads="frames records, videos or folders of pictures from IN",
    writes="a table, or JSON, to standard output",
    examples=[
        ("vidgen evaluate-world ball.mp4", "one clip against its own prompt"),
        ("vidgen world --split test --num 16 | vidgen evaluate-world --min all=0.9",
         "rendered clips; exit code 4 below 90 %"),
        ("vidgen evaluate-world ball.mp4 --json", "for a program"),
    ],
    notes={
        "FACTORS": """\
shape, color, motion (of every object), ground, camera; relation (left, right, front, behind) and
count where a prompt names several objects; all = everything that the prompt asks for.""",
    },
    see_also=["vidgen-world(1)", "vidgen-generate(1)"],
)  # fmt: skip

Inputs = Annotated[
    list[str] | None,
    argument("IN", "files of frames records, videos, folders of pictures; - is standard input"),
]
PromptRows = Annotated[
    str | None,
    option("--prompts", metavar="FILE", default="the clips' own", settable=False,
           help="JSONL rows with id, prompt and if wanted factors, in any order"),
]  # fmt: skip
Level = Annotated[
    Literal["basic", "full"], option("--level", help="the world that the judge knows")
]
Judge = Annotated[
    str | None,
    option("--judge", metavar="DIR", default="the one that comes with vidgen",
           help="a folder that `vidgen train world-judge` made"),
]  # fmt: skip
Min = Annotated[
    list[str] | None,
    option("--min", metavar="FACTOR=SHARE", default="none", settable=False,
           help="exit with 4 if a share is lower, such as all=0.95; may be repeated"),
]  # fmt: skip
Ceiling = Annotated[
    int,
    option("--ceiling", metavar="N", min=0, max=100_000,
           help="rendered clips that the judge is tried on first; 0: none"),
]  # fmt: skip
Sheet = Annotated[
    str | None,
    option("--failures", metavar="FILE", default="none", settable=False,
           help="a PNG of the clips that are wrong, with what was seen"),
]  # fmt: skip
Report = Annotated[
    str | None,
    option("--report", metavar="FILE", default="none", settable=False,
           help="write the JSON report to a file, too"),
]  # fmt: skip

_SHARE = obj({"right": WHOLE, "of": WHOLE, "share": NUMBER, "low": NUMBER, "high": NUMBER})
_SHARES = {"type": "object", "additionalProperties": _SHARE}
SCHEMAS = {
    "vidgen.evaluate-world/1": schemas.report(
        "vidgen.evaluate-world/1",
        "What `vidgen evaluate-world --json` prints; confusion: factor, asked, seen, how often",
        {
            "clips": WHOLE,
            "level": TEXT,
            "judge": obj({"name": TEXT, "sha256": SHA256}),
            "ceiling": or_null(_SHARES),
            "floor": or_null(_SHARES),
            "scores": _SHARES,
            "unseen": or_null(_SHARES),
            "seen": or_null(_SHARES),
            "places": or_null(
                obj({"prompts": WHOLE, "clips": WHOLE, "places": WHOLE, "share": NUMBER})
            ),
            "confusion": {"type": "object"},
            "wrong": array(
                obj({"id": TEXT, "prompt": TEXT, "asked": array(TEXT), "seen": array(TEXT)})
            ),
        },
    )
}

BATCH = 32


@dataclass(frozen=True)
class Row:
    """What a clip is held to."""

    prompt: str
    asked: Asked


@dataclass
class Judged:
    """The clips of a run, judged."""

    ids: list[str]
    rows: list[Row]
    verdicts: list[Verdict]
    thumbnails: list[Any]  # five frames each, uint8 arrays `5 h w 3`


def evaluate_world(
    console: Console,
    inputs: Inputs = None,
    prompts: PromptRows = None,
    level: Level = "basic",
    judge: Judge = None,
    min: Min = None,
    ceiling: Ceiling = 256,
    failures: Sheet = None,
    report: Report = None,
    json: Json = False,
    device: Device = "auto",
) -> int | None:
    least = thresholds(min or ())
    paths = inputs or ["-"]
    if "-" in paths:
        require_stdin()
    for path in filter(None, (failures, report)):
        from vidgen.io.files import check_writable

        check_writable(path)
    rows = read_rows(prompts) if prompts else None
    folder = find_judge(judge, level)

    from vidgen.metrics.judge import load_judge
    from vidgen.stages.base import Compute

    compute = Compute(device=device)
    compute.check()
    network = load_judge(folder, compute.torch_device())
    if network.config.level != level:
        raise UsageError(
            f"{folder}: judges the {network.config.level} world, not the {level} one",
            next=f"--level {network.config.level}",
        )
    judged = look(network, _clips(paths), rows, console)
    found = evaluate(network, judged, ceiling, console)
    found["judge"] = {"name": folder.name, "sha256": _sha256(folder)}
    if failures is not None:
        _write_failures(failures, judged, found["marks"], console)
    whole = as_report(found, judged)
    if report is not None:
        with atomic_write(report) as f:
            f.write((jsonlib.dumps(whole, ensure_ascii=False, indent=1) + "\n").encode())
    if json:
        print_json(whole)
    else:
        print_text(as_table(found))
    return require(least, found["scores"])


# --- What is asked --------------------------------------------------------------------------------


def thresholds(words: Sequence[str]) -> dict[str, float]:
    """`all=0.95` … → {"all": 0.95}; UsageError for what is no factor or no share."""
    from vidgen.metrics.world_accuracy import FACTORS

    known = (*FACTORS, "relation", "count", "all")
    found = {}
    for word in words:
        name, equals, text = word.partition("=")
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if name not in known or not equals or not 0 <= share <= 1:
            raise UsageError(
                f"--min {word}: is not FACTOR=SHARE",
                why=f"factors: {', '.join(known)}; shares are 0 to 1",
                next="--min all=0.95",
            )
        found[name] = share
    return found


def read_rows(path: str) -> dict[str, Row]:
    """id → row of a JSONL file."""
    rows: dict[str, Row] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read", why=str(error)) from None
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = jsonlib.loads(line)
        except ValueError as error:
            raise InputError(f"{path}: line {n}: not JSON", why=str(error)) from None
        if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
            raise InputError(f"{path}: line {n}: is not an object with `prompt`")
        if not isinstance(value.get("id"), str):
            raise InputError(f"{path}: line {n}: has no `id`, so no clip is known to be its own")
        rows[value["id"]] = row_of(value["prompt"], value.get("factors"), f"{path}: line {n}")
    return rows


def row_of(prompt: str, factors: Any, where: str) -> Row:
    """What a prompt asks, or the factors beside it. InputError for factors that are none."""
    from vidgen.metrics.world_accuracy import Asked
    from vidgen.world.reading import read_prompt
    from vidgen.world.scene import FACTORS_FULL

    reading = read_prompt(prompt)
    if factors is None:
        asked = Asked.of_factors(reading.factors())
    else:
        if not isinstance(factors, dict) or any(
            v not in FACTORS_FULL.get(k, ()) for k, v in factors.items()
        ):
            raise InputError(f"{where}: `factors` are not factors of the world: {factors}")
        asked = Asked.of_factors(factors)
    known = tuple(r for r in reading.relations if max(r[0], r[2]) < len(asked.objects))
    return Row(prompt, Asked(asked.objects, asked.ground, asked.camera, known))


def find_judge(given: str | None, level: str) -> Path:
    """The folder of the judge. UsageError if there is none."""
    from vidgen.metrics.judge import SHIPPED

    folder = Path(given) if given else SHIPPED / level
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"no judge in {folder}"
            if given
            else f"no judge of the {level} world comes with vidgen",
            next="vidgen train world-judge, and --judge runs/world-judge/model",
        )
    return folder


# --- Looking --------------------------------------------------------------------------------------


def _clips(paths: Sequence[str]) -> Iterator[Any]:
    for record in records_of(paths, "evaluate-world"):
        if "frames" not in record:
            raise InputError(
                f"record `{record.id}` holds {record.kind}, and the judge looks at frames",
                next="put `vidgen decode` in front of it",
            )
        yield record


def look(
    network: WorldJudge, records: Iterator[Any], rows: dict[str, Row] | None, console: Console
) -> Judged:
    """Judge every clip, a batch at a time; only five small frames of each are kept."""
    import torch

    from vidgen.metrics.judge import prepared

    done = Judged([], [], [], [])
    waiting: list[Any] = []

    def flush() -> None:
        if waiting:
            done.verdicts.extend(network.judge(torch.stack(waiting)))
            waiting.clear()
            console.step(len(done.verdicts), len(done.ids), "clip")

    for record in records:
        done.rows.append(_row(record, rows, network.config.level))
        done.ids.append(record.id)
        try:
            clip = prepared(torch.from_numpy(record.numpy("frames").copy()))
        except InputError as error:
            raise InputError(f"record `{record.id}`: {error.what}", why=error.why) from None
        done.thumbnails.append(clip.numpy())
        waiting.append(clip)
        if len(waiting) == BATCH:
            flush()
    flush()
    if not done.ids:
        raise InputError("no clips to judge")
    if rows is not None and (unused := set(rows) - set(done.ids)):
        console.warn(f"{len(unused)} prompts have no clip: {', '.join(sorted(unused)[:3])}")
    return done


def _row(record: Any, rows: dict[str, Row] | None, level: str) -> Row:
    if rows is not None:
        # Sampling adds `-s` and the seed to the id of the prompt.
        found = rows.get(record.id) or rows.get(record.id.rpartition("-s")[0])
        if found is None:
            raise InputError(f"clip `{record.id}`: no row of --prompts has its id")
    else:
        prompt = record.attrs.get("prompt")
        if not isinstance(prompt, str):
            raise InputError(
                f"clip `{record.id}` does not know its prompt",
                next="--prompts rows.jsonl says what each clip is to show",
            )
        found = row_of(prompt, record.attrs.get("factors"), f"clip `{record.id}`")
    if beyond := found.asked.beyond(level):
        raise InputError(
            f"clip `{record.id}` asks for {beyond[0]}, which the {level} world does not have",
            next="--level full" if level == "basic" else None,
        )
    if level == "basic" and len(found.asked.objects) > 1:
        raise InputError(
            f"clip `{record.id}` asks for {len(found.asked.objects)} objects",
            why="the basic world has one",
            next="--level full",
        )
    return found


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
        chosen = [m for m, u in zip(marks, unseen, strict=True) if u is wanted]
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


# --- Telling --------------------------------------------------------------------------------------


def as_report(found: dict[str, Any], judged: Judged) -> dict[str, Any]:
    """What the schema says, in its order."""
    keys = SCHEMAS["vidgen.evaluate-world/1"]["properties"]
    wrong = [
        {
            "id": id,
            "prompt": row.prompt,
            "asked": [f"{name} {said}" for name, said, _ in one.wrong],
            "seen": [f"{name} {seen}" for name, _, seen in one.wrong],
        }
        for id, row, one in zip(judged.ids, judged.rows, found["marks"], strict=True)
        if not one.everything
    ]
    values = {"schema": "vidgen.evaluate-world/1", **found, "wrong": wrong}
    return {key: values[key] for key in keys}


def as_table(found: dict[str, Any]) -> str:
    """Factor by factor: right, of how many, interval, ceiling, floor; then what was taken for
    what."""
    ceiling, floor = found["ceiling"] or {}, found["floor"] or {}

    def share(shares: dict[str, Any], name: str) -> str:
        return f"{100 * shares[name]['share']:5.1f} %" if name in shares else "      –"

    lines = [f"{'':<9} {'right':>7}  {'95 % interval':>15} {'of':>6} {'ceiling':>9} {'floor':>8}"]
    for name, one in found["scores"].items():
        interval = f"{100 * one['low']:.1f} – {100 * one['high']:.1f}"
        lines.append(
            f"{name:<9} {share(found['scores'], name):>7}  {interval:>15} {one['of']:>6} "
            f"{share(ceiling, name):>9} {share(floor, name):>8}"
        )
    if found["unseen"]:
        unseen, seen = found["unseen"]["all"], found["seen"] and found["seen"]["all"]
        lines.append("")
        lines.append(
            f"combinations never trained on: all {100 * unseen['share']:.1f} % of {unseen['of']}"
            + (f"; others {100 * seen['share']:.1f} % of {seen['of']}" if seen else "")
        )
    if places := found["places"]:
        lines.append(
            f"places of the object: {places['places']} different in {places['clips']} clips of "
            f"{places['prompts']} prompts"
        )
    if mistaken := _mistaken(found["confusion"]):
        lines += ["", "asked → seen", *mistaken]
    return "\n".join(lines) + "\n"


def _mistaken(table: dict[str, dict[str, dict[str, int]]], most: int = 12) -> list[str]:
    rows = [
        (count, name, said, seen)
        for name, by in table.items()
        for said, counts in by.items()
        for seen, count in counts.items()
        if said != seen
    ]
    rows.sort(key=lambda r: (-r[0], r[1:]))
    lines = [
        f"{count:>5}  {name}: {printable(said)} → {printable(seen)}"
        for count, name, said, seen in rows[:most]
    ]
    if len(rows) > most:
        lines.append(f"       and {len(rows) - most} kinds more (--json has all)")
    return lines


def require(least: dict[str, float], scores: dict[str, Any]) -> Exit:
    """Exit code; ThresholdError names the first share that is too low."""
    for name, share in least.items():
        if name not in scores:
            raise UsageError(
                f"--min {name}: no clip's prompt says anything of it",
                next=f"factors here: {', '.join(scores)}",
            )
        if scores[name]["share"] < share:
            raise ThresholdError(
                f"{name} is right in {100 * scores[name]['share']:.1f} % of {scores[name]['of']},"
                f" less than the {100 * share:.1f} % of --min"
            )
    return Exit.DONE


def _write_failures(path: str, judged: Judged, marks: Sequence[Mark], console: Console) -> None:
    """A contact sheet of the clips that are wrong, at most 24."""
    from vidgen.io import image

    wrong = [i for i, one in enumerate(marks) if not one.everything][:24]
    if not wrong:
        console.note("nothing is wrong, so there is no picture of failures")
        return
    strips = [judged.thumbnails[i].repeat(2, axis=1).repeat(2, axis=2) for i in wrong]
    labels = [
        f"{judged.rows[i].prompt} | seen: {', '.join(s for _, _, s in marks[i].wrong)}"
        for i in wrong
    ]
    with atomic_write(Path(path)) as f:
        f.write(
            image.encode_png(image.contact_sheet(strips, list(map(printable, labels)), columns=2))
        )
    console.note(f"{len(wrong)} failures in {path}")


def _sha256(folder: Path) -> str:
    import hashlib

    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
