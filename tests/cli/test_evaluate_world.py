"""`vidgen evaluate-world`: the judge on clips whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from json_schema import faults

from vidgen.cli.evaluate_world import SCHEMAS

NUM = 16
FIVE = ("--frames", "5", "--fps", "2")


@pytest.fixture
def clips(vidgen) -> str:
    """Sixteen rendered clips of the test split, with their captions and factors."""
    ran = vidgen("world", "--split", "test", "--num", str(NUM), *FIVE, "-o", "c.vgs")
    assert ran.code == 0
    return "c.vgs"


def report(ran) -> dict:
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def test_rendered_clips_are_right_and_shuffled_prompts_are_chance(vidgen, clips) -> None:
    found = report(vidgen("evaluate-world", clips, "--ceiling", "8", "--json"))
    assert faults(found, SCHEMAS["vidgen.evaluate-world/1"]) == []
    assert found["clips"] == NUM
    for name in ("shape", "color", "motion", "ground", "camera"):
        assert found["scores"][name]["right"] >= NUM - 1
    # One in eight colors and seven motions, 240 pairs: never more than a third of them.
    assert found["floor"]["all"]["share"] < 0.05
    assert found["floor"]["color"]["share"] < 0.33
    assert found["floor"]["motion"]["share"] < 0.33
    assert found["ceiling"]["all"]["of"] == 8


def test_the_judge_does_not_read_prompts(vidgen, clips) -> None:
    """The same clips under other captions: what is seen stays, what is right changes."""
    rows = Path("rows.jsonl")
    ran = vidgen("world", "--split", "test", "--num", str(NUM), "--rows")
    asked = [json.loads(line) for line in ran.out.decode().splitlines()]
    moved = [row | {"id": other["id"]} for row, other in zip(asked, [*asked[1:], asked[0]])]  # noqa: B905
    rows.write_text("\n".join(map(json.dumps, moved)))
    found = report(
        vidgen("evaluate-world", clips, "--prompts", str(rows), "--ceiling", "0", "--json")
    )
    assert found["scores"]["all"]["share"] < 0.1
    assert len(found["wrong"]) == NUM - found["scores"]["all"]["right"]


def test_videos_are_judged_too(vidgen) -> None:
    words = ("--split", "test", "--num", "4", *FIVE, "--size", "128x80")
    assert vidgen("world", *words, "-o", "{id}.mp4").code == 0
    paths = sorted(str(p) for p in Path().glob("*.mp4"))
    vidgen("world", "--split", "test", "--num", "4", "--rows")
    ran = vidgen("evaluate-world", *paths, "--ceiling", "0", "--min", "all=0.75")
    assert ran.code == 0, ran.err
    assert b"all" in ran.out


def test_a_missed_minimum_is_exit_4(vidgen, clips) -> None:
    ran = vidgen("world", "--set", "color=red", *FIVE, "-o", "red.vgs")
    Path("rows.jsonl").write_text(
        json.dumps({"id": "world-00000000", "prompt": "a blue ball", "factors": {"color": "blue"}})
    )
    ran = vidgen(
        "evaluate-world", "red.vgs", "--prompts", "rows.jsonl", "--ceiling", "0",
        "--min", "color=0.9", "--failures", "bad.png",
    )  # fmt: skip
    assert ran.code == 4
    assert "color is right in 0.0 % of 1" in ran.err
    assert Path("bad.png").read_bytes().startswith(b"\x89PNG")
    assert b"color: blue \xe2\x86\x92 red" in ran.out  # the report comes all the same


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["--min", "taste=0.5"], 2, "is not FACTOR=SHARE"),
        (["--min", "all=95"], 2, "is not FACTOR=SHARE"),
        (["--min", "relation=0.5"], 2, "no clip's prompt says anything of it"),
        (["--prompts", "none.jsonl"], 3, "none.jsonl: cannot be read"),
        (["--judge", "nowhere"], 2, "no judge in nowhere"),
    ],
)
def test_mistakes(vidgen, clips, words, code, said) -> None:
    ran = vidgen("evaluate-world", clips, "--ceiling", "0", *words)
    assert ran.code == code
    assert said in ran.err


def test_too_few_frames(vidgen) -> None:
    vidgen("world", "--frames", "3", "-o", "short.vgs")
    ran = vidgen("evaluate-world", "short.vgs", "--ceiling", "0")
    assert ran.code == 3
    assert "3 frames, and the judge looks at 5" in ran.err


def test_what_the_basic_world_does_not_have(vidgen) -> None:
    vidgen("world", "--set", "shape=ring", *FIVE, "-o", "ring.vgs")
    ran = vidgen("evaluate-world", "ring.vgs", "--ceiling", "0")
    assert ran.code == 3
    assert "shape ring, which the basic world does not have" in ran.err
