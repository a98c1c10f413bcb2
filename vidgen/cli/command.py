"""A command: its module's function and page, its options, and how words become its arguments.

typer reads the annotations of the function and takes the words apart. What the words mean is
decided in `convert` and settings.py, for flags, the environment and files alike; so an error tells
where the value came from, and nothing waits for a validation library to load (0.1 s).
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import shlex
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption
from typer.exceptions import TyperException
from typer.main import get_command

from vidgen.cli.console import Console
from vidgen.cli.options import Given, Talk
from vidgen.cli.page import Page
from vidgen.errors import UsageError

Param = TyperOption | TyperArgument

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Command:
    """One command, ready to parse and run."""

    page: Page
    function: Callable[..., int | None]

    @classmethod
    def load(cls, name: str, module: str) -> Command:
        """The command of a module `vidgen.cli.<module>`: its PAGE, and the function of its name."""
        loaded = importlib.import_module(f"vidgen.cli.{module}")
        return cls(loaded.PAGE, getattr(loaded, module))

    @property
    def name(self) -> str:
        return self.page.name

    @cached_property
    def _typer(self) -> TyperCommand:
        """typer's reading of the signature, bundles unfolded, `Talk` at the end."""

        def stub() -> None: ...

        flat = [*_flat(self.function), *_fields(Talk)]
        stub.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
        app = typer.Typer(rich_markup_mode=None, add_completion=False)
        app.command(self.name, add_help_option=False)(stub)
        return typing.cast(TyperCommand, get_command(app))

    @property
    def params(self) -> list[Param]:
        """Arguments and options, in the order of the signature."""
        return typing.cast("list[Param]", self._typer.params)

    @property
    def arguments(self) -> list[TyperArgument]:
        return [p for p in self.params if isinstance(p, TyperArgument)]

    @property
    def options(self) -> list[TyperOption]:
        return [p for p in self.params if isinstance(p, TyperOption)]

    def usage(self) -> str:
        """`vidgen decode [OPTIONS] [IN]...`"""
        return " ".join(["vidgen", self.name, "[OPTIONS]", *map(argument_words, self.arguments)])

    def split(self, args: Sequence[str]) -> dict[str, Any]:
        """What the words set, by parameter name, as text (flags: True). UsageError for words that
        fit nowhere."""
        context = typer.Context(self._typer, info_name=self.name)
        try:
            given, rest, _ = self._typer.make_parser(context).parse_args(list(args))
        except TyperException as error:
            raise self._misused(error) from None
        if rest:
            raise UsageError(
                f"no place for the argument `{rest[0]}`",
                why=f"the command is used as: {self.usage()}",
                next=f"vidgen {self.name} --help",
            )
        return {name: value for name, value in given.items() if value is not None and value != ()}

    def _misused(self, error: TyperException) -> UsageError:
        """The parser's complaint in our words."""
        flag = str(getattr(error, "option_name", ""))
        known = [f for p in self.options for f in p.opts]
        help_page = f"vidgen {self.name} --help"
        if hasattr(error, "possibilities"):
            flag = flag.partition("=")[0]
            if near := difflib.get_close_matches(flag, known, 1, cutoff=0.6):
                return UsageError(
                    f"there is no option {flag}",
                    next=f"{near[0]}, if that is meant; {help_page} shows all",
                )
            return UsageError(f"there is no option {flag}", next=help_page)
        param = next((p for p in self.options if flag in p.opts), None)
        if param is None:
            return UsageError(error.format_message().rstrip(".").lower(), next=help_page)
        if param.is_flag:
            return UsageError(f"{flag} takes no value", next=help_page)
        return UsageError(f"{flag} needs a value: {flag} {value_words(param)}", next=help_page)

    def call(
        self, values: Mapping[str, Any], console: Console, given: Iterable[str] = ()
    ) -> int | None:
        """Run the function: bundles filled in; the console, and the names of what was `given` on
        the command line, handed to whoever asks for them."""
        arguments: dict[str, Any] = {}
        for p in _parameters(self.function):
            if p.annotation is Console:
                arguments[p.name] = console
            elif p.annotation is Given:
                arguments[p.name] = Given(given)
            elif _is_bundle(p):
                own = {f.name: values[f.name] for f in dataclasses.fields(p.annotation)}
                arguments[p.name] = p.annotation(**own)
            else:
                arguments[p.name] = values[p.name]
        return self.function(**arguments)


def _parameters(function: Callable) -> list[inspect.Parameter]:
    return list(inspect.signature(function, eval_str=True).parameters.values())


def _is_bundle(p: inspect.Parameter) -> bool:
    return p.annotation is not Console and dataclasses.is_dataclass(p.annotation)


def _flat(function: Callable) -> Iterator[inspect.Parameter]:
    """The parameters of a command without what every command has; bundles unfolded into options."""
    for p in _parameters(function):
        if p.annotation in (Console, Given, Talk):
            continue
        if _is_bundle(p):
            yield from _fields(p.annotation)
        else:
            yield p.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _fields(bundle: type) -> Iterator[inspect.Parameter]:
    hints = typing.get_type_hints(bundle, include_extras=True)
    for f in dataclasses.fields(bundle):
        yield inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name]
        )


# --- one parameter --------------------------------------------------------------------------------


def argument_words(param: TyperArgument) -> str:
    """`[IN]...`, `RECIPE`"""
    word = param.metavar or param.name.upper()
    word = word if param.required else f"[{word}]"
    return f"{word}..." if param.nargs == -1 else word


def value_words(param: Param) -> str:
    """What stands for the value: `N`, `FILE`, `auto|bar|none`; nothing for a switch."""
    if getattr(param, "is_flag", False):
        return ""
    if param.metavar:
        return param.metavar
    if choices := param.type_descriptor.choices:
        return "|".join(map(str, choices))
    return {int: "N", float: "X"}.get(param.type_descriptor.annotation, "TEXT")


def range_words(param: Param) -> str:
    """`at least 1`, `0 to 51`, or nothing."""
    low, high = (_shown(x) if x is not None else None for x in (param.min, param.max))
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None:
        return f"at least {low}"
    return f"at most {high}" if high is not None else ""


def default_words(param: Param) -> str:
    """The default as a person would say it; nothing for a switch that is off."""
    if isinstance(param.show_default, str):
        return param.show_default
    if param.default is None or param.default is False or param.default == ():
        return ""
    return _shown(param.default)


def _shown(x: Any) -> str:
    return f"{x:g}" if isinstance(x, float) else str(x)


def config_key(param: Param) -> str | None:
    """The name in settings files; None for what only the command line may say."""
    if not param.envvar:
        return None
    return next(flag for flag in param.opts if flag.startswith("--"))[2:]


def convert(param: Param, raw: Any) -> Any:
    """Text (a switch: True; a repeated option: a sequence of texts) → the value.

    ValueError says, in words that follow "--flag VALUE: ", what is wrong.
    """
    if param.nargs == -1 or getattr(param, "multiple", False):
        texts = shlex.split(raw) if isinstance(raw, str) else raw
        inner = typing.get_args(param.type_descriptor.annotation)[0]
        return [_one(param, inner, text) for text in texts]
    return _one(param, param.type_descriptor.annotation, raw)


def _one(param: Param, kind: Any, raw: Any) -> Any:
    parse = param.type_descriptor.parameter_info.parser
    if parse is not None:
        return parse(str(raw))
    if kind is bool:
        return _switch(raw)
    if choices := param.type_descriptor.choices:
        return _choice(str(raw), [str(c) for c in choices])
    if kind in (int, float):
        return _number(param, kind, str(raw))
    return str(raw)


def _switch(raw: Any) -> bool:
    word = str(raw).lower()
    if word not in TRUE + FALSE:
        raise ValueError("must be true or false")
    return word in TRUE


def _choice(text: str, choices: list[str]) -> str:
    if text in choices:
        return text
    near = difflib.get_close_matches(text.lower(), choices, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"must be one of {', '.join(choices)}{hint}")


def _number(param: Param, kind: Any, text: str) -> int | float:
    try:
        number = kind(text)
    except ValueError:
        number = None
    words = range_words(param)
    if number is None or number != number or "_" in text:
        whole = "a whole number" if kind is int else "a number"
        raise ValueError(f"must be {whole}{', ' + words if words else ''}")
    low, high = param.min, param.max
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"must be {words}")
    return number
