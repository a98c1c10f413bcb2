"""The features `world`: what they are of, and that FVD with them moves with what is bad."""

from __future__ import annotations

import functools
import hashlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vidgen.errors import InputError
from vidgen.metrics import world_features
from vidgen.metrics.frechet import frechet_distance
from vidgen.metrics.judge import normalized
from vidgen.metrics.world_features import FRAMES, SHIPPED, prepared
from vidgen.train.task import generator
from vidgen.train.tasks.distort import KINDS, distort
from vidgen.world.render import render
from vidgen.world.scene import TEST_SEEDS, sample_scene

GROWING = [kind for kind in KINDS if kind != "reverse"]  # there is no half of a reversal


@functools.cache
def clips(first: int, count: int) -> Tensor:
    seeds = range(TEST_SEEDS.start + first, TEST_SEEDS.start + first + count)
    return render([sample_scene(seed) for seed in seeds], num_frames=FRAMES).frames


@functools.cache
def extractor() -> world_features.WorldFeatures:
    return world_features.load("cpu")


def blind(clips: Tensor) -> Tensor:
    """Features that know no order of frames."""
    return clips.double().mean(dim=(1, 2, 3))


def distances(features, kind: str, count: int) -> list[float]:
    """Of clips from themselves, distorted more and more: nothing is left to chance."""
    real = features(clips(0, count))
    return [
        frechet_distance(real, features(distort(clips(0, count), kind, s, generator(0, kind))))
        for s in (0.3, 0.6, 1.0)
    ]


@pytest.mark.parametrize("kind", GROWING)
def test_distance_grows_with_what_is_bad(kind) -> None:
    mild, middle, strong = distances(extractor(), kind, 16)
    assert 0 < mild < middle < strong


@pytest.mark.parametrize("kind", ["shuffle", "freeze"])
def test_wrong_motion_is_told_from_other_clean_clips(kind) -> None:
    real, others = clips(0, 64), clips(64, 64)
    wrong = distort(others, kind, 1.0, generator(0, kind))

    def apart(features) -> float:
        x = features(real)
        return frechet_distance(x, features(wrong)) / frechet_distance(x, features(others))

    assert apart(extractor()) > 2
    if kind == "shuffle":
        assert apart(blind) == pytest.approx(1)


def test_features_depend_on_the_clip_alone() -> None:
    features = extractor()
    together = features(clips(0, 40))  # more than go through the network at a time
    alone = features(clips(0, 40)[35:36])
    assert together.dtype == torch.float32 and together.shape == (40, features.dim)
    torch.testing.assert_close(together[35:36], alone, atol=1e-4, rtol=1e-4)
    assert torch.equal(features(clips(0, 40)), together)


def test_a_clip_twice_as_large_is_nearer_to_itself_than_clips_are_to_each_other() -> None:
    scenes = [sample_scene(seed) for seed in range(TEST_SEEDS.start, TEST_SEEDS.start + 16)]
    large = render(scenes, num_frames=FRAMES, height=80, width=128, antialias=1).frames
    small = extractor()(clips(0, 16))
    assert (extractor()(large) - small).norm() < 0.3 * (small - small.mean(0)).norm()


def test_frames_are_taken_evenly_from_first_to_last() -> None:
    frames = torch.arange(31, dtype=torch.uint8)[:, None, None, None].expand(31, 40, 64, 3)
    assert prepared(frames[None])[0, :, 0, 0, 0].tolist() == list(range(0, 31, 2))
    assert torch.equal(prepared(clips(0, 4)), clips(0, 4))
    square = torch.randint(256, (2, 20, 64, 64, 3), dtype=torch.uint8)
    assert prepared(square).shape == (2, FRAMES, 40, 64, 3)


@pytest.mark.parametrize("size", [(80, 128), (64, 64), (37, 91), (40, 64), (20, 30)])
def test_preparing_is_resizing_each_picture(size) -> None:
    found = torch.randint(256, (2, 19, *size, 3), dtype=torch.uint8, generator=generator(0, "p"))
    places = torch.linspace(0, 18, FRAMES).round().long().tolist()
    for clip, made in zip(found, prepared(found), strict=True):
        for place, picture in zip(places, made, strict=True):
            planes = clip[place].permute(2, 0, 1)[None].float()
            whole = F.interpolate(planes, (40, 64), mode="bilinear", antialias=True)
            assert torch.equal(picture, whole[0].round().clamp(0, 255).byte().permute(1, 2, 0))


def test_the_network_reads_frames_and_twice_what_changed() -> None:
    """What goes into its first convolution: of each 2 x 2 pixels all colors, then all changes."""
    network, seen = extractor().network, []
    hook = network.convolutions[1].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    frames = normalized(clips(0, 2))
    network(frames)
    hook.remove()
    before = torch.cat((frames[:, :1], frames[:, :-1]), dim=1)
    x = torch.cat((frames, 2 * (frames - before)), dim=2)
    assert torch.equal(seen[0], F.pixel_unshuffle(x.flatten(0, 1), 2))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (torch.zeros(1, 15, 40, 64, 3, dtype=torch.uint8), "15 frames"),
        (torch.zeros(1, 16, 40, 64, 3), "not uint8"),
        (torch.zeros(1, 16, 40, 64, 4, dtype=torch.uint8), "not uint8"),
        (torch.zeros(16, 40, 64, 3, dtype=torch.uint8), "not uint8"),
        (torch.zeros(0, 16, 40, 64, 3, dtype=torch.uint8), "not uint8"),
    ],
)
def test_other_tensors_are_refused(wrong, said) -> None:
    with pytest.raises(InputError, match=said):
        extractor()(wrong)


def test_what_it_says_of_itself() -> None:
    weights = SHIPPED / "model.safetensors"
    features = extractor()
    assert features.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert features.settings["weights_sha256"] == features.sha256
    assert features.settings["extractor"] == features.name == "world"
    assert features.min_frames == 16
    assert weights.stat().st_size < 3e6


def test_a_folder_of_something_else(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "WorldJudge"}')
    (tmp_path / "model.safetensors").write_bytes((SHIPPED / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="not a network of features"):
        world_features.load("cpu", tmp_path)
