"""The log: a chain that tells when it was edited, and can be left out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vidgen import __version__
from vidgen.diffusion import noise
from vidgen.io import log
from vidgen.io.record import Record


def chain(n: int = 3) -> list[dict]:
    entries = [log.new_entry(f"step{i}", argv=[f"step{i}"]) for i in range(n)]
    return log.link((), *entries)


def test_entry_holds_what_was_given_and_no_more():
    entry = log.new_entry(
        "decode", argv=["decode", "--keep"], model={"name": "world/vae", "sha256": "ab"},
        seed=7, dtype="float32", attention="auto", device="cpu", inputs=["tree-sha256:00"],
        crf=18,
    )  # fmt: skip
    assert entry["tool"] == "decode" and entry["version"] == __version__
    assert entry["torch"][0].isdigit() and entry["noise"] == noise.ALGORITHM
    assert entry["crf"] == 18 and "approximations" not in entry
    bare = log.new_entry("mux", argv=["mux"])
    assert bare == {"tool": "mux", "version": __version__, "argv": ["mux"]}


def test_ids_depend_on_content_and_on_what_came_before():
    one, two = chain(), chain()
    assert one == two
    assert len({e["id"] for e in one}) == 3
    assert [e.get("previous") for e in one] == [None, one[0]["id"], one[1]["id"]]
    other = log.link((), log.new_entry("step0", argv=["step0", "--x"]), *one[1:])
    assert other[2]["id"] != one[2]["id"]
    assert log.link((), *one) == one


def test_edits_show():
    assert log.broken_links(chain()) == []
    edited = chain()
    edited[1]["argv"] = ["step1", "--better"]
    (problem,) = log.broken_links(edited)
    assert problem.startswith("entry 2 (step1): its id is")
    del edited[1]
    (problem,) = log.broken_links(edited)
    assert problem.startswith("entry 2 (step2): follows")


def test_text():
    entry = log.new_entry("decode", argv=["decode"], model={"sha256": "ab", "name": "world/vae"})
    text = log.format_log(log.link((), entry, log.new_entry("mux", argv=["mux", "--loop"])))
    first, second = text.split("\n\n")
    assert first.splitlines()[0].startswith(f"1  decode  vidgen {__version__}  ")
    assert "   model          name world/vae  sha256 ab" in first
    assert second.splitlines()[1] == "   argv           mux --loop"
    assert "no log" in log.format_log([])


def test_strip_leaves_everything_but_the_log(make):
    bare = log.strip_log(make())
    assert bare.log == [] and bare.attrs == make().attrs and bare.digest == make().digest


@pytest.mark.parametrize("id", ["a-red-ball-bounces", "clip-0001"])
def test_redact_leaves_no_word_of_the_prompt(id):
    attrs = {
        "prompt": "a red ball bounces", "negative_prompt": "blurry", "seed": 7, "source": id,
    }  # fmt: skip
    entry = log.new_entry("encode-text", argv=["encode-text"], prompt="a red ball bounces")
    record = Record.make("frames", id, {"frames": np.zeros((1, 1, 1, 3), np.uint8)}, attrs, [entry])
    record = record.replace(entry=log.new_entry("decode", argv=["decode"]))
    bare = log.redact(record)
    said = json.dumps([bare.id, bare.attrs, bare.log])
    assert not any(word in said for word in ("red ", "ball", "bounces", "blurry"))
    assert bare.attrs["seed"] == 7 and bare.attrs["source"] == bare.id
    assert bare.id == log.redacted_id(id) == log.redacted_id(bare.id) != id
    assert log.broken_links(bare.log) == []
    assert [e["tool"] for e in bare.log] == ["encode-text", "decode"]
    assert log.redact(bare) == bare


def test_the_outline_of_a_log():
    made = {"tool": "sample", "model": {"name": "wan/transformer", "sha256": "ab" * 32}, "seed": 7,
            "approximations": ["fp8"]}  # fmt: skip
    assert log.outline([made, {"tool": "convert", "crf": 18}]) == [
        "made by: sample → convert",
        "  sample: wan/transformer@abababababab; seed 7; approximations fp8",
    ]
    odd = {"model": {"name": 1, "sha256": []}, "model_2": "x", "seed": {"a": None}}
    assert log.outline([odd]) == ["made by: ?", "  ?: name 1  sha256 , x; seed a None"]
