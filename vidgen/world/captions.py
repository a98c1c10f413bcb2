"""What is in a scene, said in words.

Without a generator the caption is the canonical one, which names everything:
"a red ball bounces on sand ground, the camera pans left". With one it is worded at random:
synonyms, parts left out, parts in another order, some chat around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from vidgen.world.scene import Scene
from vidgen.world.vocabulary import CAMERAS, COLORS, GROUNDS, MOTIONS, SHAPES, Word

T = TypeVar("T")

CHAT = (
    "a video of",
    "a clip of",
    "a short clip of",
    "show me",
    "please show",
    "i want to see",
    "can you make",
    "there is",
    "we see",
    "here is",
)
THINGS = ("object", "thing")  # said for a shape that is left out


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


def caption(scene: Scene, rng: Draws | None = None) -> str:
    """A caption of the scene: canonical and full, or worded by `rng`."""
    thing = scene.objects[0]
    if rng is None:
        return (
            f"{article(thing.color)} {thing.color} {thing.shape} {thing.motion} "
            f"on {scene.ground} ground, the camera {CAMERAS[scene.camera.camera].phrases[0]}"
        )
    dice = _Dice(rng)
    return _joined(dice, *_parts(dice, scene))


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _parts(dice: _Dice, scene: Scene) -> tuple[str, str, str]:
    """Subject with its motion, ground, camera; an empty string for what is left out."""
    thing = scene.objects[0]
    # One caption in four says all; in the rest each part has its own chance to be left out.
    full = dice.chance(0.25)

    def keep(p: float) -> bool:
        return full or dice.chance(p)

    shape = dice.phrase(SHAPES[thing.shape].phrases) if keep(0.92) else dice.choice(THINGS)
    color = dice.phrase(COLORS[thing.color].phrases) if keep(0.85) else ""
    chat = f"{dice.choice(CHAT)} " if dice.chance(0.15) else ""
    subject = chat + _noun(dice, shape, color)
    if keep(0.85):
        subject = _with_motion(dice, subject, MOTIONS[thing.motion], sentence=not chat)
    ground = ""
    if keep(0.7):
        word = dice.phrase(GROUNDS[scene.ground].phrases)
        ground = dice.choice((f"{word} ground", f"{word} ground", f"the {word} ground", word))
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


def _with_motion(dice: _Dice, subject: str, motion: Word, *, sentence: bool) -> str:
    """`sentence`: whether the whole may be one ("a ball bounces"), or must stay a noun with
    something said of it ("show me a ball bouncing")."""
    which = 0 if dice.chance(0.5) else int(dice.rng.random() * len(motion.phrases))
    finite, doing = motion.phrases[which], motion.doing[which]
    described = " that is " in subject
    style = dice.rng.random()
    if sentence and style < 0.6:
        return f"{subject} and {finite}" if described else f"{subject} {finite}"
    if sentence and style < 0.7 and not described:
        return f"{subject} is {doing}"
    if style < 0.9:
        return f"{subject} {doing}"
    return f"{subject} {'and' if described else 'that'} {finite}"


def _joined(dice: _Dice, subject: str, ground: str, camera: str) -> str:
    order = dice.rng.random()
    if ground and order < 0.15:
        text = f"{ground}, {subject}"
    else:
        text = f"{subject} {ground}".rstrip()
    if camera and order > 0.85:
        text = f"{camera}, {text}"
    elif camera:
        joiners = (", ", ", ", " and ", " while ") if camera.startswith("the ") else (", ",)
        text = f"{text}{dice.choice(joiners)}{camera}"
    return text + ("." if dice.chance(0.1) else "")
