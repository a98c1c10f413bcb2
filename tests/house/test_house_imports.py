"""Imports point down, and what must start fast imports nothing slow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "vidgen"

# Who may use whom; everybody may use `errors` and the version in `vidgen` itself.
BELOW = {
    "cli": {"stages", "train", "systems", "nn", "diffusion", "io", "metrics", "world"},
    "stages": {"systems", "nn", "diffusion", "io", "metrics", "world"},
    "train": {"systems", "nn", "diffusion", "io", "metrics", "world"},
    "systems": {"nn", "diffusion", "io", "metrics", "world"},
    "nn": set(),
    "diffusion": set(),
    "io": set(),
    "metrics": {"nn", "world", "io"},
    "world": set(),
    "errors": set(),
}
# One file each that may do more than its folder.
MORE = {
    "world/clips.py": {"io"},
    "train/tasks/redrawn.py": {"stages"},  # trains on what the stages make, behind each other
}
SYSTEMS_SHARED = {"base", "load", "released", "save"}  # of systems/, what every system may use

SLOW = {"torch", "transformers", "diffusers", "av", "numpy", "PIL", "pydantic", "rich", "scipy"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path, *, at_start: bool = False) -> Iterator[tuple[str, int]]:
    """(module, line) of every import; only of those that run when the file is imported if
    `at_start`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _executed(tree) if at_start else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            yield str(node.module), node.lineno
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (n for other in child.orelse for n in _executed(other))
            continue
        yield child
        yield from _executed(child)


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = layer(path)
    name = str(path.relative_to(PACKAGE))
    if own not in BELOW:
        assert name in ("__init__.py", "__main__.py")
        return
    allowed = {own, "errors", "__version__"} | BELOW[own] | MORE.get(name, set())
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] != "vidgen" or len(parts) == 1:
            continue
        assert parts[1] in allowed, f"{name}:{line}: {own} must not import {module}"
        if own == "systems" and parts[1] == "systems" and len(parts) > 2:
            other = PACKAGE / "systems" / f"{parts[2]}.py"
            assert not other.exists() or parts[2] in SYSTEMS_SHARED, (
                f"{name}:{line}: one system imports another, {module}"
            )


def test_every_folder_has_its_place() -> None:
    folders = {p.parent.relative_to(PACKAGE).parts[0] for p in FILES if p.parent != PACKAGE}
    assert folders <= BELOW.keys()


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if layer(p) in ("cli", "io", "errors")],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_command_line_and_files_import_torch_only_when_needed(path: Path) -> None:
    slow = SLOW - {"numpy", "PIL"} if layer(path) == "io" else SLOW
    for module, line in imports(path, at_start=True):
        assert module.split(".")[0] not in slow, f"{path}:{line}: {module} at module level"


def test_the_test_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "try:\n    import av\nexcept ImportError:\n    pass\n"
        "def f():\n    import numpy\n"
    )
    assert {m for m, _ in imports(path)} >= {"torch", "av", "numpy"}
    assert {m for m, _ in imports(path, at_start=True)} & SLOW == {"av"}


HELP_OF_ALL = """
import io, sys
from vidgen.cli import app
names = [["--help"], *([name, "--help"] for name in app.COMMANDS)]
for words in names:
    sys.stdout = io.StringIO()
    code, sys.stdout = app.main(words), sys.__stdout__
    slow = {slow!r} & {{m.split(".")[0] for m in sys.modules}}
    print(words[0], code, *slow)
"""


def test_help_of_every_command_imports_nothing_slow() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", HELP_OF_ALL.format(slow=SLOW)],
        cwd=ROOT, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert [line for line in ran.stdout.splitlines() if line.split()[1:] != ["0"]] == []


def test_the_overview_imports_neither_typer_nor_a_command() -> None:
    program = (
        "import sys; from vidgen.cli import app; app.main(['--help']);"
        "ours = sorted(m for m in sys.modules if m.startswith(('typer', 'vidgen')));"
        "print(*ours, file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=250
    )
    assert ran.stderr.split() == [
        "vidgen", "vidgen.cli", "vidgen.cli.app", "vidgen.cli.failure", "vidgen.cli.help",
        "vidgen.errors",
    ]  # fmt: skip
