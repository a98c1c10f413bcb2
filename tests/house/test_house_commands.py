"""What every command's page and options must be like; none of it by eye."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vidgen.cli import app, help
from vidgen.cli.command import Command, config_key, default_words, value_words
from vidgen.cli.options import IO, RUNNING

ROOT = Path(__file__).parent.parent.parent
FLAGS = Path(__file__).parent / "flags.txt"
ALL = sorted(app.COMMANDS)
REWRITE = os.environ.get("VIDGEN_GOLDEN") == "rewrite"


@pytest.fixture(params=ALL)
def command(request: pytest.FixtureRequest) -> Command:
    return app.load(request.param)


def test_the_page_agrees_with_the_table(command: Command) -> None:
    module, summary = app.COMMANDS[command.name]
    assert module == command.name.replace("-", "_")
    assert command.page.summary == summary
    assert len(summary) <= 60 and not summary.endswith(".")


def test_every_module_with_a_page_is_in_the_table() -> None:
    modules = {
        p.stem for p in (ROOT / "vidgen" / "cli").glob("*.py")
        if re.search(r"^PAGE = ", p.read_text(encoding="utf-8"), re.MULTILINE)
    }  # fmt: skip
    assert modules == {module for module, _ in app.COMMANDS.values()}


def test_help_fits_a_terminal_and_begins_with_an_example(command: Command) -> None:
    lines = help.page(command).splitlines()
    assert [line for line in lines if len(line) > 80 and not line.startswith("  vidgen")] == []
    assert [line for line in lines if len(line) > 100] == []
    assert lines[0].startswith("Usage: vidgen ")
    assert lines[lines.index("Examples:") + 1].startswith("  ")
    assert lines.index("Examples:") <= 4


def test_overview_fits_a_terminal() -> None:
    lines = app.overview().splitlines()
    assert max(map(len, lines)) <= 80
    for name in app.COMMANDS:
        assert any(line.startswith(f"  {name} ") for line in lines)


def test_the_examples_parse(command: Command) -> None:
    assert command.page.examples
    for line, comment in command.page.examples:
        assert comment and not comment.endswith("."), line
        for words in vidgen_commands(line):
            other = app.load(words[0])
            given = other.split(words[1:])
            from vidgen.cli import settings

            settings.resolve(other, given, [])
    own = [w[0] for line, _ in command.page.examples for w in vidgen_commands(line)]
    assert command.name in own


def vidgen_commands(line: str) -> list[list[str]]:
    """The words of each vidgen command of a shell line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>&;()")
    lexer.whitespace_split = True
    found: list[list[str]] = []
    inside = redirect = False
    for word in lexer:
        if set(word) <= set("|&;()<"):
            inside = False
        elif set(word) <= set(">"):
            redirect = True
        elif redirect:
            redirect = False
        elif not inside and word == "vidgen":
            found.append([])
            inside = True
        elif inside:
            found[-1].append(word)
    return found


def test_vidgen_commands_takes_lines_apart() -> None:
    line = """echo 'a | b' | vidgen x "y z" > out && source <(vidgen completion bash)"""
    assert vidgen_commands(line) == [["x", "y z"], ["completion", "bash"]]


def test_at_most_twelve_options_of_its_own(command: Command) -> None:
    own = [p.opts for p in command.options if p.rich_help_panel is None]
    assert len(own) <= 12, own


def test_every_option_is_explained(command: Command) -> None:
    for p in command.params:
        words = str(p.help or "")
        assert words and not words.endswith("."), p.opts
        assert p.rich_help_panel in (None, IO, RUNNING)
        takes_value = bool(value_words(p)) and p.param_type_name == "option"
        told = default_words(p) or p.required or p.default is None
        assert told or not takes_value, f"{p.opts}: what is the default?"
        assert all(re.fullmatch(r"-[a-zA-Z]|--[a-z][a-z0-9-]*", f) for f in p.opts if f[0] == "-")
        if p.envvar:
            assert p.envvar == "VIDGEN_" + str(config_key(p)).upper().replace("-", "_")


def test_a_flag_means_the_same_everywhere() -> None:
    """One short letter, one long name; one long name, one kind of value."""
    letters: dict[str, set[str]] = {}
    values: dict[str, set[str]] = {}
    for name in ALL:
        for p in app.load(name).options:
            long = next(f for f in p.opts if f.startswith("--"))
            for flag in p.opts:
                letters.setdefault(flag, set()).add(long)
            kind = "choice" if p.type_descriptor.choices else str(p.type_descriptor.annotation)
            values.setdefault(long, set()).add(kind)
    assert {f: sorted(names) for f, names in letters.items() if len(names) > 1} == {}
    assert {f: sorted(kinds) for f, kinds in values.items() if len(kinds) > 1} == {}


def flag_list() -> str:
    """Every flag of every command, one a line."""
    lines = []
    for name in ALL:
        for p in app.load(name).params:
            lines.append(f"{name} {help.flags(p).strip()}")
    return "\n".join(lines) + "\n"


def test_no_flag_comes_or_goes_unseen() -> None:
    if REWRITE:
        FLAGS.write_text(flag_list())
    assert flag_list() == FLAGS.read_text(), (
        "flags changed: VIDGEN_GOLDEN=rewrite pytest tests/house writes the new list"
    )


def test_man_pages_are_fresh() -> None:
    from vidgen.cli import man

    pages = man.pages()
    stale = [
        name for name, text in pages.items()
        if not (ROOT / "man" / name).exists() or (ROOT / "man" / name).read_text() != text
    ]  # fmt: skip
    assert stale == [], "`make man` writes them anew"
    assert {p.name for p in (ROOT / "man").glob("*.1")} == pages.keys()


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not here")
def test_groff_has_nothing_to_say_of_the_pages(tmp_path: Path) -> None:
    pages = sorted((ROOT / "man").glob("*.[1-8]"))
    assert pages
    for path in pages:
        ran = subprocess.run(
            ["groff", "-k", "-man", "-ww", "-Tutf8", "-rLL=80n", "-z", str(path)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (ran.returncode, ran.stderr) == (0, ""), path.name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_understood_by_their_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    from vidgen.cli import completion

    script = getattr(completion, shell)([app.load(name) for name in ALL])
    (tmp_path / "script").write_text(script)
    ran = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["vidgen", "conf"], {"config"}),
        (["vidgen", "config", "--exp"], {"--explain"}),
        (["vidgen", "config", "--progress", "b"], {"bar"}),
        (["vidgen", "completion", "f"], {"fish"}),
        (["vidgen", "config", "de"], set()),
    ],
)
def test_bash_completes(words: list[str], expected: set[str], tmp_path: Path) -> None:
    from vidgen.cli import completion

    script = completion.bash([app.load(name) for name in ALL])
    array = " ".join(map(shlex.quote, words))
    program = (
        f"{script}\nCOMP_WORDS=({array}) COMP_CWORD={len(words) - 1}\n"
        '_vidgen; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    ran = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.stderr == ""
    assert set(ran.stdout.split()) == expected


def test_the_module_runs_as_a_program() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "vidgen", "--version"], cwd=ROOT, capture_output=True, timeout=250
    )
    assert ran.returncode == 0 and ran.stdout.startswith(b"vidgen ")


def test_every_man_page_is_installed_in_its_section() -> None:
    import tomllib

    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    installed = data["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    pages = {
        f"man/{p.name}": f"share/man/man{p.name[-1]}/{p.name}" for p in (ROOT / "man").iterdir()
    }
    assert installed == pages
