"""`vidgen(...)`: run a command line in this process, in a folder of its own."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import made_command
import pytest

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


Run = Callable[..., Ran]


@pytest.fixture
def vidgen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `vidgen(*words, stdin=b"", terminal=())` in an empty folder with no settings anywhere;
    `terminal` names the streams that say they are one. The command `relay` is there for tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    for name in [n for n in os.environ if n.startswith("VIDGEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setitem(app.COMMANDS, "relay", ("relay", made_command.PAGE.summary))
    monkeypatch.setitem(sys.modules, "vidgen.cli.relay", made_command)

    def run(*words: str, stdin: bytes = b"", terminal: tuple[str, ...] = ()) -> Ran:
        streams = {
            "stdin": Stream(stdin, terminal="stdin" in terminal),
            "stdout": Stream(terminal="stdout" in terminal),
            "stderr": Stream(terminal="stderr" in terminal),
        }
        with monkeypatch.context() as patch:
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            code = app.main(words)
        return Ran(code, streams["stdout"].bytes(), streams["stderr"].bytes().decode("utf-8"))

    return run
