"""Decoding with a model's video decoder: which one is taken, what the log says, long clips."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from vidgen.errors import InputError, UsageError
from vidgen.io.log import broken_links
from vidgen.io.record import Record
from vidgen.nn.movq import MoVQConfig, MoVQDecoder
from vidgen.nn.pixels import to_uint8
from vidgen.stages import plan
from vidgen.stages.base import Compute
from vidgen.stages.decode import CHUNK, decode
from vidgen.systems.base import ModelFolder
from vidgen.systems.save import write_component
from vidgen.systems.video_decoder import load_video_decoder

CPU = Compute(device="cpu")
CONFIG = MoVQConfig(
    channels=4, widths=(8, 8, 8), blocks=1, attention=(), patch=2, groups=4, temporal="conv1d"
)
WINDOW = 20 + 2 * 10  # the five blocks' ten convolutions over time, to either side


def with_decoder(tiny_model, folder, config=CONFIG) -> ModelFolder:
    """The tiny model, with a video decoder of random weights beside its autoencoder."""
    shutil.copytree(tiny_model, folder)
    torch.manual_seed(0)
    decoder = MoVQDecoder(config)
    with torch.no_grad():
        for p in decoder.parameters():
            p.add_(0.2 * torch.randn_like(p) if p.numel() > 1 else torch.full_like(p, 0.5))
    settings = {"_class_name": "MoVQDecoder", "stride": config.stride, **config.to_dict()}
    write_component(folder / "video_decoder", settings, decoder)
    return ModelFolder.find(str(folder))


@pytest.fixture
def model(tiny_model, tmp_path) -> ModelFolder:
    return with_decoder(tiny_model, tmp_path / "video")


def clip(model: ModelFolder, num_frames: int) -> Record:
    torch.manual_seed(1)
    attrs = {"latent_space": model.latent_space, "height": 16, "width": 24}
    return Record.make(
        "latents", "clip", {"latents": torch.randn(4, num_frames, 2, 3)}, attrs, log=[]
    )


def one(model, record, **options):
    (made,) = decode([record], model, compute=CPU, **options)
    return made


class Listener:
    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)

    def step(self, *what):
        pass


def test_the_video_decoder_is_taken_where_there_is_one(model, tiny_model):
    plain = ModelFolder.find(str(tiny_model))
    assert model.latent_space == plain.latent_space
    record = clip(model, 3)
    video, image, before = one(model, record), one(model, record, which="image"), one(plain, record)
    assert video.log[-1]["model"] == model.identity("video_decoder")
    assert video.log[-1]["model"]["name"] == "tiny/video_decoder"
    assert image.log[-1]["model"] == before.log[-1]["model"] == plain.identity("vae")
    assert torch.equal(image.torch("frames"), before.torch("frames"))
    assert not torch.equal(image.torch("frames"), video.torch("frames"))
    assert [r.log[-1]["argv"] for r in (video, image, before)] == [
        ["decode"], ["decode", "--decoder", "image"], ["decode"]
    ]  # fmt: skip
    assert one(model, record, which="video").log == video.log
    assert video.log[-1]["attention"] == "flash" and "attention" not in image.log[-1]


def test_a_model_without_one_says_so(tiny_model):
    plain = ModelFolder.find(str(tiny_model))
    with pytest.raises(UsageError, match="`tiny` has no component `video_decoder`"):
        one(plain, clip(plain, 2), which="video")


def test_a_decoder_of_other_latents_is_refused(tiny_model, tmp_path):
    model = with_decoder(tiny_model, tmp_path / "wrong", replace(CONFIG, patch=1))
    with pytest.raises(InputError, match="stride is 4, that of its vae is 8"):
        one(model, clip(model, 2))


def test_the_config_is_kept(model):
    assert load_video_decoder(model).config == CONFIG
    assert json.loads((model.path / "video_decoder/config.json").read_text())["stride"] == 8


@pytest.mark.parametrize("num_frames", [WINDOW, 61])
def test_a_long_clip_is_what_it_is_in_one_piece(model, num_frames):
    record = clip(model, num_frames)
    made = one(model, record)
    network = load_video_decoder(model).float()
    whole = to_uint8(network(record.torch("latents")[None]))[0].permute(1, 2, 3, 0)
    difference = (made.torch("frames").int() - whole.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-3  # rounding
    assert "approximations" not in made.log[-1]


def test_frames_decoded_at_once_do_not_grow_with_the_clip(model, monkeypatch):
    given, forward = [], MoVQDecoder.forward
    monkeypatch.setattr(
        MoVQDecoder, "forward", lambda self, z: given.append(z.shape[2]) or forward(self, z)
    )
    for num_frames in (61, 150):
        one(model, clip(model, num_frames))
        assert max(given) == WINDOW
        given.clear()


def test_attention_over_time_is_blended_and_the_log_says_so(tiny_model, tmp_path):
    config = replace(CONFIG, temporal_attention=True)
    model = with_decoder(tiny_model, tmp_path / "attention", config)
    made = one(model, clip(model, 33))
    assert made.torch("frames").shape == (33, 16, 24, 3)
    assert made.log[-1]["approximations"] == [f"blended chunks of {CHUNK} frames"]
    assert broken_links(made.log) == []
    assert "approximations" not in one(model, clip(model, CHUNK)).log[-1]


def test_too_little_memory_makes_chunks_smaller(model, monkeypatch):
    record = clip(model, 61)
    whole, forward, listener = one(model, record), MoVQDecoder.forward, Listener()

    def short(most):
        def call(self, z):
            if z.shape[2] > most:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return forward(self, z)

        return call

    monkeypatch.setattr(MoVQDecoder, "forward", short(25))
    made = one(model, record, notify=listener)
    assert listener.warnings == ["out of memory: frames decoded at once from here on: 21"]
    difference = (made.torch("frames").int() - whole.torch("frames").int()).abs()
    assert difference.max() <= 1 and "approximations" not in made.log[-1]

    monkeypatch.setattr(MoVQDecoder, "forward", short(20))
    made = one(model, record)
    assert made.log[-1]["approximations"] == ["blended chunks of 10 frames"]
    assert made.torch("frames").shape == whole.torch("frames").shape


def test_the_plan_is_that_of_the_decoder(model):
    records = [clip(model, 61)]
    video, image = (plan.decoding(model, CPU, records, which) for which in (None, "image"))
    assert "tiny/video_decoder" in video and "tiny/vae" in image
    assert "[61, 16, 24, 3] uint8" in video and "[61, 16, 24, 3] uint8" in image
