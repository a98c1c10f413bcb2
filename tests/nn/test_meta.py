"""Networks of shapes alone: the same names and shapes, nothing drawn, and no compiler."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from vidgen.nn.meta import on_meta


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 2)
        self.gain = nn.Parameter(torch.empty(3).normal_())
        nn.init.trunc_normal_(self.out.weight, std=0.02)
        nn.init.normal_(tensor=self.gain)


def test_shapes_are_those_of_a_network_with_numbers() -> None:
    with on_meta():
        made = Net()
    assert all(p.is_meta for p in made.parameters())
    assert {k: v.shape for k, v in made.state_dict().items()} == {
        k: v.shape for k, v in Net().state_dict().items()
    }
    made.load_state_dict(Net().state_dict(), assign=True)
    assert made.out(torch.ones(1, 3)).shape == (1, 2)


def test_numbers_elsewhere_are_drawn() -> None:
    """A tensor that is put on another device by name isn't left empty."""
    torch.manual_seed(0)
    with on_meta():
        drawn = torch.zeros(8, device="cpu").normal_()
        nn.init.ones_(kept := torch.zeros(8, device="cpu"))
    assert drawn.unique().numel() == 8 and kept.sum() == 8


def test_no_compiler_is_imported() -> None:
    """It would take a second of every command that samples."""
    code = (
        "import sys; from vidgen.systems.upsampling import weights;"
        " from vidgen.nn.unet import UNetConfig;"
        " print(weights(UNetConfig(skip_rows=8)), 'torch._dynamo' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, compiler = ran.stdout.split()
    assert int(count) > 0 and compiler == "False"
