"""The tiny recipe, and a run of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from vidgen.train.recipe import Recipe, load_recipe

TINY = Path(__file__).with_name("tiny.yaml")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks are faster on one thread, and sums keep their order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """`recipe("steps=5", …)`: the tiny recipe with overrides."""

    def load(*overrides: str) -> Recipe:
        return load_recipe(TINY, overrides=overrides)

    return load
