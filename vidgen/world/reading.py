"""What a prompt says of a scene, read by rule: the way back from `captions`.

Understands all that captions say, in any order, with typing errors, and much that people say
instead. What is not said, or not understood, stays None: a factor is rather left open than wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from vidgen.world.nouns import Noun, Said, find_nouns, placed, placed_on
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
class Beyond:
    """What no scene of the world has: a color of the ground ("red" of a red floor), or several
    objects alike ("balls", of which one is read, as its shape). `words`: as the prompt has them."""

    factor: str
    words: str


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
    beyond: tuple[Beyond, ...] = ()

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


Mention = tuple[list[int], Noun]  # which objects are meant, perhaps; by which words


class _Reader:
    """Goes through the pieces once, from noun phrase to noun phrase."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        self.objects: list[_Found] = []
        self.grounds: list[Said] = []
        self.cameras: list[Said] = []
        self.related: list[tuple[Mention, str, Mention]] = []
        self.beyond: list[Beyond] = []
        self.current: _Found | None = None
        self.group: list[_Found] = []  # named side by side: "a ball and a cube"
        self.end = 0  # of the last noun phrase
        self.mention: Mention | None = None
        self.relation = ""  # said, and its second object not yet
        self.then = False
        self.early = _Found()  # said before any object

    def read(self, unknown: list[str]) -> Reading:
        nouns = {noun.start: noun for noun in find_nouns(self.pieces)}
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
            tuple(dict.fromkeys(self.beyond)),
        )

    # Objects

    def _name(self, noun: Noun) -> None:
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
        self._count(fits, noun)
        before, self.mention = self.mention, (fits, noun)
        if self.relation and before:
            self.related.append((before, self.relation, self.mention))
        self.relation, self.then = "", False

    def _count(self, fits: list[int], noun: Noun) -> None:
        """Who is meant by a verb of several; and whether this is a noun of several."""
        between = self.pieces[self.end : noun.start]
        kinds = ("and", BREAK, "new", "the")
        if not all(any(kind in p for kind in kinds) for p in between):
            self.group = []
        self.group += [self.objects[i] for i in fits] if len(fits) == 1 or noun.plural else []
        self.end = noun.end
        several = len(fits) > 1  # "the balls", named before
        if noun.plural and not several and (noun.shapes or noun.colors or noun.motions):
            self.beyond.append(Beyond("shape", noun.plural))

    def _fitting(self, noun: Noun) -> list[int]:
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

    def _learn(self, thing: _Found, noun: Noun) -> None:
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
            if self._is_of_ground(i):
                self.beyond.append(Beyond("ground", piece.text))
            elif self._is_worn(i):
                for thing in self._of(i):
                    thing.worn.append((piece.text, piece.means["color"]))
        elif "motion" in piece:
            self._move((piece.text, piece.means["motion"]), self._of(i))
        elif "camera" in piece:
            self.cameras.append((piece.text, piece.means["camera"]))
        elif "then" in piece:
            self.then = True
        elif "relation" in piece:
            self.relation = piece.means["relation"]
        if BREAK in piece or "lens" in piece or "camera" in piece or "motion" in piece:
            self.relation = ""

    def _of(self, i: int) -> list[_Found]:
        """Whom piece i is said of."""
        are = i > 0 and self.pieces[i - 1].text == "are"
        if self.group and (are or "plural" in self.pieces[i]):
            return self.group
        if self.current:
            return [self.current]
        return [] if self.objects else [self.early]  # of one of several: not known which

    def _move(self, motion: Said, things: list[_Found]) -> None:
        then, self.then = self.then, False
        for thing in things:
            if not (then and thing.motions):
                thing.motions.append(motion)

    def _is_ground(self, i: int) -> bool:
        piece = self.pieces[i]
        if "ground" not in piece:
            return False
        after = self.pieces[i + 1] if i + 1 < len(self.pieces) else Piece(",", {BREAK: ","})
        if "floor" in after or placed_on(self.pieces, i):
            return True
        if "color" in piece:
            return self._is_of_ground(i)
        return placed(self.pieces, i) or BREAK in after or "and" in after

    def _is_of_ground(self, i: int) -> bool:
        """Whether a color that stands before no noun is that of a ground: "red ground", "on red",
        "on a red …", "the ground is red"."""
        following = (p for p in self.pieces[i : i + 8] if "color" not in p)  # "dark red blue floor"
        after = next(following, Piece(""))
        if "floor" in after or "ground" in after:
            return True
        if after.text in ("color", "colour"):  # a ball in a red color
            return False
        while i > 1 and "and" in self.pieces[i - 1] and "color" in self.pieces[i - 2]:
            i -= 2  # "red and blue": as the first is
        if placed_on(self.pieces, i):
            return True
        if i == 0 or "is" not in self.pieces[i - 1]:
            return False
        i -= 1
        while i > 0 and WORD in self.pieces[i - 1]:
            i -= 1  # ground that is red
        return i > 0 and "floor" in self.pieces[i - 1]

    def _is_worn(self, i: int) -> bool:
        """Whether a color that stands before no noun, and is of no ground, is that of the
        object."""
        while i > 0:
            before = self.pieces[i - 1]
            after = self.pieces[i + 1] if i + 1 < len(self.pieces) else Piece("")
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
