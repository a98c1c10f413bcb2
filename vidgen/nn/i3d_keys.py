"""Names of I3D's tensors in the files that people have, and state dicts turned from one to another.

| layout | files | names |
|---|---|---|
| piergiaj | i3d_pretrained_400.pt, rgb_imagenet.pt | `Mixed_3b.b1a.bn.weight`; ours, too |
| hassony2 | i3d_torchscript.pt, model_rgb.pth | `mixed_3b.branch_1.0.batch3d.weight` |
| tensorflow | checkpoints of Kinetics-I3D | `RGB/inception_i3d/Mixed_3b/Branch_1/…/beta` |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from vidgen.nn.i3d import I3D, MIXED
from vidgen.nn.keys import differences, first, shapes
from vidgen.nn.meta import on_meta

Layout = Literal["piergiaj", "hassony2", "tensorflow"]

# Ours → hassony2, TensorFlow.
STEM = {
    "Conv3d_1a_7x7": ("conv3d_1a_7x7", "Conv3d_1a_7x7"),
    "Conv3d_2b_1x1": ("conv3d_2b_1x1", "Conv3d_2b_1x1"),
    "Conv3d_2c_3x3": ("conv3d_2c_3x3", "Conv3d_2c_3x3"),
}
BRANCHES = {
    "b0": ("branch_0", "Branch_0/Conv3d_0a_1x1"),
    "b1a": ("branch_1.0", "Branch_1/Conv3d_0a_1x1"),
    "b1b": ("branch_1.1", "Branch_1/Conv3d_0b_3x3"),
    "b2a": ("branch_2.0", "Branch_2/Conv3d_0a_1x1"),
    "b2b": ("branch_2.1", "Branch_2/Conv3d_0b_3x3"),
    "b3b": ("branch_3.1", "Branch_3/Conv3d_0b_1x1"),
}
MISNAMED = {"Mixed_5b.b2b": "Mixed_5b/Branch_2/Conv3d_0a_3x3"}  # so it was published
PARTS = {
    "conv3d.weight": ("conv3d.weight", "conv_3d/w"),
    "bn.weight": ("batch3d.weight", None),  # TensorFlow's norms don't scale
    "bn.bias": ("batch3d.bias", "batch_norm/beta"),
    "bn.running_mean": ("batch3d.running_mean", "batch_norm/moving_mean"),
    "bn.running_var": ("batch3d.running_var", "batch_norm/moving_variance"),
}
HEAD = {
    "logits.conv3d.weight": ("conv3d_0c_1x1.conv3d.weight", "Logits/Conv3d_0c_1x1/conv_3d/w"),
    "logits.conv3d.bias": ("conv3d_0c_1x1.conv3d.bias", "Logits/Conv3d_0c_1x1/conv_3d/b"),
}
PREFIX = "RGB/inception_i3d/"


def _units() -> dict[str, tuple[str, str]]:
    """The 57 units of convolution and norm: ours → hassony2, TensorFlow."""
    units = dict(STEM)
    for block in MIXED:
        for branch, (port, tf) in BRANCHES.items():
            name = f"{block}.{branch}"
            units[name] = f"{block.lower()}.{port}", MISNAMED.get(name, f"{block}/{tf}")
    return units


def _tables() -> dict[Layout, dict[str, str]]:
    ours: dict[str, tuple[str, str | None]] = {
        f"{unit}.{part}": (f"{port}.{port_part}", tf_part and f"{tf}/{tf_part}")
        for unit, (port, tf) in _units().items()
        for part, (port_part, tf_part) in PARTS.items()
    }
    ours |= HEAD
    return {
        "piergiaj": {name: name for name in ours},
        "hassony2": {name: port for name, (port, _) in ours.items()},
        "tensorflow": {name: PREFIX + tf for name, (_, tf) in ours.items() if tf},
    }


UNITS = tuple(_units())
KEYS = _tables()  # layout → our name → its name


def layout_of(state: Mapping[str, Tensor]) -> Layout:
    """Whose names a state dict has. ValueError if it shares none with any layout."""
    shared = {name: len(state.keys() & set(table.values())) for name, table in KEYS.items()}
    layout = max(shared, key=shared.__getitem__)
    if not shared[layout]:
        raise ValueError(f"it holds {first(shapes(state))}, which no layout of I3D has")
    return layout


def to_native(state: Mapping[str, Tensor]) -> tuple[Layout, dict[str, Tensor]]:
    """A state dict of any layout → which it was, and ours, float32. ValueError for what is missing,
    too much, or of another shape, with the names of that file. Batch counters are left out."""
    state = {
        name.removesuffix(":0"): x
        for name, x in state.items()
        if not name.endswith("num_batches_tracked")
    }
    layout = layout_of(state)
    with on_meta():
        ours = I3D().state_dict()
    wanted = {name: tuple(x.shape) for name, x in ours.items()}
    table = KEYS[layout]
    if layout == "tensorflow":
        state = {name: _from_tensorflow(x) for name, x in state.items()}
    expected = {theirs: wanted[name] for name, theirs in table.items()}
    if wrong := differences(expected, shapes(state)):
        raise ValueError("; ".join(wrong))
    native = {name: state[theirs].float() for name, theirs in table.items()}
    if layout == "tensorflow":
        native |= {name: torch.ones(wanted[name]) for name in ours.keys() - native.keys()}
    return layout, {name: native[name] for name in ours}


def from_native(state: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Our state dict → that of a layout. ValueError if TensorFlow's has no place for scales."""
    if layout != "tensorflow":
        return {theirs: state[name] for name, theirs in KEYS[layout].items()}
    if any((x != 1).any() for name, x in state.items() if name.endswith("bn.weight")):
        raise ValueError("its norms scale, TensorFlow's don't")
    return {theirs: _to_tensorflow(name, state[name]) for name, theirs in KEYS[layout].items()}


def _from_tensorflow(x: Tensor) -> Tensor:
    """Kernels `t h w in out`, and numbers of a norm `1 1 1 1 c`."""
    if x.ndim != 5:
        return x
    return x.flatten() if x.shape[:4] == (1, 1, 1, 1) else x.permute(4, 3, 0, 1, 2)


def _to_tensorflow(name: str, x: Tensor) -> Tensor:
    if x.ndim == 5:
        return x.permute(2, 3, 4, 1, 0)
    return x if name == "logits.conv3d.bias" else x.view(1, 1, 1, 1, -1)
