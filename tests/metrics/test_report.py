"""Reports: strict JSON there and back, what can't be one, and what two say of each other."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidgen.errors import InputError
from vidgen.metrics.report import (
    Report,
    Score,
    comparable,
    compare,
    compare_scores,
    number,
    plain,
    setting_differences,
)

WAYS = st.sampled_from([None, "lower", "higher"])


@st.composite
def scores(draw: st.DrawFn, *, better: Any = WAYS) -> Score:
    ends = draw(st.none() | st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)))
    low, high = sorted(ends) if ends else (None, None)
    return Score(draw(st.floats()), low, high, draw(better), draw(st.text(max_size=3)),
                 draw(st.integers(0, 10**9)))  # fmt: skip


def made(**changes: Any) -> Report:
    whole = Report(
        tool="evaluate-fvd",
        settings={"num_frames": 16, "sampling": {"fps": 8.0, "start": "first"}},
        inputs=[{"role": "real", "sha256": "a" * 64}, {"role": "fake", "sha256": "b" * 64}],
        scores={"fvd": Score(120.0, 100.0, 140.0, "lower", "", 256)},
        warnings=["3 clips were left out"],
        items=[{"id": "a", "psnr": 30.0}],
        details={"bias": {"n": [100, 200], "value": [130.0, 120.0]}},
    )
    return dataclasses.replace(whole, **changes)


def no_constant(text: str) -> float:
    raise AssertionError(f"{text} is no JSON")


def same(a: Any, b: Any) -> bool:
    return repr(a) == repr(b)  # a NaN is like a NaN


# --- JSON -----------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(max_size=4), scores(), max_size=3))
def test_scores_come_back_from_strict_json(some: dict[str, Score]) -> None:
    text = made(scores=some).to_json()
    again = Report.from_dict(json.loads(text, parse_constant=no_constant), "x")
    assert same(again, made(scores=some))
    assert again.to_json() == text


def test_what_is_not_finite_has_words() -> None:
    report = made(
        scores={"psnr": Score(math.inf, -math.inf, math.inf)},
        items=[{"psnr": math.nan}],
        details={"x": [1.5, -math.inf]},
    )
    found = json.loads(report.to_json(), parse_constant=no_constant)
    assert found["scores"]["psnr"]["value"] == "inf"
    assert found["scores"]["psnr"]["low"] == "-inf"
    assert found["items"] == [{"psnr": "nan"}]
    assert [number(x) for x in found["details"]["x"]] == [1.5, -math.inf]
    assert number("nan") is not None and math.isnan(number("nan"))
    assert [number(x) for x in (True, None, "1", "Infinity", "NaN", [])] == [None] * 6


def test_numpys_values_and_odd_names_are_plain() -> None:
    value = {"a": np.float32(0.5), "b": np.arange(3), "c": (1, 2), "d": Path("x"), "e": np.bool_(1),
             "f": np.array([np.nan]), 7: np.int64(3), "g": "clip-\udcff"}  # fmt: skip
    assert plain(value) == {
        "a": 0.5, "b": [0, 1, 2], "c": [1, 2], "d": "x", "e": True, "f": ["nan"], "7": 3,
        "g": "clip-\\udcff",
    }  # fmt: skip
    made(settings=value).to_json().encode()
    with pytest.raises(TypeError, match=r"report\.settings\.x\[1\]: JSON has no set"):
        made(settings={"x": [1, {2}]}).to_dict()


def changed(path: str, value: Any) -> dict[str, Any]:
    """A report's dict with another value at a place, or without it (`...`)."""
    whole = made().to_dict()
    *into, last = path.split(".")
    at: Any = whole
    for key in into:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if value is ...:
        del at[last]
    elif isinstance(at, list):
        at[int(last)] = value
    else:
        at[last] = value
    return whole


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("schema", "vidgen.report/2", "base.json: is no vidgen.report/1"),
        ("schema", ..., "base.json: is no vidgen.report/1"),
        ("tool", 3, "`tool`: is not text: 3"),
        ("tool", ..., "has no `tool`"),
        ("taste", 3, "has `taste`, which vidgen.report/1 doesn't know"),
        ("settings", [], "`settings`: is not an object"),
        ("inputs", {}, "`inputs`: is not a list"),
        ("inputs.1", "x", r"`inputs\[1\]`: is not an object: x"),
        ("warnings.0", None, r"`warnings\[0\]`: is not text"),
        ("items.0", [], r"`items\[0\]`: is not an object"),
        ("scores.fvd", 3.0, "score `fvd`: is not an object: 3.0"),
        ("scores.fvd.value", None, "score `fvd`: `value` is no number: None"),
        ("scores.fvd.value", True, "`value` is no number"),
        ("scores.fvd.value", "12", "`value` is no number"),
        ("scores.fvd.better", "up", "`better` is lower, higher or null, not 'up'"),
        ("scores.fvd.better", ..., "score `fvd`: has no `better`"),
        ("scores.fvd.beter", "lower", "has `beter`, which"),
        ("scores.fvd.low", None, "an interval has two ends"),
        ("scores.fvd.low", 150.0, "the interval 150 … 140 runs backwards"),
        ("scores.fvd.n", -1, "`n` is no count"),
        ("scores.fvd.n", 1.5, "`n` is no count"),
        ("scores.fvd.unit", None, "`unit`: is not text"),
    ],
)  # fmt: skip
def test_what_is_no_report_is_told_by_its_place(path: str, value: Any, words: str) -> None:
    Report.from_dict(made().to_dict(), "base.json")
    with pytest.raises(InputError, match=words) as caught:
        Report.from_dict(changed(path, value), "base.json")
    assert caught.value.what.startswith("base.json: ")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not JSON"),
        (b'{"schema": "vidgen.report/1", "x": NaN}', "NaN is no json|nan is no json"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "cannot be read"),
        (b"3", "is no vidgen.report/1"),
        (b'{"schema": "vidgen.evaluate-world/1"}', "is no vidgen.report/1"),
    ],
)
def test_files_that_hold_no_report(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        Report.read(path)
    assert any(w in " ".join(caught.value.lines()) for w in words.split("|"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Report.read(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("\ufeff" + made().to_json(), encoding="utf-8")
    assert Report.read(tmp_path / "b.json") == made()


# --- two reports ----------------------------------------------------------------------------------


def test_reports_of_other_settings_are_refused_with_both_values() -> None:
    comparable(
        made(), made(inputs=[{"role": "real", "sha256": "a" * 64}])
    )  # other fakes: the point
    other = {"num_frames": 17, "sampling": {"fps": 8, "layer": True}}
    with pytest.raises(InputError, match=r"x\.json and y\.json: reports of different") as caught:
        comparable(made(), made(settings=other), ("x.json", "y.json"))
    assert caught.value.why == (
        'num_frames: 16 and 17; sampling.start: "first" and none; sampling.layer: none and true'
    )
    with pytest.raises(InputError) as caught:
        comparable(made(), made(tool="evaluate-clip"))
    assert caught.value.why == "tool: evaluate-fvd and evaluate-clip"


def test_reports_against_other_real_clips_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        compare(made(), made(inputs=[{"role": "real", "sha256": "c" * 64}]))
    assert caught.value.why == "real clips: aaaaaaaaaaaa and cccccccccccc (sha256)"
    with pytest.raises(InputError):
        compare(made(), made(inputs=[]))


def test_settings_are_compared_as_json_has_them() -> None:
    assert setting_differences({"a": (1, 2), "b": math.nan}, {"a": [1, 2.0], "b": math.nan}) == []
    assert setting_differences({"a": 1}, {"a": True}) == ["a: 1 and true"]
    assert setting_differences({"a": {}}, {"a": None}) == ["a: {} and null"]
    assert setting_differences({"a": None}, {}) == ["a: null and none"]


@pytest.mark.parametrize(
    ("a", "b", "tolerance", "verdict", "rule"),
    [
        (Score(1.0, better="lower"), Score(1.0, better="lower"), 0, "within noise", "equal"),
        (Score(1.0, better="lower"), Score(2.0, better="lower"), 0, "worse", "values"),
        (Score(1.0, better="higher"), Score(2.0, better="higher"), 0, "better", "values"),
        (Score(1.0, better="higher"), Score(2.0, better="higher"), 0.5, "better", "tolerance"),
        (Score(1.0, better="lower"), Score(1.5, better="lower"), 0.5, "within noise", "tolerance"),
        (Score(1.0), Score(2.0), 0, "differs", "values"),
        (Score(1.0, better="lower"), Score(2.0, better="higher"), 0, "differs", "values"),
        # intervals: touching ones overlap; a score without one is its value alone
        (Score(1, 0, 2, "lower"), Score(3, 2, 4, "lower"), 0, "within noise", "intervals"),
        (Score(1, 0, 2, "lower"), Score(3, 2.1, 4, "lower"), 0, "worse", "intervals"),
        (Score(1, 0, 2, "lower"), Score(3, 2.1, 4, "lower"), 2, "within noise", "tolerance"),
        (Score(1, 0, 2, "lower"), Score(2, better="lower"), 0, "within noise", "intervals"),
        (Score(1, better="higher"), Score(3, 2, 4, "higher"), 0, "better", "intervals"),
        (Score(1, 0, math.nan, "higher"), Score(3, 2, 4, "higher"), 0, "better", "intervals"),
        # what is not finite
        (Score(math.inf, better="higher"), Score(math.inf, better="higher"), 1, "within noise",
         "equal"),
        (Score(math.inf, better="higher"), Score(40.0, better="higher"), 1, "worse", "tolerance"),
        (Score(1, 0, 2, "lower"), Score(math.nan, 0, 2, "lower"), 9, "worse", "tolerance"),
        (Score(math.nan, better="lower"), Score(1.0, better="lower"), 0, "better", "values"),
        (Score(math.nan), Score(math.nan), 0, "within noise", "equal"),
        (Score(1.0), None, 0, "only in a", None),
        (None, Score(1.0), 0, "only in b", None),
    ],
)  # fmt: skip
def test_verdicts(
    a: Score | None, b: Score | None, tolerance: float, verdict: str, rule: str | None
) -> None:
    found = compare_scores("x", a, b, tolerance)
    assert (found.verdict, found.rule) == (verdict, rule)


@given(st.data(), st.sampled_from(["lower", "higher"]), st.floats(0, 1e6))
def test_what_is_better_one_way_is_worse_the_other(
    data: st.DataObject, way: str, tolerance: float
) -> None:
    a, b = (data.draw(scores(better=st.just(way))) for _ in range(2))
    there, back = compare_scores("x", a, b, tolerance), compare_scores("x", b, a, tolerance)
    turned = {"better": "worse", "worse": "better", "within noise": "within noise"}
    assert back.verdict == turned[there.verdict]
    assert back.rule == there.rule
    assert compare_scores("x", a, a).verdict == "within noise"


def test_scores_stay_in_order() -> None:
    a = made(scores={"b": Score(1.0), "a": Score(1.0)})
    b = made(scores={"c": Score(1.0), "a": Score(1.0)})
    assert [(d.name, d.verdict) for d in compare(a, b)] == [
        ("b", "only in a"), ("a", "within noise"), ("c", "only in b"),
    ]  # fmt: skip


# --- the same clips -------------------------------------------------------------------------------


def of_clips(values: dict[str, float], **changes: Any) -> Report:
    score = Score(sum(values.values()) / len(values), 0.0, 100.0, "higher", "dB", len(values))
    items = [{"id": id, "psnr": x} for id, x in values.items()]
    return made(**{"scores": {"psnr": score}, "items": items} | changes)


BEFORE = {f"c{i}": 20.0 + 3 * i for i in range(8)}


def rule_of(a: Report, b: Report) -> tuple[str, str | None]:
    (one,) = compare(a, b)
    return one.verdict, one.rule


def test_differences_of_the_same_clips_are_looked_at_one_by_one() -> None:
    noise = (0.1, -0.1, 0.2, -0.2, 0.1, -0.1, 0.05, -0.05)
    for shift, verdict in ((0.5, "better"), (-0.5, "worse"), (0.01, "within noise")):
        after = {id: x + shift + e for (id, x), e in zip(BEFORE.items(), noise, strict=True)}
        back = dict(reversed(after.items()))  # the order of the clips doesn't count
        assert rule_of(of_clips(BEFORE), of_clips(back)) == (verdict, "pairs")


def test_what_is_not_the_same_clips_or_not_their_mean_goes_by_the_intervals() -> None:
    after = {id: x + 0.5 for id, x in BEFORE.items()}
    a, b = of_clips(BEFORE), of_clips(after)
    assert rule_of(a, b) == ("better", "pairs")
    others = {f"d{id}": x for id, x in after.items()}
    fewer = dict(list(after.items())[:7])
    odd = after | {"c0": math.inf}
    pooled = {"psnr": dataclasses.replace(b.scores["psnr"], value=24.0)}
    twice = [*b.items[:-1], b.items[0]]
    for other in (of_clips(others), of_clips(fewer), of_clips(after, scores=pooled),
                  of_clips(odd, scores=b.scores), of_clips(after, items=twice)):  # fmt: skip
        assert rule_of(a, other) == ("within noise", "intervals")
    few = BEFORE | {id: x + 9 for id, x in list(BEFORE.items())[:5]}
    assert rule_of(a, of_clips(few)) == ("within noise", "intervals")  # five differ: chance
    assert rule_of(a, of_clips(few | {"c5": 99.0}))[1] == "pairs"
