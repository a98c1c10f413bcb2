"""Networks that have shapes and no numbers yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

DRAWN = frozenset((Tensor.normal_, Tensor.uniform_))


@contextmanager
def on_meta() -> Iterator[None]:
    """What is built here is on torch's meta device: for its names and shapes, or to be given the
    memory of a weight file.

    Nothing is drawn for weights that hold nothing. That is more than tidy: on this device torch
    draws normal numbers by a Python reference that imports its compiler, for a second.
    """
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Leaves tensors of the meta device as they are, where numbers would be drawn into them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func in DRAWN or getattr(func, "__module__", None) == nn.init.__name__:
            tensor = args[0] if args else named["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **named)
