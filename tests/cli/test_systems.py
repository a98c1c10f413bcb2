"""`vidgen systems`: the table, one system, and marks that only evidence can set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vidgen import systems
from vidgen.cli.systems import SCHEMAS
from vidgen.systems import MARKS, SYSTEMS

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def evidence(tmp_path, monkeypatch):
    """A folder of evidence in which only `vstar` has something to show."""
    folder = tmp_path / "evidence"
    folder.mkdir()
    proof = {"faithful": "tests/systems/test_vstar.py::test_bias", "claim": "reports/vstar.json"}
    (folder / "vstar.json").write_text(json.dumps(proof))
    monkeypatch.setattr(systems, "EVIDENCE", folder)


def test_the_table_has_a_line_for_each_system(vidgen, evidence) -> None:
    ran = vidgen("systems")
    header, *lines = ran.text.splitlines()
    assert (ran.code, ran.err) == (0, "")
    assert header.split() == ["system", "paper", "arXiv", "file", "marks", "roles"]
    assert [line.split()[0] for line in lines[: len(SYSTEMS)]] == list(SYSTEMS)
    assert all(line == line.rstrip() for line in lines)


def test_marks_are_letters_and_come_from_evidence_alone(vidgen, evidence) -> None:
    lines = {line.split()[0]: line for line in vidgen("systems").text.splitlines() if line}
    assert " -f-c- " in lines["vstar"]
    assert " ----- " in lines["hpdm"]


def test_what_stands_behind_each_mark_is_there() -> None:
    """And a claim that counts did reproduce; the report on the shipped model gives no verdict."""
    for name, entry in SYSTEMS.items():
        for mark, path in entry.marks().items():
            assert path is None or (ROOT / path).is_file(), (name, mark, path)
        if claim := entry.marks()["claim"]:
            assert json.loads((ROOT / claim).read_text()).get("verdict") in (None, "reproduced")


def test_reports_are_all_there_are_with_the_verdicts_that_they_have(vidgen) -> None:
    results = ROOT / "benchmarks" / "results"
    for name, entry in SYSTEMS.items():
        found = {
            str(path.relative_to(ROOT)): json.loads(path.read_text())["verdict"]
            for path in results.glob(f"{name}-*.json")
        }
        assert entry.reports() == found, name
        plots = results.glob(f"{name}-*.png")
        assert entry.plots() == sorted(str(path.relative_to(ROOT)) for path in plots), name
    assert "snap-video-scaling.json  not reproduced" in vidgen("systems", "snap-video").text


def test_one_system_shows_what_stands_behind_each_mark(vidgen, evidence) -> None:
    ran = vidgen("systems", "vstar")
    assert ran.text.splitlines()[0] == "vstar"
    assert "VSTAR, arXiv 2403.13501" in ran.text
    assert "tests/systems/test_vstar.py::test_bias" in ran.text
    assert ("not built yet" in ran.text) != SYSTEMS["vstar"].built


@pytest.mark.parametrize("word", ["snap-video", "snap_video", "Snap Video", "2402.14797"])
def test_a_system_is_known_by_its_paper_too(vidgen, word) -> None:
    assert vidgen("systems", word).text.startswith("snap-video\n")


def test_a_name_that_is_none_is_told_with_the_nearest(vidgen) -> None:
    ran = vidgen("systems", "vstarr")
    assert ran.code == 2
    assert ran.err.splitlines() == [
        "vidgen systems: there is no system vstarr",
        "  next: vidgen systems vstar",
    ]


def test_json_has_the_keys_of_its_schema(vidgen, evidence) -> None:
    found = json.loads(vidgen("systems", "--json").text)
    assert found["schema"] == "vidgen.systems/1"
    row_schema = SCHEMAS["vidgen.systems/1"]["properties"]["systems"]["items"]
    for row in found["systems"]:
        assert set(row) == set(row_schema["required"])
        assert list(row["marks"]) == list(MARKS)
        assert row["built"] == (row["file"] is not None)
    assert [row["name"] for row in found["systems"]] == list(SYSTEMS)
    one = json.loads(vidgen("systems", "vstar", "--json").text)["systems"]
    assert one[0]["marks"]["claim"] == "reports/vstar.json"


def test_markdown_links_to_what_is_there(vidgen, evidence) -> None:
    text = vidgen("systems", "--markdown").text
    lines = text.splitlines()
    assert len(lines) == 2 + len(SYSTEMS)
    assert {line.count("|") for line in lines} == {4 + len(MARKS)}
    assert "[`world`](vidgen/systems/world.py)" in text
    assert "[✓](tests/systems/test_vstar.py)" in text and text.count("✓") == 2
    assert "[AC3D](https://arxiv.org/abs/2411.18673)" in text


def test_markdown_and_json_exclude_each_other(vidgen) -> None:
    assert vidgen("systems", "--markdown", "--json").code == 2


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from vidgen.cli import app; app.main(['systems', '--json'])\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'transformers', 'av')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
