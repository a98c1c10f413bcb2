"""Where a released text encoder runs, and in which numbers."""

import warnings

import pytest
import torch

from vidgen.errors import Exit, OutOfMemory, VidgenError
from vidgen.stages import encode_text as stage
from vidgen.stages.base import Compute
from vidgen.stages.encode_text import Prompt, encode_text, together_before_sampling
from vidgen.stages.text_cache import TextCache
from vidgen.systems import wan
from vidgen.systems.base import ModelFolder

with warnings.catch_warnings():
    # Its import warns about optional packages and its own old annotations; ours must not.
    warnings.simplefilter("ignore")
    pytest.importorskip("diffusers")
    from benchmarks.parity_folders import text_encoder, tokenizer

PROMPT = "a red ball bounces on the grass"
HALF = Compute("cpu", "bf16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Wan folder of the components that text needs."""
    path = tmp_path_factory.mktemp("wan")
    text_encoder("wan 2.1").save_pretrained(path / "text_encoder")
    tokenizer(path / "tokenizer", 512)
    (path / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    return ModelFolder(path)


def encoded(folder, compute, **more):
    (record,) = encode_text([Prompt(PROMPT)], folder, compute=compute, **more)
    return record


def test_bf16_is_transformers_in_bf16(folder):
    from transformers import UMT5EncoderModel

    record = encoded(folder, HALF)
    reference = UMT5EncoderModel.from_pretrained(
        folder.path / "text_encoder", dtype=torch.bfloat16
    ).eval()
    ids = torch.tensor([wan.load_tokenizer(folder)(PROMPT)])
    with torch.no_grad():
        wanted = reference(ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
    assert record.torch("text.embeds").dtype == torch.float32
    assert record.torch("text.embeds").equal(wanted.float())
    whole = encoded(folder, stage.ON_CPU)
    assert not record.torch("text.embeds").equal(whole.torch("text.embeds"))
    assert (record.log[-1]["dtype"], whole.log[-1]["dtype"]) == ("bfloat16", "float32")


def test_what_is_remembered_of_one_dtype_is_not_taken_for_another(folder, tmp_path):
    cache = TextCache(tmp_path / "cache")
    for compute in (HALF, stage.ON_CPU, HALF):
        alone = encoded(folder, compute).torch("text.embeds")
        assert encoded(folder, compute, cache=cache).torch("text.embeds").equal(alone)


def test_numbers_past_the_dtype_are_told(folder, monkeypatch):
    from vidgen.nn.text import TextEmbedding, TextTower

    past = TextEmbedding(torch.full((2, 3), torch.inf), torch.ones(2).bool(), torch.zeros(3))
    monkeypatch.setattr(TextTower, "encode", lambda self, text: past)
    with pytest.raises(VidgenError, match="gives numbers that are none, in float16"):
        encoded(folder, Compute("cpu", "fp16"))


def test_an_encoder_that_does_not_fit_is_told(folder, monkeypatch):
    def fail(*args):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(wan, "load_text_tower", fail)
    with pytest.raises(OutOfMemory) as told:
        encoded(folder, stage.ON_CPU)
    assert "--dtype bf16" in str(told.value.next)


def test_before_sampling_on_a_device_the_encoder_makes_room(folder, tiny_model, monkeypatch):
    monkeypatch.setattr(Compute, "torch_device", lambda self: torch.device("cuda"))
    assert together_before_sampling(folder, Compute()) == stage.TOGETHER
    assert together_before_sampling(folder, Compute(offload="model", batch_size=2)) == 2
    assert together_before_sampling(ModelFolder(tiny_model), Compute()) is None
    monkeypatch.undo()
    assert together_before_sampling(folder, HALF) is None


def test_models_of_ours_encode_on_the_cpu(tiny_model):
    record = encoded(ModelFolder(tiny_model), Compute("cuda", "bf16"))
    assert (record.log[-1]["device"], record.log[-1]["dtype"]) == ("cpu", "float32")


@pytest.mark.parametrize("option", [("--device", "cpu"), ("--dtype", "bf16")])
def test_for_those_the_options_are_refused(tiny_model, option, monkeypatch, tmp_path):
    from vidgen.cli import app

    monkeypatch.chdir(tmp_path)
    words = ["encode-text", "a ball", "--model", str(tiny_model), *option, "-o", "x.vgs"]
    assert app.main(words) == Exit.USAGE
    monkeypatch.setenv("VIDGEN_" + option[0][2:].upper(), option[1])  # said for all commands
    assert app.main(words[:4] + words[6:]) == 0
