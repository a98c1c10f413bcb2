"""Manual pages from the command table: `python -m vidgen.cli.man man/` writes all of them.

Everything on a page comes from where help and parser take it: the options, the module's PAGE, and
the table of exit codes. No dates: the same source gives the same bytes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from vidgen import __version__
from vidgen.cli.app import COMMANDS, EXAMPLES, GROUPS, load
from vidgen.cli.command import Command, Param
from vidgen.cli.help import Examples, explanation, flags, sections, split_pipe
from vidgen.errors import EXIT_MEANINGS

ORDER = (
    "DESCRIPTION", "RECORDS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES", "COST",
    "REPRODUCIBILITY", "PAPERS",
)  # fmt: skip

FILES = """\
vidgen.toml: settings for all commands in this folder and those beneath it.

$XDG_CONFIG_HOME/vidgen/config.toml (~/.config/vidgen/config.toml): the user's settings.

$XDG_CACHE_HOME/vidgen (~/.cache/vidgen): what can be made again; tracebacks of unexpected errors
are in its folder crashes."""

REPRODUCIBLE = """\
The same input, options and versions give the same bytes on the same kind of device: nothing that is
written holds a clock time, a host or a file name. What is written depends neither on the batch size
nor on how the work is cut into runs, up to rounding. `vidgen log` shows what made a file."""

ABOUT = """\
vidgen is a set of filters for text-to-video diffusion. Each command does one step: it reads a
stream of records, changes or adds what it makes, and writes a stream of records. A record is one
sample at one stage: named tensors, one JSON object, and the log of every step that made it.
**vidgen-stream**(5) describes the format; a file of one record is a safetensors file.

Standard output carries data, standard error is for people. Without an input file, standard input is
read; without `-o`, standard output is written, unless it is a terminal and the data are binary.
Several input files are read as one stream. A `{id}` in the output's name makes one file for each
record. Nothing is overwritten without `-f`, and a file appears whole or not at all.

`vidgen COMMAND --help` shows the options of a command, `vidgen --version` the version, and with
`--json` what it runs on."""

PIPES = """\
A shell shows the exit code of the last command of a pipe only. `set -o pipefail` shows the others;
and since the last record of a stream says so, every stage knows of an input that was cut, and ends
with exit code 3 after what was whole."""

SIGNALS = """\
SIGINT (Ctrl-C) ends with exit code 130, a closed pipe quietly with 141. SIGTERM removes temporary
files; the program then dies by the signal, which a shell shows as 143. `vidgen train` saves first
and ends with exit code 75: the same command goes on from there. Records that were finished before a
stop are kept: in a pipe they have been written, of a file they are in FILE.cut."""

ERRORS = """\
An error is one to three lines on standard error: what happened, why if it isn't obvious, and what
to type next. With `--json` a line of JSON follows (vidgen.error/1). `--debug` adds where in the
code it arose."""


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m vidgen.cli.man FOLDER")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """File name → page, for the program and each of its commands."""
    commands = {f"vidgen-{name}.1": command_page(load(name)) for name in COMMANDS}
    return {"vidgen.1": program_page(), **commands}


# --- the pages ------------------------------------------------------------------------------------


def command_page(command: Command) -> str:
    """The page of one command."""
    page = command.page
    parts = {
        "DESCRIPTION": " ".join(page.flow()) + "\n\n" + page.description,
        "EXIT STATUS": _exit_codes(),
        "ENVIRONMENT": _environment(command),
        "FILES": FILES,
    }
    if page.writes.endswith(" -o") and "REPRODUCIBILITY" not in page.notes:
        parts["REPRODUCIBILITY"] = REPRODUCIBLE
    parts = _joined(parts, page.notes)
    body = {title: _text(text) for title, text in parts.items()}
    body["OPTIONS"] = _options(command)
    body["EXAMPLES"] = _numbered(page.examples)
    more = [title for title in body if title not in ORDER]
    out = [
        *_head(f"vidgen-{command.name}", page.summary),
        ".SH SYNOPSIS",
        _synopsis(command.usage()),
    ]
    for title in [*ORDER, *more]:
        if title in body:
            out += [f".SH {_arg(title)}", *body[title]]
    out += _see_also(["vidgen(1)", *page.see_also])
    return "\n".join(out) + "\n"


def program_page() -> str:
    """The page of the program: what holds for all commands."""
    out = [
        *_head("vidgen", "filters for text-to-video diffusion"),
        ".SH SYNOPSIS",
        _synopsis("vidgen COMMAND [OPTIONS] [ARGUMENTS]"),
        ".SH DESCRIPTION",
        *_text(ABOUT),
        ".SH COMMANDS",
    ]
    for group, commands in GROUPS.items():
        out.append(f".SS {_arg(group)}")
        for name, (_, summary) in commands.items():
            out += [".TP", rf"\fBvidgen\-{_escaped(name)}\fR(1)", _escaped(summary)]
    for title, text in (
        ("PIPES", PIPES), ("ERRORS", ERRORS), ("SIGNALS", SIGNALS), ("EXIT STATUS", _exit_codes()),
        ("FILES", FILES),
    ):  # fmt: skip
        out += [f".SH {_arg(title)}", *_text(text)]
    out += [".SH EXAMPLES", *_numbered(EXAMPLES)]
    out += _see_also(["vidgen-stream(5)", "vidgen-config(1)", "ffmpeg(1)"])
    return "\n".join(out) + "\n"


def _joined(parts: dict[str, str], notes: Mapping[str, str]) -> dict[str, str]:
    """Our words and the command's; where both speak, ours come first."""
    out = dict(parts)
    for title, text in notes.items():
        out[title] = f"{out[title]}\n\n{text}" if title in out else text
    return out


def _exit_codes() -> str:
    lines = [f"    {int(code):<5}{meaning}" for code, meaning in EXIT_MEANINGS.items()]
    return "\n".join(lines)


def _environment(command: Command) -> str:
    names = [str(p.envvar) for p in command.options if p.envvar]
    listed = ", ".join(names)
    return (
        f"{listed}: values of the options with these names, where the command line gives none.\n\n"
        "NO_COLOR: no colors. VIDGEN_* variables go before settings files; see"
        " **vidgen-config**(1)."
    )


def _options(command: Command) -> Iterator[str]:
    for title, params in sections(command).items():
        yield f".SS {_arg(title)}"
        for param in params:
            yield ".TP"
            yield _flags(param)
            yield _inline(explanation(param))


def _flags(param: Param) -> str:
    """Flags in bold, what stands for the value in italics."""
    words = []
    for word in flags(param).split():
        bare = word.rstrip(",")
        comma = "," if word != bare else ""
        style = "B" if bare.startswith("-") else "I"
        words.append(rf"\f{style}{_escaped(bare, flag=True)}\fR{comma}")
    return " ".join(words)


def _numbered(examples: Examples) -> Iterator[str]:
    for i, (command, comment) in enumerate(examples, 1):
        text = comment[:1].upper() + comment[1:]
        yield ".TP"
        yield f"{i}."
        yield _escaped(text or "Or:")
        lines = (_escaped(line, flag=True) for line in split_pipe(command, 65))
        yield from (".sp", ".nf", *lines, ".fi")


# --- roff -----------------------------------------------------------------------------------------


def _head(name: str, summary: str) -> Iterator[str]:
    yield r".\" Written by `make man` from the command table: change that, not this."
    yield f'.TH {_arg(name.upper())} 1 "" "vidgen {__version__}" "vidgen manual"'
    yield from (".nh", ".ad l")  # an option must not be broken at its hyphen
    yield ".SH NAME"
    yield rf"{_escaped(name, flag=True)} \- {_escaped(summary)}"


def _synopsis(usage: str) -> str:
    """The command's name in bold, the rest as it is."""
    program, _, rest = usage.partition(" [")
    if not rest:
        program, _, rest = usage.partition(" COMMAND")
        return rf"\fB{program}\fR \fICOMMAND\fR{_escaped(rest)}"
    return rf"\fB{_escaped(program, flag=True)}\fR [{_escaped(rest)}"


def _see_also(others: list[str]) -> Iterator[str]:
    yield ".SH SEE ALSO"
    linked = [re.sub(r"^([\w-]+)\((\d)\)$", r"**\1**(\2)", other) for other in others]
    yield _inline(", ".join(linked))


def _text(text: str) -> Iterator[str]:
    """Paragraphs, separated by empty lines; a paragraph with indented lines is kept as it is."""
    for i, paragraph in enumerate(re.split(r"\n\s*\n", text.strip("\n"))):
        if not paragraph.strip():
            continue
        if i:
            yield ".PP"
        if paragraph.startswith("    "):
            yield from (".RS 4", ".nf")
            yield from (_inline(line[4:]) for line in paragraph.splitlines())
            yield from (".fi", ".RE")
        else:
            yield _inline(" ".join(line.strip() for line in paragraph.splitlines()))


def _inline(text: str) -> str:
    """`code` and **bold** become bold; the rest is escaped."""
    parts = re.split(r"`([^`]+)`|\*\*([^*]+)\*\*", text)
    out = []
    for i in range(0, len(parts), 3):
        out.append(_escaped(parts[i], start=i == 0))
        if i + 1 < len(parts):
            bold = parts[i + 1] or parts[i + 2]
            out.append(rf"\fB{_escaped(bold, flag=True, start=False)}\fR")
    return "".join(out)


def _escaped(text: str, *, flag: bool = False, start: bool = True) -> str:
    """Text that roff prints as it is. flag: hyphens that can be pasted into a shell."""
    text = text.replace("\\", r"\e")
    if flag:
        text = text.replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga")
        text = text.replace("^", r"\(ha").replace("~", r"\(ti")
    else:
        text = re.sub(r"(?<![\w])(-{1,2}[a-zA-Z])", lambda m: m[1].replace("-", r"\-"), text)
    return rf"\&{text}" if start and text.startswith((".", "'")) else text


def _arg(text: str) -> str:
    return '"' + text.replace('"', "") + '"'


if __name__ == "__main__":
    main()
