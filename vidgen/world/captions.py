"""What is in a scene, said in words.

Without a generator a caption is the canonical one, which names everything:
"a red ball bounces on sand ground, the camera pans left". With one it is worded at random:
synonyms, parts left out, parts in another order, some chat around it. Objects are always named in
the scene's order. Nothing parses captions; `grammar` prints what they can be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from typing import Protocol, TypeVar

from vidgen.world import motion
from vidgen.world.parts import Event, Object, Scene
from vidgen.world.vocabulary import (
    CAMERAS,
    COLORS,
    GROUNDS,
    MOTIONS,
    SHAPES,
    TABLES,
    Word,
)

T = TypeVar("T")

CHAT = (
    "a video of",
    "a clip of",
    "a short clip of",
    "a short film of",
    "a movie of",
    "an animation of",
    "show me",
    "please show",
    "please show me",
    "i want to see",
    "i would like to see",
    "can you make",
    "could you make a video of",
    "can we have",
    "give me",
    "generate",
    "make",
    "imagine",
    "there is",
    "we see",
    "here is",
)
THANKS = (" please", ", please", ", thanks", ", thank you")  # said after all
FLOORS = ("ground", "ground", "ground", "floor", "surface")
THINGS = ("object", "thing")  # said for a shape that is left out
BESIDE = 0.12  # widths apart, from which one object is left or right of another
BEHIND_M = 0.8  # meters further away, from which it is behind


class Draws(Protocol):
    """random.Random, numpy.random.Generator."""

    def random(self) -> float: ...


class _Dice:
    """The few kinds of draws that wording needs."""

    def __init__(self, rng: Draws) -> None:
        self.rng = rng

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def choice(self, items: Sequence[T]) -> T:
        return items[int(self.rng.random() * len(items))]

    def phrase(self, phrases: Sequence[str]) -> str:
        """The first of the phrases half the time, any of them otherwise."""
        return phrases[0] if self.chance(0.5) else self.choice(phrases)


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


# --- Whole captions


def caption(scene: Scene, rng: Draws | None = None) -> str:
    """A caption of the scene: canonical and full, with the first of its relations, or worded by
    `rng`."""
    if rng is None:
        camera = CAMERAS[scene.camera.camera].phrases[0]
        said = listed([_sentence(thing) for thing in scene.objects])
        if related := relations(scene):
            said += f", {_related(scene, related[0])},"
        return f"{said} on {scene.ground} ground, the camera {camera}"
    dice = _Dice(rng)
    return _joined(dice, *_parts(dice, scene))


def event_captions(scene: Scene, rng: Draws | None = None) -> list[tuple[float, float, str]]:
    """Start, end (s) and caption of each thing that an object does, in order of time. With `rng`
    each is worded anew."""
    found = [
        (event.start, event.end, event_caption(thing, event, rng))
        for thing in scene.objects
        for event in thing.events
    ]
    return sorted(found, key=lambda e: e[:2])


def event_caption(thing: Object, event: Event, rng: Draws | None = None) -> str:
    """One object doing one thing: "a red ball bounces". Its color is the one it has by then."""
    color = thing.color
    for earlier in thing.events[: thing.events.index(event)]:
        color = earlier.color or color
    if rng is None:
        return f"{article(color)} {color} {thing.shape} {event.motion}"
    dice = _Dice(rng)
    shape, color = dice.phrase(SHAPES[thing.shape].phrases), dice.phrase(COLORS[color].phrases)
    subject = _noun(dice, shape, color)
    return _with_motion(dice, subject, MOTIONS[event.motion], sentence=True)[0]


def relations(scene: Scene) -> list[tuple[int, str, int]]:
    """Which object is left of, right of, in front of or behind which at the start, as the picture
    shows it: (object, words, object), the lower number first."""
    if len(scene.objects) < 2:
        return []
    path = motion.camera_path(scene.camera, [0.0])
    places = [
        motion.project(path, motion.object_path(thing, [0.0]).center, 1.0)[0]
        for thing in scene.objects
    ]
    found = []
    for (i, a), (j, b) in combinations(enumerate(places), 2):
        if abs(a[0] - b[0]) > BESIDE:
            found.append((i, "to the left of" if a[0] < b[0] else "to the right of", j))
        if abs(a[2] - b[2]) > BEHIND_M:
            found.append((i, "in front of" if a[2] < b[2] else "behind", j))
    return found


def listed(items: Sequence[str]) -> str:
    """a · a and b · a, b and c"""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


# --- Wording


def _sentence(thing: Object) -> str:
    doing = ", then ".join(event.motion for event in thing.events)
    return f"{article(thing.color)} {thing.color} {thing.shape} {doing}"


def _parts(dice: _Dice, scene: Scene) -> tuple[str, str, str]:
    """Subjects with their motions, ground, camera; an empty string for what is left out."""
    # One caption in four says all; in the rest each part has its own chance to be left out.
    full = dice.chance(0.25)

    def keep(p: float) -> bool:
        return full or dice.chance(p)

    said: list[str] = []
    chat, moving = "", True
    for thing in scene.objects:
        shape = dice.phrase(SHAPES[thing.shape].phrases) if keep(0.92) else dice.choice(THINGS)
        color = dice.phrase(COLORS[thing.color].phrases) if keep(0.85) else ""
        if thing is scene.objects[0]:
            chat = f"{dice.choice(CHAT)} " if dice.chance(0.15) else ""
        subject = _noun(dice, shape, color)
        if not said:
            subject = chat + subject
        # All motions or none: "a cone and a ball bounces" would leave it open which one does.
        moving = keep(0.85) if not said else moving
        if moving:
            subject = _with_motions(dice, subject, thing, sentence=not chat)
        said.append(subject)
    subject = listed(said)
    related = relations(scene)
    if related and dice.chance(0.3):
        subject += f", {_related(scene, dice.choice(related))}"
    ground = ""
    if keep(0.7):
        word = dice.phrase(GROUNDS[scene.ground].phrases)
        floor = dice.choice(FLOORS)
        ground = dice.choice((f"{word} {floor}", f"{word} {floor}", f"the {word} {floor}", word))
        ground = f"on {ground}"
    camera = ""
    if keep(0.65):
        words = CAMERAS[scene.camera.camera]
        camera = f"the camera {dice.phrase(words.phrases)}"
        if dice.chance(0.25):
            camera = dice.choice(words.doing)
    return subject, ground, camera


def _noun(dice: _Dice, shape: str, color: str) -> str:
    if not color:
        return f"{article(shape)} {shape}"
    if dice.chance(0.12):
        return f"{article(shape)} {shape} that is {color}"
    return f"{article(color)} {color} {shape}"


def _with_motions(dice: _Dice, subject: str, thing: Object, *, sentence: bool) -> str:
    """The subject with all it does, one thing after another."""
    text, progressive = _with_motion(dice, subject, MOTIONS[thing.motion], sentence=sentence)
    for number, event in enumerate(thing.events):
        if number:
            words = MOTIONS[event.motion]
            which = 0 if dice.chance(0.5) else int(dice.rng.random() * len(words.phrases))
            joiner = dice.choice((", then ", ", then ", " and then "))
            text += joiner + (words.doing if progressive else words.phrases)[which]
        if event.color and dice.chance(0.5):
            text += f" to {dice.phrase(COLORS[event.color].phrases)}"
    return text


def _with_motion(dice: _Dice, subject: str, words: Word, *, sentence: bool) -> tuple[str, bool]:
    """The text, and whether its verb has the -ing form. `sentence`: the whole may be one ("a ball
    bounces"); else it stays a noun with something said of it ("show me a ball bouncing")."""
    which = 0 if dice.chance(0.5) else int(dice.rng.random() * len(words.phrases))
    finite, doing = words.phrases[which], words.doing[which]
    described = " that is " in subject
    style = dice.rng.random()
    if sentence and style < 0.6:
        return (f"{subject} and {finite}" if described else f"{subject} {finite}"), False
    if sentence and style < 0.7 and not described:
        return f"{subject} is {doing}", True
    if style < 0.9:
        return f"{subject} {doing}", True
    return f"{subject} {'and' if described else 'that'} {finite}", False


def _related(scene: Scene, relation: tuple[int, str, int]) -> str:
    i, words, j = relation
    one, other = scene.objects[i], scene.objects[j]
    return f"the {one.color} {one.shape} is {words} the {other.color} {other.shape}"


def _joined(dice: _Dice, subject: str, ground: str, camera: str) -> str:
    order = dice.rng.random()
    if ground and order < 0.15:
        text = f"{ground}, {subject}"
    elif ground and ", the " in subject:  # behind a relation the ground would seem to belong to it
        text = f"{subject}, {ground}"
    else:
        text = f"{subject} {ground}".rstrip()
    if camera and order > 0.85:
        text = f"{camera}, {text}"
    elif camera:
        joiners = (", ", ", ", " and ", " while ") if camera.startswith("the ") else (", ",)
        text = f"{text}{dice.choice(joiners)}{camera}"
    if dice.chance(0.03):
        text += dice.choice(THANKS)
    return text + ("." if dice.chance(0.1) else "")


# --- What can be said

LINKS = (
    "a", "an", "the", "that", "is", "and", "then", "while", "on", "to", "ground", "camera",
    "to the left of", "to the right of", "in front of", "behind",
)  # fmt: skip


def words() -> frozenset[str]:
    """Every word that a caption can contain, in lower case."""
    phrases = [*LINKS, *CHAT, *THINGS, *FLOORS, *(t.replace(",", "") for t in THANKS)]
    for table in TABLES.values():
        for word in table.values():
            phrases += [*word.phrases, *word.doing]
    return frozenset(word for phrase in phrases for word in phrase.split())


def unknown_words(text: str) -> list[str]:
    """The words of a prompt that captions never use, each once, in order. Letters only: numbers
    and marks are no words."""
    known = words()
    found = re.findall(r"[^\W\d_]+", text.lower())
    return list(dict.fromkeys(word for word in found if word not in known))


def grammar() -> str:
    """The captions' grammar, for people: one rule a line, canonical words first."""

    def rule(name: str, choices: Sequence[str]) -> list[str]:
        return [f"{name:<9} = {choices[0]}", *(f"{'':<9} | {choice}" for choice in choices[1:])]

    def table(words: dict[str, Word]) -> list[str]:
        return [" / ".join(word.phrases) for word in words.values()]

    lines = [
        "# A caption: every part but the first object may be left out.",
        *rule("caption", ("objects [on GROUND ground] [, the camera CAMERA]",)),
        *rule("objects", ("object", "object and object", "object, object and object")),
        *rule("object", ("a [COLOR] SHAPE [MOTION {, then MOTION}]",)),
        "",
        "# Words: canonical / synonyms. Motions may end in -ing; full world: from `rises`,",
        "# from `tilts up`, cone and ring.",
        *rule("SHAPE", table(SHAPES)),
        *rule("COLOR", table(COLORS)),
        *rule("GROUND", table(GROUNDS)),
        *rule("MOTION", table(MOTIONS)),
        *rule("CAMERA", table(CAMERAS)),
    ]
    return "\n".join(lines) + "\n"
