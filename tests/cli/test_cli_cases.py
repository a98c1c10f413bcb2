"""Command lines as data: every `cases/*.case` file is a list of them (cases/README tells how)."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DATA = HERE.parent / "data"
REST = "..."  # a line of its own: any lines, also none
ANY = "[..]"  # within a line: any text


@dataclass
class Case:
    """What is typed, and what must come of it."""

    place: str
    words: list[list[str]] = field(default_factory=list)  # one list for each command of the pipe
    files: dict[str, list[str]] = field(default_factory=dict)
    copies: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    stdin: list[str] = field(default_factory=list)
    terminal: tuple[str, ...] = ()
    code: int = 0
    stdout: list[str] = field(default_factory=list)
    stdout_sha256: str | None = None
    stderr: list[str] = field(default_factory=list)


def parse(path: Path) -> Iterator[Case]:
    case: Case | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        mark, _, rest = line.partition(" ")
        if not line.strip() or mark == "#":
            continue
        if mark == "==":
            if case:
                yield case
            case = Case(f"{path.stem}: {rest}")
            continue
        assert case, f"{path.name}:{number}: no case has begun"
        match mark:
            case "$":
                case.words = split(rest)
            case "file":
                case.files[rest] = []
            case "|":
                list(case.files.values())[-1].append(rest)
            case "data":
                case.copies.append(rest)
            case "env":
                name, _, value = rest.partition("=")
                case.variables[name] = value
            case "terminal":
                case.terminal = tuple(rest.split())
            case "<":
                case.stdin.append(rest)
            case "?":
                case.code = int(rest)
            case ">":
                case.stdout.append(rest)
            case ">sha256":
                case.stdout_sha256 = rest
            case "!":
                case.stderr.append(rest)
            case _:
                raise AssertionError(f"{path.name}:{number}: what is `{mark}`?")
    if case:
        yield case


def split(line: str) -> list[list[str]]:
    """The words of each command of a pipe, without the program's name."""
    commands: list[list[str]] = [[]]
    for word in shlex.split(line):
        if word == "|":
            commands.append([])
        else:
            commands[-1].append(word)
    assert all(words[0] == "vidgen" for words in commands), line
    return [words[1:] for words in commands]


def pattern(lines: list[str]) -> str:
    """A regular expression for the text that the lines describe."""
    out = ""
    for line in lines:
        if line.strip() == REST:
            out += r"(?:.*\n)*"
        else:
            out += ".*".join(map(re.escape, line.split(ANY))) + r"\n"
    return out


CASES = [case for path in sorted((HERE / "cases").glob("*.case")) for case in parse(path)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.place)
def test_case(case: Case, vidgen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, lines in case.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for name in case.copies:
        shutil.copy(DATA / name, tmp_path / name)
    for name, value in case.variables.items():
        monkeypatch.setenv(name, value)
    data, err = "".join(f"{line}\n" for line in case.stdin).encode(), ""
    for words in case.words:
        ran = vidgen(*words, stdin=data, terminal=case.terminal)
        data, err = ran.out, err + ran.err
    err = err.replace(f"{tmp_path}/", "")
    assert ran.code == case.code, err
    assert re.fullmatch(pattern(case.stderr), err), err
    if case.stdout_sha256:
        assert hashlib.sha256(ran.out).hexdigest() == case.stdout_sha256
    else:
        assert re.fullmatch(pattern(case.stdout), ran.text), ran.text
