"""Where the value of an option comes from: flags, the environment, files, defaults, in this order.

    flags > VIDGEN_* > --config FILE > vidgen.toml here or in a folder above > the user's > defaults

The user's file is $XDG_CONFIG_HOME/vidgen/config.toml (~/.config/vidgen/config.toml). All files
look alike: `device = "cuda"` at the top is for every command that has the option, and what stands
under `[decode]` is for that command and goes first. Nothing else is remembered between runs;
`vidgen config --explain` tells where each value comes from.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidgen.cli.command import Command, Param, config_key, convert, default_words
from vidgen.errors import UsageError

NAME = "vidgen.toml"
FLAG, DEFAULT = "flag", "default"


@dataclass(frozen=True)
class Setting:
    """A value, what was written to get it, and where that stands: `flag`, `default`, the name of
    a variable, or the path of a file."""

    value: Any
    text: str
    origin: str


@dataclass(frozen=True)
class SettingsFile:
    """One file, read and taken apart."""

    path: Path
    shared: Mapping[str, Any]  # key → value, for every command
    own: Mapping[str, Mapping[str, Any]]  # command → key → value

    @classmethod
    def read(cls, path: Path, commands: Collection[str]) -> SettingsFile:
        """UsageError for what isn't TOML, or has a table that names no command."""
        try:
            with path.open("rb") as f:
                data = tomllib.load(f)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: is not TOML: {str(error).lower()}") from None
        except OSError as error:
            raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from None
        tables = {name: table for name, table in data.items() if isinstance(table, dict)}
        for name in tables:
            if name not in commands:
                near = difflib.get_close_matches(name, commands, 1)
                raise UsageError(
                    f"{path}: the table [{name}] names no command",
                    next=f"[{near[0]}], if that is meant" if near else "vidgen --help lists them",
                )
        shared = {_key(name): value for name, value in data.items() if name not in tables}
        own = {name: {_key(k): v for k, v in table.items()} for name, table in tables.items()}
        return cls(path, shared, own)

    def find(self, command: str, key: str) -> tuple[str, Any] | None:
        """(what to call it in an error, value), or None."""
        if key in self.own.get(command, {}):
            return f"{self.path}: {command}.{key}", self.own[command][key]
        if key in self.shared:
            return f"{self.path}: {key}", self.shared[key]
        return None


def _key(name: str) -> str:
    """Keys are flags without their hyphens in front; `batch_size` is as good as `batch-size`."""
    return name.replace("_", "-")


def project_file(folder: Path | None = None) -> Path | None:
    """The nearest vidgen.toml, from `folder` (default: here) upwards."""
    try:
        here = (folder or Path.cwd()).absolute()
    except OSError:  # the folder we are in was deleted
        return None
    return next((p / NAME for p in (here, *here.parents) if (p / NAME).is_file()), None)


def user_file() -> Path:
    """The user's own settings, whether they are there or not."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(home) / "vidgen" / "config.toml"


def read_files(config: str | None, commands: Collection[str]) -> list[SettingsFile]:
    """The settings files there are, the first one counting most."""
    paths = [Path(config)] if config else []
    if project := project_file():
        paths.append(project)
    if user_file().is_file():
        paths.append(user_file())
    return [SettingsFile.read(p, commands) for p in paths]


def resolve(
    command: Command, given: Mapping[str, Any], files: Sequence[SettingsFile]
) -> dict[str, Setting]:
    """Every parameter's value by its name. `given`: what the words on the command line set.

    UsageError for a value that doesn't fit, saying where it stands, and for a key in the command's
    own table that is no option of it.
    """
    check_keys(command, files)
    return {p.name: resolve_one(command, p, given, files) for p in command.params}


def resolve_one(
    command: Command, param: Param, given: Mapping[str, Any], files: Sequence[SettingsFile]
) -> Setting:
    """The value of one parameter."""
    if param.name in given:
        flag = next((f for f in param.opts if f.startswith("--")), param.opts[0])
        where = flag if flag.startswith("-") else (param.metavar or param.name).upper()
        return _converted(command, param, given[param.name], f"{where} ", FLAG)
    if param.envvar and os.environ.get(str(param.envvar)):
        name = str(param.envvar)
        return _converted(command, param, os.environ[name], f"{name}=", name)
    if key := config_key(param):
        for file in files:
            if found := file.find(command.name, key):
                where, raw = found
                raw = _as_text(where, raw)
                return _converted(command, param, raw, f"{where} = ", str(file.path))
    if param.required:
        word = param.metavar or param.name.upper()
        example = command.page.examples[0][0] if command.page.examples else command.usage()
        raise UsageError(f"{word} is missing", next=example)
    return Setting(param.default, default_words(param), DEFAULT)


def _converted(command: Command, param: Param, raw: Any, where: str, origin: str) -> Setting:
    text = raw if isinstance(raw, str) else " ".join(map(str, raw)) if raw is not True else ""
    try:
        return Setting(convert(param, raw), text or "true", origin)
    except ValueError as error:
        raise UsageError(f"{where}{text}: {error}", next=f"vidgen {command.name} --help") from None


def _as_text(where: str, raw: Any) -> str | list[str]:
    """A TOML value as it would be typed."""
    if isinstance(raw, list):
        return [str(_as_text(where, x)) for x in raw]
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, str | int | float):
        return str(raw)
    raise UsageError(f"{where}: a {type(raw).__name__} can't be the value of an option")


def check_keys(command: Command, files: Sequence[SettingsFile]) -> None:
    """UsageError for a key in the command's own table that is no option of it."""
    known = [key for p in command.params if (key := config_key(p))]
    for file in files:
        for key in file.own.get(command.name, {}):
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                raise UsageError(
                    f"{file.path}: [{command.name}] has `{key}`, which is no option of it"
                    " that a file may set",
                    next=f"{near[0]}, if that is meant" if near else
                    f"vidgen {command.name} --help",
                )  # fmt: skip
