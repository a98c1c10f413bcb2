"""Windows: every frame is made once, and told what it touches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidgen.diffusion.windows import Window, between, onwards, prime_factors

sizes = st.integers(2, 9)


def followed(windows: list[Window], known: list[bool], size: int) -> list[bool]:
    """What is known after these windows; fails where one believes something else before."""
    known = list(known)
    for window in windows:
        here = slice(window.first, window.first + size)
        assert window.first >= 0 and window.first + size <= len(known)
        assert list(window.known) == known[here] and any(window.known)
        kept = window.known[: window.kept]
        assert window.new == kept.count(False) > 0
        known[window.first : window.first + window.kept] = [True] * window.kept
    return known


@given(have=st.integers(1, 20), more=st.integers(0, 30), size=sizes, data=st.data())
def test_a_clip_grows_to_its_length(have, more, size, data):
    overlap, wanted = data.draw(st.integers(1, size - 1)), max(have + more, size)
    windows = onwards(have, wanted, size, overlap)
    before = [i < have for i in range(wanted)]
    assert all(followed(windows, before, size))
    assert sum(w.new for w in windows) == wanted - have
    assert all(w.kept == size for w in windows)
    if have >= overlap:
        assert all(sum(w.known) >= overlap for w in windows)


@given(count=st.integers(2, 12), size=sizes, data=st.data())
def test_frames_between_know_both_neighbors(count, size, data):
    if size < 3:
        return
    factor = data.draw(st.integers(2, size - 1))
    total = factor * (count - 1) + 1
    if total < size:
        with pytest.raises(ValueError, match="in windows of"):
            between(count, factor, size)
        return
    windows = between(count, factor, size)
    assert all(followed(windows, [i % factor == 0 for i in range(total)], size))
    assert sum(w.new for w in windows) == total - count
    for w in windows:  # nothing that is kept lies behind the last frame that is known
        assert w.known[w.kept - 1]
        new = [w.first + i for i, known in enumerate(w.known[: w.kept]) if not known]
        assert all(i // factor * factor >= w.first for i in new)


def test_windows_by_hand():
    assert onwards(5, 9, 5, 1) == [Window(4, (True, False, False, False, False), 5)]
    first, last = onwards(5, 11, 5, 1)
    assert (first.first, last.first, last.known) == (4, 6, (True, True, True, False, False))
    assert onwards(5, 5, 5, 1) == []
    even = (True, False, True, False, True)
    assert between(5, 2, 5) == [Window(0, even, 5), Window(4, even, 5)]
    longer = between(5, 2, 8)  # of 9 frames: the eighth would not know the ninth
    assert longer[0] == Window(0, (True, False) * 4, 7)
    assert longer[1] == Window(1, (True,) * 6 + (False, True), 8)


@pytest.mark.parametrize("wrong", [(5, 9, 5, 0), (5, 9, 5, 5), (1, 3, 5, 1)])
def test_no_windows(wrong):
    with pytest.raises(ValueError, match="windows of 5"):
        onwards(*wrong)


@given(st.integers(1, 5000))
def test_prime_factors(n):
    factors, product = prime_factors(n), 1
    for p in factors:
        assert all(p % q for q in range(2, p))
        product *= p
    assert product == n and factors == sorted(factors)
