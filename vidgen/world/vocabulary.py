"""The words of the world and what they look like: shapes, colors, grounds, motions, cameras.

The first of a word's phrases is canonical; a caption may use any of them. A motion has finite
phrases ("bounces") and the -ing forms of the same ("bouncing"), paired by position.
Albedos are sRGB in 0…1.
"""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Word:
    """One value of a factor: the phrases that say it, canonical first, and its -ing phrases."""

    phrases: tuple[str, ...]
    doing: tuple[str, ...] = ()
    albedo: RGB = (0.0, 0.0, 0.0)
    label: str = ""  # what the factor's value is called, where that is not the first phrase

    @property
    def name(self) -> str:
        return self.label or self.phrases[0]


def _table(*words: Word) -> dict[str, Word]:
    return {word.name: word for word in words}


SHAPES = _table(
    Word(("ball", "sphere", "orb", "globe")),
    Word(("cube", "box", "block")),
    Word(("cylinder", "can", "tin", "drum")),
    Word(("cone",)),
    Word(("ring", "hoop", "torus")),
)

COLORS = _table(
    Word(("red", "crimson", "scarlet"), albedo=(0.85, 0.12, 0.10)),
    Word(("green", "emerald"), albedo=(0.10, 0.60, 0.15)),
    Word(("blue", "azure"), albedo=(0.12, 0.25, 0.85)),
    Word(("yellow", "golden"), albedo=(0.95, 0.80, 0.10)),
    Word(("purple", "violet", "lilac"), albedo=(0.55, 0.15, 0.70)),
    Word(("orange", "tangerine"), albedo=(0.95, 0.50, 0.08)),
    Word(("cyan", "turquoise", "aqua", "teal"), albedo=(0.10, 0.75, 0.80)),
    Word(("white", "ivory"), albedo=(0.92, 0.92, 0.92)),
)

GROUNDS = _table(
    Word(("grey", "gray", "stone", "concrete"), albedo=(0.55, 0.55, 0.58)),
    Word(("green", "grass", "grassy"), albedo=(0.35, 0.55, 0.30)),
    Word(("sand", "tan", "sandy", "desert"), albedo=(0.75, 0.65, 0.45)),
    Word(("blue", "bluish"), albedo=(0.35, 0.42, 0.62)),
)

MOTIONS = _table(
    Word(
        ("moves left", "moves to the left", "goes left", "slides left", "drifts left"),
        ("moving left", "moving to the left", "going left", "sliding left", "drifting left"),
    ),
    Word(
        ("moves right", "moves to the right", "goes right", "slides right", "drifts right"),
        ("moving right", "moving to the right", "going right", "sliding right", "drifting right"),
    ),
    Word(
        (
            "comes closer",
            "approaches",
            "comes nearer",
            "moves closer",
            "gets closer",
            "comes towards us",
        ),
        (
            "coming closer",
            "approaching",
            "coming nearer",
            "moving closer",
            "getting closer",
            "coming towards us",
        ),
    ),
    Word(
        ("moves away", "recedes", "goes away", "retreats", "gets further away"),
        ("moving away", "receding", "going away", "retreating", "getting further away"),
    ),
    Word(
        ("bounces", "jumps", "bounces up and down", "jumps up and down", "hops", "leaps"),
        (
            "bouncing",
            "jumping",
            "bouncing up and down",
            "jumping up and down",
            "hopping",
            "leaping",
        ),
    ),
    Word(
        ("stays still", "rests", "does not move", "stands still", "sits still", "stays put"),
        (
            "staying still",
            "resting",
            "not moving",
            "standing still",
            "sitting still",
            "staying put",
        ),
    ),
    Word(
        ("spins", "turns in place", "rotates", "spins around", "twirls", "whirls"),
        ("spinning", "turning in place", "rotating", "spinning around", "twirling", "whirling"),
    ),
    # The full world only.
    Word(("rises", "floats up", "goes up"), ("rising", "floating up", "going up")),
    Word(("falls", "drops", "comes down"), ("falling", "dropping", "coming down")),
    Word(
        ("rolls in a circle", "circles", "goes in a circle"),
        ("rolling in a circle", "circling", "going in a circle"),
    ),
    Word(("grows", "gets bigger"), ("growing", "getting bigger")),
    Word(("shrinks", "gets smaller"), ("shrinking", "getting smaller")),
    Word(
        ("changes colour", "changes color"),
        ("changing colour", "changing color"),
    ),
)

# Each phrase follows "the camera"; `doing` is what stands alone ("…, panning left").
CAMERAS = _table(
    Word(
        ("is still", "stays still", "does not move", "is static", "is fixed"),
        ("still camera", "fixed camera", "static camera"),
        label="still",
    ),
    Word(
        ("pans left", "turns left", "pans to the left", "swings left"),
        ("panning left", "camera pans left"),
    ),
    Word(
        ("pans right", "turns right", "pans to the right", "swings right"),
        ("panning right", "camera pans right"),
    ),
    Word(("zooms in", "is zooming in"), ("zooming in", "camera zooms in")),
    Word(("zooms out", "is zooming out"), ("zooming out", "camera zooms out")),
    # The full world only.
    Word(("tilts up", "is tilting up"), ("tilting up", "camera tilts up")),
    Word(("tilts down", "is tilting down"), ("tilting down", "camera tilts down")),
    Word(("orbits left", "circles left"), ("orbiting left", "camera orbits left")),
    Word(("orbits right", "circles right"), ("orbiting right", "camera orbits right")),
    Word(("dollies in", "moves forward"), ("dollying in", "camera moves forward")),
    Word(("dollies out", "moves back"), ("dollying out", "camera moves back")),
    Word(("trucks left", "slides left"), ("trucking left", "camera trucks left")),
    Word(("trucks right", "slides right"), ("trucking right", "camera trucks right")),
    Word(("follows a path", "moves along a path"), ("moving along a path", "moving camera")),
)

BASIC: dict[str, tuple[str, ...]] = {
    "shape": ("ball", "cube", "cylinder"),
    "color": tuple(COLORS),
    "ground": tuple(GROUNDS),
    "motion": tuple(MOTIONS)[:7],
    "camera": tuple(CAMERAS)[:5],
}
FULL: dict[str, tuple[str, ...]] = {
    "shape": tuple(SHAPES),
    "color": tuple(COLORS),
    "ground": tuple(GROUNDS),
    "motion": tuple(MOTIONS),
    "camera": tuple(CAMERAS),
}
TABLES: dict[str, dict[str, Word]] = {
    "shape": SHAPES, "color": COLORS, "ground": GROUNDS, "motion": MOTIONS, "camera": CAMERAS,
}  # fmt: skip
