"""`vidgen completion`: scripts that teach a shell vidgen's commands and options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from vidgen.cli.app import COMMANDS, load
from vidgen.cli.command import Command, Param, value_words
from vidgen.cli.options import argument
from vidgen.cli.page import Page
from vidgen.cli.runner import print_text

PAGE = Page(
    name="completion",
    summary="completion for bash, zsh or fish",
    description="""\
Prints a script for the shell. It holds the commands and options of this version: make it anew
after an update. Files are completed as usual.

In ~/.bashrc: `source <(vidgen completion bash)`. For zsh, write it as `_vidgen` into a folder of
`$fpath`. For fish, write it to ~/.config/fish/completions/vidgen.fish.""",
    writes="a shell script to standard output",
    examples=[
        ("source <(vidgen completion bash)", "now, and in ~/.bashrc for good"),
        ("vidgen completion fish > vidgen.fish", "to be put in fish's completions folder"),
    ],
)

Shell = Annotated[Literal["bash", "zsh", "fish"], argument("SHELL", "bash, zsh or fish")]

TOP = ("--help", "--version")


def completion(shell: Shell) -> None:
    commands = [load(name) for name in COMMANDS]
    print_text({"bash": bash, "zsh": zsh, "fish": fish}[shell](commands))


def bash(commands: list[Command]) -> str:
    words = " ".join([*COMMANDS, *TOP])
    options = "\n".join(f'        {c.name}) words="{" ".join(_flags(c))}" ;;' for c in commands)
    values = "\n".join(_bash_values(commands))
    return f"""\
# bash completion for vidgen
_vidgen() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} words=""
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "{words}" -- "$cur"))
        return
    fi
    case "${{COMP_WORDS[1]}} $prev" in
{values}
    esac
    if [[ -z $words && $cur == -* ]]; then
        case ${{COMP_WORDS[1]}} in
{options}
        esac
    fi
    [[ -n $words ]] && COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _vidgen vidgen"""


def _bash_values(commands: list[Command]) -> Iterator[str]:
    """Which words may stand behind an option, or as a command's argument."""
    patterns: dict[str, list[str]] = {}
    for command in commands:
        for param in command.params:
            if choices := _choices(param):
                befores = _flags_of(param) or [command.name]
                patterns.setdefault(choices, []).extend(f'"{command.name} {b}"' for b in befores)
    for choices, befores in patterns.items():
        yield f'        {" | ".join(befores)}) words="{choices}" ;;'


def zsh(commands: list[Command]) -> str:
    described = "\n".join(
        f"    {_quoted(f'{name}:{_zsh_text(summary)}')}" for name, (_, summary) in COMMANDS.items()
    )
    cases = "\n".join(_zsh_case(c) for c in commands)
    return f"""\
#compdef vidgen
# zsh completion for vidgen
_vidgen() {{
  local -a commands=(
{described}
  )
  if ((CURRENT == 2)); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  ((CURRENT--))
  case $command in
{cases}
  esac
}}
_vidgen "$@\""""


def _zsh_case(command: Command) -> str:
    specs = [spec for p in command.options for spec in _zsh_option(p)]
    rest = next((_choices(p) for p in command.arguments if _choices(p)), "")
    specs.append(_quoted(f"*:argument:({rest})" if rest else "*:file:_files"))
    return f"    {command.name}) _arguments {' '.join(specs)} ;;"


def _zsh_option(param: Param) -> Iterator[str]:
    for flag in _flags_of(param):
        text = f"{flag}[{_zsh_text(str(param.help))}]"
        if word := value_words(param):
            action = f"({_choices(param)})" if _choices(param) else "_files"
            text += f":{_zsh_text(word)}:{action}"
        yield _quoted(text)


def _zsh_text(text: str) -> str:
    for c in "\\[]:":
        text = text.replace(c, "\\" + c)
    return text


def fish(commands: list[Command]) -> str:
    lines = [
        "# fish completion for vidgen",
        "complete -c vidgen -n __fish_use_subcommand -l help -d 'print help'",
        "complete -c vidgen -n __fish_use_subcommand -l version -d 'print the version'",
    ]
    for name, (_, summary) in COMMANDS.items():
        lines.append(
            f"complete -c vidgen -f -n __fish_use_subcommand -a {name} -d {_quoted(summary)}"
        )
    for command in commands:
        seen = f"-n '__fish_seen_subcommand_from {command.name}'"
        for param in command.params:
            lines += _fish_param(f"complete -c vidgen {seen}", param)
    return "\n".join(lines)


def _fish_param(start: str, param: Param) -> Iterator[str]:
    choices = _choices(param)
    words = [f"-f -a {_quoted(choices)}"] if choices else []
    if not _flags_of(param):
        if choices:
            yield f"{start} {words[0]}"
        return
    for flag in _flags_of(param):
        words.append(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}")
    if value_words(param):
        words.append("-r")
    yield f"{start} {' '.join(words)} -d {_quoted(str(param.help))}"


def _flags(command: Command) -> list[str]:
    return [flag for p in command.options for flag in _flags_of(p)]


def _flags_of(param: Param) -> list[str]:
    return [flag for flag in param.opts if flag.startswith("-")]


def _choices(param: Param) -> str:
    return " ".join(map(str, param.type_descriptor.choices or ()))


def _quoted(text: str) -> str:
    """For a shell, in single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"
