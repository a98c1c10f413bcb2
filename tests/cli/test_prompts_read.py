"""Prompts are looked at before the work: what names nothing of the world is refused, what
contradicts itself is warned about, and nothing is computed until then."""

from __future__ import annotations

import json
import shutil

import pytest

from vidgen.cli.prompt_check import known_words
from vidgen.errors import Exit
from vidgen.io.stream import read_stream
from vidgen.train.recipe import load_recipe
from vidgen.world.vocabulary import BASIC, FULL


@pytest.fixture
def run(vidgen, tiny_model, monkeypatch):
    """`vidgen`, on the tiny model."""
    monkeypatch.setenv("VIDGEN_MODEL", str(tiny_model))
    return vidgen


@pytest.fixture
def no_weights(monkeypatch):
    """Loading any network fails the test."""
    import vidgen.systems.world as world

    for name in ("load_text_tower", "load_transformer", "load_autoencoder"):
        monkeypatch.setattr(world, name, lambda folder: pytest.fail("weights were read"))


COMMANDS = pytest.mark.parametrize("words", [["encode-text"], ["generate"]], ids=lambda w: w[0])


def warnings(ran) -> list[str]:
    return [line for line in ran.err.splitlines() if "warning: " in line]


# --- Refused --------------------------------------------------------------------------------------


@COMMANDS
def test_a_prompt_of_which_no_word_is_known(run, tmp_path, no_weights, words):
    ran = run(*words, "two dogs in the park", "-o", "out")
    assert ran.code == Exit.USAGE
    what, why, following = ran.err.splitlines()
    assert what.startswith(f"vidgen {words[0]}: ") and "`two dogs in the park`" in what
    assert why == "  why:  it does not know: two, dogs, park"
    assert following == f"  next: name some of: {known_words()}"
    assert not (tmp_path / "out").exists()


def test_the_words_that_may_be_used_are_all_listed():
    """Of every world that the shipped model's recipe takes captions from."""
    data = load_recipe("world-keyframes").data
    levels = {data["level"], *(["full"] if data["num_full"] else [])}
    assert levels == {"basic", "full"}
    listed = dict(part.split(" ", 1) for part in known_words().split("; "))
    for factor, values in FULL.items():
        assert listed[factor].split(", ") == list(values)
        assert set(BASIC[factor]) <= set(values)


@pytest.mark.parametrize("prompt", ["42", "!?", "the of is", "🎈"])
def test_a_prompt_without_a_word(run, no_weights, prompt):
    ran = run("generate", prompt, "-o", "x.mp4")
    assert ran.code == Exit.USAGE
    assert "there is no word of its world in it" in ran.err


def test_one_such_prompt_of_many_stops_all(run, tmp_path, no_weights):
    ran = run("encode-text", "-o", "out.vgs", stdin=b"a red ball\na dog\na blue cube\n")
    assert ran.code == Exit.USAGE and "`a dog`" in ran.err
    assert not (tmp_path / "out.vgs").exists()


def test_a_long_prompt_without_a_known_word_is_told_shortly(run, no_weights):
    text = " ".join(f"qwx{chr(97 + n % 26)}z{chr(97 + n // 26)}" for n in range(500))
    ran = run("generate", text, "-o", "x.mp4")
    assert ran.code == Exit.USAGE
    assert "and 492 more" in ran.err and len(ran.err) < 1000


def test_dry_run_refuses_it_too(run, no_weights):
    assert run("generate", "a dog", "-n", "-o", "x.mp4").code == Exit.USAGE


# --- Warned about ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a red blue ball", "`red` and `blue` for one color: `blue` counts"),
        ("a cube and a red blue ball", "`red` and `blue` for color of object 2: `blue` counts"),
        ("a ball bounces and spins", "`bounces` and `spins` for one motion: `bounces` counts"),
        ("a ball on sand, on stone", "`sand` and `stone` for one ground: `sand` counts"),
        ("a ball, panning left, zooming in", "for one camera: `panning left` counts"),
    ],
)
def test_contradictions(run, prompt, words):
    ran = run("encode-text", prompt, "-o", "out.vgs")
    assert ran.code == 0
    (warning,) = [line for line in warnings(ran) if "counts" in line]
    assert f"`{prompt}`: " in warning and words in warning


def test_the_same_is_warned_about_by_generate(run):
    ran = run("generate", "a red blue ball", "--steps", "1", "-o", "x.gif")
    assert ran.code == 0
    assert "`blue` counts" in ran.err


@pytest.mark.parametrize("prompt", ["a red ball bounces, then spins", "a red crimson ball"])
def test_no_contradiction(run, prompt):
    assert "counts" not in run("encode-text", prompt, "-o", "out.vgs").err


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("two red balls bounce", "`balls` count as one: no scene has two objects alike"),
        ("a ball on red ground", "no ground is `red`, there are: grey, green, sand, blue"),
    ],
)
def test_what_no_scene_has(run, prompt, words):
    ran = run("encode-text", prompt, "-o", "out.vgs")
    assert ran.code == 0
    assert any(f"`{prompt}`: {words}" in warning for warning in warnings(ran))


def test_nothing_but_a_ground_that_is_not_there(run, no_weights):
    ran = run("generate", "purple ground", "-o", "x.mp4")
    assert ran.code == Exit.USAGE
    assert "no ground is `purple`, there are: grey, green, sand, blue" in ran.err


@pytest.fixture
def of_basic_world(tiny_model, tmp_path, monkeypatch):
    """The tiny model, as if it had learned from the basic world alone."""
    folder = tmp_path / "basic"
    shutil.copytree(tiny_model, folder)
    path = folder / "transformer" / "config.json"
    config = json.loads(path.read_text())
    config["sample"]["level"] = "basic"
    path.write_text(json.dumps(config))
    monkeypatch.setenv("VIDGEN_MODEL", str(folder))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a red ring left of a blue cube", "`ring` or a second object"),
        ("a red cone beside a blue cone", "`cone` or a second object"),
        ("a ball, the camera tilts up", "`tilts up`"),
    ],
)
def test_what_no_clip_had_that_the_model_learned_from(vidgen, of_basic_world, prompt, words):
    ran = vidgen("encode-text", prompt, "-o", "out.vgs")
    assert ran.code == 0
    (warning,) = [line for line in warnings(ran) if "learned from" in line]
    assert f"`{prompt}`: no clip that `tiny` learned from had {words}" in warning


def test_all_of_the_basic_world_is_fine(vidgen, of_basic_world):
    for factor, values in BASIC.items():
        for value in values:
            ran = vidgen("encode-text", f"a ball {value}" if factor == "motion" else value, "-n")
            assert "learned from" not in ran.err, value


def test_a_model_of_the_full_world_is_not_warned_of(run):
    assert "learned from" not in run("encode-text", "a ring and a cone", "-n").err


def test_a_prompt_without_a_known_word_lists_the_words_of_its_world(vidgen, of_basic_world):
    ran = vidgen("encode-text", "a dog", "-o", "out.vgs")
    assert ran.code == Exit.USAGE and ran.err.splitlines()[-1].endswith(known_words("basic"))
    assert "ring" not in ran.err


# --- Fine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["", "   "])
def test_the_empty_prompt_asks_for_nothing(run, prompt):
    ran = run("encode-text", prompt, "-o", "out.vgs")
    assert ran.code == 0 and not warnings(ran)
    assert run("generate", prompt, "--steps", "1", "-o", "x.gif").code == 0


@pytest.mark.parametrize("prompt", ["a thing", "an object, please", "a crimson thing", "a bal"])
def test_one_word_of_the_world_is_enough(run, prompt):
    assert run("encode-text", prompt, "-o", "out.vgs").code == 0


def test_five_hundred_words_are_cut(run, tmp_path):
    ran = run("encode-text", " ".join(["a red ball bounces slowly"] * 100), "-o", "out.vgs")
    assert ran.code == 0
    assert len([line for line in warnings(ran) if "its end is cut" in line]) == 1
    assert not any("counts" in line for line in warnings(ran))
    with open("out.vgs", "rb") as file:
        (record,) = read_stream(file)
    assert record.torch("text.embeds").shape[0] == 24


def test_models_of_other_systems_may_know_any_word(run, tiny_model, tmp_path):
    other = shutil.copytree(tiny_model, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "system": "other"}))
    for prompt in ("a dog", "a red blue ball"):
        ran = run("encode-text", prompt, "--model", str(other), "-f", "-o", "out.vgs")
        assert ran.code == 0 and "counts" not in ran.err
