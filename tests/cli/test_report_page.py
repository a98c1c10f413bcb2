"""The page of a report, as a parser of HTML sees it, and its plots against numpy."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vidgen.cli.report_page import MOST_CLIPS, MOST_FRAMES, MOST_HEIGHT, page
from vidgen.cli.report_plots import LEFT, RIGHT, WIDTH, Axis, bins, curves, histogram
from vidgen.metrics.report import Report, Score

VOID = {"meta", "img", "br", "link", "input"}
HOSTILE = '</td><script>alert("x")</script> & \'"\x1b[2J'
FINITE = st.floats(-9e299, 9e299)


class Page(HTMLParser):
    """Tags with their attributes, and the text; fails on tags that don't close in turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


def report(**changes: Any) -> Report:
    whole: dict[str, Any] = {
        "tool": "evaluate-quality",
        "settings": {"extractor": "world", "sampling": {"fps": None}},
        "inputs": [{"role": "fake", "name": "out", "clips": 3}, {"role": "real", "sha256": "ab"}],
        "scores": {"psnr": Score(31.0, 30.0, 32.0, "higher", "dB", 3), "odd": Score(math.inf)},
    }
    return Report(**whole | changes)


def clip(frames: int, height: int = 8, width: int = 12, value: int = 200) -> np.ndarray:
    return np.full((frames, height, width, 3), value, np.uint8)


def test_a_page_says_all_of_the_report() -> None:
    found = Page(page(report(warnings=["2 clips were left out"])))
    for words in ("evaluate-quality", "psnr ↑", "31", "30 … 32", "dB", "2 clips were left out",
                  "sampling.fps", "null", "extractor", "sha256", "inf"):  # fmt: skip
        assert words in found.text, words
    assert [a["title"] for a in found.all("span")] == ["higher is better"]
    found = Page(page(report(inputs=[{"sha256": "ab" * 32}])))
    assert found.all("span")[1]["title"] == "ab" * 32
    assert "abababababababab…" in found.text
    headings = re.findall(r"<h2>(.*?)</h2>", page(report()))
    assert headings == ["Scores", "Settings", "Inputs"]  # nothing is announced that isn't there


def test_nothing_is_loaded_and_nothing_runs() -> None:
    """Whatever names, ids and settings hold."""
    whole = report(
        tool=HOSTILE,
        settings={HOSTILE: HOSTILE},
        inputs=[{HOSTILE: HOSTILE}],
        scores={HOSTILE: Score(1.0, unit=HOSTILE)},
        warnings=[HOSTILE],
        items=[{"id": HOSTILE, HOSTILE: 1.0}, {"id": "b", HOSTILE: 2.0}],
        details={HOSTILE: {HOSTILE: [1, 2], "y": [1, 2]}, "other": HOSTILE},
    )
    html = page(whole, [(HOSTILE, clip(2), clip(2))])
    found = Page(html)
    assert {tag for tag, _ in found.tags} <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "section", "table", "tr",
        "th", "td", "span", "ul", "li", "div", "p", "figure", "figcaption", "img", "svg", "path",
        "rect", "line", "text", "polyline", "circle", "details", "summary", "pre",
    }  # fmt: skip
    for tag, attrs in found.tags:
        assert not [name for name in attrs if name.startswith("on")], tag
        assert "href" not in attrs
        if "src" in attrs:
            assert re.fullmatch(r"data:image/(gif|png);base64,[A-Za-z0-9+/]+=*", attrs["src"])
    assert "http" not in html.replace("http-equiv", "")
    assert "\x1b" not in html
    assert found.all("meta")[1]["content"].startswith("default-src 'none'")
    assert found.text.count("alert(") >= 10


# --- plots ----------------------------------------------------------------------------------------


@given(st.lists(FINITE, min_size=1, max_size=40))
def test_bins_are_numpys(values: list[float]) -> None:
    edges, counts = bins(values)
    assert sum(counts) == len(values)
    room = 1e-9 * (max(values) - min(values))
    assert edges[0] == min(values)
    assert abs(edges[-1] - max(values)) <= room
    if max(values) > min(values):
        assert len(counts) == min(30, math.ceil(math.sqrt(len(values))))
    theirs, _ = np.histogram(np.float64([0, 1, 1, 2, 9, 9, 9, 9, 3.5]), bins=3)
    assert bins([0, 1, 1, 2, 9, 9, 9, 9, 3.5])[1] == theirs.tolist()


@given(FINITE, FINITE)
def test_axes_have_round_ticks_within(a: float, b: float) -> None:
    axis = Axis.over([a, b], 0, 100)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 7
    room = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - room <= tick <= axis.high + room for tick in ticks)
    assert (axis(axis.low), axis(axis.high)) == (0, 100)


def svg(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def numbers(element: ElementTree.Element, *names: str) -> list[float]:
    return [float(element.attrib[name]) for name in names]


def test_bars_are_as_high_as_they_count() -> None:
    values = [0.0] * 4 + [5.0] * 2 + [10.0] * 10
    drawn = svg(histogram(values, "x", mark=5.0))
    bars = [numbers(r, "x", "y", "width", "height") for r in drawn.iter("rect")]
    assert [round(bar[3] / bars[0][3], 3) for bar in bars] == [1, 0.5, 2.5]
    assert all(bar[1] + bar[3] == pytest.approx(bars[0][1] + bars[0][3]) for bar in bars)
    (mark,) = drawn.iter("line")
    assert numbers(mark, "x1") == [(LEFT + WIDTH - RIGHT) / 2]
    assert len(list(svg(histogram([3.0], "x")).iter("rect"))) == 1
    assert list(svg(histogram([3.0, 4.0], "x", mark=math.nan)).iter("line")) == []


def test_curves_are_where_the_numbers_are_and_break_where_there_are_none() -> None:
    xs, ys = [100.0, 200.0, 400.0, 500.0], [3.0, 1.0, math.inf, 2.0]
    drawn = svg(curves("n", xs, {"fvd": ys}))
    points = [numbers(c, "cx", "cy") for c in drawn.iter("circle")]
    (x0, y0), (x1, y1), (x3, y3) = points
    assert (x1 - x0) / (x3 - x0) == pytest.approx(0.25, abs=1e-4)
    assert (y0 - y3) / (y0 - y1) == pytest.approx(0.5, abs=1e-4)
    assert y0 < y1  # more is higher up
    assert len(list(drawn.iter("polyline"))) == 2
    assert list(svg(curves("n", [math.nan, 1], {"y": [1, math.nan]})).iter("circle")) == []


def test_each_score_of_clips_has_a_histogram() -> None:
    items = [
        *({"id": f"clip-{i}", "psnr": float(i), "events": [1], "seen": True} for i in range(20)),
        {"id": "same", "psnr": math.inf},
        {"id": "none", "psnr": None},
    ]
    found = Page(page(report(items=items)))
    assert len(found.all("svg")) == 1
    assert "psnr, 20 clips; 1 infinite or not a number, not drawn; 1 without it;" in found.text
    assert "lowest: clip-0 0, clip-1 1, clip-2 2; highest: clip-19 19, clip-18 18" in found.text


def test_curves_are_found_in_details() -> None:
    details = {
        "bias": {"n": [1, 2, 3], "fvd": [3.0, math.nan, 1.0], "slope": 2.0},
        "by": {"angle": {"t": [0, 1], **{f"{i}": [i, i] for i in range(7)}}},
        "confusion": {"a": [[1, 2]], "b": [1]},
        "one": {"x": [1], "y": [2]},
        "words": {"x": ["a", "b"], "y": [1, 2]},
    }
    found = Page(page(report(details=details)))
    assert [a["aria-label"] for a in found.all("svg")] == [
        "fvd over n", "0, 1, 2, 3, 4, 5 over t", "6 over t",
    ]  # fmt: skip
    assert '"confusion"' in found.text  # as JSON


# --- clips ----------------------------------------------------------------------------------------


def pictures(html: str) -> list[Image.Image]:
    return [
        Image.open(io.BytesIO(base64.b64decode(img["src"].partition(",")[2])))
        for img in Page(html).all("img")
    ]


def test_clips_are_side_by_side_at_the_same_moments() -> None:
    ramp = np.arange(0, 240, 40, dtype=np.uint8)[:, None, None, None]
    left = np.broadcast_to(ramp, (6, 8, 12, 3))
    still = clip(1, 16, 24, value=90)
    (both,) = pictures(page(report(), [("a", left, still)]))
    assert (both.format, both.size, both.n_frames) == ("GIF", (24 + 4 + 24, 16), 6)  # type: ignore[attr-defined]
    for i in range(6):
        both.seek(i)
        frame = np.asarray(both.convert("RGB")).astype(int)
        assert abs(frame[8, 10] - 40 * i).max() <= 2
        assert abs(frame[8, 40] - 90).max() <= 2


def test_long_and_large_clips_are_cut_down_and_that_is_said() -> None:
    html = page(report(), [("a", clip(50, 2 * MOST_HEIGHT, 300), None)])
    (picture,) = pictures(html)
    assert picture.size == (150, MOST_HEIGHT)
    assert picture.n_frames <= MOST_FRAMES  # type: ignore[attr-defined]
    assert f"At most {MOST_FRAMES} frames of each" in html
    assert "a: 50 frames, 300 × 256" in Page(html).text
    (picture,) = pictures(page(report(), [("a", clip(1), clip(1))]))
    assert (picture.format, picture.size) == ("PNG", (28, 8))


def test_a_dozen_clips_are_taken_and_that_is_said() -> None:
    taken = []

    def many() -> Iterator[tuple[str, np.ndarray, None]]:
        for i in range(1000):
            taken.append(i)
            yield f"clip-{i}", clip(1), None

    html = page(report(), many())
    assert len(pictures(html)) == MOST_CLIPS == len(taken) - 1
    assert f"The first {MOST_CLIPS} clips; there are more." in html
    assert "there are more" not in page(report(), [("a", clip(1), None)])
