"""What `vidgen evaluate-world` tells: the JSON report, the table, the picture of failures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen.cli.console import Console, printable
from vidgen.io.files import atomic_write

if TYPE_CHECKING:
    from vidgen.cli.evaluate_world_look import Judged
    from vidgen.metrics.world_accuracy import Mark


def as_report(found: dict[str, Any], judged: Judged, schema: dict[str, Any]) -> dict[str, Any]:
    """What the schema says, in its order."""
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
    return {key: values[key] for key in schema["properties"]}


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


def write_failures(
    path: str, judged: Judged, marks: Sequence[Mark], console: Console, *, force: bool = False
) -> None:
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
    with atomic_write(Path(path), force=force) as f:
        f.write(
            image.encode_png(image.contact_sheet(strips, list(map(printable, labels)), columns=2))
        )
    console.note(f"{len(wrong)} failures in {path}")
