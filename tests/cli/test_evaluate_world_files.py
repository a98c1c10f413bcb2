"""What evaluate-world writes over, and what not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from clips import save

from vidgen.cli.console import Console
from vidgen.cli.evaluate_world_report import write_failures
from vidgen.errors import VidgenError


@pytest.mark.parametrize("flag", ["--report", "--failures"])
def test_a_file_that_is_there_needs_f(vidgen, flag: str) -> None:
    Path("old").write_text("old")
    words = ("evaluate-world", save("clip.vgs"), flag, "old", "--judge", "nowhere")
    ran = vidgen(*words)
    assert (ran.code, "old: is there already" in ran.err) == (2, True)
    ran = vidgen(*words, "-f")  # which gets as far as the judge, before it fails
    assert "old" not in ran.err and "no judge in nowhere" in ran.err
    assert Path("old").read_text() == "old"


def test_the_picture_of_failures_is_written_over_with_force(tmp_path: Path) -> None:
    path = tmp_path / "wrong.png"
    path.write_text("old")
    wrong: Any = SimpleNamespace(everything=False, wrong=[("shape", "ball", "cube")])
    row = SimpleNamespace(prompt="a ball")
    judged: Any = SimpleNamespace(thumbnails=[np.zeros((2, 8, 8, 3), np.uint8)], rows=[row])
    with pytest.raises(VidgenError):
        write_failures(str(path), judged, [wrong], Console(quiet=True))
    write_failures(str(path), judged, [wrong], Console(quiet=True), force=True)
    assert path.read_bytes().startswith(b"\x89PNG")
