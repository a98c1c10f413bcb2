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
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / ".data"))
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


@pytest.fixture
def on_latents(vidgen: Run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`vidgen` on the tiny model, where text.vgs and latents.vgs of two records lie."""
    monkeypatch.setenv("VIDGEN_MODEL", str(tiny_model))
    rows = b'{"id": "a", "prompt": "a red ball"}\n{"id": "b", "prompt": "a blue cube"}\n'
    Path("rows.jsonl").write_bytes(rows)
    assert vidgen("encode-text", "-i", "rows.jsonl", "-o", "text.vgs").code == 0
    assert vidgen("sample-keyframes", "text.vgs", "-o", "latents.vgs").code == 0
    return vidgen


@pytest.fixture
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test when an interpolation network or an upsampler is read."""
    from vidgen.systems.load import ClipNetwork

    monkeypatch.setattr(ClipNetwork, "load", lambda self: pytest.fail("weights were read"))


@pytest.fixture
def six_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """evaluate-fvd with the network of `fvd_clips`, whatever it is called."""
    from fvd_clips import Colors

    from vidgen.cli import evaluate_fvd
    from vidgen.metrics import extractors

    def make(name: str, *, weights: Path | None, device: object) -> Colors:
        made = Colors()
        made.name = name
        made.settings = {**Colors.settings, "extractor": name}  # type: ignore[misc]
        return made

    monkeypatch.setattr(extractors, "make", make)
    check = evaluate_fvd.check_weights  # this network brings its own
    monkeypatch.setattr(evaluate_fvd, "check_weights", lambda name, given: check("world", given))


@pytest.fixture
def sides(clean: Path) -> tuple[str, str]:
    """Forty real clips, and forty that are brighter."""
    from fvd_clips import some

    return some("real.vgs", 40, 1), some("fake.vgs", 40, 2, bright=12)
