"""`vidgen config`: settings, and where each comes from."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

from vidgen.cli import settings
from vidgen.cli.app import COMMANDS, load, unknown
from vidgen.cli.command import Command, config_key
from vidgen.cli.options import Json, Talk, argument, option
from vidgen.cli.page import Page
from vidgen.cli.runner import print_json, print_text
from vidgen.cli.schemas import SWITCH, TEXT, array, obj, or_null, report
from vidgen.cli.settings import Setting

PAGE = Page(
    name="config",
    summary="settings, and where each comes from",
    description="""\
Prints the settings in force that are not defaults, in the form of a settings file: for all
commands, or for the one that is named. `--explain` prints every option that can be set, its value,
and where that comes from.

A value is looked for in this order: the command line; the environment (`VIDGEN_DEVICE` for
`--device`); the file given with `--config`; the nearest vidgen.toml, in this folder or one above;
the user's own file; the default. Files are TOML. A key is an option without its hyphens; keys in a
table count for the command that the table names:

    device = "cuda"
    dtype = "bf16"

    [decode]
    crf = 16

What shapes a single run (`-o`, `-f`, `-n`) can't be set in a file.""",
    writes="settings to standard output",
    examples=[
        ("vidgen config --explain decode", "every option of decode"),
        ("vidgen config", "what is set, as a settings file"),
        ("vidgen config --explain --json", "the same for programs"),
    ],
)

SCHEMAS = {
    "vidgen.config/1": report(
        "vidgen.config/1",
        "What `vidgen config --json` prints",
        {
            "files": array(obj({"path": TEXT, "found": SWITCH})),
            "settings": array(
                obj({"command": or_null(TEXT), "option": TEXT, "value": TEXT, "origin": TEXT})
            ),
            "unused_variables": array(TEXT),
        },
    )
}

Name = Annotated[str | None, argument("COMMAND", "one command; default: all")]
Explain = Annotated[
    bool, option("--explain", settable=False, help="every option, its value, where it comes from")
]

Row = tuple[str | None, str, Setting]  # command (None: all that have the option), option, setting


def config(name: Name = None, *, explain: Explain = False, json: Json = False, talk: Talk) -> None:
    if name is not None and name not in COMMANDS:
        raise unknown(name)
    files = settings.read_files(talk.config, COMMANDS)
    commands = [load(n) for n in ([name] if name else COMMANDS)]
    rows = _gather(commands, files)
    if not explain:
        rows = [row for row in rows if row[2].origin != settings.DEFAULT]
    places = _places(talk.config)
    unused = _unused(commands) if name is None else []
    if json:
        print_json(_report(rows, places, unused))
    elif explain:
        print_text(_table(rows, places, unused))
    else:
        print_text(_toml(rows))


def _gather(commands: list[Command], files: list[settings.SettingsFile]) -> list[Row]:
    """One row for an option that is the same in all commands that have it, else one for each."""
    found: dict[str, dict[str, Setting]] = {}
    for command in commands:
        for param, setting in _settable(command, files):
            found.setdefault(param, {})[command.name] = setting
    rows: list[Row] = []
    for option_name, by_command in found.items():
        first, *others = by_command.values()
        if all(s == first for s in others) and (others or len(commands) == 1):
            rows.append((None, option_name, first))
        else:
            rows += [(command, option_name, s) for command, s in by_command.items()]
    if len(commands) == 1:
        return [(commands[0].name, name, s) for _, name, s in rows]
    order = [None, *(c.name for c in commands)]
    return sorted(rows, key=lambda row: order.index(row[0]))


def _settable(command: Command, files: list[settings.SettingsFile]) -> list[tuple[str, Setting]]:
    settings.check_keys(command, files)
    return [
        (key, settings.resolve_one(command, param, {}, files))
        for param in command.options
        if (key := config_key(param))
    ]


def _places(config_file: str | None) -> list[tuple[str, bool]]:
    """The settings files, in their order, and whether they are there."""
    project = settings.project_file()
    given = [(config_file, True)] if config_file else []
    nearest = (str(project), True) if project else (settings.NAME, False)
    user = settings.user_file()
    return [*given, nearest, (str(user), user.is_file())]


def _unused(commands: list[Command]) -> list[str]:
    """Variables that look as if they set something, but no option reads them."""
    known = {p.envvar for c in commands for p in c.options} | OTHER_VARIABLES
    return sorted(n for n in os.environ if n.startswith("VIDGEN_") and n not in known)


OTHER_VARIABLES = {"VIDGEN_GOLDEN"}  # read by the tests


def _report(rows: list[Row], places: list[tuple[str, bool]], unused: list[str]) -> dict[str, Any]:
    return {
        "schema": "vidgen.config/1",
        "files": [{"path": path, "found": found} for path, found in places],
        "settings": [
            {"command": command, "option": name, "value": s.text, "origin": s.origin}
            for command, name, s in rows
        ],
        "unused_variables": unused,
    }


def _table(rows: list[Row], places: list[tuple[str, bool]], unused: list[str]) -> str:
    cells = [(command or "all", name, s.text or "off", s.origin) for command, name, s in rows]
    widths = [max((len(row[i]) for row in cells), default=0) for i in range(3)]
    lines = [
        "  ".join(f"{cell:<{w}}" for cell, w in zip(row[:3], widths, strict=True)) + f"  {row[3]}"
        for row in cells
    ]
    lines += ["", "settings files, the first counts most:"]
    lines += [f"  {path}{'' if found else '  (not there)'}" for path, found in places]
    lines += [f"{name} is set, but no option reads it" for name in unused]
    return "\n".join(lines)


def _toml(rows: list[Row]) -> str:
    """A settings file that would set the same."""
    lines: list[str] = []
    table: str | None = None
    for command, name, setting in rows:
        if command != table:
            table = command
            lines += ["", f"[{table}]"] if lines else [f"[{table}]"]
        lines.append(f"{name} = {_toml_value(setting)}  # {setting.origin}")
    return "\n".join(lines) if lines else "# nothing is set: every option has its default"


def _toml_value(setting: Setting) -> str:
    if isinstance(setting.value, bool):
        return str(setting.value).lower()
    if isinstance(setting.value, int | float):
        return setting.text
    return json.dumps(setting.text, ensure_ascii=False)
