"""The clips that evaluations look at: found, sampled, named when they are bad."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from clips import DATA, clip, save
from inprocess import Stream

from vidgen.cli import eval_clips
from vidgen.cli.eval_clips import Kept, Sampling, clips, expand
from vidgen.cli.media import write_clip
from vidgen.errors import InputError, UsageError
from vidgen.io.record import Record


class Heard:
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def heard(clean) -> Heard:
    """In an empty folder; what is warned of."""
    return Heard()


def counting(num_frames: int, id: str = "n", side: int = 8, **attrs) -> Record:
    """A clip whose every pixel is 10 times the frame's number."""
    frames = np.zeros((num_frames, side, side, 3), np.uint8)
    frames += (10 * np.arange(num_frames)).astype(np.uint8)[:, None, None, None]
    return Record.make("frames", id, {"frames": frames}, {"fps": 8, **attrs})


def numbers(found) -> list[int]:
    return [round(int(f.mean()) / 10) for f in found.frames]


def test_all_kinds_of_inputs_in_their_order(heard) -> None:
    Path("in/deep/er").mkdir(parents=True)
    for n in (10, 9):
        write_clip(counting(4, f"v{n}"), f"in/v-{n}.mp4")
    write_clip(counting(4, "pictures"), "in/deep/er/p/")
    save("in/deep/r.vgs", counting(4, "r1"), counting(4, "r2"))
    Path("in/notes.txt").write_text("x")
    Path("in/.hidden").write_text("x")
    found = list(clips(["in"], None, heard))
    assert [c.id for c in found] == ["pictures", "r1", "r2", "v9", "v10"]
    assert heard.said == ["in: no clips, left out: 1 of its files: in/notes.txt"]
    assert all(numbers(c) == [0, 1, 2, 3] for c in found)
    assert all(c.frames.dtype == np.uint8 and c.frames.flags.writeable for c in found)
    assert [c.id for c in clips(["in/v-*.mp4"], None, heard)] == ["v9", "v10"]
    assert [c.id for c in clips(["in/deep/er/p"], None, heard)] == ["pictures"]


def test_a_stream_on_standard_input(heard, monkeypatch) -> None:
    save("r.vgs", counting(4, "r1"), counting(4, "r2"))
    data = Path("r.vgs").read_bytes()
    monkeypatch.setattr("sys.stdin", Stream(data))
    assert [c.id for c in clips(["-"], None, heard)] == ["r1", "r2"]


def test_the_same_name_twice_gets_a_number(heard) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        save(f"{folder}/x.vgs", counting(3, "x"))
    assert [c.id for c in clips(["a", "b"], None, heard)] == ["x", "x-2"]


FORMS = ["c.vgs", "c.mp4", "c/"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (None, [*range(12)]),
        (Sampling(4), [0, 1, 2, 3]),
        (Sampling(4, 3), [0, 3, 6, 9]),
        (Sampling(4, 2, start="middle"), [2, 4, 6, 8]),
        (Sampling(None, 5), [0, 5, 10]),
        (Sampling(3, fps=4), [0, 2, 4]),
        (Sampling(3, fps=4, start="middle"), [2, 4, 6]),
        (Sampling(4, fps=16), [0, 0, 1, 1]),
        (Sampling(12, start="random"), [*range(12)]),
    ],
)
def test_sampling_is_the_same_of_records_and_videos(form, sampling, expected, heard) -> None:
    record = counting(12)
    save("c.vgs", record) if form == "c.vgs" else write_clip(record, form, crf=0)
    (found,) = clips([form.rstrip("/")], sampling, heard)
    assert numbers(found) == expected
    rate = ((sampling and sampling.fps) or 8) / (sampling.stride if sampling else 1)
    assert found.rate == pytest.approx(rate)
    assert np.diff(found.times) == pytest.approx(1 / rate, abs=1e-3)
    assert not heard.said


@pytest.mark.parametrize("form", FORMS)
def test_random_places_come_from_seed_and_id_alone(form, heard) -> None:
    record = counting(12)
    save("c.vgs", record) if form == "c.vgs" else write_clip(record, form, crf=0)
    path = form.rstrip("/")

    def starts(seed: int) -> int:
        (found,) = clips([path], Sampling(3, start="random", seed=seed), heard)
        first, *_ = numbers(found)
        assert numbers(found) == [first, first + 1, first + 2]
        return first

    found = [starts(seed) for seed in range(12)]
    assert found == [starts(seed) for seed in range(12)]
    assert found == [Sampling(3, start="random", seed=s).first(12, "n") for s in range(12)]
    assert len(set(found)) > 4


def test_random_places_are_spread_evenly() -> None:
    found = [Sampling(3, start="random").first(12, f"clip {i}") for i in range(2000)]
    counts = np.bincount(found)
    assert len(counts) == 10
    assert counts.min() > 140


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("start", ["first", "random"])
def test_too_short(form, start, heard) -> None:
    record = counting(6)
    save("c.vgs", record) if form == "c.vgs" else write_clip(record, form)
    with pytest.raises(InputError, match=r"c.*: has 6 frames, 7 are needed") as error:
        list(clips([form.rstrip("/")], Sampling(4, 2, start=start), heard))
    assert "--skip-bad" in str(error.value.next)


def test_bad_ones_among_many_are_named_or_left_out(heard) -> None:
    Path("in").mkdir()
    for i in range(4):
        write_clip(counting(8, f"v{i}"), f"in/v{i}.mp4")
    Path("in/v1.mp4").write_bytes(Path("in/v1.mp4").read_bytes()[:600])
    save("in/w.vgs", counting(8, "w1"), counting(2, "w2"), counting(8, "w3"))
    with pytest.raises(InputError, match=r"v1\.mp4"):
        list(clips(["in"], Sampling(8), heard))
    bad: list[str] = []
    found = list(clips(["in"], Sampling(8), heard, skip_bad=True, bad=bad))
    assert [c.id for c in found] == ["v0", "v2", "v3", "w1", "w3"]
    assert len(bad) == 2
    assert "v1.mp4" in bad[0]
    assert "`w2`: has 2 frames, 8 are needed" in bad[1]
    assert heard.said[-1].startswith("2 of 7 clips were left out: in/v1.mp4")


@pytest.mark.parametrize("start", ["first", "middle", "random"])
def test_damage_behind_the_frames_that_are_taken_is_found(start, heard) -> None:
    sampling = Sampling(4, start=start)
    said = "the video is damaged: the first 30 of 50 frames can be read"
    with pytest.raises(InputError, match=said):
        list(clips([str(DATA / "corrupted.mp4")], sampling, heard))
    write_clip(counting(60), "cut.mkv")
    Path("cut.mkv").write_bytes(Path("cut.mkv").read_bytes()[:-200])
    with pytest.raises(InputError, match=r"cut\.mkv: the video is damaged"):
        list(clips(["cut.mkv"], sampling, heard))
    save("good.vgs", counting(8))
    bad: list[str] = []
    inputs = ["good.vgs", "cut.mkv", str(DATA / "corrupted.mp4")]
    assert len(list(clips(inputs, sampling, heard, skip_bad=True, bad=bad))) == 1
    assert len(bad) == 2


def test_clips_that_are_read_and_of_no_use_are_counted_once(heard) -> None:
    save("c.vgs", counting(8, "a"), counting(2, "b"), counting(8, "c"))
    bad: list[str] = []
    for one in clips(["c.vgs"], Sampling(8), heard, skip_bad=True, bad=bad):
        if one.id == "c":
            bad.append("`c` has no counterpart")
    assert heard.said[-1].startswith("2 of 3 clips were left out: c.vgs: record `b`")


def test_all_of_them_bad_is_an_error(heard) -> None:
    save("c.vgs", counting(2))
    with pytest.raises(InputError, match="none of 1 clips can be used"):
        list(clips(["c.vgs"], Sampling(8), heard, skip_bad=True))


def test_sizes_and_rates_that_differ_are_said_once(heard) -> None:
    records = [counting(8, f"a{i}") for i in range(3)]
    records += [counting(8, "b", side=10, fps=12), counting(8, "c", fps=None)]
    save("c.vgs", *records)
    kept = Kept(heard)
    list(clips(["c.vgs"], Sampling(4), kept))
    assert kept.warnings == heard.said == [
        "clips of 2 sizes: 4 of 8x8, 1 of 10x10",
        "clips of 3 rates: 3 of 8, 1 of 12, 1 of unknown frames a second",
    ]  # fmt: skip


def test_a_rate_that_isnt_known_can_not_be_changed(heard) -> None:
    save("c.vgs", counting(8, fps=None))
    with pytest.raises(InputError, match="how many frames a second"):
        list(clips(["c.vgs"], Sampling(2, fps=4), heard))


def test_one_clip_at_a_time(heard) -> None:
    """The second clip is opened after the first was taken."""
    save("a.vgs", counting(4, "a"))
    save("b.vgs", counting(4, "b"))
    found = clips(["a.vgs", "b.vgs"], None, heard)
    assert next(found).id == "a"
    Path("b.vgs").unlink()
    with pytest.raises(UsageError, match="no such file"):
        next(found)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_clips_that_are_read_side_by_side_are_the_same(skip_bad, heard) -> None:
    """In their order, with what is wrong with one said when it is its turn."""
    Path("in").mkdir()
    for i in range(9):
        write_clip(counting(8 if i % 3 else 20, f"v{i}", side=8 + i % 2), f"in/v{i}.mp4")
    Path("in/v4.mp4").write_bytes(Path("in/v4.mp4").read_bytes()[:600])
    save("in/v5a.vgs", counting(8, "v1"), counting(2, "w2"), counting(8, "w3"))
    Path("in/v5a.vgs").write_bytes(Path("in/v5a.vgs").read_bytes()[:-40])

    def read(readers: int):
        kept, bad, found = Kept(Heard()), [], []
        try:
            for clip in clips(
                ["in"], Sampling(8), kept, skip_bad=skip_bad, bad=bad, readers=readers
            ):
                found.append((clip.id, clip.rate, numbers(clip)))
        except InputError as error:
            found.append(str(error))
        return found, bad, kept.warnings

    alone = read(1)
    assert len(alone[0]) == (9 if skip_bad else 5)
    assert read(2) == read(5) == alone


@pytest.mark.parametrize("readers", [1, 2, 5])
def test_what_the_system_refuses_is_said_in_its_turn(readers, heard, monkeypatch) -> None:
    def refused(path: str) -> str:
        if path.endswith("v2"):
            raise PermissionError(path)
        return "video"

    for i in range(3):
        Path(f"v{i}").write_bytes(b"GIF8")
    monkeypatch.setattr(eval_clips, "content_of", refused)
    with pytest.raises(InputError, match="v0: can't be read"):
        next(clips(["v0", "v1", "v2"], None, heard, readers=readers))
    bad: list[str] = []
    with pytest.raises(PermissionError):
        next(clips(["v0", "v1", "v2"], None, heard, skip_bad=True, bad=bad, readers=readers))
    assert [line.partition(":")[0] for line in bad] == ["v0", "v1"]


def test_clips_that_nobody_asks_for_are_not_read(heard, monkeypatch) -> None:
    read = []
    of_video = eval_clips.of_video
    monkeypatch.setattr(eval_clips, "of_video", lambda p, s: (read.append(p), of_video(p, s))[1])
    Path("in").mkdir()
    for i in range(9):
        write_clip(counting(4, f"v{i}"), f"in/v{i}.mp4")
    before = threading.active_count()
    found = clips(["in"], None, heard, readers=2)
    assert [next(found).id, next(found).id] == ["v0", "v1"]
    found.close()
    assert len(read) <= 2 + 2
    assert threading.active_count() == before


def test_nothing_there(heard) -> None:
    Path("empty").mkdir()
    with pytest.raises(InputError, match="is an empty folder"):
        expand(["empty"], heard)
    Path("empty/notes.txt").write_text("x")
    with pytest.raises(InputError, match="no clips in it"):
        expand(["empty"], heard)
    with pytest.raises(UsageError, match="no such file or folder"):
        expand(["missing"], heard)
    with pytest.raises(UsageError, match="matches no file"):
        expand(["*.mp4"], heard)
    with pytest.raises(UsageError, match="read only once"):
        expand(["-", "-"], heard)


def test_records_without_frames(heard) -> None:
    save("t.vgs", Record.make("text", "t", {}))
    with pytest.raises(InputError, match="no tensor `frames`"):
        list(clips(["t.vgs"], None, heard))


def test_prompts_come_along(heard) -> None:
    write_clip(clip("x"), "x.mp4")
    (found,) = clips(["x.mp4"], Sampling(4), heard)
    assert found.prompt == "a red ball, x"
    assert found.record.log[-1]["tool"] == "sample-keyframes"
