"""`vidgen evaluate-world`: the judge on clips whose truth is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from json_schema import faults

from vidgen.cli.evaluate_world import SCHEMAS
from vidgen.cli.evaluate_world_look import _samplers
from vidgen.cli.evaluate_world_rows import read_rows, row_of
from vidgen.cli.rows import row_id
from vidgen.errors import InputError
from vidgen.io.record import Record
from vidgen.io.stream import write_stream
from vidgen.metrics.judge import SHIPPED

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
    Path("mix").mkdir()
    assert vidgen("world", *words, "-o", "mix/{id}.mp4").code == 0
    paths = sorted(str(p) for p in Path("mix").glob("*.mp4"))
    ran = vidgen("evaluate-world", *paths, "--ceiling", "0", "--min", "all=0.75")
    assert ran.code == 0, ran.err
    assert b"all" in ran.out
    for whole in ("mix", "mix/*.mp4"):
        assert vidgen("evaluate-world", whole, "--ceiling", "0").out == ran.out


def test_a_missed_minimum_is_exit_4(vidgen) -> None:
    vidgen("world", "--set", "color=red", *FIVE, "-o", "red.vgs")
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
        (["--min", "taste=0.5"], 2, "there is no factor `taste` here"),
        (["--min", "all=95"], 2, "is not FACTOR=SHARE"),
        (["--min", "relation=0.5"], 2, "no clip's prompt says anything of it"),
        (["--prompts", "none.jsonl"], 3, "none.jsonl: cannot be read"),
        (["--judge", "nowhere"], 2, "no judge in nowhere"),
        (["--report", "-"], 2, "is not one file"),
        (["--report", "{id}.json"], 2, "is not one file"),
        (["--report", "a.json", "--failures", "a.json"], 2, "is named twice"),
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


def record(path: str, frames: np.ndarray, prompt: str = "a red ball") -> str:
    made = Record.make("frames", Path(path).stem, {"frames": frames}, {"prompt": prompt})
    write_stream([made], path)
    return path


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((5, 8, 8, 4), np.uint8),
        np.zeros((5, 8, 8), np.uint8),
        np.zeros((5, 0, 8, 3), np.uint8),
        np.full((5, 8, 8, 3), np.nan, np.float32),
    ],
    ids=["rgba", "gray", "no rows", "float"],
)
def test_what_is_no_clip(vidgen, frames) -> None:
    ran = vidgen("evaluate-world", record("odd.vgs", frames), "--ceiling", "0")
    assert ran.code == 3
    assert "not uint8 [T, H, W, 3]" in ran.err


def test_a_video_of_one_pixel_is_judged(vidgen) -> None:
    path = record("pixel.vgs", np.zeros((5, 1, 1, 3), np.uint8))
    assert vidgen("evaluate-world", path, "--ceiling", "0").code == 0


def test_another_aspect_is_warned_about_once(vidgen) -> None:
    record("tall.vgs", np.zeros((5, 60, 40, 3), np.uint8))
    record("wide.vgs", np.zeros((5, 54, 96, 3), np.uint8))
    record("fits.vgs", np.zeros((5, 80, 128, 3), np.uint8))
    record("nearly.vgs", np.zeros((5, 534, 854, 3), np.uint8))  # 533.75 rows would be 8:5
    ran = vidgen(
        "evaluate-world", "tall.vgs", "fits.vgs", "wide.vgs", "nearly.vgs", "--ceiling", "0"
    )
    assert ran.code == 0, ran.err
    (warning,) = [line for line in ran.err.splitlines() if "warning: " in line]
    assert "2 of 4 clips are not 8:5" in warning
    assert "squeezed: `tall` is 40 × 60, `wide` is 96 × 54" in warning
    assert "warning" not in vidgen("evaluate-world", "fits.vgs", "--ceiling", "0").err


def test_prompts_that_ask_for_nothing_are_not_right(vidgen) -> None:
    path = record("empty.vgs", np.zeros((5, 8, 8, 3), np.uint8), prompt="")
    ran = vidgen("evaluate-world", path, "--ceiling", "0")
    assert ran.code == 3
    assert "no prompt asks for anything" in ran.err


@pytest.mark.parametrize(
    "config, weights",
    [
        ("[]", None), ('"judge"', None), ("{}", None),
        ('{"_class_name": "WorldJudge", "heads": 0}', None),
        ('{"_class_name": "WorldJudge", "level": "moon"}', None),
        ('{"_class_name": "WorldJudge", "eyes": 2}', None),
        (None, b""), (None, b"no weights at all"), (None, b"\xff" * 64),
    ],
)  # fmt: skip
def test_what_is_no_judge(vidgen, config, weights) -> None:
    record("clip.vgs", np.zeros((5, 8, 8, 3), np.uint8))
    folder = Path(shutil.copytree(SHIPPED / "basic", "judge"))
    if config is not None:
        (folder / "config.json").write_text(config)
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    ran = vidgen("evaluate-world", "clip.vgs", "--ceiling", "0", "--judge", "judge")
    assert ran.code == 3, ran.err
    assert "judge" in ran.err


@pytest.mark.parametrize(
    "text, said",
    [
        ("[" * 100_000, "line 1: not JSON"),
        ('{"id": "a", "prompt": "a ball"}\n' * 2, "line 2: id `a` is that of line 1 already"),
        ('{"prompt": "a ball"}', "line 1: has no `id`"),
    ],
    ids=["deep", "twice", "no id"],
)
def test_rows_that_are_none(tmp_path, text, said) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_rows(str(path))


def test_rows_are_parted_by_line_feeds_alone(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "a", "prompt": "a\u2028ball"}\n', encoding="utf-8-sig")
    assert read_rows(str(path))["a"].prompt == "a\u2028ball"


def test_a_clip_belongs_to_the_row_of_its_id_with_or_without_a_seed() -> None:
    rows = {name: row_of("a ball", None, "") for name in ("ball", "cube-s3")}
    assert row_id("ball", rows) == "ball"
    assert row_id("ball-s12", rows) == "ball"
    assert row_id("cube-s3", rows) == "cube-s3"
    assert row_id("ball-sand", rows) is None


def test_relations_are_left_out_where_an_object_of_theirs_is() -> None:
    said = "a red ball and a blue cube, the red ball is to the left of the blue cube"
    assert row_of(said, None, "").asked.relations == ((0, "to the left of", 1),)
    assert row_of(said, {"shape": "ball"}, "").asked.relations == ()


def test_what_no_scene_has_is_not_judged_and_told(vidgen) -> None:
    assert row_of("two red balls on red ground", None, "").beyond == (
        "several balls", "red ground",
    )  # fmt: skip
    assert row_of("two red balls", {"shape": "ball"}, "").beyond == ()
    path = record("two.vgs", np.zeros((5, 40, 64, 3), np.uint8), prompt="two red balls")
    ran = vidgen("evaluate-world", path, "--ceiling", "0")
    assert ran.code == 0
    assert "no scene has, and that is not judged: several balls" in ran.err


def test_logs_of_anybody_name_no_model() -> None:
    good = {"tool": "sample-keyframes", "model": {"name": "world", "sha256": "ab"}}
    odd = [{"tool": "sample-keyframes", "model": m} for m in ("world", {"name": 1}, None, [])]
    assert list(_samplers([*odd, good, {"tool": "decode"}])) == [("world", "ab")]
