"""Errors, exit codes, help: what holds for every command, shown on one that does nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vidgen.errors import EXIT_MEANINGS
from vidgen.io.record import Record
from vidgen.io.stream import read_stream, write_stream


def text(id: str, prompt: str = "a red ball") -> Record:
    return Record.make("text", id, {"text.embeds": np.ones((2, 3), np.float32)}, {"prompt": prompt})


@pytest.fixture
def two(tmp_path: Path) -> str:
    write_stream([text("a"), text("b")], tmp_path / "two.safetensors")
    return "two.safetensors"


@pytest.mark.parametrize(
    ("trouble", "code", "lines"),
    [
        ("vidgen", 1, ["it failed", "  why:  it had to", "  next: vidgen relay --help"]),
        ("input", 3, ["bad input"]),
        ("threshold", 4, ["fvd is 12, --max is 10"]),
        ("memory", 5, ["out of memory"]),
        ("host-memory", 5, ["out of memory", "  why:  too much",
                            "  next: try a smaller --batch-size, --dtype bf16, or --device cpu"]),
        ("again", 75, ["stopped"]),
        ("interrupt", 130, ["interrupted"]),
        ("pipe", 141, []),
        ("disk", 1, ["x.bin: no space left on device",
                     "  next: make room, or choose another place with -o"]),
        ("file", 2, ["x.bin: no such file or directory"]),
        ("io", 1, ["input/output error"]),
        ("odd", 1, [r"name\nwith \x1b[31m control"]),
    ],
)  # fmt: skip
def test_each_error_has_its_code_and_three_lines(vidgen, two, trouble, code, lines) -> None:
    ran = vidgen("relay", two, "--trouble", trouble)
    assert ran.code == code
    expected = [f"vidgen relay: {lines[0]}", *lines[1:]] if lines else []
    assert ran.err.splitlines() == expected


def test_what_was_finished_before_an_error_is_written_but_never_as_the_last(vidgen, two) -> None:
    ran = vidgen("relay", two, "--trouble", "vidgen")
    again = vidgen("relay", stdin=ran.out)
    assert again.code == 3
    assert "isn't marked as the last" in again.err
    assert again.out == ran.out


def test_finished_records_of_a_file_are_told_of_and_kept(vidgen, two, tmp_path) -> None:
    ran = vidgen("relay", two, "-o", "b.safetensors", "--trouble", "interrupt")
    assert ran.code == 130
    assert ran.err.splitlines()[1] == (
        "  next: the records finished before it are in b.safetensors.cut"
    )
    assert sorted(p.name for p in tmp_path.glob("b.*")) == ["b.safetensors.cut"]


def test_a_bug_leaves_its_traceback_in_a_file(vidgen, two, tmp_path) -> None:
    ran = vidgen("relay", two, "--trouble", "bug")
    assert ran.code == 1
    first, why, after = ran.err.splitlines()
    assert first.endswith("stopped by an unexpected error: made_command.NeverHeardOf: at all")
    assert "bug in vidgen" in why
    path = Path(after.split(" in ")[-1])
    assert path.is_relative_to(tmp_path / ".cache")
    assert "Traceback" in path.read_text() and "--trouble" in path.read_text()
    assert "Traceback" in vidgen("relay", two, "--trouble", "bug", "--debug").err


def test_json_adds_one_line_that_follows_the_schema(vidgen, two) -> None:
    ran = vidgen("relay", two, "--trouble", "vidgen", "--json")
    row = json.loads(ran.err.splitlines()[-1])
    assert row == {
        "schema": "vidgen.error/1", "command": "relay", "code": 1, "what": "it failed",
        "why": "it had to", "next": "vidgen relay --help",
    }  # fmt: skip
    assert len(ran.err.splitlines()) == 4
    assert set(row) == set(json.loads(vidgen("schema", "vidgen.error/1").text)["required"])


def test_json_holds_for_errors_before_the_words_are_understood(vidgen) -> None:
    row = json.loads(vidgen("relay", "--json", "--sise", "3").err.splitlines()[-1])
    assert (row["code"], row["what"]) == (2, "there is no option --sise")


def test_progress_json_makes_every_line_of_stderr_an_event(vidgen, two) -> None:
    ran = vidgen("relay", two, "--progress", "json", "--trouble", "vidgen")
    rows = [json.loads(line) for line in ran.err.splitlines()]
    assert [r["event"] for r in rows] == ["start", "step", "error", "end"]
    assert rows[1]["done"] == 1 and rows[1]["total"] == 4 and rows[1]["unit"] == "record"
    assert rows[-1]["code"] == 1


@pytest.mark.parametrize(
    ("words", "what", "after"),
    [
        (["relya"], "vidgen: there is no command relya", "vidgen relay --help"),
        (["xyzzy"], "vidgen: there is no command xyzzy", "vidgen --help"),
        (["--seed"], "vidgen: there is no option --seed", "vidgen --help"),
        (["relay", "--sise", "3"], "there is no option --sise",
         "--size, if that is meant; vidgen relay --help shows all"),
        (["relay", "--size"], "--size needs a value: --size N", "vidgen relay --help"),
        (["relay", "--json=1"], "--json takes no value", "vidgen relay --help"),
        (["relay", "--size", "x"], "--size x: must be a whole number, 1 to 9", ""),
        (["relay", "--size", "1_0"], "--size 1_0: must be a whole number, 1 to 9", ""),
        (["relay", "--size", "10"], "--size 10: must be 1 to 9", ""),
        (["relay", "--mode", "Fast"], "--mode Fast: must be one of fast, slow; did you mean fast?",
         ""),
        (["relay", "--seed", "9-7"], "--seed 9-7: the range 9-7 runs backwards", ""),
        (["relay", "--seed", "1,1"], "--seed 1,1: the same seed is in it twice", ""),
        (["relay", "--seed", "-1"], "--seed -1: must be a number, or a range such as 0-99", ""),
        (["relay", "--seed", "0-99999999"], "--seed 0-99999999: more than 1000000 seeds", ""),
        (["config", "decode", "more"], "no place for the argument `more`", "vidgen config --help"),
        (["completion"], "SHELL is missing", "source <(vidgen completion bash)"),
        (["completion", "tcsh"], "SHELL tcsh: must be one of bash, zsh, fish", ""),
    ],
)  # fmt: skip
def test_misuse_names_the_word_and_the_way_out(vidgen, words, what, after) -> None:
    ran = vidgen(*words)
    assert (ran.code, ran.out) == (2, b"")
    prefix = "" if what.startswith("vidgen: ") else f"vidgen {words[0]}: "
    assert ran.err.splitlines()[0] == prefix + what
    assert ran.err.splitlines()[-1].startswith("  next: " + after)


def test_no_command_is_the_overview_on_stderr(vidgen) -> None:
    ran = vidgen()
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err == vidgen("--help").text == vidgen("-h").text == vidgen("help").text


def test_no_input_on_a_terminal_is_the_usage_on_stderr(vidgen) -> None:
    ran = vidgen("relay", terminal=("stdin",))
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.splitlines() == [
        "Usage: vidgen relay [OPTIONS] [IN]...",
        "  vidgen relay a.safetensors -o b.safetensors   a slow copy",
        "vidgen relay: no input, and standard input is a terminal",
    ]


def test_records_are_refused_on_a_terminal(vidgen, two) -> None:
    ran = vidgen("relay", two, terminal=("stdout",))
    assert (ran.code, ran.out) == (2, b"")
    assert "refusing to write records to a terminal" in ran.err


def test_output_is_checked_before_any_input_is_read(vidgen, two, tmp_path) -> None:
    (tmp_path / "there").write_bytes(b"old")
    assert "is there already" in vidgen("relay", "-o", "there", stdin=b"no stream").err
    assert "no folder" in vidgen("relay", "-o", "not/here", stdin=b"no stream").err
    assert vidgen("relay", two, "-o", "there", "-f").code == 0


def test_a_file_of_another_kind_is_refused_before_the_stage_is_made(vidgen, tmp_path) -> None:
    write_stream([Record.make("features", "f", {"x": np.ones(2, np.float32)})], tmp_path / "f.vgs")
    ran = vidgen("relay", "f.vgs")
    assert ran.code == 3
    assert ran.err.splitlines() == [
        "vidgen relay: f.vgs: record `f` holds features, this command takes text",
        "  next: put `vidgen encode-text` in front of it",
    ]


def test_inputs_are_joined_and_a_pattern_writes_one_file_each(vidgen, two, tmp_path) -> None:
    write_stream([text("c")], tmp_path / "c.vgs")
    joined = vidgen("relay", two, "-", stdin=(tmp_path / "c.vgs").read_bytes())
    (tmp_path / "j.vgs").write_bytes(joined.out)
    assert [(r.id, r.last) for r in read_stream(tmp_path / "j.vgs")] == [
        ("a", False), ("b", False), ("c", True)
    ]  # fmt: skip
    assert vidgen("relay", "j.vgs", "-o", "{id}.one", "-v").err == (
        "vidgen relay: 3 records to {id}.one\n"
    )
    assert [next(read_stream(tmp_path / f"{n}.one")).last for n in "abc"] == [True] * 3


def test_log_and_prompts_are_left_out_on_request(vidgen, tmp_path) -> None:
    record = text("a-red-ball").replace(entry={"tool": "encode-text", "version": "0"})
    write_stream([record], tmp_path / "p.vgs")
    bare = vidgen("relay", "p.vgs", "--no-provenance")
    assert b"a red ball" in bare.out and b"encode-text" not in bare.out
    silent = vidgen("relay", "p.vgs", "--redact-prompt")
    assert b"red" not in silent.out.replace(b"redacted-", b"") and b"encode-text" in silent.out


def test_help_and_version_go_to_stdout(vidgen) -> None:
    assert vidgen("relay", "--help").text == vidgen("help", "relay").text
    assert vidgen("relay", "-h").text.startswith("Usage: vidgen relay [OPTIONS] [IN]...\n")
    assert vidgen("--version").text.startswith("vidgen ")
    versions = json.loads(vidgen("--version", "--json").text)
    assert versions["schema"] == "vidgen.version/1" and versions["torch"]


def test_every_exit_code_is_on_the_page_of_the_program() -> None:
    from vidgen.cli import man

    page = man.program_page()
    for code, meaning in EXIT_MEANINGS.items():
        assert f"{int(code):<5}{meaning}" in page.replace(r"\-", "-")
