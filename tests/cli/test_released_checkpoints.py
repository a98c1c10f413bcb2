"""Sampling that is stopped and taken up again makes the bytes of a run that wasn't."""

from pathlib import Path

import pytest
from released_folders import write

from vidgen.errors import Exit

# Solvers that remember one step, several, and none but draw noise.
SOLVERS = ("unipc", "dpmpp_2m", "ancestral")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write("wan 2.2, two experts", folder)
    return str(folder)


@pytest.fixture
def sample(vidgen, model):
    """A run of six steps, with these options."""

    fixed = ("--steps", "6", "--num-frames", "5", "--size", "32x32", "--num-samples", "2")

    def run(*words):
        return vidgen("sample", "--prompt", "a red ball", *fixed, "--model", model, *words)

    return run


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_stopped_run_goes_on_to_the_bit(sample, solver):
    whole = sample("--solver", solver)
    keep = ("--solver", solver, "--checkpoint", "kept")
    stopped = sample(*keep, "--stop-after", "2")
    assert stopped.code == Exit.TRY_AGAIN and stopped.out == b""
    assert "stopped after 2 of 6 steps" in stopped.err
    again = sample(*keep, "--stop-after", "2")  # it doesn't go past it
    assert again.code == Exit.TRY_AGAIN
    further = sample(*keep, "--stop-after", "4", "--resume", "yes")
    assert further.code == Exit.TRY_AGAIN and "goes on after step 2 of 6" in further.err
    done = sample(*keep)
    assert done.code == 0 and "goes on after step 4 of 6" in done.err
    assert done.out == whole.out and len(done.out) > 1000
    assert not list(Path("kept").iterdir())  # nothing is left of what is finished


def test_what_makes_other_samples_finds_no_checkpoint(sample):
    keep = ("--checkpoint", "kept", "--stop-after", "2")
    assert sample(*keep).code == Exit.TRY_AGAIN
    for other in (("--seed", "1"), ("--guidance-scale", "2"), ("--shift", "4")):
        ran = sample("--checkpoint", "kept", *other, "--resume", "yes")
        assert ran.code == Exit.USAGE and "no checkpoint of these samples" in ran.err
    ran = sample(*keep, "--resume", "no")
    assert ran.code == Exit.TRY_AGAIN and "goes on after" not in ran.err


def test_checkpoints_come_as_often_as_asked(sample, monkeypatch):
    from vidgen.stages import checkpoints

    seen, write_one = [], checkpoints._write
    monkeypatch.setattr(
        checkpoints, "_write", lambda path, step: (seen.append(step.i + 1), write_one(path, step))
    )
    assert sample("--checkpoint", "kept", "--checkpoint-every", "2").code == 0
    assert seen == [2, 4]


def test_options_without_effect_are_refused(sample, vidgen, tiny_model):
    ran = sample("--stop-after", "2")
    assert ran.code == Exit.USAGE and "--checkpoint FOLDER" in ran.err
    ran = sample("--checkpoint-every", "2")
    assert ran.code == Exit.USAGE and "--checkpoint-every has no effect" in ran.err
    ran = vidgen("sample", "--prompt", "a can", "--checkpoint", "x", "--model", str(tiny_model))
    assert ran.code == Exit.USAGE and "for released models" in ran.err
