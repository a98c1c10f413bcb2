"""Sampling in processes of their own: one that is killed and another that goes on make the same
bytes as one unbroken, and what one compiles is there for the next."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from released_folders import folders

KINDS = {"wan": "wan 2.2, two experts", "cogvideox": "cogvideox 5b, dpm"}
STEPS = 100  # enough for a kill to come in their middle
SIZE = ("--steps", str(STEPS), "--num-frames", "9", "--size", "48x32")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return folders(KINDS, tmp_path_factory)


def start(model, folder, *words):
    """`vidgen sample` of it, in that folder."""
    command = ("-m", "vidgen", "sample", "--prompt", "a red ball", *SIZE, "--model", str(model))
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command, *words], cwd=folder, env=env, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module", params=KINDS)
def unbroken(request, models, tmp_path_factory):
    """The model, and what a run of it makes that nobody kills."""
    folder, model = tmp_path_factory.mktemp("unbroken"), models[request.param]
    ran = start(model, folder, "-o", "z.vgs")
    _, err = ran.communicate()
    assert ran.returncode == 0, err
    return model, (folder / "z.vgs").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("offload", ["none", "layer"])
def test_a_killed_run_goes_on_to_the_bit(unbroken, tmp_path, offload):
    model, whole = unbroken
    words = ("--checkpoint", "kept", "--checkpoint-every", "3", "--offload", offload, "-o", "z.vgs")
    killed = start(model, tmp_path, *words)
    while killed.poll() is None and not list(tmp_path.glob("kept/*.safetensors")):
        time.sleep(0.001)
    killed.kill()
    _, err = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, err
    assert not (tmp_path / "z.vgs").exists()
    resumed = start(model, tmp_path, *words, "--resume", "yes")
    _, err = resumed.communicate()
    assert resumed.returncode == 0, err
    assert f"of {STEPS}, from kept/" in err and "goes on after step" in err
    assert (tmp_path / "z.vgs").read_bytes() == whole and len(whole) > 1000
    assert not list(tmp_path.glob("kept/*"))  # nothing is left of what is finished


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU with g++")
def test_what_is_compiled_stays_in_the_users_cache(models, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    ran = start(models["cogvideox"], tmp_path, "--steps", "1", "--compile", "-o", "z.vgs")
    _, err = ran.communicate()
    assert ran.returncode == 0, err
    assert list(tmp_path.glob("vidgen/compiled/**/*.so"))
