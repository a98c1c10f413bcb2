"""Captions: canonical form, only words that are known, nothing said that is not so."""

import re
from random import Random

import numpy as np
import pytest

from vidgen.world.captions import (
    caption,
    event_captions,
    grammar,
    listed,
    relations,
    unknown_words,
    words,
)
from vidgen.world.scene import labels, sample_scene
from vidgen.world.vocabulary import TABLES


def test_the_canonical_caption_names_everything():
    given = {"shape": "ball", "color": "red", "motion": "bounces", "ground": "sand"}
    scene = sample_scene(0, factors=given | {"camera": "pans left"})
    assert caption(scene) == "a red ball bounces on sand ground, the camera pans left"
    scene = sample_scene(0, factors={"shape": "cube", "color": "orange", "motion": "stays still",
                                     "ground": "grey", "camera": "still"})  # fmt: skip
    assert caption(scene) == "an orange cube stays still on grey ground, the camera is still"


def test_canonical_captions_of_several_objects_and_events():
    given = {"shape": "ball", "color": "red", "motion": "moves left"}
    given |= {"shape_2": "cube", "color_2": "blue", "motion_2": "spins"}
    given |= {"ground": "sand", "camera": "still"}
    two = sample_scene(1, level="full", factors=given)
    assert caption(two) == (
        "a red ball moves left and a blue cube spins, the red ball is to the left of the blue "
        "cube, on sand ground, the camera is still"
    )
    three = sample_scene(1, level="full", factors=given, num_objects=3)
    assert re.fullmatch(r"a red ball moves left, a blue cube spins and an? .+", caption(three))
    one = {name: value for name, value in given.items() if "_2" not in name}
    then = sample_scene(1, factors=one, events=[(0, 1, "bounces"), (1, 2, "spins")])
    assert caption(then).startswith("a red ball bounces, then spins on sand ground")
    assert event_captions(then) == [(0, 1, "a red ball bounces"), (1, 2, "a red ball spins")]
    assert listed(["a"]) == "a"


@pytest.mark.parametrize("level", ["basic", "full"])
def test_captions_contain_only_known_words(level):
    draw, known, used = Random(0), words(), set()
    for seed in range(1500):
        scene = sample_scene(seed, level=level)
        texts = [caption(scene), caption(scene, draw)]
        texts += [text for _, _, text in event_captions(scene, draw)]
        for text in texts:
            used |= set(re.findall(r"[^\s,.]+", text))
            assert text == " ".join(text.split()), text
            assert len(text.split()) < 60
    assert used <= known
    if level == "full":
        assert used == known  # nothing is promised that is never said


def test_worded_captions_say_what_is_so():
    """Whatever color, ground and camera a caption of one object names, the scene has."""
    draw = Random(1)
    for seed in range(400):
        scene = sample_scene(seed)
        text, is_so = caption(scene, draw), labels(scene)
        text = re.sub(r"\bcan (you|we)\b", "", text)  # no cylinder
        on_ground = re.search(r"\bon (?:the )?(\w+)", text)
        if on_ground:
            assert on_ground[1] in TABLES["ground"][is_so["ground"]].phrases
        for name, table in (("camera", TABLES["camera"]), ("shape", TABLES["shape"])):
            own = table[is_so[name]]
            for value, word in table.items():
                for phrase in word.phrases:
                    said = f"camera {phrase}" if name == "camera" else phrase
                    if value != is_so[name] and phrase not in own.phrases:
                        assert not re.search(rf"\b{said}\b", text), (text, said)


def test_wording_varies_and_repeats():
    scene = sample_scene(4)
    draw = Random(2)
    texts = {caption(scene, draw) for _ in range(200)}
    assert len(texts) > 100
    assert any(len(text.split()) < 6 for text in texts)  # parts are left out
    assert any(text.startswith(("on ", "the camera", "camera")) for text in texts)  # reordered
    for make in (Random, np.random.default_rng):
        assert caption(scene, make(7)) == caption(scene, make(7))


def test_relations_are_as_the_picture_shows():
    from vidgen.world.truth import truth

    for seed in range(12):
        scene = sample_scene(seed, level="full", num_objects=3)
        column, _, depth = truth(scene, [0.0], num_tracks=2).image_centers[:, 0].T
        for i, how, j in relations(scene):
            by_how = {
                "to the left of": column[i] < column[j], "to the right of": column[i] > column[j],
                "in front of": depth[i] < depth[j], "behind": depth[i] > depth[j],
            }  # fmt: skip
            assert by_how[how]


def test_an_event_names_the_color_it_starts_with():
    acts = [(0, 1, "changes colour"), (1, 2, "spins")]
    given = {"shape": "cone", "color": "red"}
    scene = sample_scene(0, level="full", num_objects=1, events=acts, factors=given)
    became = scene.objects[0].events[0].color
    assert became != "red"
    assert [text for _, _, text in event_captions(scene)] == [
        "a red cone changes colour",
        f"{'an' if became == 'orange' else 'a'} {became} cone spins",
    ]


def test_unknown_words_are_found():
    assert unknown_words("A red BALL bounces, on sand.") == []
    assert unknown_words("a dog and a ball, dog 2 jumps") == ["dog"]


def test_the_grammar_shows_every_phrase():
    text = grammar()
    for table in TABLES.values():
        for word in table.values():
            assert " / ".join(word.phrases) in text
