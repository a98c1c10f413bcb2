"""What standard error shows while a command works."""

from __future__ import annotations

import io
import json
import re

from vidgen.cli.console import Console, human_seconds, printable


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def talk(progress: str = "auto", **options: bool) -> tuple[Console, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    return (
        Console("sample", progress=progress, stream=stream, clock=clock, **options),
        stream,
        clock,
    )


def test_plain_lines_come_now_and_then_and_tell_the_time_left() -> None:
    console, stream, clock = talk()
    for i in range(1, 31):
        clock.now += 1
        console.step(i, 30, "step")
    assert stream.getvalue().splitlines() == [
        "vidgen sample: step 10 of 30, 20 s left",
        "vidgen sample: step 20 of 30, 10 s left",
        "vidgen sample: step 30 of 30",
    ]


def test_a_second_batch_begins_anew() -> None:
    console, stream, clock = talk("json")
    for _batch in range(2):
        for i in range(1, 4):
            clock.now += 2
            console.step(i, 3, "step")
    console.close(0)
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    steps = [(r["done"], r["left_s"]) for r in rows if r["event"] == "step"]
    assert steps == [(1, None), (2, 2.0), (3, 0.0)] * 2
    assert rows[0] == {"event": "start", "command": "sample", "elapsed_s": 0.0}
    assert rows[-1] == {"event": "end", "command": "sample", "elapsed_s": 12.0, "code": 0}


def test_json_events_are_not_written_faster_than_anyone_reads() -> None:
    console, stream, clock = talk("json")
    for i in range(1, 1001):
        clock.now += 0.001
        console.step(i, 1000, "step")
    steps = [json.loads(line)["done"] for line in stream.getvalue().splitlines()[1:]]
    assert steps[0] == 1 and steps[-1] == 1000 and len(steps) < 15


def test_what_each_degree_of_talk_shows() -> None:
    shown = {}
    for name in ("quiet", "verbose", ""):
        console, stream, _ = talk(**({name: True} if name else {}))
        console.warn("w")
        console.say("s")
        console.note("n")
        shown[name] = [line.split(": ", 1)[1] for line in stream.getvalue().splitlines()]
    assert shown == {"quiet": [], "": ["warning: w", "s"], "verbose": ["warning: w", "s", "n"]}


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    console = Console("sample", stream=stream)
    console.step(1, 2, "step")
    console.say("a [bold]word[/bold]")
    console.close()
    text = stream.getvalue()
    seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert "1/2 steps" in seen and "vidgen sample: a [bold]word[/bold]\n" in seen
    assert text.endswith("\x1b[2K")  # the line of the bar is erased


def test_no_color_means_none(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    console = Console("sample", stream=stream)
    console.step(1, 2, "step")
    console.close()
    assert "\x1b[3" not in stream.getvalue() and "\x1b[9" not in stream.getvalue()


def test_a_dumb_terminal_gets_plain_lines(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    Console("sample", stream=stream).step(1, 2, "step")
    assert stream.getvalue() == ""


def test_nothing_moves_the_cursor() -> None:
    console, stream, _ = talk()
    console.warn("a\x1b[2Jb\nc")
    assert stream.getvalue() == "vidgen sample: warning: a\\x1b[2Jb\\nc\n"
    assert printable("plain → ünïcode") == "plain → ünïcode"


def test_seconds_as_people_say_them() -> None:
    assert [human_seconds(s) for s in (0.4, 59.4, 200, 7500)] == [
        "0 s", "59 s", "3 min 20 s", "2 h 5 min"
    ]  # fmt: skip
