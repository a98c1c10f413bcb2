"""A clip as a record: what design and world promise, and bytes that repeat."""

import io

import numpy as np
import torch

from vidgen.io.stream import read_stream, write_stream
from vidgen.world.captions import caption
from vidgen.world.clips import clip_record
from vidgen.world.render import render
from vidgen.world.scene import FACTORS_FULL, sample_scene


def test_a_record_holds_the_clip_and_its_truth():
    scene = sample_scene(5, level="full", num_objects=2)
    record = clip_record(scene, num_frames=5, fps=2, with_flow=True, with_sound=True)
    assert record.kind == "frames" and record.id == "world-full-5"
    shapes = {name: tuple(blob.shape) for name, blob in record.tensors.items()}
    assert shapes == {
        "frames": (5, 40, 64, 3), "times": (5,), "audio": (1, 40_000),
        "camera.c2w": (5, 3, 4), "camera.intrinsics": (5, 4),
        "truth.depth": (5, 40, 64), "truth.owner": (5, 40, 64),
        "truth.centers": (2, 5, 3), "truth.rotations": (2, 5, 3, 3), "truth.sizes": (2, 5),
        "truth.image_centers": (2, 5, 3),
        "truth.tracks": (64, 5, 2), "truth.visibility": (64, 5), "truth.track_owner": (64,),
        "truth.flow": (4, 40, 64, 2), "truth.flow_visibility": (4, 40, 64),
    }  # fmt: skip
    np.testing.assert_array_equal(record.numpy("times"), [0, 0.5, 1, 1.5, 2])
    assert torch.equal(record.torch("frames"), render([scene], num_frames=5, fps=2).frames[0])
    assert record.attrs["prompt"] == caption(scene)
    assert set(record.attrs["factors"]) == set(FACTORS_FULL)
    assert (record.attrs["fps"], record.attrs["num_frames"], record.attrs["seed"]) == (2, 5, 5)
    assert len(record.attrs["events"]) == 2


def test_a_stream_of_clips_is_read_back_the_same():
    def stream():
        out = io.BytesIO()
        records = [
            clip_record(sample_scene(seed), num_frames=3, height=8, width=16) for seed in (1, 2)
        ]
        write_stream(records, out)
        return out.getvalue()

    once = stream()
    assert once == stream()
    first, second = read_stream(io.BytesIO(once))
    assert (first.id, second.id) == ("world-basic-1", "world-basic-2") and second.last
    assert np.isinf(first.numpy("truth.depth")).any()


def test_what_is_not_asked_for_is_not_there():
    record = clip_record(
        sample_scene(1), times=[0.0, 1.0], with_truth=False, prompt="a ball", id="x"
    )
    assert set(record.tensors) == {"frames", "times", "camera.c2w", "camera.intrinsics"}
    assert record.attrs["prompt"] == "a ball" and record.id == "x" and "truth" not in record.attrs
