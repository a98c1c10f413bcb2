"""Every pixel comes back from the network's numbers, and nothing leaves 0 … 255."""

from __future__ import annotations

from pathlib import Path

import torch

import vidgen
from vidgen.nn.pixels import from_uint8, to_uint8


def test_every_value_comes_back():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(4, 8, 8)
    x = from_uint8(pixels)
    assert (x.dtype, float(x.min()), float(x.max())) == (torch.float32, -1, 1)
    assert torch.equal(to_uint8(x), pixels)
    assert to_uint8(torch.tensor([-3.0, 3.0], dtype=torch.bfloat16)).tolist() == [0, 255]


def test_the_numbers_stand_in_one_file():
    files = [p for p in Path(vidgen.__file__).parent.rglob("*.py") if "127.5" in p.read_text()]
    assert {p.name for p in files} <= {"pixels.py", "keyframes.py"}
