"""Windows of weight files: the tensors that a map of the whole file has, and their memory goes with
them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vidgen.errors import InputError
from vidgen.io.weights import load_safetensors
from vidgen.io.windows import windows

DTYPES = (torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.uint8)


@pytest.fixture
def file(tmp_path):
    """Tensors of several dtypes, odd sizes, one empty and one larger than a page."""
    draw = torch.Generator().manual_seed(0)
    state = {f"{i}": torch.randn(3 + i, 5, generator=draw).to(d) for i, d in enumerate(DTYPES)}
    state |= {"none": torch.zeros(0, 4), "large": torch.randn(70, 999, generator=draw)}
    save_file(state, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def test_they_are_the_files_tensors(file):
    whole, found = load_safetensors(file), windows(file)
    assert found.keys() == whole.keys()
    for name, window in found.items():
        x = window.read()
        assert x.dtype == window.torch_dtype == whole[name].dtype
        assert tuple(x.shape) == window.shape and x.equal(whole[name])
        if x.numel() and window.start % x.itemsize == 0:  # others are copied
            assert x.data_ptr() % 4096 == whole[name].data_ptr() % 4096


def test_what_is_written_to_one_reaches_nobody(file):
    window = windows(file)["large"]
    window.read().zero_()
    assert window.read().abs().sum() > 0


def test_another_file_of_that_name_is_another(file):
    window = windows(file)["large"]
    before = window.read().clone()
    save_file({"large": torch.zeros(70, 999)}, file.with_suffix(".new"))
    os.replace(file.with_suffix(".new"), file)
    assert window.read().equal(before)
    assert windows(file)["large"].read().abs().sum() == 0


def test_a_damaged_header_is_refused(file):
    data = bytearray(file.read_bytes())
    data[20] = 0
    file.write_bytes(data)
    with pytest.raises(InputError, match="header"):
        windows(file)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        windows(tmp_path / "none.safetensors")


MEASURE = """
import sys
from pathlib import Path
from vidgen.io.windows import windows

def mib():
    with open("/proc/self/status") as f:
        return next(int(x.split()[1]) / 1024 for x in f if x.startswith("VmHWM"))

found = windows(Path(sys.argv[1]))
found["0"].read().sum()
before = mib()
for _ in range(2):
    for window in found.values():
        window.read().sum()
print(mib() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory use from /proc")
def test_memory_is_that_of_one_tensor(tmp_path):
    save_file({f"{i}": torch.ones(4, 1 << 20) for i in range(8)}, tmp_path / "x.safetensors")
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "x.safetensors"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 24  # of 128; two of 16 while one takes the other's place
