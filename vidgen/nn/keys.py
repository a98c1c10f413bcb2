"""How the tensors of a file differ from a network's, said by name and shape."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
MOST = 5  # names of each kind of difference


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(x.shape) for name, x in state.items()}


def differences(expected: Shapes, found: Shapes) -> list[str]:
    """One phrase for each kind: what is missing, too much, of another shape; five names each."""
    missing = {name: shape for name, shape in expected.items() if name not in found}
    extra = {name: shape for name, shape in found.items() if name not in expected}
    other = {n: s for n, s in found.items() if n in expected and expected[n] != s}
    said = []
    if missing:
        said.append(f"it lacks {first(missing)}")
    if extra:
        said.append(f"it holds {first(extra)} besides")
    if other:
        name = next(iter(other))
        said.append(f"not of the network's shape: {first(other)}, where the first should be ")
        said[-1] += _shown(expected[name])
    return said


def first(named: Shapes) -> str:
    """`a` (3×3), `b` (64) and 2 more"""
    if not named:
        return "nothing"
    some = ", ".join(f"`{name}` ({_shown(shape)})" for name, shape in list(named.items())[:MOST])
    return some + (f" and {len(named) - MOST} more" if len(named) > MOST else "")


def _shown(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a single number"
