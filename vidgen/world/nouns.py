"""Noun phrases of a prompt, and whether they stand where a place is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vidgen.world.pieces import BREAK, WORD, Piece

Said = tuple[str, str]  # phrase, canonical value


@dataclass
class Noun:
    """`a bouncing red ball`: pieces start … end − 1. `article`: "the" may be a thing that was
    named before. `plural`: its last noun as it is written, if that means several."""

    start: int
    end: int
    article: str = ""
    plural: str = ""
    shapes: list[Said] = field(default_factory=list)
    colors: list[Said] = field(default_factory=list)
    motions: list[Said] = field(default_factory=list)


def find_nouns(pieces: list[Piece]) -> Iterator[Noun]:
    """The noun phrases, in order."""
    end = 0
    for i, piece in enumerate(pieces):
        if i < end or not ("shape" in piece or "thing" in piece) or _is_verb(pieces, i):
            continue
        last = i + 1
        while last < len(pieces) and "shape" in pieces[last]:
            last += 1  # a tin can
        yield _phrase(pieces, i, last, end)
        end = last


def _is_verb(pieces: list[Piece], i: int) -> bool:
    """The "can" of "can the ball bounce"."""
    starts = i == 0 or BREAK in pieces[i - 1] or "chat" in pieces[i - 1]
    after = pieces[i + 1] if i + 1 < len(pieces) else Piece("")
    return starts and any(kind in after for kind in ("new", "the", WORD))


def _phrase(pieces: list[Piece], head: int, end: int, floor: int) -> Noun:
    """The noun phrase whose (first) noun is piece `head`, from what stands before it."""
    shapes = [(p.text, p.means["shape"]) for p in pieces[head:end] if "shape" in p]
    i, cut_at = head, None
    while i > floor:
        before = pieces[i - 1]
        if "color" in before or "doing" in before:
            pass
        elif "ground" in before:  # a stone ball; but "on sand" is a place
            if placed(pieces, i - 1):
                break
        elif ("and" in before or BREAK in before) and "color" in pieces[i] and i - 1 > floor:
            cut_at = i if cut_at is None else cut_at  # a red and blue ball, if there is an article
            if "color" not in pieces[i - 2]:
                break
        elif not (WORD in before or not before.means):
            break
        i -= 1
    article = pieces[i - 1] if i > floor else Piece("")
    said = next((kind for kind in ("the", "new") if kind in article), "")
    if not said:
        i = i if cut_at is None else cut_at
        while i < head and not ("color" in pieces[i] or "doing" in pieces[i]):
            i += 1
        if i < head and "doing" in pieces[i] and i > floor and not _opens(pieces, i):
            i += 1  # what the thing before does
    colors = [(p.text, p.means["color"]) for p in pieces[i:head] if "color" in p]
    motions = [(p.text, p.means["doing"]) for p in pieces[i:head] if "doing" in p]
    plural = pieces[end - 1].means.get("plural", "")
    return Noun(i, end, said, plural, shapes, colors, motions)


def _opens(pieces: list[Piece], i: int) -> bool:
    return i == 0 or any(kind in pieces[i - 1] for kind in (BREAK, "and", "chat"))


def placed(pieces: list[Piece], i: int) -> bool:
    """Whether a preposition of place stands before piece i, with colors or an article between."""
    while i > 0 and any(k in pieces[i - 1] for k in ("color", "ground", "new", "the")):
        i -= 1
    if i == 0:
        return False
    return "on" in pieces[i - 1] or "in" in pieces[i - 1]


def placed_on(pieces: list[Piece], i: int) -> bool:
    """Whether piece i stands right after "on", "on the", "in the"."""
    while i > 0 and ("new" in pieces[i - 1] or "the" in pieces[i - 1]):
        i -= 1
        if i > 0 and "in" in pieces[i - 1]:
            return True
    return i > 0 and "on" in pieces[i - 1]
