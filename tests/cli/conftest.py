"""`vidgen(...)`: run a command line in this process, in a folder of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import inprocess
import made_command
import pytest
from inprocess import Ran

from vidgen.cli import app

Run = Callable[..., Ran]


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, with no settings anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    for name in [n for n in os.environ if n.startswith("VIDGEN_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def vidgen(clean: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `vidgen(*words, stdin=b"", terminal=())` in the empty folder; `terminal` names the
    standard streams that say they are one. The command `relay` is there for tests."""
    monkeypatch.setitem(app.COMMANDS, "relay", ("relay", made_command.PAGE.summary))
    monkeypatch.setitem(sys.modules, "vidgen.cli.relay", made_command)
    return inprocess.run
