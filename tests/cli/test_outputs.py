"""Names of outputs: what is wrong with them is told before the work, and where that can't be known
it costs no other record its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidgen.errors import Exit


@pytest.fixture
def run(vidgen, tiny_model, monkeypatch):
    """`vidgen`, on the tiny model, with two text records, a and b, and their latents."""
    monkeypatch.setenv("VIDGEN_MODEL", str(tiny_model))
    rows = b'{"id": "a", "prompt": "a red ball"}\n{"id": "b", "prompt": "a blue cube"}\n'
    Path("rows.jsonl").write_bytes(rows)
    assert vidgen("encode-text", "-i", "rows.jsonl", "-o", "text.vgs").code == 0
    assert vidgen("sample-keyframes", "text.vgs", "-o", "latents.vgs").code == 0
    assert vidgen("decode", "latents.vgs", "-o", "{id}.gif").code == 0
    return vidgen


@pytest.fixture
def weights(run, monkeypatch):
    """Fails the test when weights are read."""
    import vidgen.systems.world as world

    for name in ("load_transformer", "load_autoencoder", "load_text_tower"):
        monkeypatch.setattr(world, name, lambda folder: pytest.fail("weights were read"))


LINES = [
    ("encode-text -i rows.jsonl", "{id}.out"),
    ("sample-keyframes text.vgs", "{id}.out"),
    ("interpolate latents.vgs", "{id}.out"),
    ("upsample latents.vgs", "{id}.out"),
    ("decode latents.vgs", "{id}.out"),
    ("decode latents.vgs", "{id}.mp4"),
    ("encode-video a.gif b.gif", "{id}.out"),
    ("generate -i rows.jsonl --no-cache", "{id}.mp4"),
]


@pytest.mark.parametrize(("line", "pattern"), LINES)
def test_a_later_name_that_is_taken_is_told_before_the_work(run, weights, line, pattern):
    taken = pattern.replace("{id}", "b")
    Path(taken).write_text("mine")
    ran = run(*line.split(), "-o", pattern)
    assert (ran.code, ran.err.splitlines()[0]) == (
        Exit.USAGE, f"vidgen {line.split()[0]}: {taken}: is there already",
    )  # fmt: skip
    assert not Path(pattern.replace("{id}", "a")).exists()
    assert Path(taken).read_text() == "mine"


@pytest.mark.parametrize("line", ["sample-keyframes text.vgs", "decode latents.vgs"])
def test_samples_are_named_as_they_will_be(run, weights, line):
    """With several seeds, and with prompts left out."""
    from vidgen.io.log import redacted_id

    name = redacted_id("b-s1" if "text" in line else "b")
    Path(f"{name}.out").touch()
    seeds = ["--seed", "0-1"] if "text" in line else []
    ran = run(*line.split(), *seeds, "--redact-prompt", "-o", "{id}.out")
    assert (ran.code, name in ran.err) == (Exit.USAGE, True)


def test_in_a_pipe_the_others_are_written(run):
    Path("a.out").touch()
    ran = run(
        "sample-keyframes",
        "--batch-size",
        "1",
        "-o",
        "{id}.out",
        stdin=Path("text.vgs").read_bytes(),
    )
    assert ran.code == Exit.USAGE
    assert ran.err.splitlines()[0] == "vidgen sample-keyframes: a.out: is there already"
    assert "1 of 2 records" in ran.err
    assert Path("a.out").stat().st_size == 0 and Path("b.out").stat().st_size > 0


def test_in_a_pipe_the_other_videos_are_written(run):
    Path("a.mp4").touch()
    ran = run("decode", "-o", "{id}.mp4", stdin=Path("latents.vgs").read_bytes())
    assert (ran.code, "a.mp4: is there already" in ran.err) == (Exit.USAGE, True)
    assert Path("a.mp4").stat().st_size == 0 and Path("b.mp4").stat().st_size > 0


@pytest.mark.parametrize(
    ("line", "name"), [("generate -i rows.jsonl", "x.mp4"), ("decode latents.vgs", "x.gif")]
)
def test_one_name_for_several_videos(run, weights, line, name):
    ran = run(*line.split(), "-o", name)
    assert ran.code == Exit.USAGE
    assert "2 videos" in ran.err and f"'x-{{id}}{name[1:]}'" in ran.err


@pytest.mark.parametrize("line", ["encode-text -i rows.jsonl", "sample-keyframes text.vgs"])
def test_several_records_are_no_npz(run, weights, line):
    ran = run(*line.split(), "-o", "x.npz")
    assert (ran.code, "holds one record" in ran.err) == (Exit.USAGE, True)


@pytest.mark.parametrize("line", [line for line, _ in LINES])
def test_a_pattern_with_other_braces(run, weights, line):
    ran = run(*line.split(), "-o", "x{id}{.vgs")
    assert (ran.code, "no field but {id}" in ran.err) == (Exit.USAGE, True)


def test_a_folder_of_pictures_a_record_can_be_written_again(run):
    for flag in ([], ["-f"]):
        assert run("generate", "ball", "cube", *flag, "-o", "{id}/").code == 0
    assert run("generate", "ball", "cube", "-o", "{id}/").code == Exit.USAGE


def test_prompts_without_quotes(run, weights):
    ran = run("generate", "a", "red", "ball", "-o", "x.mp4")
    assert (ran.code, "quotes make one of several words" in ran.err) == (Exit.USAGE, True)
