"""Text to vectors: a thin shell around a transformers encoder and its tokenizer.

The model folder decides which encoder that is (BERT-shaped for the shipped model; T5 and its kin
for released ones). Prompts are encoded one at a time, without padding: what a prompt becomes never
depends on what stood beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from tokenizers import Tokenizer as FastTokenizer
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TextEmbedding:
    """One encoded prompt: embeds `l d`, mask `l` (true = a token), pooled `d`."""

    embeds: Tensor
    mask: Tensor
    pooled: Tensor


class Tokenizer:
    """Words to token numbers, from a `tokenizer.json`; knows which words it was never taught.

    padding  the number that fills up to `max_length`, for encoders that read it as any token; None:
             a prompt is its own tokens alone
    cleaned  what is done to a prompt first
    """

    def __init__(
        self,
        source: Path | FastTokenizer,
        max_length: int,
        *,
        padding: int | None = None,
        cleaned: Callable[[str], str] = lambda text: text,
    ) -> None:
        from tokenizers import Tokenizer as FastTokenizer

        if isinstance(source, Path):
            source = FastTokenizer.from_file(str(source))
        self.fast: FastTokenizer = source
        self.fast.no_padding()
        self.max_length, self.padding, self.cleaned = max_length, padding, cleaned

    def __call__(self, prompt: str) -> list[int]:
        """Token numbers with the special tokens around them, at most `max_length`."""
        self.fast.enable_truncation(self.max_length)
        ids = self.fast.encode(self.cleaned(prompt)).ids
        if self.padding is None:
            return ids
        return ids + [self.padding] * (self.max_length - len(ids))

    def overflow(self, prompt: str) -> int:
        """How many tokens of the prompt do not fit."""
        self.fast.no_truncation()
        return max(0, len(self.fast.encode(self.cleaned(prompt)).ids) - self.max_length)

    def beyond(self, prompt: str) -> str:
        """The end of the prompt that does not fit; empty where all of it does."""
        if not self.overflow(prompt):
            return ""
        text = self.cleaned(prompt)
        self.fast.enable_truncation(self.max_length)
        kept = self.fast.encode(text)
        return text[max((end for _, end in kept.offsets), default=0) :].strip()

    def words(self, prompt: str) -> list[str]:
        """The prompt's words as the tokenizer sees them, punctuation left out."""
        normalizer, splitter = self.fast.normalizer, self.fast.pre_tokenizer
        text = normalizer.normalize_str(prompt) if normalizer else prompt
        pieces = splitter.pre_tokenize_str(text) if splitter else [(text, (0, len(text)))]
        return [word for word, _ in pieces if any(c.isalnum() for c in word)]

    def unknown_words(self, prompt: str) -> dict[str, list[str]]:
        """Words outside a word-level vocabulary → the nearest known ones, best first.

        Such words are spelled out letter by letter, which an encoder reads only as far as typing
        errors go. Empty for a large subword vocabulary, where every word is known.
        """
        vocabulary = self.fast.get_vocab()
        if len(vocabulary) > 5_000:
            return {}
        known = [w for w in vocabulary if w.isalpha() and len(w) > 1]
        missing = dict.fromkeys(w for w in self.words(prompt) if w not in vocabulary)
        return {w: get_close_matches(w, known, n=3, cutoff=0.6) for w in missing}


class TextTower(nn.Module):
    """A tokenizer and a transformers encoder; longer texts are cut at the tokenizer's length."""

    def __init__(self, tokenizer: Tokenizer, encoder: PreTrainedModel) -> None:
        super().__init__()
        self.tokenizer, self.encoder = tokenizer, encoder

    @classmethod
    def load(cls, tokenizer: Tokenizer, encoder_folder: Path) -> TextTower:
        """Read the encoder from disk, in float32; nothing is ever downloaded."""
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()  # standard error is for what vidgen has to say
        encoder = AutoModel.from_pretrained(
            encoder_folder, local_files_only=True, dtype=torch.float32
        )
        return cls(tokenizer, encoder.eval().requires_grad_(False))

    @torch.no_grad()
    def encode(self, prompt: str) -> TextEmbedding:
        """One prompt → its embedding, on the CPU in float32. The empty prompt is a prompt too."""
        device = next(self.encoder.parameters()).device
        ids = torch.tensor([self.tokenizer(prompt)], device=device)  # 1 l
        out = self.encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
        embeds = out.last_hidden_state[0].float().cpu()  # l d
        pooled = getattr(out, "pooler_output", None)
        pooled = embeds.mean(dim=0) if pooled is None else pooled[0].float().cpu()  # d
        return TextEmbedding(embeds, torch.ones(len(embeds), dtype=torch.bool), pooled)


def pad_text(texts: list[TextEmbedding]) -> dict[str, Tensor]:
    """Several embeddings as one batch: text `b l d`, mask `b l`, pooled `b d`; l the longest."""
    pad = nn.utils.rnn.pad_sequence
    return {
        "text": pad([t.embeds for t in texts], batch_first=True),
        "text_mask": pad([t.mask for t in texts], batch_first=True),
        "pooled": torch.stack([t.pooled for t in texts]),
    }
