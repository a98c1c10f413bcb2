"""Recipes: YAML files in, frozen dataclasses out, every key checked.

A recipe file may `include` others (a name or list, relative to the file; the including file wins)
and may hold `presets`, named sets of changes. Overrides come last: `optim.lr=1e-3`. The sections
`model`, `data` and `loss` belong to the task, which reads them with `section`. Imports no torch,
so that a mistake is reported before anything heavy loads.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from vidgen.errors import UsageError

T = TypeVar("T")

SHIPPED = Path(__file__).resolve().parent.parent / "recipes"

# What may differ between a checkpoint and the recipe that resumes it: none of these change what
# one step computes, only how many there are, what is written down along the way, and how.
BUDGET_KEYS = frozenset(
    (
        "steps", "minutes", "eval_every", "sample_every", "checkpoint_every_s", "log_every",
        "prefetch", "parallel", "export_dtype",
    )
)  # fmt: skip

DTYPES = {"f32": "float32", "fp32": "float32", "float32": "float32",
          "bf16": "bfloat16", "bfloat16": "bfloat16"}  # fmt: skip


@dataclass(frozen=True)
class Optim:
    """Muon for the matrices of the blocks, AdamW for everything else; or one of AdamW and LAMB for
    all parameters."""

    name: str = "muon"  # muon | adamw | lamb
    lr: float = 1.5e-3  # of AdamW, or LAMB
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0  # AdamW: on matrices and kernels only; LAMB: on everything
    muon_lr: float = 0.02  # per matrix multiplied by sqrt(max(1, rows / columns))
    muon_momentum: float = 0.95  # Nesterov
    muon_weight_decay: float = 0.01
    muon_match: tuple[str, ...] = ("*blocks.*",)  # names of linear weights that Muon takes …
    muon_exclude: tuple[str, ...] = ()  # … except these
    muon_kernels: tuple[str, ...] = ()  # names of convolution kernels that it takes as matrices

    def __post_init__(self) -> None:
        _choice("optim.name", self.name, ("muon", "adamw", "lamb"))
        for key in ("lr", "muon_lr", "eps"):
            _at_least(f"optim.{key}", getattr(self, key), 0.0)


@dataclass(frozen=True)
class Schedule:
    """Learning rate: linear warm-up, flat, then a decay over the last part of the budget."""

    warmup_steps: int = 100
    decay_fraction: float = 0.4  # of the budget (steps or minutes), at its end
    final: float = 0.0  # factor at the very end
    decay: str = "linear"  # linear | cosine: how it gets there

    def __post_init__(self) -> None:
        _choice("schedule.decay", self.decay, ("linear", "cosine"))
        _at_least("schedule.warmup_steps", self.warmup_steps, 0)
        _between("schedule.decay_fraction", self.decay_fraction, 0.0, 1.0)
        _between("schedule.final", self.final, 0.0, 1.0)


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on, except the machine."""

    task: str  # a name of vidgen.train.task.TASKS, or "module:Class"
    model: Mapping[str, Any] = field(default_factory=dict)  # the task's own
    data: Mapping[str, Any] = field(default_factory=dict)  # the task's own
    loss: Mapping[str, Any] = field(default_factory=dict)  # the task's own
    optim: Optim = field(default_factory=Optim)
    schedule: Schedule = field(default_factory=Schedule)
    # The budget: at least one of the two; the first one spent ends the run.
    steps: int | None = None
    minutes: float | None = None  # training and evaluating; preparing the data is not counted
    batch_size: int = 64  # samples a step, over all processes together
    ema: float = 0.999  # decay of the averaged weights; 0 = the average is the last weights
    ema_half_life: float | None = None  # the same as steps until weights count half; in its place
    grad_clip: float = 1.0  # largest gradient norm; 0 = never clip
    dtype: str = "float32"  # of the matrix products: float32 | bfloat16 (autocast); weights are f32
    export_dtype: str = "bfloat16"  # of the model folder's weights: bfloat16 | int8, scaled by rows
    parallel: str = "ddp"  # under torchrun: ddp | fsdp (for what doesn't fit on one device)
    eval_every: int = 1000  # steps; 0 = only at the end
    sample_every: int = 1000  # steps; 0 = only at the end
    checkpoint_every_s: float = 300.0  # seconds
    log_every: int = 20  # steps
    prefetch: int = 2  # batches made ahead in a background thread; 0 = none
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            _choice("dtype", self.dtype, ("float32", "bfloat16"))
        object.__setattr__(self, "dtype", DTYPES[self.dtype])
        _choice("export_dtype", self.export_dtype, ("bfloat16", "int8"))
        _choice("parallel", self.parallel, ("ddp", "fsdp"))
        for key in ("batch_size", "log_every"):
            _at_least(key, getattr(self, key), 1)
        for key in ("grad_clip", "eval_every", "sample_every", "checkpoint_every_s", "prefetch"):
            _at_least(key, getattr(self, key), 0)
        _between("ema", self.ema, 0.0, 1.0)
        if self.ema_half_life is not None and not self.ema_half_life > 0:
            raise UsageError(
                f"recipe: ema_half_life is {self.ema_half_life:g}, must be more than 0 steps"
            )
        if self.steps is not None:
            _at_least("steps", self.steps, 1)
        if self.minutes is not None and not self.minutes > 0:
            raise UsageError(f"recipe: minutes is {self.minutes:g}, must be more than 0")

    @property
    def ema_decay(self) -> float:
        """Of the averaged weights, a step."""
        return self.ema if self.ema_half_life is None else 0.5 ** (1 / self.ema_half_life)

    def require_budget(self) -> None:
        """Raise UsageError if nothing says when to stop."""
        if self.steps is None and self.minutes is None:
            raise UsageError(
                "recipe: neither steps nor minutes is set",
                why="training would never end",
                next="vidgen train RECIPE --minutes 10",
            )

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON types, every default written out."""
        return _plain(dataclasses.asdict(self))

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some keys changed (and checked)."""
        return dataclasses.replace(self, **changes)


# --- reading -------------------------------------------------------------------------------


def load_recipe(
    source: str | Path, *, preset: str | None = None, overrides: Iterable[str] = ()
) -> Recipe:
    """Read a recipe file, or one shipped with vidgen by name, apply preset and overrides.

    Raises UsageError for a missing file, bad YAML, an unknown key, preset or value.
    """
    path = _find(source)
    tree = _read(path, seen=())
    presets = tree.pop("presets", None) or {}
    if preset is not None:
        changes = presets.get(preset) if isinstance(presets, Mapping) else None
        if not isinstance(changes, Mapping):
            known = _list(presets) or "none"
            raise UsageError(f"{path}: no preset `{preset}`", next=f"presets there: {known}")
        tree = merge(tree, changes)
    for text in overrides:
        tree = merge(tree, parse_override(text))
    return section(Recipe, tree, where="")


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=value` as a nested mapping; the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise UsageError(f"override `{text}` is not key=value", next="for example: optim.lr=1e-3")
    try:
        tree: Any = yaml.load(value, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise UsageError(f"override `{text}`: the value is not YAML", why=str(error)) from None
    for part in reversed(key.strip().split(".")):
        tree = {part: tree}
    return tree


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`: mappings are merged key by key, anything else is replaced."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            out[key] = merge(old, value)
        else:
            out[key] = value
    return out


def section(cls: type[T], tree: Mapping[str, Any] | None, *, where: str) -> T:
    """Build the dataclass `cls` from a mapping: known keys only, values of the declared types.

    Tasks use it for their own sections: `section(ModelConfig, recipe.model, where="model")`.
    UsageError for what can't be, also where the dataclass itself refuses it with a ValueError, and
    for sizes of networks, the section `model`, below 0.
    """
    tree = {} if tree is None else tree
    if not isinstance(tree, Mapping):
        raise UsageError(f"recipe: {where or 'the file'} is {_shown(tree)}, must be a mapping")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in tree:
        if key not in fields:
            raise _unknown_key(_join(where, str(key)), str(key), list(fields))
    values = {key: _convert(tree[key], hints[key], _join(where, key)) for key in tree}
    missing = [
        name for name, f in fields.items() if name not in values
        and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]  # fmt: skip
    if missing:
        raise UsageError(f"recipe: {_join(where, missing[0])} is missing")
    below = [key for key, value in values.items() if any(n < 0 for n in _numbers(value))]
    if where == "model" and below:
        key = _join(where, below[0])
        raise UsageError(f"recipe: {key} is {_shown(values[below[0]])}, must be 0 or more")
    try:
        return cls(**values)
    except ValueError as error:  # sizes that make nothing together
        raise UsageError(f"recipe: {where or 'the file'}: {error}") from None
    except ArithmeticError as error:
        zeros = [f"{key} {_shown(x)}" for key, x in values.items() if 0 in _numbers(x)]
        why = ", ".join(zeros) or str(error)
        raise UsageError(f"recipe: {where or 'the file'}: sizes divided by 0: {why}") from None


def network_section(
    tree: Mapping[str, Any], kinds: Mapping[str, tuple[type, type]], default: str
) -> tuple[str, Any]:
    """Of a section `model`, which may name one of `kinds` with its key `network`: the name, and the
    sizes. `kinds`: name → the network, and the dataclass of its sizes. UsageError for another name.
    """
    sizes = dict(tree)
    kind = sizes.pop("network", default)
    if kind not in tuple(kinds):
        raise UsageError(f"recipe: model.network is {kind}, must be {' or '.join(kinds)}")
    return kind, section(kinds[kind][1], sizes, where="model")


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], *, ignore: Iterable[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ, with both values (None where a key is absent)."""
    a, b = _flatten(old), _flatten(new)
    skip = set(ignore)
    return {
        key: (a.get(key), b.get(key))
        for key in sorted(a.keys() | b.keys())
        if key.split(".")[0] not in skip and a.get(key) != b.get(key)
    }


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with vidgen."""
    return sorted(p.stem for p in SHIPPED.glob("*.yaml"))


# --- details -------------------------------------------------------------------------------


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key written twice; the usual loader silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key}` appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    shipped = SHIPPED / f"{source}.yaml"
    if shipped.is_file():
        return shipped
    near = difflib.get_close_matches(str(source), shipped_recipes(), n=1)
    known = ", ".join(shipped_recipes()) or "none"
    raise UsageError(
        f"no recipe `{source}`: neither a file nor shipped with vidgen",
        next=f"vidgen train {near[0]}" if near else f"shipped recipes: {known}",
    )


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise UsageError(f"{path}: includes itself through {seen[-1].name}")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read", why=str(error)) from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not valid YAML", why=" ".join(str(error).split())) from None
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: a recipe is a mapping, this is {_shown(tree)}")
    includes = tree.pop("include", None) or []
    base: dict[str, Any] = {}
    for name in [includes] if isinstance(includes, str) else includes:
        base = merge(base, _read(path.parent / str(name), (*seen, path)))
    return merge(base, tree)


def _convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type `hint` says, or UsageError."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        for option in options[:-1]:
            try:
                return _convert(value, option, where)
            except UsageError:
                continue
        return _convert(value, options[-1], where)
    if dataclasses.is_dataclass(hint):
        return section(typing.cast(type, hint), value, where=where)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) == len(value):
            pairs = zip(value, kinds, strict=True)
            return tuple(_convert(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(pairs))
    if origin is list and isinstance(value, (list, tuple)):
        return [_convert(v, args[0], f"{where}[{i}]") for i, v in enumerate(value)]
    if (origin or hint) in (dict, Mapping) or getattr(origin, "__name__", "") == "Mapping":
        if isinstance(value, Mapping):
            return _plain(value)
        if value is None:
            return {}
    if origin is typing.Literal and value in args:
        return value
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-3 as a string
        except ValueError:
            pass
    if hint in (int, str, bool) and type(value) is hint:
        return value
    if origin is typing.Literal:
        raise UsageError(f"recipe: {where} is {_shown(value)}", next=f"one of: {_list(args)}")
    name = getattr(hint, "__name__", None) if origin is None else str(hint)
    raise UsageError(f"recipe: {where} is {_shown(value)}, must be {name}")


def _numbers(value: Any) -> list[int | float]:
    """The number, or those in a list; none of anything else."""
    many = value if isinstance(value, (tuple, list)) else [value]
    return [n for n in many if isinstance(n, (int, float)) and not isinstance(n, bool)]


def _unknown_key(where: str, key: str, known: list[str]) -> UsageError:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    following = f"did you mean `{near[0]}`" if near else f"keys here: {_list(known)}"
    return UsageError(f"recipe: unknown key `{where}`", next=following)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        name = _join(prefix, str(key))
        if isinstance(value, Mapping) and value:
            out.update(_flatten(value, name))
        elif value != {}:
            out[name] = value
    return out


def _plain(value: Any) -> Any:
    """Tuples as lists, mappings as dicts: what JSON gives back, so that both compare equal."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"recipe: {key} is {_shown(value)}", next=f"one of: {_list(choices)}")


def _at_least(key: str, value: float, low: float) -> None:
    if not value >= low:
        raise UsageError(f"recipe: {key} is {value:g}, must be at least {low:g}")


def _between(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"recipe: {key} is {value:g}, must be from {low:g} to {high:g}")


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _shown(value: Any) -> str:
    text = repr(value)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _list(names: Iterable[Any]) -> str:
    return ", ".join(str(n) for n in names)
