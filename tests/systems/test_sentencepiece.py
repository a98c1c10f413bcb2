"""Tokenizers of T5 and UMT5 that came as spiece.model alone, as those of CogVideoX did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidgen.errors import InputError
from vidgen.systems import released
from vidgen.systems.base import ModelFolder

WORDS = "a red blue ball cube cat bounces spins on the grass slowly while green dogs run"
PROMPTS = ("a red ball bounces", "A Red  ball!", "ｆｕｌｌ width ﬁne", "xyz 漢字", "", "a\nb\tc")


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    (tmp_path / "tokenizer").mkdir()
    config = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>",
              "unk_token": "<unk>", "extra_ids": 0, "additional_special_tokens": [],
              "model_max_length": 226}  # fmt: skip
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer" / "spiece.model").write_bytes(b"")
    return ModelFolder(tmp_path)


@pytest.fixture
def trained(folder: ModelFolder) -> ModelFolder:
    """With a small vocabulary of sentencepiece's own making."""
    pytest.importorskip("google.protobuf")
    spm = pytest.importorskip("sentencepiece")
    words = WORDS.split()
    text = [" ".join(words[i % 7 :: i % 3 + 1]) for i in range(200)]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=str(folder.path / "tokenizer" / "spiece"),
        vocab_size=30, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=3,
    )  # fmt: skip
    return folder


def test_what_is_not_installed_is_named(folder, monkeypatch) -> None:
    monkeypatch.setattr(released, "SPIECE_NEEDS", {"sentencepiece": "no_such.part", "json": "json"})
    with pytest.raises(InputError, match="to read that sentencepiece is not installed"):
        released.tokenizer(folder, 20)


def test_it_is_read_as_sentencepiece_reads_it(trained) -> None:
    import sentencepiece as spm

    read = released.tokenizer(trained, 100)
    own = spm.SentencePieceProcessor(model_file=str(trained.path / "tokenizer" / "spiece.model"))
    for prompt in PROMPTS:
        assert read(prompt) == [*own.encode(prompt), 1], prompt
    assert len(released.tokenizer(trained, 5)("a red ball bounces on the grass")) == 5


@pytest.mark.parametrize("size", [0, 300])
def test_a_damaged_one_is_told(trained, size) -> None:
    path = trained.path / "tokenizer" / "spiece.model"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="can't be read: "):
        released.tokenizer(trained, 100)
