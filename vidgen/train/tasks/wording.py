"""Captions roughened: what people type is not what a grammar makes."""

from __future__ import annotations

import random
import string

from vidgen.world.vocabulary import COLORS

FILLER = (
    "big", "small", "little", "tiny", "huge", "shiny", "nice", "pretty", "lonely", "old", "new",
    "very", "really", "slowly", "quickly", "gently", "just", "some", "single", "beautiful", "happy",
    "cinematic", "realistic", "detailed", "photo", "4k", "hd", "today", "here", "bright", "dark",
)  # fmt: skip


def typo(text: str, draw: random.Random) -> str:
    """One letter of a word changed, lost, doubled or swapped with the one before."""
    places = [i for i in range(1, len(text)) if text[i].isalpha() and text[i - 1].isalpha()]
    if not places:
        return text
    i = draw.choice(places)
    kind = draw.randrange(4)
    if kind == 0:
        return text[:i] + draw.choice(string.ascii_lowercase) + text[i + 1 :]
    if kind == 1:
        return text[:i] + text[i + 1 :]
    if kind == 2:
        return text[:i] + text[i] + text[i:]
    return text[: i - 1] + text[i] + text[i - 1] + text[i + 1 :]


def padded(text: str, draw: random.Random) -> str:
    """One word more that says nothing: a known filler, or letters that are no word at all."""
    word = draw.choice(FILLER)
    if draw.random() < 0.3:
        word = "".join(draw.choices(string.ascii_lowercase, k=draw.randint(3, 8)))
    words = text.split()
    words.insert(draw.randint(0, len(words)), word)
    return " ".join(words)


def contradicted(text: str, draw: random.Random) -> str:
    """Another color put before a color that stands before its noun: the later one counts."""
    words = text.split()
    said = {phrase for color in COLORS.values() for phrase in color.phrases}
    places = [
        i for i, word in enumerate(words) if word in said and i and words[i - 1] in ("a", "an")
    ]
    if not places:
        return text
    words.insert(draw.choice(places), draw.choice(sorted(said)))
    return " ".join(words)
