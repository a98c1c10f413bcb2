"""What other programs read follows the schemas that we print."""

from __future__ import annotations

import json

import numpy as np
import pytest
from json_schema import faults

from vidgen.cli.schemas import SCHEMAS
from vidgen.io import log
from vidgen.io.record import Record
from vidgen.io.stream import write_stream


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture
def record(tmp_path) -> Record:
    entry = log.new_entry(
        "encode-text", argv=["encode-text"], seed=3, device="cpu", dtype="float32",
        attention="auto", model={"name": "world/text_encoder", "sha256": "0" * 64}, inputs=["x"],
        approximations=["quantized"],
    )  # fmt: skip
    made = Record.make("text", "a", {"text.embeds": np.zeros((1, 2), np.float32)}, {"seed": 3})
    made = made.replace(entry=entry).replace(entry={"tool": "other", "version": "1"})
    write_stream([made], tmp_path / "a.vgs")
    return made


def test_records(record) -> None:
    metadata = json.loads(record.metadata(last=True))
    assert faults(metadata, SCHEMAS["vidgen.record/1"]) == []
    metadata["kind"] = "cake"
    del metadata["digest"]
    assert faults(metadata, SCHEMAS["vidgen.record/1"]) == [
        "$: has no `digest`",
        f"$.kind: 'cake' is none of {SCHEMAS['vidgen.record/1']['properties']['kind']['enum']}",
    ]


def test_errors_and_events(vidgen, record) -> None:
    for words in (["--progress", "json"], ["--progress", "json", "--json"], ["--json"]):
        ran = vidgen("relay", "a.vgs", "--trouble", "vidgen", *words)
        rows = lines(ran.err)
        assert rows
        for row in rows:
            schema = "vidgen.progress/1" if "event" in row else "vidgen.error/1"
            assert faults(row, SCHEMAS[schema]) == []
            if "schema" in row:
                assert faults(row, SCHEMAS[row["schema"]]) == []
    assert {r["event"] for r in lines(vidgen("relay", "a.vgs", "--progress", "json").err)} == {
        "start", "step", "end",
    }  # fmt: skip


def test_version_and_config(vidgen) -> None:
    for words in (["--version", "--json"], ["config", "relay", "--explain", "--json"]):
        report = json.loads(vidgen(*words).text)
        from vidgen.cli.schema import all_schemas

        assert faults(report, all_schemas()[report["schema"]]) == []


def test_every_schema_is_one_this_checker_knows(vidgen) -> None:
    from vidgen.cli.schema import all_schemas

    for name, schema in all_schemas().items():
        assert schema["$schema"].endswith("2020-12/schema") and schema["title"], name
        assert faults({}, schema), f"{name} lets anything through"
        const = schema.get("properties", {}).get("schema", {}).get("const", name)
        assert const == name


def test_the_checker_finds_faults() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
              "additionalProperties": False}  # fmt: skip
    assert faults({"n": 1}, schema) == []
    assert faults({"n": True}, schema) == ["$.n: True is no integer"]
    assert faults({"m": 1}, schema) == ["$: has no `n`", "$.m: must not be there"]


def test_json_is_taken_and_makes_errors_json_too(vidgen) -> None:
    assert (
        vidgen("schema", "--json", "vidgen.error/1").out == vidgen("schema", "vidgen.error/1").out
    )
    ran = vidgen("schema", "--json", "vidgen.eror/1")
    assert json.loads(ran.err.splitlines()[-1])["next"] == "vidgen schema vidgen.error/1"
