"""Rows of prompts are read in one way, whichever command reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidgen.cli.evaluate_world_rows import read_rows
from vidgen.cli.prompts import gather
from vidgen.errors import InputError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def refused(read, *arguments, **named) -> tuple[str, str | None]:
    with pytest.raises(InputError) as caught:
        read(*arguments, **named)
    return caught.value.what, caught.value.why


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '{"id": "a", "prompt": "a"}\n{"prompt":',
            "line 2: not JSON: Expecting value at column 11",
        ),
        ('{"id": "a", "prompt": "a"}\n\n[]', 'line 3: a row is an object like {"prompt": "…"}'),
        ('{"id": "a", "promt": "a"}', "line 1: no `prompt` in the row"),
        ('{"id": "a", "prompt": null}', "line 1: `prompt` is null, must be text"),
        ('{"id": 3, "prompt": "a"}', "line 1: `id` is 3, must be text"),
        ('{"id": "a", "prompt": "a \\u0000"}', "line 1: `prompt` has a NUL byte at character 2"),
        ('{"id": "a", "prompt": "\\ud800"}', "line 1: `prompt` is not text: it holds bytes that"),
        ('{"id": "a", "prompt": "a"}\r\n' * 2, "line 2: id `a` is that of line 1 already"),
    ],
    ids=["half", "list", "no prompt", "null", "number", "NUL", "surrogate", "twice"],
)
def test_what_is_no_row_is_told_alike(file, text, said) -> None:
    file.write_text(text, newline="")
    told = refused(gather, [], str(file), negative=None)
    assert told == refused(read_rows, str(file))
    assert told[0].startswith(f"{file}: {said}")


def test_only_judging_needs_an_id(file) -> None:
    file.write_text('{"prompt": "a red ball"}\n{"prompt": "a blue cube"}\n')
    rows = gather([], str(file), negative=None)
    assert [row["prompt"] for row in rows] == ["a red ball", "a blue cube"]
    assert "line 1: has no `id`" in refused(read_rows, str(file))[0]


def test_other_marks_of_a_lines_end_part_no_rows(file) -> None:
    file.write_text('{"id": "a", "prompt": "a\u2028ball"}\r\n', encoding="utf-8-sig", newline="")
    assert gather([], str(file), negative=None)[0]["prompt"] == "a\u2028ball"
    assert read_rows(str(file))["a"].prompt == "a\u2028ball"
