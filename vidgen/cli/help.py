"""Help texts: plain, at most 80 columns, an example at the head."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidgen.cli.command import Command, Param

WIDTH = 80
COLUMN = 28  # where the explanations begin

Table = Mapping[str, Mapping[str, tuple[str, str]]]  # group → command → (module, summary)
Examples = Sequence[tuple[str, str]]  # (command, comment)


def overview(groups: Table, examples: Examples) -> str:
    """The page of `vidgen --help`. Needs neither a command's module nor typer."""
    lines = [
        "Usage: vidgen COMMAND [OPTIONS] [ARGUMENTS]",
        "",
        "Examples:",
        *_examples(examples),
        "",
        "Filters for text-to-video diffusion: each does one step, reads records from",
        "standard input and writes records to standard output.",
    ]
    for group, commands in groups.items():
        lines += ["", f"{group}:"]
        lines += [f"  {name:<18}{summary}" for name, (_, summary) in commands.items()]
    lines += [
        "",
        "`vidgen COMMAND --help` explains one, `man vidgen-COMMAND` tells the rest,",
        "`vidgen --version` says what this is.",
    ]
    return "\n".join(lines) + "\n"


def page(command: Command) -> str:
    """The page of `vidgen COMMAND --help`."""
    words = command.page
    lines = [*_usage(command), "", "Examples:", *_examples(words.examples), ""]
    about = [f"{words.summary[0].upper()}{words.summary[1:]}.", *words.flow()]
    lines += [line for sentence in about for line in _wrapped(sentence, WIDTH)]
    for title, params in sections(command).items():
        lines += ["", f"{title}:"]
        for param in params:
            lines += _param(param)
    see = ", ".join([f"man vidgen-{command.name}", *words.see_also])
    lines += ["", *_wrapped(f"See also: {see}", WIDTH, indent="  ")]
    return "\n".join(lines) + "\n"


def usage(command: Command) -> str:
    """What stands before an error when nothing was given to work on."""
    return "\n".join([*_usage(command), *_examples(command.page.examples)]) + "\n"


def _usage(command: Command) -> list[str]:
    return _wrapped(f"Usage: {command.usage()}", WIDTH, indent="    ")


def sections(command: Command) -> dict[str, list[Param]]:
    """Parameters as they are shown: arguments, own options, then the shared groups."""
    from vidgen.cli.options import IO, RUNNING

    out: dict[str, list[Param]] = {"Arguments": list(command.arguments)}
    for title, group in ((f"{command.name} options", None), (IO, IO), (RUNNING, RUNNING)):
        out[title] = [p for p in command.options if p.rich_help_panel == group and not p.hidden]
    return {title: params for title, params in out.items() if params}


def flags(param: Param) -> str:
    """`-o, --output PATH`; options without a short form are indented to stay in line."""
    from vidgen.cli.command import argument_words, value_words

    if param.param_type_name == "argument":
        return argument_words(param)  # type: ignore[arg-type]
    short = [f for f in param.opts if not f.startswith("--")]
    long = [f for f in param.opts if f.startswith("--")]
    words = ", ".join([*short, *long]) if short else "    " + ", ".join(long)
    return f"{words} {value_words(param)}".rstrip()


def explanation(param: Param) -> str:
    """Help, range and default: `quality of H.264 [0 to 51; default 18]`."""
    from vidgen.cli.command import default_words, range_words

    default = default_words(param)
    known = [range_words(param), f"default: {default}" if default else ""]
    brackets = "; ".join(x for x in known if x)
    return f"{param.help} [{brackets}]" if brackets else str(param.help)


def _param(param: Param) -> Iterator[str]:
    left = f"  {flags(param)}"
    right = _wrapped(explanation(param), WIDTH - COLUMN)
    if len(left) > COLUMN - 2:
        yield left
        left = ""
    for i, line in enumerate(right):
        yield f"{left if i == 0 else '':<{COLUMN}}{line}"


def _examples(examples: Examples) -> Iterator[str]:
    """Commands in one column and comments in the next, which begins where most have room; what
    has none stands beneath."""

    def fits(command: str, comment: str, column: int) -> bool:
        return len(command) <= column and column + len(comment) + 5 <= WIDTH

    columns = sorted(len(command) for command, _ in examples)
    column = max(columns, default=0, key=lambda c: sum(fits(*example, c) for example in examples))
    for command, comment in examples:
        *before, last = split_pipe(command, WIDTH - 2)
        yield from (f"  {line}" for line in before)
        if fits(last, comment, column):
            yield f"  {last:<{column}}   {comment}"
        else:
            yield from (f"  {last}", f"      {comment}")


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines that break at spaces only: neither `--batch-size` nor a name is split."""
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def split_pipe(command: str, width: int) -> list[str]:
    """A long pipe as lines that can be pasted together: each but the last ends in `|`."""
    lines = [""]
    for part in command.split(" | "):
        if lines[-1] and len(lines[-1]) + len(part) + 3 > width:
            lines[-1] += " |"
            lines.append("    " + part)
        else:
            lines[-1] += f" | {part}" if lines[-1] else part
    return lines
