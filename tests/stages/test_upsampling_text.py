"""upsample with a network that reads text: what it is told, and of records that bring none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
import torch
from latents_records import Listener, record, same

from vidgen.errors import InputError
from vidgen.io.record import Record
from vidgen.nn.unet import UNet, UNetConfig
from vidgen.stages import part_model
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text
from vidgen.stages.sample_keyframes import sample_keyframes
from vidgen.stages.upsample import Choices, upsample
from vidgen.systems import upsampling
from vidgen.systems.base import ModelFolder


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory) -> ModelFolder:
    """The tiny model, with an upsampler that reads its text."""
    folder = tmp_path_factory.mktemp("reads") / "tiny"
    shutil.copytree(tiny_model, folder)
    config = UNetConfig(
        in_channels=8, out_channels=4, variant="interpolation", init_channels=16, widths=(16, 16),
        self_attention=(False, False), cross_attention=(False, False), blocks=1, head_dim=8,
        groups=4, time_dim=32, level_scale=1000.0, text_dim=16, noise_embedding="time",
        skip_rows=20,
    )  # fmt: skip
    torch.manual_seed(0)
    tiny.unet(folder / "upsampler", config, upsampling.Settings("x0", "linear_flow", "euler", 2))
    return ModelFolder.find(str(folder))


@pytest.fixture(scope="module")
def clips(model) -> list[Record]:
    """Two prompts of different lengths."""
    texts = encode_text([Prompt("a red ball"), Prompt("a blue cube spins on green ground")], model)
    return list(sample_keyframes(texts, model, compute=Compute("cpu")))


def larger(records, model, *, batch_size=4) -> tuple[list[Record], list[str]]:
    notify, compute = Listener(), Compute("cpu", batch_size=batch_size)
    made = list(upsample(records, model, Choices(), compute=compute, notify=notify))
    return made, notify.warnings


def without_text(clip: Record) -> Record:
    names = {name for name in clip.tensors if name.startswith("text.")}
    attrs = {k: v for k, v in clip.attrs.items() if k != "text_encoder"}
    tensors = {k: v for k, v in clip.tensors.items() if k not in names}
    return Record.make("latents", clip.id, tensors, attrs)


def test_the_network_is_told_the_text(model, clips, monkeypatch):
    told, forward = [], UNet.forward

    def listen(self, z, t, **cond):
        told.append(cond)
        return forward(self, z, t, **cond)

    monkeypatch.setattr(UNet, "forward", listen)
    _, warnings = larger(clips, model)
    assert told and not warnings
    for row, clip in enumerate(clips):
        words = clip.torch("text.embeds")
        mask = told[0]["text_mask"][row]
        assert mask.tolist() == [True] * len(words) + [False] * (len(mask) - len(words))
        torch.testing.assert_close(told[0]["text"][row, : len(words)], words)


def test_other_words_make_other_details(model, clips):
    made, _ = larger(clips[:1], model)
    swapped = clips[0].replace(
        tensors={k: clips[1][k] for k in clips[1].tensors if k.startswith("text.")}
    )
    others, _ = larger([swapped], model)
    assert not torch.allclose(made[0].torch("latents"), others[0].torch("latents"), atol=1e-3)


def test_company_changes_nothing(model, clips):
    """Not even of a clip without text."""
    mixed = [clips[0], without_text(clips[1]), clips[1]]
    together, _ = larger(mixed, model)
    for one, clip in zip(together, mixed, strict=True):
        (alone,), _ = larger([clip], model, batch_size=1)
        same(one, alone)


def test_a_clip_without_text_is_said_to_have_none(model, clips):
    _, warnings = larger([without_text(clips[0]), clips[1]], model)
    assert warnings == [f"`{clips[0].id}` has no text: `tiny` adds details without text"]


def test_text_of_another_encoder_is_not_read(model, clips):
    own = clips[0].attrs["text_encoder"]
    other = clips[0].replace(attrs={"text_encoder": "umt5@1234"})
    (made,), warnings = larger([other], model)
    assert warnings == [f"`{other.id}` has text of `umt5@1234`: `tiny` adds details without text"]
    (bare,), _ = larger([without_text(clips[0])], model)
    assert own != "umt5@1234" and torch.equal(made.torch("latents"), bare.torch("latents"))


def test_text_that_is_not_what_it_says_is_refused(model, clips):
    wrong = clips[0].replace(tensors={"text.embeds": torch.zeros(3, 7)})
    with pytest.raises(InputError, match=r"text\.embeds"):
        larger([wrong], model)


def test_networks_without_text_say_nothing(tiny_model):
    plain = ModelFolder.find(str(tiny_model))
    _, warnings = larger([record(plain.latent_space)], plain)
    assert not warnings
    assert Path(plain.path).name == "tiny"


def test_rendered_clips_bring_their_captions(model, tiny_model, clips):
    """As the model's own clips do, when a part is tried on them."""
    own = clips[0].torch("latents")
    bare = Record.make(
        "latents", "a", {"latents": own, "times": clips[0]["times"]}, {"prompt": "a red ball"}
    )
    (told,) = part_model.captioned([bare], model)
    assert told.attrs["text_encoder"] == model.text_encoder and told.kind == "latents"
    torch.testing.assert_close(told.torch("text.embeds"), clips[0].torch("text.embeds"))
    assert torch.equal(told.torch("latents"), own)
    (same_again,) = part_model.captioned([bare], ModelFolder.find(str(tiny_model)))
    assert same_again is bare
