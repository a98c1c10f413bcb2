"""Command lines in this process, without starting Python anew: one, or a line of shell."""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from vidgen.cli import app


@dataclass
class Ran:
    """How a command line ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode("utf-8")


class Stream(io.TextIOWrapper):
    """A standard stream in memory; `terminal`: it says that it is one."""

    def __init__(self, data: bytes = b"", *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8", write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def bytes(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()  # type: ignore[attr-defined]


def run(*words: str, stdin: bytes = b"", terminal: tuple[str, ...] = ()) -> Ran:
    """`vidgen WORDS`; `terminal` names the streams that say they are one."""
    data = {"stdin": stdin, "stdout": b"", "stderr": b""}
    streams = {name: Stream(d, terminal=name in terminal) for name, d in data.items()}
    with ExitStack() as stack:
        for name, stream in streams.items():
            stack.enter_context(mock.patch.object(sys, name, stream))
        code = app.main(words)
    return Ran(code, streams["stdout"].bytes(), streams["stderr"].bytes().decode("utf-8"))


def refused(ran: Ran, command: str, code: int, *words: str) -> None:
    """It ended with the code, in three lines at most that hold the words."""
    assert ran.code == code, ran.err
    lines = ran.err.splitlines()
    assert lines[0].startswith(f"vidgen {command}: ") and len(lines) <= 3
    for word in words:
        assert word in ran.err


def shell(line: str) -> Ran:
    """A line of shell: pipes, `> FILE`, `||`, `&&` and `source <(…)`, no variables or quotes within
    words. The code is that of the first command of a pipe that fails (pipefail)."""
    result, before = Ran(0, b"", ""), ";"
    for connective, pipe in _pipes(line):
        if (before == "||" and result.code == 0) or (before == "&&" and result.code != 0):
            continue
        ran = _run_pipe(pipe)
        result = Ran(ran.code, result.out + ran.out, result.err + ran.err)
        before = connective
    return result


def _pipes(line: str) -> list[tuple[str, list[list[str]]]]:
    """(what connects it to the next, its commands) of each pipe of the line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>&;()")
    lexer.whitespace_split = True
    pipes: list[list[list[str]]] = [[[]]]
    connectives: list[str] = []
    for word in lexer:
        if word in ("||", "&&", ";"):
            connectives.append(word)
            pipes.append([[]])
        elif word == "|":
            pipes[-1].append([])
        else:
            pipes[-1][-1].append(word)
    return list(zip([*connectives, ";"], pipes, strict=True))


def _run_pipe(commands: list[list[str]]) -> Ran:
    data, err, code = b"", "", 0
    for words in commands:
        if words[:2] == ["source", "<("]:
            words = words[2:-1]
        words, _, target = _cut(words, ">")
        ran = _run_one(words, data)
        data, err, code = ran.out, err + ran.err, code or ran.code
        if target:
            Path(target[0]).write_bytes(data)
            data = b""
    return Ran(code, data, err)


def _cut(words: list[str], at: str) -> tuple[list[str], str, list[str]]:
    if at not in words:
        return words, "", []
    i = words.index(at)
    return words[:i], at, words[i + 1 :]


def _run_one(words: list[str], stdin: bytes) -> Ran:
    if words[0] == "vidgen":
        return run(*words[1:], stdin=stdin)
    ran = subprocess.run(words, input=stdin, capture_output=True, timeout=60)
    return Ran(ran.returncode, ran.stdout, ran.stderr.decode("utf-8"))
