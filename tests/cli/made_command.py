"""A command as small as can be, for the tests of the framework: records through, unchanged.

`--trouble` raises what its name says, after the first record: every way a real stage can fail.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Literal

from vidgen.cli.console import Console
from vidgen.cli.options import Inputs, Json, RecordOutput, Seed, option
from vidgen.cli.page import Page
from vidgen.cli.runner import Kind, run_stage
from vidgen.errors import InputError, OutOfMemory, ThresholdError, TryAgain, VidgenError
from vidgen.io.record import Record

PAGE = Page(
    name="relay",
    summary="records to the same records",
    description="Passes records on.\n\nIt is for tests.",
    reads="text records from IN",
    writes="text records to -o",
    examples=[("vidgen relay a.safetensors -o b.safetensors", "a slow copy")],
)

Trouble = Annotated[str | None, option("--trouble", metavar="NAME", help="what to raise")]
Size = Annotated[int, option("--size", metavar="N", min=1, max=9, help="a number")]
Mode = Annotated[Literal["fast", "slow"], option("--mode", help="a choice")]


class NeverHeardOf(Exception):
    pass


def relay(
    out: RecordOutput,
    console: Console,
    inputs: Inputs = None,
    *,
    trouble: Trouble = None,
    size: Size = 3,
    mode: Mode = "fast",
    seed: Seed = None,
    json: Json = False,
) -> None:
    run_stage(
        lambda: lambda records: stage(records, trouble, mode, console),
        inputs, out, console, takes=Kind("text", "vidgen encode-text"),
    )  # fmt: skip


def stage(
    records: Iterator[Record], trouble: str | None, mode: str, console: Console
) -> Iterator[Record]:
    for i, record in enumerate(records):
        yield record
        console.step(i + 1, 4, "record")
        if mode == "slow":
            console.say("waiting")
            time.sleep(60)
        if trouble is not None:
            raise TROUBLES[trouble]


TROUBLES: dict[str, BaseException] = {
    "vidgen": VidgenError("it failed", why="it had to", next="vidgen relay --help"),
    "input": InputError("bad input"),
    "threshold": ThresholdError("fvd is 12, --max is 10"),
    "memory": OutOfMemory("out of memory"),
    "host-memory": MemoryError("too much"),
    "again": TryAgain("stopped"),
    "interrupt": KeyboardInterrupt(),
    "pipe": BrokenPipeError(32, "Broken pipe"),
    "disk": OSError(28, "No space left on device", "x.bin"),
    "file": FileNotFoundError(2, "No such file or directory", "x.bin"),
    "io": OSError(5, "Input/output error"),
    "bug": NeverHeardOf("at all"),
    "odd": VidgenError("name\nwith \x1b[31m control"),
}
