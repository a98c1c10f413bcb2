"""How far a command goes beyond keyframes: what is asked for, and what the model has parts for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from vidgen.cli.options import option
from vidgen.errors import UsageError

if TYPE_CHECKING:
    from vidgen.cli.console import Console
    from vidgen.systems.base import ModelFolder

INTERPOLATION, UPSAMPLER = "interpolation", "upsampler"

Passes = Annotated[
    int | None,
    option("--passes", metavar="N", min=0, max=4, default="1 where the model has an interpolation",
           help="how often to interpolate: T frames become 4T-3; 0 is not at all"),
]  # fmt: skip
Scale = Annotated[
    float | None,
    option("--scale", metavar="X", default="as far as the model's upsampler was trained to go",
           help="sides 1, 2, 4 or 8 times as long as the keyframes'"),
]  # fmt: skip


def passes_of(folder: ModelFolder, asked: int | None, console: Console) -> int:
    """How often to interpolate: as asked, or as the model can, which is said if it can't.
    InputError for passes that it has no part for."""
    if asked is None and folder.in_pixels:
        asked = 0  # its clips are whole
    elif asked is None:
        asked = int(_has(folder, INTERPOLATION, console, "keyframes alone"))
    elif asked:
        folder.component(INTERPOLATION)
    return asked


def scale_of(folder: ModelFolder, asked: float | None, console: Console) -> int:
    """How many times longer sides become, in the same way. UsageError for what can't be."""
    from vidgen.systems.base import DOUBLINGS, Enlarged, Geometry

    if asked is None:
        if not _has(folder, UPSAMPLER, console, "the size of its keyframes"):
            return 1
        height = folder.geometry.height
        if folder.in_pixels:
            return folder.sample(UPSAMPLER, Geometry).height // height
        return folder.sample(UPSAMPLER, Enlarged).scale(height)
    scales = (1, *DOUBLINGS)
    if asked not in scales:
        raise UsageError(
            f"--scale {asked:g}: sides are doubled, once or several times, or stay",
            next=f"one of: {', '.join(map(str, scales))}",
        )
    if asked > 1:
        folder.component(UPSAMPLER)
    return int(asked)


def _has(folder: ModelFolder, component: str, console: Console, instead: str) -> bool:
    there = (folder.place(component) / "config.json").is_file()
    if not there and not folder.released:
        console.say(f"`{folder.name}` has no component `{component}`: {instead}")
    return there
