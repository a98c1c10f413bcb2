"""Names with `{id}` in them: which may be, and what one that is taken costs the others."""

from __future__ import annotations

import pytest

from vidgen.errors import UsageError
from vidgen.io.files import check_writable
from vidgen.io.pattern import folder_of, is_pattern, path_of
from vidgen.io.stream import read_stream, write_stream


def test_what_a_pattern_is():
    assert is_pattern("out/{id}.mp4") and not is_pattern("out/{seed}.mp4")
    assert path_of("out/{id}/{id}.mp4", "a") == "out/a/a.mp4"
    assert path_of("out/{odd", "a") == "out/{odd"
    assert str(folder_of("out/{id}.mp4")) == "out" and str(folder_of("{id}")) == "."


@pytest.mark.parametrize("name", ["x{id}{.vgs", "x{id}}.vgs", "{id}-{seed}", "{id}{}", "{{id}}"])
def test_other_braces_are_refused(name, make, tmp_path):
    for refuse in (check_writable, lambda path: write_stream([make("a")], path)):
        with pytest.raises(UsageError, match="knows no field"):
            refuse(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_costs_one_record(make, tmp_path):
    (tmp_path / "b.vgs").write_bytes(b"mine")
    with pytest.raises(UsageError, match="is there already") as error:
        write_stream([make("a"), make("b"), make("c")], tmp_path / "{id}.vgs")
    assert error.value.why == "1 of 3 records have no file; the rest are written"
    assert (tmp_path / "b.vgs").read_bytes() == b"mine"
    for name in "ac":
        assert [r.id for r in read_stream(tmp_path / f"{name}.vgs")] == [name]
