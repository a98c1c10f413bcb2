"""Where values come from, and in which order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidgen.cli import app, settings


def origin(name: str, *words: str, files: tuple[Path, ...] = ()) -> tuple[object, str]:
    command = app.load("relay")
    read = [settings.SettingsFile.read(f, app.COMMANDS) for f in files]
    setting = settings.resolve(command, command.split(words), read)[name]
    return setting.value, setting.origin


@pytest.fixture
def here(vidgen, tmp_path: Path) -> Path:
    """The folder that commands run in; `relay` is in the table."""
    return tmp_path


def test_flags_then_variables_then_files_then_defaults(here, monkeypatch) -> None:
    strong, weak = here / "strong.toml", here / "weak.toml"
    strong.write_text("size = 4\n")
    weak.write_text("size = 2\n[relay]\nsize = 3\n")
    assert origin("size") == (3, "default")
    assert origin("size", files=(weak,)) == (3, str(weak))  # a command's own table goes first
    assert origin("size", files=(strong, weak)) == (4, str(strong))
    monkeypatch.setenv("VIDGEN_SIZE", "5")
    assert origin("size", files=(strong, weak)) == (5, "VIDGEN_SIZE")
    assert origin("size", "--size", "6", files=(strong, weak)) == (6, "flag")
    monkeypatch.setenv("VIDGEN_SIZE", "")
    assert origin("size", files=(strong, weak)) == (4, str(strong))


def test_files_are_found_in_their_order(here, monkeypatch) -> None:
    user = here / ".config" / "vidgen" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text("size = 1\n")
    deep = here / "a" / "b"
    deep.mkdir(parents=True)
    (here / "a" / "vidgen.toml").write_text("size = 2\n")
    (here / "vidgen.toml").write_text("size = 3\n")  # further up: not looked at
    given = here / "given.toml"
    given.write_text("size = 4\n")
    monkeypatch.chdir(deep)
    files = settings.read_files(str(given), app.COMMANDS)
    assert [f.path for f in files] == [given, here / "a" / "vidgen.toml", user]


def test_values_of_all_types_are_read_as_typed(here) -> None:
    path = here / "vidgen.toml"
    path.write_text('seed = "0-2"\nno_provenance = true\nmode = "slow"\nquiet = false\n')
    assert origin("seed", files=(path,))[0] == (0, 1, 2)
    assert origin("no_provenance", files=(path,))[0] is True
    assert origin("mode", files=(path,))[0] == "slow"
    assert origin("quiet", files=(path,)) == (False, str(path))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("size = 11", "vidgen.toml: size = 11: must be 1 to 9"),
        ("[relay]\nsize = 'x'", "vidgen.toml: relay.size = x: must be a whole number, 1 to 9"),
        ("size = 2001-01-01", "vidgen.toml: size: a date can't be the value of an option"),
        ("size =", "vidgen.toml: is not TOML: invalid value"),
        ("[relya]\nsize = 1", "vidgen.toml: the table [relya] names no command"),
        ("[relay]\nsise = 1", "vidgen.toml: [relay] has `sise`, which is no option of it"),
        ("[relay]\noutput = 'x'", "vidgen.toml: [relay] has `output`, which is no option of it"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_place(vidgen, tmp_path, content, what) -> None:
    (tmp_path / "vidgen.toml").write_text(content)
    ran = vidgen("relay", stdin=b"")
    assert ran.code == 2
    assert ran.err.replace(f"{tmp_path}/", "").startswith(f"vidgen relay: {what}")


def test_a_mistake_in_a_variable_is_told_with_its_name(vidgen, monkeypatch) -> None:
    monkeypatch.setenv("VIDGEN_QUIET", "perhaps")
    ran = vidgen("relay")
    assert ran.err.splitlines()[0] == ("vidgen relay: VIDGEN_QUIET=perhaps: must be true or false")


def test_config_missing(vidgen) -> None:
    ran = vidgen("relay", "--config", "no.toml")
    assert (ran.code, ran.err) == (2, "vidgen relay: no.toml: no such file or directory\n")


def test_config_prints_a_file_that_sets_the_same(vidgen, tmp_path, monkeypatch) -> None:
    (tmp_path / "vidgen.toml").write_text('[relay]\nmode = "slow"\n')
    monkeypatch.setenv("VIDGEN_SIZE", "7")
    monkeypatch.setenv("VIDGEN_NO_PROVENANCE", "1")
    printed = vidgen("config", "relay").text
    assert "VIDGEN_SIZE" in printed
    (tmp_path / "again.toml").write_text(printed)
    monkeypatch.delenv("VIDGEN_SIZE")
    monkeypatch.delenv("VIDGEN_NO_PROVENANCE")
    (tmp_path / "vidgen.toml").unlink()
    again = vidgen("config", "relay", "--config", "again.toml").text
    strip = [line.split("  #")[0] for line in printed.splitlines()]
    assert strip == [line.split("  #")[0] for line in again.splitlines()]
    assert len(strip) == 4


def test_config_explains_every_option(vidgen, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VIDGEN_SIZE", "7")
    lines = vidgen("config", "--explain", "relay").text.splitlines()
    assert [line.split() for line in lines if " size " in line] == [
        ["relay", "size", "7", "VIDGEN_SIZE"]
    ]
    report = json.loads(vidgen("config", "--explain", "--json", "relay").text)
    assert report["schema"] == "vidgen.config/1"
    assert {"command": "relay", "option": "mode", "value": "fast", "origin": "default"} in (
        report["settings"]
    )
    assert [f["found"] for f in report["files"]] == [False, False]


def test_config_names_variables_that_nothing_reads(vidgen, monkeypatch) -> None:
    monkeypatch.setenv("VIDGEN_SISE", "7")
    assert "VIDGEN_SISE is set, but no option reads it" in vidgen("config", "--explain").text
