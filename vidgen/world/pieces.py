"""A prompt cut into pieces: the phrases of the world, the small words that tie them together, and
what says nothing here.

Phrases come from the tables of `vocabulary`; the longest that fits wins, as it is written before
as it may be meant (`spelling`). What a piece is for depends on its neighbors: `reading` decides.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache

from vidgen.world import captions
from vidgen.world.spelling import corrections
from vidgen.world.vocabulary import TABLES, Word

# Phrase → how `captions.relations` says it.
RELATIONS = {
    phrase: words
    for words in ("to the left of", "to the right of", "in front of", "behind")
    for phrase in (words, words.removeprefix("to the "), words.replace("to the", "on the", 1))
}
# What small words do in a sentence. "in" is apart: "a ball in green" wears it.
SMALL = {
    "new": ("a", "an", "another", "one"),
    "the": ("the",),
    "is": ("is", "are", "was"),
    "and": ("and", "while"),
    "then": ("then",),
    "to": ("to",),
    "on": ("on", "onto", "upon", "over", "across", "along", "atop"),
    "in": ("in",),
}
BREAK = "break"  # a mark between parts
WORD = "word"  # a word that captions use, and that says nothing where it stands


@dataclass(frozen=True)
class Piece:
    """Some words of the prompt. `means`: kind → value; what they can be (one green is a color and
    a ground), and "plural" → the first of them where several are meant."""

    text: str
    means: Mapping[str, str] = field(default_factory=dict)

    def __contains__(self, kind: str) -> bool:
        return kind in self.means


@dataclass(frozen=True)
class Lexicon:
    """phrases: first word → (all its words, what they mean), longest first. known: single words.
    finite: "panning" → "pans"."""

    phrases: Mapping[str, list[tuple[tuple[str, ...], dict[str, str]]]]
    known: frozenset[str]
    captions: frozenset[str]
    finite: Mapping[str, str]


def cut(text: str) -> tuple[list[Piece], list[str]]:
    """The pieces of a prompt, and the words in it that mean nothing here, each once."""
    lexicon = _lexicon()
    tokens: list[str] = []
    dropped: list[str] = []  # words of no use are out of the way: "a big red ball"
    for token in _tokens(text):
        if not token.isalpha() or token in lexicon.known or corrections(token, lexicon.known):
            tokens.append(token)
        else:
            dropped.append(token)
    pieces, filming, i = [], False, 0
    while i < len(tokens):
        piece, length = _longest(tokens, i, lexicon, filming)
        pieces.append(piece)
        if not piece.means and piece.text not in lexicon.captions:
            dropped.append(piece.text)
        filming = _filming(filming, piece, pieces)
        i += length
    said = {word: None for word in _tokens(text) if word in set(dropped)}  # in their order
    return pieces, list(said)


def _filming(filming: bool, piece: Piece, pieces: list[Piece]) -> bool:
    """Whether the words after this piece say what the camera does."""
    if "lens" in piece:
        return not any("relation" in before for before in pieces[-3:-1])
    ends = (BREAK, "and", "new", "the", "on", "shape", "thing", "camera")
    return filming and not any(kind in piece for kind in ends)


def _tokens(text: str) -> Iterator[str]:
    """Words in lower case, and a comma for each mark that parts them."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    text = re.sub(r"n't\b", " not", text)
    text = re.sub(r"'s\b", "", text)
    for match in re.finditer(r"[^\W\d_]+|[,.;!?()|\n—–]", text):
        yield match[0] if match[0].isalpha() else ","


def _longest(tokens: list[str], i: int, lexicon: Lexicon, filming: bool) -> tuple[Piece, int]:
    """The piece that starts at token i, and how many tokens it is."""
    if tokens[i] == ",":
        return Piece(",", {BREAK: ","}), 1
    exact = _match(tokens, i, lexicon, filming, typos=False)
    if exact and any(kind in exact[0] for kind in TABLES):
        return exact
    meant = _match(tokens, i, lexicon, filming, typos=True)
    if meant and (not exact or meant[1] > exact[1]):
        return meant
    if exact:
        return exact
    return Piece(tokens[i], {WORD: tokens[i]} if tokens[i] in lexicon.captions else {}), 1


def _match(
    tokens: list[str], i: int, lexicon: Lexicon, filming: bool, *, typos: bool
) -> tuple[Piece, int] | None:
    """The longest phrase at token i, with what it can mean there."""
    firsts = _readings(tokens[i], lexicon, typos)
    found = [entry for first in firsts for entry in lexicon.phrases.get(first, ())]
    for phrase, means in sorted(found, key=lambda entry: -len(entry[0])):
        # A camera slides left otherwise than a ball does.
        usable = {k: v for k, v in means.items() if k != ("motion" if filming else "filmed")}
        if not usable or i + len(phrase) > len(tokens):
            continue
        if len(phrase) == 1 and phrase[0] != tokens[i] and not _sure(tokens[i], firsts, lexicon):
            continue
        if all(
            word in _readings(token, lexicon, typos)
            for word, token in zip(phrase[1:], tokens[i + 1 : i + len(phrase)], strict=True)
        ):
            if "filmed" in usable:
                usable["camera"] = usable.pop("filmed")
            if _is_plural(tokens[i : i + len(phrase)], phrase, usable):
                usable["plural"] = tokens[i]
            return Piece(" ".join(phrase), usable), len(phrase)
    return None


def _is_plural(tokens: list[str], phrase: tuple[str, ...], means: Mapping[str, str]) -> bool:
    """Whether several are meant: "balls" for "ball", "bounce" for "bounces"."""
    ends = ("s", "es")
    if "shape" in means or "thing" in means:
        return tokens[-1] in [phrase[-1] + end for end in ends]
    return "motion" in means and phrase[0] in [tokens[0] + end for end in ends]


def _sure(token: str, readings: tuple[str, ...], lexicon: Lexicon) -> bool:
    """Whether a word alone is meant so: a circle is not what circles, a cune a cube or a cone."""
    if token in lexicon.known:
        return False
    alone = [
        next((means for phrase, means in lexicon.phrases.get(word, ()) if len(phrase) == 1), None)
        for word in readings
    ]
    return all(means == alone[0] for means in alone)


def _readings(token: str, lexicon: Lexicon, typos: bool) -> tuple[str, ...]:
    """The token itself and, with `typos`, what may be meant by it."""
    if not typos or token == ",":
        return (token,)
    if token in lexicon.known:  # "move left" moves left, "panning to the left" pans there
        forms = (token, token + "s", lexicon.finite.get(token, ""))
        return tuple(form for form in forms if form in lexicon.known)
    return corrections(token, lexicon.known)


@lru_cache(maxsize=1)
def _lexicon() -> Lexicon:
    found: dict[tuple[str, ...], dict[str, str]] = {}

    def add(phrase: str, kind: str, value: str) -> None:
        found.setdefault(tuple(phrase.split()), {}).setdefault(kind, value)

    starts = {p.split()[0] for word in TABLES["motion"].values() for p in _phrases(word)} | {"is"}
    for factor, table in TABLES.items():
        for word in table.values():
            for phrase in (*_phrases(word), *word.doing):
                if factor != "camera" or phrase in word.doing or phrase.split()[0] not in starts:
                    add(phrase, factor, word.name)
                if factor == "camera":
                    add(phrase, "filmed", word.name)
            if factor == "camera":
                add(word.name, "filmed", word.name)
            if factor == "motion":
                for phrase in word.doing:
                    add(phrase, "doing", word.name)
    for phrase in (*captions.CHAT, *(thanks.strip(" ,") for thanks in captions.THANKS)):
        add(phrase, "chat", phrase)
    for kind, words in {"floor": captions.FLOORS, "thing": captions.THINGS, **SMALL}.items():
        for phrase in words:
            add(phrase, kind, phrase)
    add("camera", "lens", "camera")
    for phrase, relation in RELATIONS.items():
        add(phrase, "relation", relation)
    phrases: dict[str, list[tuple[tuple[str, ...], dict[str, str]]]] = {}
    for phrase_words, means in sorted(found.items(), key=lambda item: -len(item[0])):
        phrases.setdefault(phrase_words[0], []).append((phrase_words, means))
    said = captions.words()
    known = said | {word for phrase_words in found for word in phrase_words}
    return Lexicon(phrases, frozenset(known), said, _finite(known))


def _finite(known: set[str] | frozenset[str]) -> dict[str, str]:
    """Each -ing form among the verbs → the form in -s."""
    words = [word for factor in ("motion", "camera") for word in TABLES[factor].values()]
    verbs = {phrase.split()[0] for word in words for phrase in _phrases(word)}
    doing = {w for word in words for phrase in word.doing for w in phrase.split()[:1]}
    return {
        form: verb
        for form in doing
        for stem in (form.removesuffix("ing"), form.removesuffix("ing")[:-1])
        for verb in (stem + "s", stem + "es")
        if form.endswith("ing") and verb in verbs & known
    }


def _phrases(word: Word) -> list[str]:
    """All that says the word, but for its -ing phrases: whichever fields of it hold phrases."""
    return [
        phrase
        for item in fields(word)
        if item.name != "doing" and isinstance(value := getattr(word, item.name), tuple)
        for phrase in value
        if isinstance(phrase, str)
    ]
