"""Real videos through encode-video and decode: sizes, durations, rotation, sound, damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidgen.errors import InputError
from vidgen.io import video
from vidgen.stages.base import Compute
from vidgen.stages.decode import decode
from vidgen.stages.encode_video import encode_video, read_videos
from vidgen.systems.base import ModelFolder

DATA = Path(__file__).parents[1] / "data"
VIDEOS = sorted(
    p.name
    for p in DATA.iterdir()
    if p.suffix in (".mp4", ".mov", ".webm", ".gif") and p.name != "corrupted.mp4"
)


def there_and_back(model: Path, name: str, frames: int | None):
    folder, compute = ModelFolder.find(str(model)), Compute("cpu")
    records = read_videos([DATA / name], num_frames=frames)
    latents = encode_video(records, folder, compute=compute)
    (record,) = decode(latents, folder, compute=compute)
    return record


@pytest.mark.parametrize("name", VIDEOS)
def test_size_and_rate_come_back(tiny_model, name):
    info = video.probe(DATA / name)
    record = there_and_back(tiny_model, name, 3)
    assert record.numpy("frames").shape[1:] == (info.height, info.width, 3)
    assert record.attrs["fps"] == pytest.approx(info.fps)
    assert 1 <= len(record.numpy("frames")) <= 3


@pytest.mark.parametrize("name", ["h265_video.mp4", "circle.gif", "transparent.webm"])
def test_duration_comes_back(tiny_model, name, tmp_path):
    *_, info = video.read_video(DATA / name)
    record = there_and_back(tiny_model, name, None)
    made = tmp_path / "made.mp4"
    video.write_video(made, record.numpy("frames"), record.attrs["fps"])
    assert video.probe(made).duration_s == pytest.approx(info.duration_s, abs=1.01 / info.fps)


def test_a_varying_rate_becomes_one_rate_of_the_same_duration():
    real = video.read_video(DATA / "fire2.mp4")[-1]
    (record,) = read_videos([DATA / "fire2.mp4"])
    length = record.attrs["num_frames"] / record.attrs["fps"]
    assert length == pytest.approx(real.duration_s, abs=1.01 / record.attrs["fps"])


def test_a_turned_video_is_upright(tiny_model):
    record = there_and_back(tiny_model, "video_90.mov", 2)
    assert record.numpy("frames").shape[1:3] == (568, 320)
    assert record.attrs["video"]["rotation"] == 90


def test_sound_stays_with_the_record(tiny_model):
    record = there_and_back(tiny_model, "nasa_13013.mp4", 5)
    rate = record.attrs["sample_rate"]
    assert record.numpy("audio").shape[1] == pytest.approx(5 / record.attrs["fps"] * rate, rel=0.1)


def test_a_damaged_video_says_how_far_it_goes():
    with pytest.raises(InputError, match="30"):
        list(read_videos([DATA / "corrupted.mp4"]))
