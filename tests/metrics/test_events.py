"""Events: order, errors in time and overlap in closed form, matching by brute force, and cuts."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from vidgen.metrics.events import Span, cuts, event_scores, histogram_steps, match, overlap
from vidgen.world.clips import clip_record
from vidgen.world.scene import TEST_SEEDS, sample_scene

REF = [Span(0, 2, "a ball bounces"), Span(2, 4, "it spins"), Span(4, 6, "it rests")]


def test_overlap() -> None:
    assert overlap(Span(0, 2), Span(1, 4)) == pytest.approx(1 / 4)
    assert overlap(Span(0, 1), Span(1, 2)) == 0
    assert overlap(Span(0, 3), Span(0, 3)) == 1


def test_events_that_are_right() -> None:
    found = event_scores(REF, [Span(s.start, s.end, s.text.upper()) for s in REF])
    assert (found.order, found.iou, found.found, found.right, found.boundary) == (1, 1, 1, 1, 0)


def test_events_that_are_late_and_out_of_order() -> None:
    late = [Span(s.start + 0.5, s.end + 0.25, s.text) for s in REF]
    found = event_scores(REF, late)
    assert (found.order, found.start, found.end) == (1, 0.5, 0.25)
    assert found.boundary == pytest.approx(0.375)
    assert found.iou == pytest.approx(1.5 / 2.25)
    swapped = [Span(2, 4, REF[0].text), Span(0, 2, REF[1].text), REF[2]]
    assert event_scores(REF, swapped).order == pytest.approx(2 / 3)
    back = [Span(6 - s.end, 6 - s.start, s.text) for s in REF]
    assert event_scores(REF, back).order == 0


def test_events_that_are_missing_or_not_asked_for() -> None:
    found = event_scores(REF, [REF[0], Span(2, 4, "it falls")])
    assert found.matched == ((0, 0),)
    assert (found.order, found.found, found.right) == (0, 1 / 3, 1 / 2)
    assert found.iou == pytest.approx(1 / 3)
    nothing = event_scores(REF, [])
    assert (nothing.order, nothing.iou, nothing.found, nothing.right) == (0, 0, 0, None)
    assert nothing.boundary is None
    assert event_scores(REF[:1], REF[:1]).order is None
    with pytest.raises(ValueError, match="no events"):
        event_scores([], REF)


def test_matching_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for _ in range(25):
        ref, found = ([Span(s, s + d) for s, d in rng.uniform(0.1, 3, (4, 2))] for _ in range(2))
        pairs = match(ref, found)
        best = max(
            (sum(v > 0 for v in values), sum(values))
            for order in permutations(range(4))
            for values in [[overlap(ref[i], found[j]) for i, j in enumerate(order)]]
        )
        values = [overlap(ref[i], found[j]) for i, j in pairs]
        assert (len(values), sum(values)) == pytest.approx(best)


def test_the_same_words_twice_are_matched_in_time() -> None:
    ref = [Span(0, 1, "hop"), Span(5, 6, "hop")]
    assert match(ref, [Span(5, 6, "hop"), Span(0, 1, "hop")]) == ((0, 1), (1, 0))


def test_bad_spans() -> None:
    for start, end in ((1, 1), (2, 1), (float("nan"), 1), (0, float("inf"))):
        with pytest.raises(ValueError):
            Span(start, end)


def test_histograms_differ_by_what_is_known() -> None:
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    half = black.copy()
    half[:2] = 255
    found = histogram_steps(np.stack([black, black, white, half]))
    assert found == pytest.approx([0, 1, 0.5])
    assert histogram_steps(np.stack([black, black + 1]))[0] < 0.07
    assert cuts(np.stack([black, white, white, half]), 0.6) == [1]


def test_cuts_between_rendered_clips_and_none_within() -> None:
    first, second = (
        clip_record(sample_scene(TEST_SEEDS.start + i, level="full"), num_frames=6).numpy("frames")
        for i in (0, 1)
    )
    assert cuts(first) == cuts(second) == []
    assert cuts(np.concatenate((first, second, first))) == [6, 12]
