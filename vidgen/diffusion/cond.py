"""Conditions: named tensors with a batch axis, passed to the network untouched.

Nothing in `vidgen.diffusion` looks inside one. Guidance only needs to put several behind each other
to run them in one batch (`cat`), and a batch may have to be cut (`select`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from vidgen.errors import UsageError

Cond: TypeAlias = Mapping[str, Tensor | None]  # name -> (b, ...), or None where there is none


def cat(*conds: Cond) -> dict[str, Tensor | None]:
    """Conditions behind each other along the batch axis.

    All must have the same names, and the same shapes but for the batch; UsageError if not.
    """
    first = conds[0]
    out: dict[str, Tensor | None] = {}
    for name in first:
        parts = [c.get(name) for c in conds]
        shapes = {None if p is None else tuple(p.shape[1:]) for p in parts}
        if len(shapes) > 1 or any(c.keys() != first.keys() for c in conds):
            raise UsageError(
                f"conditions cannot share a batch: `{name}` has shapes {sorted(map(str, shapes))}",
                why="one call for all branches of guidance needs equal names and shapes",
                next="pad them to one length, or pass batched=False to make one call for each",
            )
        out[name] = torch.cat([p for p in parts if p is not None]) if parts[0] is not None else None
    return out


def select(cond: Cond, index: slice | Tensor) -> dict[str, Tensor | None]:
    """The samples of a condition that `index` picks along the batch axis."""
    return {name: None if x is None else x[index] for name, x in cond.items()}
