"""`examples/ci`: what is as good passes, what is worse fails with exit code 4 and one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]
CI = ROOT / "examples" / "ci"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")


@pytest.fixture
def make(tmp_path):
    """`make(*words)`: run it where this vidgen is."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["make", "-f", str(CI / "Makefile"), *words], cwd=tmp_path, env=env,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900,
        )  # fmt: skip

    return run


LOG = '{"log": [\n "device_name": "Chip 1",\n "torch": "%s"\n]}'
STUB = """#!/bin/sh
# Stands for vidgen: writes what the files beside it say, and ends as they say.
echo "$@" >> {here}/calls
case $1 in
log) cat {here}/log ;;
evaluate-fvd) [ ! -e {here}/worse ] || {{ cat {here}/worse >&2; exit 4; }} ;;
esac
while [ $# -gt 1 ]; do
    shift
    [ "$1" != -o ] || cat {here}/pixels > "$2"
    [ "$1" != --num ] || echo "$2" > {here}/num
    [ "$1" != --report ] || echo "  \\"fake\\": $(cat {here}/num)," > "$2"
done
"""


@pytest.fixture
def stub(tmp_path):
    """A folder whose `vidgen` is a few lines of shell: the gates without the numbers."""
    here = tmp_path / "stub"
    here.mkdir()
    (here / "vidgen").write_text(STUB.format(here=here))
    (here / "vidgen").chmod(0o755)
    (here / "pixels").write_text("pixels")
    (here / "log").write_text(LOG % "2.9")
    return here


def gates(make, stub: Path, *words: str) -> subprocess.CompletedProcess:
    return make(f"VIDGEN={stub / 'vidgen'}", f"BASELINE={stub / 'baseline'}", *words)


def test_the_gates_in_order(make, stub) -> None:
    ran = gates(make, stub, "baseline", "NUM=5", "MODEL=some/model")
    assert ran.returncode == 0, ran.stderr
    ran = gates(make, stub, "gate", "NUM=5", "MODEL=some/model", "ALL=0.7")
    assert ran.returncode == 0, ran.stderr
    assert "bytes: as recorded for 2.9 Chip 1" in ran.stdout
    calls = (stub / "calls").read_text().splitlines()[-6:]
    names = [line.split()[0] for line in calls]
    assert names == ["generate", "evaluate-fvd", "evaluate-world", "generate", "convert", "log"]
    sampled, fvd, world = calls[:3]
    assert "--model some/model" in sampled
    assert f"--baseline {stub}/baseline/fvd.json" in fvd
    assert "--max fvd=" in fvd and "--min all=0.7" in world


def test_another_number_of_clips_than_the_baseline_has(make, stub) -> None:
    ran = make("gate-fvd", f"VIDGEN={stub / 'vidgen'}", "NUM=8")
    assert ran.returncode == 2
    said = ran.stderr.splitlines()[0]
    assert said.startswith("NUM=8: ") and "fvd.json is of 96 clips; next: NUM=96" in said
    ran = gates(make, stub, "gate-fvd")  # with no baseline at all
    assert (ran.returncode, "fvd.json is of no clips" in ran.stderr) == (2, True)
    assert not (stub / "calls").exists()


def test_a_score_that_is_worse(make, stub) -> None:
    assert gates(make, stub, "baseline").returncode == 0
    (stub / "worse").write_text("vidgen evaluate-fvd: fvd is worse\n")
    ran = gates(make, stub, "gate")
    assert ran.returncode == 2
    reason, code, _ = ran.stderr.splitlines()
    assert reason == "vidgen evaluate-fvd: fvd is worse"
    assert code == "gate-fvd: failed with exit code 4"
    assert "evaluate-world" not in (stub / "calls").read_text()
    ran = gates(make, stub, "-k", "gate")
    assert ran.returncode == 2
    assert "evaluate-world" in (stub / "calls").read_text() and "bytes: as recorded" in ran.stdout


def test_other_bytes(make, stub) -> None:
    assert gates(make, stub, "baseline").returncode == 0
    lines = (stub / "baseline" / "bytes.txt").read_text()
    assert re.fullmatch(r"[0-9a-f]{64}  2.9 Chip 1\n", lines)
    (stub / "pixels").write_text("pixel")
    ran = gates(make, stub, "gate-bytes")
    assert ran.returncode == 2
    reason, code, _ = ran.stderr.splitlines()
    assert reason.startswith("bytes: sha256 is ") and lines[:12] in reason
    assert code == "gate-bytes: failed with exit code 4"


def test_another_machine_has_a_line_of_its_own(make, stub) -> None:
    assert gates(make, stub, "baseline").returncode == 0
    first = (stub / "baseline" / "bytes.txt").read_text()
    (stub / "log").write_text(LOG % "2.9.1")
    (stub / "pixels").write_text("pixel")
    ran = gates(make, stub, "gate-bytes")
    assert ran.returncode == 0
    assert "has no line for torch and processor `2.9.1 Chip 1`" in ran.stdout
    assert gates(make, stub, "baseline").returncode == 0
    both = (stub / "baseline" / "bytes.txt").read_text().splitlines()
    assert first.strip() in both and len(both) == 2
    assert gates(make, stub, "baseline").returncode == 0  # its own line is replaced
    assert (stub / "baseline" / "bytes.txt").read_text().splitlines() == both
    assert "as recorded" in gates(make, stub, "gate-bytes").stdout


def test_the_committed_baseline_is_of_what_is_shipped() -> None:
    """Else: make -f examples/ci/Makefile baseline, and commit."""
    from vidgen.io.weights import sha256
    from vidgen.metrics.feature_file import read_features
    from vidgen.metrics.report import Report
    from vidgen.metrics.world_features import SHIPPED

    report = Report.read(CI / "baseline" / "fvd.json")
    real = read_features(str(CI / "baseline" / "real.safetensors"))
    shipped = sha256(SHIPPED / "model.safetensors")
    assert report.settings["extractor"]["weights_sha256"] == shipped
    assert real.extractor["weights_sha256"] == shipped
    number = int(re.search(r"^NUM +\?= (\d+)", (CI / "Makefile").read_text(), re.MULTILINE)[1])
    assert len(real) == number > real.features.shape[1]
    assert report.details["rank_fake"] == real.features.shape[1]


def test_the_workflow_pins_what_it_uses() -> None:
    whole = yaml.safe_load((CI / "github-workflow.yml").read_text())
    steps = whole["jobs"]["gate"]["steps"]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name) for name in used)
    assert "make -f examples/ci/Makefile -k gate" in [step.get("run") for step in steps]


def worsened(folder: Path, amount: float = 0.5) -> Path:
    """The shipped model with noise in the weights of its network, `amount` times their spread."""
    import torch

    from vidgen.io import int8
    from vidgen.systems.base import SHIPPED

    shutil.copytree(SHIPPED / "world", folder)
    draw = torch.Generator().manual_seed(0)
    for path in sorted((folder / "transformer").glob("*.safetensors")):
        state = int8.unpacked(load_file(path))
        for name, x in state.items():
            if x.ndim > 1:
                noise = torch.randn(x.shape, generator=draw)
                state[name] = (x.float() + amount * x.float().std() * noise).to(x.dtype)
        save_file(state, path)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_worse_model_fails(make, tmp_path) -> None:
    """Of a third of the gates' own clips: enough to see that every picture is spoiled. The fewer
    there are, the higher is FVD and the more the share of right ones is left to chance, so the
    bounds are those of so many."""
    few = ("NUM=32", "ALL=0.75", f"BASELINE={tmp_path / 'baseline'}")
    ran = make("baseline", *few)
    assert ran.returncode == 0, ran.stderr
    fvd = json.loads((tmp_path / "baseline" / "fvd.json").read_text())["scores"]["fvd"]["value"]
    few = (*few, f"FVD={1.3 * fvd}")
    # As good: the clips that the baseline is of, since the same model makes the same ones again.
    ran = make("gate", "--old-file=clips", *few)
    assert ran.returncode == 0, ran.stderr
    worse = worsened(tmp_path / "worse")
    ran = make("-k", "gate", *few, f"MODEL={worse}")
    assert ran.returncode == 2
    said = [line for line in ran.stderr.splitlines() if not line.startswith("make")]
    for name, reason in {
        "gate-fvd": "fvd is ",
        "gate-world": "evaluate-world: all is right in",
        "gate-bytes": "bytes: sha256 is",
    }.items():
        at = said.index(f"{name}: failed with exit code 4")
        assert any(reason in line for line in said[:at])
