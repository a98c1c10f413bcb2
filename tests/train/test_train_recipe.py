"""Recipes: merging, strictness, and the words of the errors."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from vidgen.errors import UsageError
from vidgen.train.recipe import (
    BUDGET_KEYS,
    Recipe,
    differences,
    load_recipe,
    merge,
    parse_override,
    section,
    shipped_recipes,
)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_defaults_and_values(recipe):
    r = recipe()
    assert (r.steps, r.minutes, r.batch_size) == (10, None, 8)
    assert r.optim.lr == 3e-3 and isinstance(r.optim.lr, float)  # YAML 1.1 says it is a string
    assert r.optim.betas == (0.9, 0.99)
    assert r.model == {"width": 16, "depth": 2}


def test_include_preset_and_override_in_that_order(tmp_path):
    write(tmp_path, "base.yaml", "task: tiny\nsteps: 1\nbatch_size: 2\noptim: {lr: 1, eps: 1}\n")
    path = write(
        tmp_path,
        "top.yaml",
        "include: base.yaml\nsteps: 3\noptim: {lr: 2}\n"
        "presets: {big: {batch_size: 8, optim: {lr: 3}}}\n",
    )
    plain = load_recipe(path)
    assert (plain.steps, plain.batch_size, plain.optim.lr, plain.optim.eps) == (3, 2, 2.0, 1.0)
    big = load_recipe(path, preset="big", overrides=["optim.lr=4e-1", "model.width=7"])
    assert (big.batch_size, big.optim.lr, big.optim.eps) == (8, 0.4, 1.0)
    assert big.model == {"width": 7}


@pytest.mark.parametrize(
    ("text", "what", "next"),
    [
        ("task: a\nstepps: 3", "unknown key `stepps`", "did you mean `steps`"),
        ("task: a\noptim: {muonlr: 3}", "unknown key `optim.muonlr`", "`muon_lr`"),
        ("task: a\nzzz: 3", "unknown key `zzz`", "keys here: task, model"),
        ("steps: 3", "task is missing", None),
        ("task: a\nsteps: many", "steps is `'many'`, must be int", None),
        ("task: a\nsteps: true", "steps is `True`", None),
        ("task: a\nsteps: 0", "steps is 0, must be at least 1", None),
        ("task: a\nminutes: -1", "minutes is -1", None),
        ("task: a\nema: 2", "ema is 2, must be from 0 to 1", None),
        ("task: a\noptim: 3", "optim is `3`, must be a mapping", None),
        ("task: a\noptim: {betas: [1]}", "optim.betas", None),
        ("task: a\noptim: {name: sgd}", "optim.name is `'sgd'`", "one of: muon, adamw"),
        ("task: a\ndtype: float16", "dtype is `'float16'`", "one of: float32, bfloat16"),
        ("task: a\ntask: b", "the key `task` appears twice", None),
        ("task: [", "not valid YAML", None),
        ("- task", "a recipe is a mapping", None),
        ("task: a\ninclude: absent.yaml", "cannot be read", None),
        ("task: a\ninclude: r.yaml", "includes itself", None),
    ],
)
def test_mistakes_are_named(tmp_path, text, what, next):
    path = write(tmp_path, "r.yaml", text)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    said = "\n".join(caught.value.lines())
    assert what in said
    assert next is None or next in said


def test_unknown_recipe_preset_and_override(tmp_path):
    path = write(tmp_path, "r.yaml", "task: a\npresets: {base: {steps: 1}}")
    with pytest.raises(UsageError, match="no recipe `nowhere`"):
        load_recipe("nowhere")
    with pytest.raises(UsageError, match="no preset `large`") as caught:
        load_recipe(path, preset="large")
    assert caught.value.next == "presets there: base"
    for bad in ("steps", "=3", "optim..lr=3", "steps=["):
        with pytest.raises(UsageError, match="override"):
            load_recipe(path, overrides=[bad])


def test_override_values_are_yaml():
    assert parse_override("a.b=[1, x]") == {"a": {"b": [1, "x"]}}
    assert parse_override("minutes=") == {"minutes": None}
    assert parse_override("data.path=x=y") == {"data": {"path": "x=y"}}
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": [3]}}) == {"a": {"b": [3], "c": 2}}


def test_section_for_tasks():
    @dataclass(frozen=True)
    class Config:
        sizes: tuple[tuple[int, int], ...] = ((1, 2),)
        scale: float | None = None
        extra: dict[str, int] | None = None

    built = section(Config, {"sizes": [[3, 4], [5, 6]], "scale": "1e-3"}, where="model")
    assert built == Config(((3, 4), (5, 6)), 1e-3)
    with pytest.raises(UsageError, match=r"model\.sizes\[1\]"):
        section(Config, {"sizes": [[3, 4], [5]]}, where="model")


def test_a_budget_is_needed(recipe):
    with pytest.raises(UsageError, match="neither steps nor minutes"):
        recipe("steps=").require_budget()
    recipe("steps=", "minutes=0.5").require_budget()


def test_round_trip_and_differences(recipe):
    r = recipe("data.noise=0.5")
    again = section(Recipe, json.loads(json.dumps(r.to_dict())), where="")
    assert again.to_dict() == r.to_dict()
    other = recipe("data.noise=0.25", "steps=99", "optim.lr=1", "model={}")
    changed = differences(r.to_dict(), other.to_dict(), ignore=BUDGET_KEYS)
    assert changed == {"data.noise": (0.5, 0.25), "optim.lr": (3e-3, 1.0)}
    assert set(r.to_dict()) >= BUDGET_KEYS


def test_shipped_recipes_are_valid():
    for name in shipped_recipes():
        load_recipe(name).require_budget()


def test_reading_a_recipe_imports_no_torch():
    code = "import sys, vidgen.train.recipe; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
