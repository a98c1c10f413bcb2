"""What a prompt says of a scene, read by rule: the way back from `captions`.

Understands all that captions say, in any order, with typing errors, and much that people say
instead. What is not said, or not understood, stays None: a factor is rather left open than wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from vidgen.world.pieces import BREAK, WORD, Piece, cut
from vidgen.world.scene import FACTORS_FULL, OBJECT_FACTORS


@dataclass(frozen=True)
class ObjectReading:
    """One object: canonical values, None where nothing is said."""

    shape: str | None = None
    color: str | None = None
    motion: str | None = None  # the first, of several one after another


@dataclass(frozen=True)
class Conflict:
    """Phrases of which only one can be, as the prompt has them, and the one that counts. `factor`
    is named as in `scene.labels`."""

    factor: str
    words: tuple[str, ...]
    winner: str


@dataclass(frozen=True)
class Reading:
    """A prompt understood. Relations are (object, words, object) as in `captions.relations`;
    unknown are the words that captions never use and that say nothing here."""

    objects: tuple[ObjectReading, ...] = ()
    ground: str | None = None
    camera: str | None = None
    relations: tuple[tuple[int, str, int], ...] = ()
    unknown: tuple[str, ...] = ()
    conflicts: tuple[Conflict, ...] = ()

    @property
    def known(self) -> bool:
        """Whether any factor is said."""
        things = any(t.shape or t.color or t.motion for t in self.objects)
        return bool(things or self.ground or self.camera)

    def factors(self) -> dict[str, str]:
        """The factors that are said, keyed as `scene.labels`; the world has three objects."""
        said = {"ground": self.ground, "camera": self.camera}
        for n, thing in enumerate(self.objects, 1):
            said |= {key_of(name, n): getattr(thing, name) for name in OBJECT_FACTORS}
        return {key: value for key, value in said.items() if value and key in FACTORS_FULL}


def read_prompt(text: str) -> Reading:
    """Read a prompt. Any text can be read; one that says nothing gives an empty reading."""
    pieces, unknown = cut(text)
    return _Reader(pieces).read(unknown)


def key_of(name: str, n: int) -> str:
    """What `scene.labels` calls a factor of the n-th object, counted from 1."""
    return name if n == 1 else f"{name}_{n}"


# --- Noun phrases

Said = tuple[str, str]  # phrase, canonical value


@dataclass
class _Noun:
    """`a bouncing red ball`: pieces start … end − 1. `article`: "the" may be a thing that was
    named before."""

    start: int
    end: int
    article: str = ""
    shapes: list[Said] = field(default_factory=list)
    colors: list[Said] = field(default_factory=list)
    motions: list[Said] = field(default_factory=list)


def _nouns(pieces: list[Piece]) -> Iterator[_Noun]:
    """The noun phrases, in order."""
    end = 0
    for i, piece in enumerate(pieces):
        if i < end or not ("shape" in piece or "thing" in piece) or _is_verb(pieces, i):
            continue
        last = i + 1
        while last < len(pieces) and "shape" in pieces[last]:
            last += 1  # a tin can
        yield _noun(pieces, i, last, end)
        end = last


def _is_verb(pieces: list[Piece], i: int) -> bool:
    """The "can" of "can the ball bounce"."""
    starts = i == 0 or BREAK in pieces[i - 1] or "chat" in pieces[i - 1]
    after = pieces[i + 1] if i + 1 < len(pieces) else Piece("")
    return starts and any(kind in after for kind in ("new", "the", WORD))


def _noun(pieces: list[Piece], head: int, end: int, floor: int) -> _Noun:
    """The noun phrase whose (first) noun is piece `head`, from what stands before it."""
    shapes = [(p.text, p.means["shape"]) for p in pieces[head:end] if "shape" in p]
    i, cut_at = head, None
    while i > floor:
        before = pieces[i - 1]
        if "color" in before or "doing" in before:
            pass
        elif "ground" in before:  # a stone ball; but "on sand" is a place
            if _placed(pieces, i - 1):
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
    return _Noun(i, end, said, shapes, colors, motions)


def _opens(pieces: list[Piece], i: int) -> bool:
    return i == 0 or any(kind in pieces[i - 1] for kind in (BREAK, "and", "chat"))


def _placed(pieces: list[Piece], i: int) -> bool:
    """Whether a preposition of place stands before piece i, with colors or an article between."""
    while i > 0 and any(k in pieces[i - 1] for k in ("color", "ground", "new", "the")):
        i -= 1
    if i == 0:
        return False
    return "on" in pieces[i - 1] or "in" in pieces[i - 1]


# --- The whole


@dataclass
class _Found:
    """An object while it is read. `done`: its motion and what it does then."""

    shapes: list[Said] = field(default_factory=list)
    colors: list[Said] = field(default_factory=list)  # before the noun
    worn: list[Said] = field(default_factory=list)  # after it: "that is red"
    motions: list[Said] = field(default_factory=list)

    @property
    def shape(self) -> str | None:
        return self.shapes[-1][1] if self.shapes else None

    @property
    def color(self) -> str | None:
        said = self.colors[-1:] or self.worn[:1]
        return said[0][1] if said else None


Mention = tuple[list[int], _Noun]  # which objects are meant, perhaps; by which words


class _Reader:
    """Goes through the pieces once, from noun phrase to noun phrase."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        self.objects: list[_Found] = []
        self.grounds: list[Said] = []
        self.cameras: list[Said] = []
        self.related: list[tuple[Mention, str, Mention]] = []
        self.current: _Found | None = None
        self.mention: Mention | None = None
        self.relation = ""  # said, and its second object not yet
        self.then = False
        self.early = _Found()  # said before any object

    def read(self, unknown: list[str]) -> Reading:
        nouns = {noun.start: noun for noun in _nouns(self.pieces)}
        i = 0
        while i < len(self.pieces):
            if noun := nouns.get(i):
                self._name(noun)
                i = noun.end
            else:
                self._take(i)
                i += 1
        early = self.early
        if early.worn or early.motions:
            first = self.objects[0] if self.objects else _Found()
            first.motions = first.motions or early.motions
            if not self.objects:  # "red, bouncing": of something
                first.worn = early.worn
                self.objects.append(first)
        relations = tuple(dict.fromkeys(r for found in self.related if (r := self._relate(*found))))
        return Reading(
            tuple(
                ObjectReading(t.shape, t.color, t.motions[0][1] if t.motions else None)
                for t in self.objects
            ),
            self.grounds[0][1] if self.grounds else None,
            self.cameras[0][1] if self.cameras else None,
            relations,
            tuple(unknown),
            tuple(self._conflicts()),
        )

    # Objects

    def _name(self, noun: _Noun) -> None:
        """A noun phrase: a new object, or one that was named before."""
        related = not noun.article and (self.relation or self._relates(noun.end))
        fits = self._fitting(noun) if noun.article == "the" or related else []
        if not fits:
            thing = _Found(noun.shapes, noun.colors, [], noun.motions)
            self.objects.append(thing)
            fits, self.current = [len(self.objects) - 1], thing
        elif len(fits) == 1:
            self.current = self.objects[fits[0]]
            self._learn(self.current, noun)
        else:
            self.current = None
        before, self.mention = self.mention, (fits, noun)
        if self.relation and before:
            self.related.append((before, self.relation, self.mention))
        self.relation, self.then = "", False

    def _fitting(self, noun: _Noun) -> list[int]:
        """The objects that "the …" can be: those that are just so, or else those not otherwise."""
        shape = noun.shapes[-1][1] if noun.shapes else None
        color = noun.colors[-1][1] if noun.colors else None
        things = list(enumerate(self.objects[:8]))  # a scene has three; a text may go on
        same = [i for i, t in things if (t.shape, t.color) == (shape, color)]
        if same and shape and color:
            return same[:1]
        subject = self.mention[0] if self.relation and self.mention else []
        return [
            i
            for i, t in things
            if subject != [i]
            and (not shape or t.shape in (None, shape))
            and (not color or t.color in (None, color))
        ]

    def _relates(self, i: int) -> bool:
        """Whether "is left of" stands from piece i on."""
        return any("relation" in p for p in self.pieces[i : i + 2] if BREAK not in p)

    def _learn(self, thing: _Found, noun: _Noun) -> None:
        """What a later mention adds."""
        thing.shapes = thing.shapes or noun.shapes
        if not thing.color:
            thing.colors = noun.colors
        thing.motions = thing.motions or noun.motions

    def _relate(self, one: Mention, words: str, other: Mention) -> tuple[int, str, int] | None:
        """The relation, if only one pair of objects can be meant: of several the one in the order
        in which they were named."""
        pairs = [(i, j) for i, j in product(one[0], other[0]) if i != j]
        if len(pairs) > 1:
            pairs = [(i, j) for i, j in pairs if i < j]
        if len(pairs) != 1:
            return None
        for number, (_, noun) in zip(pairs[0], (one, other), strict=True):
            self._learn(self.objects[number], noun)
        return (pairs[0][0], words, pairs[0][1])

    # All other pieces

    def _take(self, i: int) -> None:
        piece = self.pieces[i]
        if self._is_ground(i):
            self.grounds.append((piece.text, piece.means["ground"]))
        elif "color" in piece:
            if self._is_worn(i):
                self._of().worn.append((piece.text, piece.means["color"]))
        elif "motion" in piece:
            self._move((piece.text, piece.means["motion"]))
        elif "camera" in piece:
            self.cameras.append((piece.text, piece.means["camera"]))
        elif "then" in piece:
            self.then = True
        elif "relation" in piece:
            self.relation = piece.means["relation"]
        if BREAK in piece or "lens" in piece or "camera" in piece or "motion" in piece:
            self.relation = ""

    def _of(self) -> _Found:
        """What is being spoken of."""
        if self.current:
            return self.current
        return _Found() if self.objects else self.early  # of one of several: not known which

    def _move(self, motion: Said) -> None:
        thing, then, self.then = self._of(), self.then, False
        if not (then and thing.motions):
            thing.motions.append(motion)

    def _is_ground(self, i: int) -> bool:
        piece = self.pieces[i]
        if "ground" not in piece:
            return False
        after = self.pieces[i + 1] if i + 1 < len(self.pieces) else Piece(",", {BREAK: ","})
        if "floor" in after or _placed_on(self.pieces, i):
            return True
        if "color" in piece:
            return False
        return _placed(self.pieces, i) or BREAK in after or "and" in after

    def _is_worn(self, i: int) -> bool:
        """Whether a color that stands before no noun is that of the object."""
        while i > 0:
            before = self.pieces[i - 1]
            after = self.pieces[i + 1] if i + 1 < len(self.pieces) else Piece("")
            if "floor" in after or "ground" in after:
                return False
            listed = "and" in before or BREAK in before  # "red and blue": as the first is
            if not (listed and i > 1 and "color" in self.pieces[i - 2]):
                break
            i -= 2
        else:
            return True
        if BREAK in before and (BREAK in after or not after.text):  # "ball, red, …"
            return True
        kinds = ("is", "in", "shape", "thing", "new", "the", "color")
        return any(kind in before for kind in kinds) or not self.objects

    # Conflicts

    def _conflicts(self) -> Iterator[Conflict]:
        for n, thing in enumerate(self.objects, 1):
            # The noun's nearest: the last before it, else the first after it.
            yield from _conflict(key_of("shape", n), thing.shapes, -1)
            nearest = len(thing.colors) - 1 if thing.colors else 0
            yield from _conflict(key_of("color", n), [*thing.colors, *thing.worn], nearest)
            yield from _conflict(key_of("motion", n), thing.motions, 0)
        yield from _conflict("ground", self.grounds, 0)
        yield from _conflict("camera", self.cameras, 0)


def _conflict(factor: str, said: list[Said], winner: int) -> Iterator[Conflict]:
    if len({value for _, value in said}) > 1:
        yield Conflict(factor, tuple(dict.fromkeys(text for text, _ in said)), said[winner][0])


def _placed_on(pieces: list[Piece], i: int) -> bool:
    """Whether piece i stands right after "on", "on the", "in the"."""
    while i > 0 and ("new" in pieces[i - 1] or "the" in pieces[i - 1]):
        i -= 1
        if i > 0 and "in" in pieces[i - 1]:
            return True
    return i > 0 and "on" in pieces[i - 1]
