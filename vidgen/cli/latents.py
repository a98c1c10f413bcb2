"""Commands from latents to latents: extend, interpolate and upsample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from vidgen.cli.console import Console
from vidgen.cli.options import Given, RecordOutput, Running

if TYPE_CHECKING:
    from vidgen.io.record import Record


class Choices(Protocol):
    """What the user may set; UsageError from `check` for what can't be."""

    def check(self) -> None: ...


class Asked(NamedTuple):
    """What such a command is asked for beside its own options."""

    out: RecordOutput
    running: Running
    console: Console
    inputs: list[str] | None
    model: str | None
    dry_run: bool
    given: Given


def run_latents(
    asked: Asked,
    component: str | None,
    network: bool,
    chosen: Callable[[], tuple[Choices, Callable[..., Iterator[Record]]]],
    planned: Callable[[], Callable[..., str]],
) -> None:
    """Run the stage, or say what it would do.

    component  that the model must have; None: the method needs no model
    network    whether the method samples from a network
    chosen     → its choices, and the stage
    planned    → what makes the words for --dry-run
    """
    from vidgen.cli.runner import Kind, check_names, headers_of, open_inputs, print_text, run_stage
    from vidgen.systems.base import ModelFolder

    out, running, console, inputs, model, dry_run, given = asked
    if component is None:
        given.refuse("model", "device", "dtype", why="the method computes without a model")
    if not network:
        given.refuse("compile", "attention", why="the method samples from no network")
    takes = Kind("latents", "vidgen sample-keyframes")
    folder = None if component is None else ModelFolder.find(model)
    if folder and component and not (component == "vae" and folder.in_pixels):
        folder.component(component)

    def make():
        choices, stage = chosen()
        choices.check()
        compute = running.compute(preload=not inputs)
        compute.check()
        check_names(out, (r.id for r in headers_of(inputs)))
        return lambda records: stage(records, folder, choices, compute=compute, notify=console)

    if dry_run:
        choices, _ = chosen()
        records = open_inputs(inputs, takes=takes)
        print_text(planned()(folder, running.compute(), records, choices))
        return
    run_stage(make, inputs, out, console, takes=takes)
