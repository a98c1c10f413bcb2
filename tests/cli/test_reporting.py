"""What evaluations do with their reports: table, JSON, files, gates, and `vidgen diff` of two.

`measure` is an evaluation whose scores are given.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from json_schema import faults

from vidgen.cli import app
from vidgen.cli.console import Console
from vidgen.cli.options import option
from vidgen.cli.page import Page
from vidgen.cli.report_text import score_table, shown
from vidgen.cli.reporting import REPORT_SCHEMA, Reporting
from vidgen.cli.schema import all_schemas
from vidgen.errors import Exit
from vidgen.metrics.report import Report, Score

PAGE = Page(name="measure", summary="made up", description="For tests.", examples=[])
SCHEMAS = {"vidgen.report/1": REPORT_SCHEMA}
NAMES = ("fvd", "psnr", "drift")
SCORES = {
    "fvd": Score(123.456, 118.0, 130.25, "lower", "", 256),
    "psnr": Score(31.7, None, None, "higher", "dB", 4096),
    "drift": Score(0.00123),
}
COMPUTED: list[str] = []  # what `measure` got as far as computing


def measure(
    console: Console,
    reporting: Reporting,
    fvd: Annotated[float, option("--fvd", help="the score")] = 123.456,
    frames: Annotated[int, option("--frames", help="a setting")] = 16,
) -> Exit:
    settings = {"num_frames": frames}
    reporting.check(NAMES, tool="measure", settings=settings)
    COMPUTED.append("scores")
    scores = SCORES | {"fvd": Score(fvd, fvd - 5, fvd + 5, "lower", "", 256)}
    return reporting.finish(Report("measure", settings, [], scores), console)


@pytest.fixture
def measured(vidgen, monkeypatch):
    """`vidgen measure WORDS`"""
    monkeypatch.setitem(app.COMMANDS, "measure", ("measure", PAGE.summary))
    monkeypatch.setitem(sys.modules, "vidgen.cli.measure", sys.modules[__name__])
    COMPUTED.clear()
    return lambda *words: vidgen("measure", *words)


# --- table and JSON -------------------------------------------------------------------------------


def test_the_table_is_aligned_and_narrow() -> None:
    assert score_table(Report("measure", {}, [], SCORES)) == (
        "          value     95 % interval     n\n"
        "fvd ↓     123.5       118 … 130.2   256\n"
        "psnr ↑     31.7 dB                 4096\n"
        "drift   0.00123                       0\n"
    )  # fmt: skip
    assert score_table(Report("measure", {}, [], {"a": Score(1.0, n=3)})) == (
        "   value  n\na      1  3\n"
    )
    assert score_table(Report("measure", {}, [], {"a\x1b": Score(1.0)})).isprintable() is False
    assert "\x1b" not in score_table(Report("measure", {}, [], {"a\x1b": Score(1.0)}))


@pytest.mark.parametrize(
    ("x", "words"),
    [(0.0, "0"), (1.0, "1"), (0.12345, "0.1235"), (31.715, "31.71"), (12345.6, "12346"),
     (100.0, "100"), (-0.5, "-0.5"), (9.9999, "10"), (1.5e-7, "1.5e-07"), (2e7, "2e+07"),
     (float("inf"), "inf"), (float("nan"), "nan")],
)  # fmt: skip
def test_numbers_have_four_digits(x: float, words: str) -> None:
    assert shown(x) == words


def test_json_and_file_follow_the_schema(measured) -> None:
    ran = measured("--json", "--report", "r.json", "--fvd", "inf")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.text)
    assert faults(found, REPORT_SCHEMA) == []
    assert found["scores"]["fvd"]["value"] == "inf"
    assert json.loads(Path("r.json").read_text(encoding="utf-8")) == found
    assert all_schemas()["vidgen.report/1"] == REPORT_SCHEMA
    found["scores"]["fvd"]["value"] = "much"
    del found["scores"]["psnr"]["n"]
    assert len(faults(found, REPORT_SCHEMA)) == 2


def test_the_same_report_is_the_same_bytes(measured) -> None:
    files = [("a.json", "a.html"), ("b.json", "b.html")]
    outs = [measured("--report", r, "--html", h).out for r, h in files]
    assert outs[0] == outs[1]
    for a, b in zip(*files, strict=True):
        assert Path(a).read_bytes() == Path(b).read_bytes()


# --- gates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "missed"),
    [
        (["--max", "fvd=123.456", "--min", "psnr=31.7", "--min", "fvd=0"], None),
        (["--max", "fvd=120"], "fvd is 123.5 (118.5 … 128.5), more than the 120 of --max"),
        (["--min", "psnr=32"], "psnr is 31.7 dB, less than the 32 of --min"),
        (["--max", "fvd=1", "--min", "psnr=40"],
         "2 thresholds were missed\n"
         "  psnr is 31.7 dB, less than the 40 of --min\n"
         "  fvd is 123.5 (118.5 … 128.5), more than the 1 of --max"),
        (["--fvd", "inf", "--max", "fvd=120"],
         "fvd is inf (inf … inf), more than the 120 of --max"),
    ],
)  # fmt: skip
def test_bounds(measured, words: list[str], missed: str | None) -> None:
    ran = measured(*words, "--report", "r.json")
    assert "psnr ↑" in ran.text
    assert ran.code == (4 if missed else 0)
    held = (
        "psnr is 31.7 dB, at least the 31.7 of --min; fvd is 123.5 (118.5 … 128.5), at least the"
        " 0 of --min; fvd is 123.5 (118.5 … 128.5), at most the 123.5 of --max"
    )
    assert ran.err == f"vidgen measure: {missed or held}\n"
    assert Path("r.json").exists()  # the report comes all the same


def finish(report: Report, /, **options: Any) -> str | None:
    """What the gates say."""
    from vidgen.errors import ThresholdError

    try:
        Reporting(**options).finish(report, Console(quiet=True))
    except ThresholdError as error:
        return error.what
    return None


def test_a_nan_passes_no_bound(capsys, tmp_path: Path) -> None:
    def report(value: float) -> Report:
        return Report("measure", {}, [], {"fvd": Score(value, better="lower")})

    nan = report(float("nan"))
    assert finish(nan, max=["fvd=9"]) == "fvd is nan, not at most the 9 of --max"
    assert finish(nan, min=["fvd=9"]) == "fvd is nan, not at least the 9 of --min"
    assert finish(nan) is None
    for value in (3.0, float("nan")):
        (tmp_path / "base.json").write_text(report(value).to_json())
        assert finish(nan, baseline=str(tmp_path / "base.json")) == "fvd is nan"


def test_baselines(measured) -> None:
    assert measured("--report", "base.json").code == 0
    for words in (["--fvd", "123.456"], ["--fvd", "110"], ["--fvd", "133.4"],
                  ["--fvd", "135", "--tolerance", "11.6"]):  # fmt: skip
        ran = measured("--baseline", "base.json", *words)
        assert ran.code == 0
        assert ran.err == "vidgen measure: no score is worse than in base.json\n"
    ran = measured("--baseline", "base.json", "--fvd", "133.5")
    assert ran.code == 4
    assert ran.err == (
        "vidgen measure: fvd is worse than in base.json: 123.5 (118.5 … 128.5) → "
        "133.5 (128.5 … 138.5), the intervals are apart\n"
    )
    ran = measured("--baseline", "base.json", "--fvd", "135", "--tolerance", "11.5", "--json")
    assert ran.code == 4
    assert json.loads(ran.err.splitlines()[1])["code"] == 4
    assert json.loads(ran.text)["scores"]["fvd"]["value"] == 135


def test_a_baseline_may_be_written_anew(measured) -> None:
    assert measured("--report", "base.json").code == 0
    words = ["--baseline", "base.json", "--report", "base.json"]
    assert measured(*words).code == 2
    assert measured(*words, "-f", "--fvd", "200").code == 4  # held to the old one
    assert Report.read("base.json").scores["fvd"].value == 200


def test_a_score_that_is_gone_fails_a_baseline(tmp_path: Path, capsys) -> None:
    path = tmp_path / "base.json"
    path.write_text(Report("measure", {}, [], SCORES).to_json())
    rest = {k: v for k, v in SCORES.items() if k != "fvd"}
    said = finish(Report("measure", {}, [], rest), baseline=str(path))
    assert said == f"fvd is in {path} and not in this report"
    rest = {k: v for k, v in SCORES.items() if k != "drift"}  # which has no better
    assert finish(Report("measure", {}, [], rest), baseline=str(path)) is None


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["--max", "fdv=3"], 2, "--max fdv=3: there is no score `fdv` here"),
        (["--max", "fdv=3"], 2, "next: --max fvd=3\n"),
        (["--max", "taste=3"], 2, "why:  scores: fvd, psnr, drift"),
        (["--max", "fvd=abc"], 2, "--max fvd=abc: abc is no number"),
        (["--min", "psnr="], 2, "--min psnr=: nothing is no number"),
        (["--max", "fvd"], 2, "--max fvd: is not NAME=X"),
        (["--min", "fvd=nan"], 2, "--min fvd=nan: nan is no number"),
        (["--min", "fvd=three"], 2, "three is no number"),
        (["--tolerance", "3"], 2, "--tolerance says how far from a --baseline"),
        (["--tolerance", "-3", "--baseline", "base.json"], 2, "at least 0"),
        (["--baseline", "none.json"], 3, "none.json: cannot be read"),
        (["--baseline", "text.json"], 3, "text.json: is not JSON"),
        (["--baseline", "odd.json"], 3, "no score that could get worse"),
        (["--baseline", "tool.json"], 3, "tool.json: is a report of evaluate-fvd, not of measure"),
        (["--baseline", "base.json", "--frames", "17"], 3, "num_frames: 16 and 17"),
        (["--report", "-"], 2, "-: is not one file"),
        (["--html", "{id}.html"], 2, "is not one file"),
        (["--html", "nowhere/r.html"], 2, "there is no folder nowhere"),
        (["--html", "base.json"], 2, "base.json: is there already"),
        (["--html", "a", "--report", "./a"], 2, "is named twice, by --report and --html"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_the_work(
    measured, words: list[str], code: int, what: str
) -> None:
    assert measured("--report", "base.json").code == 0
    COMPUTED.clear()
    Path("text.json").write_text("fvd=3")
    base = Report.read("base.json")
    odd = Report("measure", base.settings, [], {"drift": SCORES["drift"]})
    Path("odd.json").write_text(odd.to_json())
    Path("tool.json").write_text(Report("evaluate-fvd", {}, [], base.scores).to_json())
    ran = measured(*words)
    assert (ran.code, ran.out, COMPUTED) == (code, b"", [])
    assert what in ran.err


def test_a_bound_on_a_score_that_did_not_come_is_missed_when_all_is_written(
    capsys, tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    report = Report("measure", {}, [], {"fvd": Score(3.0)})
    said = finish(report, min=["psnr=3", "fvd=4"], report=str(path))
    assert (
        said
        == "psnr could not be measured, and --min asks for 3; fvd is 3, less than the 4 of --min"
    )
    assert Report.read(path) == report and "fvd" in capsys.readouterr().out


# --- vidgen diff ----------------------------------------------------------------------------------


def write(path: str, settings: dict[str, Any] | None = None, **scores: Score) -> str:
    Path(path).write_text(Report("evaluate-fvd", settings or {}, [], scores).to_json())
    return path


def test_diff_says_better_worse_or_within_noise(vidgen) -> None:
    a = write("a.json", fvd=Score(120, 100, 140, "lower"), kvd=Score(0.5, better="lower", n=8),
              psnr=Score(30, better="higher", unit="dB"), old=Score(1))  # fmt: skip
    b = write("b.json", fvd=Score(110, 90, 130, "lower"), kvd=Score(0.75, better="lower", n=9),
              psnr=Score(31, better="higher", unit="dB"), new=Score(2))  # fmt: skip
    ran = vidgen("diff", a, b)
    assert ran.text.splitlines() == [
        "fvd: within noise, 120 (100 … 140) → 110 (90 … 130), the intervals overlap",
        "kvd: worse, 0.5 → 0.75, n 8 and 9, no interval and no tolerance",
        "psnr: better, 30 dB → 31 dB, no interval and no tolerance",
        "old: only in A, 1",
        "new: only in B, 2",
    ]
    assert (ran.code, ran.err) == (1, "")
    found = json.loads(vidgen("diff", "--json", "--tolerance", "0.5", a, b).text)
    assert faults(found, all_schemas()["vidgen.diff/1"]) == []
    assert found["equal"] is False
    assert [(s["name"], s["verdict"], s["rule"]) for s in found["scores"]] == [
        ("fvd", "within noise", "intervals"),
        ("kvd", "within noise", "tolerance"),
        ("psnr", "better", "tolerance"),
        ("old", "only in a", None),
        ("new", "only in b", None),
    ]


def by_clip(path: str, values: list[float], low: float, high: float) -> str:
    mean = sum(values) / len(values)
    score = Score(mean, low, high, "higher", "dB", len(values))
    items = [{"id": f"c{i}", "psnr": x} for i, x in enumerate(values)]
    Path(path).write_text(
        Report("measure", {"num_frames": 16}, [], {"psnr": score}, [], items).to_json()
    )
    return path


def test_of_the_same_clips_a_small_difference_is_seen(vidgen, measured) -> None:
    values = [20.0, 25, 30, 35, 40, 28]
    a = by_clip("a.json", values, 25, 35)
    b = by_clip(
        "b.json",
        [x - d for x, d in zip(values, (0.1, 0.2, 0.1, 0.2, 0.1, 0.2), strict=True)],
        25,
        35,
    )
    ran = vidgen("diff", a, b)
    assert ran.code == 1
    assert ran.text == (
        "psnr: worse, 29.67 dB (25 … 35) → 29.52 dB (25 … 35),"
        " clip by clip -0.15 dB (-0.2075 … -0.09253)\n"
    )
    found = json.loads(vidgen("diff", "--json", a, b).text)
    assert faults(found, all_schemas()["vidgen.diff/1"]) == []
    assert found["scores"][0]["rule"] == "pairs" and found["scores"][0]["change"]["n"] == 6
    assert vidgen("diff", "--tolerance", "0.2", a, b).code == 0
    said = finish(Report.read(b), baseline=a)
    assert said is not None and "psnr is worse than in a.json" in said and "clip by clip" in said


def test_diff_of_reports_that_agree_is_0(vidgen) -> None:
    a = write("a.json", fvd=Score(float("inf"), better="lower"))
    ran = vidgen("diff", "-v", a, write("b", fvd=Score(float("inf"), better="lower")))
    assert (ran.code, ran.text) == (0, "fvd: equal, inf\n")
    assert ran.err == "vidgen diff: a.json and b: 1 score within noise\n"
    b = write("b.json", fvd=Score(5.0, better="lower"))
    assert json.loads(vidgen("diff", "--json", a, b).text)["scores"][0]["a"]["value"] == "inf"


def test_diff_refuses_what_can_not_be_compared(vidgen) -> None:
    a = write("a.json", {"num_frames": 16}, fvd=Score(1.0))
    b = write("b.json", {"num_frames": 17}, fvd=Score(1.0))
    ran = vidgen("diff", a, b)
    assert (ran.code, ran.out) == (3, b"")
    assert "a.json and b.json: reports of different settings" in ran.err
    assert "num_frames: 16 and 17" in ran.err
    Path("c.json").write_text('{"schema": "vidgen.evaluate-world/1"}')
    ran = vidgen("diff", a, "c.json")
    assert (ran.code, "c.json: is no vidgen.report/1" in ran.err) == (3, True)
    Path("c.vgs").write_bytes(b"x")
    assert vidgen("diff", a, "c.vgs").code == 2
    assert vidgen("diff", "--only-tensors", a, a).code == 2


def test_a_record_whose_header_is_as_long_as_a_brace_is_no_report(tmp_path: Path) -> None:
    from vidgen.cli.report_compare import is_json

    for length in (0x7B, 0x227B):  # "{" and '{"'
        (tmp_path / "a").write_bytes(length.to_bytes(8, "little") + b'{"x": 1}')
        assert not is_json(str(tmp_path / "a"))
    (tmp_path / "a").write_bytes(b' \n{"schema": 1}')
    assert is_json(str(tmp_path / "a"))
    assert not is_json(str(tmp_path / "none.json"))
