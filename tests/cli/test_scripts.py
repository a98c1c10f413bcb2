"""`bin/vidgen-t2v` and `examples/batch.mk`: every intermediate a file, and nothing made twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vidgen.io.stream import read_stream

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture
def shell(tmp_path, tiny_model):
    """`shell(line)`: run it where this vidgen is, on the tiny model."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "VIDGEN_MODEL": str(tiny_model), "OMP_NUM_THREADS": "1"}

    def run(line: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            line, shell=True, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=280,
        )  # fmt: skip

    return run


def when(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.is_file()}


def shape(path: Path) -> tuple[int, ...]:
    return next(read_stream(path))["latents"].shape


def test_the_script_keeps_what_it_makes(shell, tmp_path):
    line = f'{ROOT / "bin" / "vidgen-t2v"} "a blue cube spins" cube --seed 7'
    ran = shell(line)
    assert ran.returncode == 0, ran.stderr
    first = when(tmp_path)
    parts = ("asked.txt", "dense.large.vgs", "dense.vgs", "latents.vgs", "mp4", "text.vgs")
    ours = [f"cube.{part}" for part in parts]
    assert sorted(first) == ours
    assert shape(tmp_path / "cube.dense.large.vgs") == (4, 9, 4, 8)
    assert next(read_stream(tmp_path / "cube.latents.vgs")).attrs["seed"] == 7

    ran = shell(f"{line} --passes 2 --scale=1")  # other wishes: other files, the same keyframes
    assert ran.returncode == 0, ran.stderr
    second = when(tmp_path)
    assert sorted(second.keys() - first.keys()) == ["cube.dense2.vgs"]
    assert {n for n in first if first[n] != second[n]} == {"cube.mp4"}

    (tmp_path / "cube.latents.vgs").unlink()  # other keyframes: all that follows goes with them
    ran = shell(f"{line} --passes 0 --scale 1")
    assert ran.returncode == 0, ran.stderr
    kept = ["cube.asked.txt", "cube.latents.vgs", "cube.mp4", "cube.text.vgs"]
    assert sorted(when(tmp_path)) == kept


def test_the_script_takes_nothing_for_what_it_is_not(shell, tmp_path):
    script, long = ROOT / "bin" / "vidgen-t2v", "a blue cube spins " + "and spins " * 30
    line = f'{script} "{long}" cube --passes 0 --scale 1 --steps 2'
    for _ in range(2):  # a prompt of any length is known again
        ran = shell(f"{line} --seed 7")
        assert ran.returncode == 0, ran.stderr
    before = when(tmp_path)
    (tmp_path / "cube.text.vgs").unlink()
    for other in (f"{line} --seed 8", line.replace("blue", "red") + " --seed 7"):
        ran = shell(other)
        assert ran.returncode == 2 and "of another prompt or other options" in ran.stderr
    after = when(tmp_path)
    assert after == {k: v for k, v in before.items() if k != "cube.text.vgs"}
    ran = shell(f'{script} "a blue cube spins" many --num-samples 2')
    assert ran.returncode == 2 and "many.mp4" in ran.stderr and when(tmp_path) == after


@pytest.mark.parametrize("wish", ["--scale 3", "--decoder video", "--steps 0", "--passes"])
def test_the_script_makes_nothing_for_a_wish_that_cant_be(shell, tmp_path, wish):
    ran = shell(f'{ROOT / "bin" / "vidgen-t2v"} "a blue cube spins" cube {wish}')
    assert ran.returncode == 2 and wish.split()[0] in ran.stderr
    assert when(tmp_path) == {}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
def test_a_batch_goes_on_after_a_kill(shell, tmp_path, tiny_model):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "ball.txt").write_text("a red ball bounces\n")
    (tmp_path / "prompts" / "can.txt").write_text("a white can spins\n")
    dying = tmp_path / "dying"  # killed at the first interpolation, before it has written anything
    dying.write_text('#!/bin/sh\n[ "$1" = interpolate ] && kill -9 $$\nexec vidgen "$@"\n')
    dying.chmod(0o755)
    line = f"make -f {ROOT / 'examples' / 'batch.mk'} -j2 MODEL={tiny_model}"
    assert shell(f"{line} VIDGEN=./dying").returncode != 0
    before = when(tmp_path / "out")
    assert "ball.text.vgs" in before and not any("dense" in name for name in before)

    ran = shell(line)
    assert ran.returncode == 0, ran.stderr
    after = when(tmp_path / "out")
    stages = ("dense.vgs", "large.vgs", "latents.vgs", "mp4", "text.vgs")
    made = [f"{name}.{stage}" for name in ("ball", "can") for stage in stages]
    assert sorted(after) == [*made, "settings"]
    assert before.items() <= after.items()
    assert shape(tmp_path / "out" / "can.large.vgs") == (4, 9, 4, 8)

    ran = shell(f"{line} image")  # another decoder, the same latents
    assert ran.returncode == 0, ran.stderr
    swapped = when(tmp_path / "out")
    assert sorted(swapped.keys() - after.keys()) == ["ball.image.mp4", "can.image.mp4"]
    assert after.items() <= swapped.items()
    ran = shell(line)
    assert ran.returncode == 0 and when(tmp_path / "out") == swapped

    (tmp_path / "out" / "ball.latents.vgs").unlink()  # sampled anew, and what follows with it
    ran = shell(line)
    again = when(tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    anew = {f"ball.{stage}" for stage in ("dense.vgs", "large.vgs", "latents.vgs", "mp4")}
    assert {name for name in again if again[name] != swapped[name]} == anew

    (tmp_path / "prompts" / "ball.txt").unlink()
    ran = shell(f"{line} SCALE=1")  # other settings make everything again
    assert ran.returncode == 0, ran.stderr
    other = when(tmp_path / "out")
    anew = {"settings", *(f"can.{stage}" for stage in stages)}
    assert {name for name in again if other[name] != again[name]} == anew
    assert shape(tmp_path / "out" / "can.large.vgs") == (4, 9, 2, 4)
    ran = shell(f"{line} IN=nothing")
    assert ran.returncode != 0 and "no .txt file in `nothing`" in ran.stderr
