"""Tiny random folders of released models, as diffusers writes them; skips where it is missing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest

with warnings.catch_warnings():
    # Its import warns about optional packages and its own old annotations; ours must not.
    warnings.simplefilter("ignore")
    pytest.importorskip("diffusers")
    from benchmarks.parity_folders import write

__all__ = ["folders", "write"]


def folders(kinds: Mapping[str, str], made: pytest.TempPathFactory) -> dict[str, Path]:
    """Name → a folder of the kind that it is mapped to."""
    paths = {name: made.mktemp(name) for name in kinds}
    for name, path in paths.items():
        write(kinds[name], path)
    return paths
