"""Memory that steps free stays with the process: page faults show whether it does."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from vidgen.train import heap
torch.set_num_threads(1)
if {keep}:
    assert heap.keep_freed()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2**18 + 1000 * i) for i in range(40)]  # a MiB each, all at once
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print([faults() for _ in range(4)][-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does")
def test_a_step_asks_for_no_new_pages() -> None:
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, check=True
            ).stdout
        )
        for keep in (True, False)
    )
    assert kept < 100 < given_back
