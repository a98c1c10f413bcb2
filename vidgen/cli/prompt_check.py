"""Prompts looked at before the work: the shipped model's world is small, and a prompt of which it
knows no word would cost a whole run and show something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vidgen.errors import UsageError

if TYPE_CHECKING:
    from vidgen.stages.base import Notify
    from vidgen.systems.base import ModelFolder
    from vidgen.world.reading import Beyond, Conflict, Reading

SHOWN = 60  # characters of a prompt that a message repeats
MOST = 8  # words that a message lists

WHY = {  # which of two phrases counts
    "shape": "the last noun",
    "color": "the nearest to its noun",
    "motion": "the first, as no `then` is between them",
    "ground": "the first",
    "camera": "the first",
}


def check_prompts(rows: Sequence[dict[str, Any]], folder: ModelFolder, notify: Notify) -> None:
    """Of a model of the world: `UsageError` for a prompt that has words and names nothing of the
    world, a warning for each contradiction, for what no scene has, and for what no clip had that
    the model learned from. The empty prompt is fine: nothing is asked of it. Released models may
    know any word."""
    level = folder.world_level
    if level is None:
        return
    from vidgen.world.reading import read_prompt

    readings = [(row["prompt"], read_prompt(row["prompt"])) for row in rows]
    for text, reading in readings:
        if text.strip() and not (reading.known or reading.objects):
            raise UsageError(
                f"the prompt `{shortened(text)}` names nothing that `{folder.name}` can show",
                why=_why(reading),
                next=f"name some of: {known_words(level)}",
            )
    from vidgen.world.scene import FACTORS_FULL

    for text, reading in readings:
        for conflict in reading.conflicts:
            if conflict.factor in FACTORS_FULL:
                notify.warn(f"`{shortened(text)}`: {_said(conflict)}")
        for beyond in reading.beyond:
            notify.warn(f"`{shortened(text)}`: {_lacking(beyond)}")
        if level == "basic" and (never := _beyond_basic(reading)):
            notify.warn(
                f"`{shortened(text)}`: no clip that `{folder.name}` learned from had"
                f" {' or '.join(never)}"
            )


def known_words(level: str = "full") -> str:
    """The canonical words of the captions that a model of this level of the world was trained on,
    by factor."""
    from vidgen.world.vocabulary import BASIC, FULL

    known = BASIC if level == "basic" else FULL
    return "; ".join(f"{factor} {', '.join(values)}" for factor, values in known.items())


def shortened(text: str) -> str:
    """The prompt on one line, its end left out if it is long."""
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1].rstrip() + "…"


def _why(reading: Reading) -> str:
    if reading.beyond:
        return _lacking(reading.beyond[0])
    if not reading.unknown:
        return "there is no word of its world in it"
    more = len(reading.unknown) - MOST
    words = ", ".join(shortened(word) for word in reading.unknown[:MOST])
    return f"it does not know: {words}" + (f" and {more} more" if more > 0 else "")


def _said(conflict: Conflict) -> str:
    """In words: "red and blue for the color of one object: `blue` counts, …"."""
    name, _, number = conflict.factor.partition("_")
    of = f"{name} of object {number}" if number else f"one {name}"
    words = " and ".join(f"`{phrase}`" for phrase in conflict.words)
    return f"{words} for {of}: `{conflict.winner}` counts, {WHY[name]}"


def _beyond_basic(reading: Reading) -> list[str]:
    """What the prompt says that no scene of the basic world has."""
    from vidgen.world.vocabulary import BASIC

    never = [
        f"`{value}`"
        for key, value in reading.factors().items()
        if value not in BASIC[key.partition("_")[0]]
    ]
    return list(dict.fromkeys(never)) + ["a second object"] * (len(reading.objects) > 1)


def _lacking(beyond: Beyond) -> str:
    if beyond.factor == "ground":
        from vidgen.world.vocabulary import FULL

        return f"no ground is `{beyond.words}`, there are: {', '.join(FULL['ground'])}"
    return f"`{beyond.words}` count as one: no scene has two objects alike"
