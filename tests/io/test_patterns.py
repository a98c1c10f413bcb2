"""Names with `{id}` in them: which may be, and what one that is taken costs the others."""

from __future__ import annotations

import threading
import time

import pytest

from vidgen.errors import InputError, UsageError
from vidgen.io.files import check_writable
from vidgen.io.pattern import folder_of, is_pattern, path_of, write_each
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


# --- written while the next one is made -----------------------------------------------------------


def test_the_next_is_made_while_one_is_written(make):
    """And no further: the third isn't asked for before the first is written."""
    second_asked, written = threading.Event(), []

    def source():
        yield make("a")
        second_asked.set()
        yield make("b")
        assert written == ["a"]
        yield make("c")

    def write(record, path):
        assert second_asked.wait(30)
        written.append(path)

    assert write_each(source(), "{id}", write) == 3 and written == ["a", "b", "c"]


@pytest.mark.parametrize("error", [InputError("upstream"), KeyboardInterrupt()])
def test_what_was_given_is_written_when_the_source_fails(make, error):
    written = []

    def source():
        yield make("a")
        raise error

    def write(record, path):
        time.sleep(0.05)
        written.append(path)

    with pytest.raises(type(error)):
        write_each(source(), "{id}", write)
    assert written == ["a"]


def test_an_error_of_writing_comes_before_a_later_one(make):
    def source():
        yield make("a")
        raise InputError("upstream")

    def write(record, path):
        raise OSError(28, "no space")

    with pytest.raises(OSError, match="no space"):
        write_each(source(), "{id}", write)
    taken = []
    with pytest.raises(OSError, match="no space"):
        write_each((taken.append(id) or make(id) for id in "abcd"), "{id}", write)
    assert taken == ["a", "b"]
