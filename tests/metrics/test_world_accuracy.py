"""What is counted as right, on verdicts made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vidgen.metrics.judge import LEVELS, Seen, Verdict
from vidgen.metrics.world_accuracy import (
    NOTHING,
    Asked,
    confusion,
    mark,
    shuffled,
    spread,
    tally,
)
from vidgen.world.captions import caption
from vidgen.world.reading import read_prompt
from vidgen.world.scene import sample_scene


def seen(x: float = 0.5, log_depth: float = 1.0, **factors: str) -> Seen:
    """An object of these factors, seen for certain."""
    odds = {
        name: {v: float(v == factors[name]) for v in LEVELS["full"][name]}
        for name in ("shape", "color", "motion")
    }
    # Halfway it is elsewhere: relations are about the start.
    return Seen(1 - x, 0.5, x, log_depth, 0.9, odds)


def verdict(*objects: Seen, ground: str = "sand", camera: str = "still") -> Verdict:
    return Verdict({ground: 1.0}, {camera: 1.0}, objects)


BALL = {"shape": "ball", "color": "red", "motion": "bounces"}
CUBE = {"shape": "cube", "color": "blue", "motion": "spins"}


def test_everything_right() -> None:
    one = mark(verdict(seen(**BALL)), Asked((BALL,), "sand", "still"), counted=True)
    assert one.everything and not one.wrong
    assert {name for name, _, _ in one.pairs} == {
        "shape", "color", "motion", "ground", "camera", "count",
    }  # fmt: skip


def test_nothing_is_asked_of_what_was_not_said() -> None:
    one = mark(verdict(seen(**BALL)), Asked(({"color": "red"},)), counted=False)
    assert one.pairs == (("color", "red", "red"),)


@pytest.mark.parametrize("name", ["shape", "color", "motion"])
def test_one_wrong_factor_spoils_all_but_not_the_others(name: str) -> None:
    one = mark(verdict(seen(**{**BALL, name: CUBE[name]})), Asked((BALL,)), counted=False)
    assert one.wrong == [(name, BALL[name], CUBE[name])]
    assert not one.everything


def test_objects_are_paired_whatever_their_order() -> None:
    one = mark(verdict(seen(**CUBE), seen(**BALL)), Asked((BALL, CUBE)), counted=True)
    assert one.everything


def test_a_missing_object_is_nothing_and_the_count_is_wrong() -> None:
    one = mark(verdict(seen(**BALL)), Asked((BALL, CUBE)), counted=True)
    assert ("shape", "cube", NOTHING) in one.wrong
    assert ("count", "2", "1") in one.wrong


def test_relations_follow_places() -> None:
    asked = Asked((BALL, CUBE), relations=((0, "to the left of", 1), (1, "behind", 0)))
    good = verdict(seen(0.2, 1.0, **BALL), seen(0.7, 1.5, **CUBE))
    bad = verdict(seen(0.7, 1.5, **BALL), seen(0.2, 1.0, **CUBE))
    assert mark(good, asked, counted=True).everything
    assert [name for name, _, _ in mark(bad, asked, counted=True).wrong] == ["relation"] * 2


def test_factors_of_a_missing_object_are_not_asked() -> None:
    asked = Asked.of_factors({**BALL, "shape_2": "none", "color_2": "none", "motion_2": "none"})
    assert asked.objects == (BALL,)


def test_beyond_names_what_a_level_lacks() -> None:
    assert Asked(({"shape": "cone"},)).beyond("basic") == ["shape cone"]
    assert Asked((BALL,), "sand", "still").beyond("basic") == []


def test_tally_counts_and_confusion_names() -> None:
    asked = Asked((BALL,))
    marks = [
        mark(verdict(seen(**BALL)), asked, counted=False),
        mark(verdict(seen(**{**BALL, "color": "blue"})), asked, counted=False),
    ]
    shares = tally(marks)
    assert (shares["color"]["right"], shares["color"]["of"]) == (1, 2)
    assert shares["all"]["share"] == 0.5
    assert confusion(marks)["color"] == {"red": {"blue": 1, "red": 1}}


def test_shuffled_prompts_score_at_chance() -> None:
    """Perfect verdicts of evenly spread colors: against each other's prompts, one in eight."""
    colors = list(LEVELS["full"]["color"])
    asked = [Asked(({"color": colors[i % 8]},)) for i in range(800)]
    verdicts = [verdict(seen(**{**BALL, "color": colors[i % 8]})) for i in range(800)]
    floor = shuffled(verdicts, asked, counted=False, rounds=799)
    assert floor is not None
    assert floor["color"]["share"] == pytest.approx(99 / 799)


def test_no_clip_meets_its_own_prompt_when_shuffled() -> None:
    asked = [Asked((BALL,)), Asked((CUBE,))]
    floor = shuffled([verdict(seen(**BALL)), verdict(seen(**CUBE))], asked, counted=False)
    assert floor is not None and floor["all"]["right"] == 0
    assert shuffled([verdict(seen(**BALL))], asked[:1], counted=False) is None


def test_the_floor_of_prompts_with_several_samples_is_that_of_other_prompts() -> None:
    """Forty prompts of eight colors, eight samples of each in a row: chance is about one in eight,
    though seven of eight neighbors are of the same prompt."""
    colors = [LEVELS["full"]["color"][(i // 8) % 8] for i in range(320)]
    floor = shuffled(
        [verdict(seen(**{**BALL, "color": color})) for color in colors],
        [Asked(({"color": color},)) for color in colors],
        counted=False,
    )
    assert floor is not None
    assert floor["color"]["share"] == pytest.approx(39 / 319, abs=0.03)


def test_what_asks_for_nothing_is_neither_right_nor_wrong() -> None:
    marks = [mark(verdict(seen(**BALL)), Asked(), counted=True)]
    assert tally(marks) == {}
    marks.append(mark(verdict(seen(**BALL)), Asked((CUBE,)), counted=True))
    assert (tally(marks)["all"]["right"], tally(marks)["all"]["of"]) == (0, 1)


def test_objects_are_counted_only_where_some_are_asked_for() -> None:
    one = mark(verdict(seen(**BALL)), Asked((), "sand"), counted=True)
    assert one.pairs == (("ground", "sand", "sand"),)


def test_spread_counts_places_of_prompts_with_several_clips() -> None:
    found = spread(["a", "a", "a", "b"], [verdict(seen(x, **BALL)) for x in (0.1, 0.1, 0.9, 0.5)])
    assert found == {"prompts": 1, "clips": 3, "places": 2, "share": pytest.approx(2 / 3)}


def test_a_scene_asks_what_its_canonical_caption_says() -> None:
    for seed in range(40):
        scene = sample_scene(seed, level="full", num_events=1)
        said = read_prompt(caption(scene))
        asked = Asked.of_scene(scene)
        assert asked.relations == said.relations
        assert asked == replace(Asked.of_factors(said.factors()), relations=said.relations)
