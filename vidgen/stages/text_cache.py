"""Embeddings that were made before, by encoder and prompt, on disk.

An encoder such as UMT5-XXL takes longer to read from disk than a prompt takes to sample; whoever
tries seeds or settings on the same prompts should pay for it once.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from vidgen.errors import InputError, VidgenError
from vidgen.io import files
from vidgen.io.record import Record
from vidgen.io.stream import read_stream, write_stream
from vidgen.nn.text import TextEmbedding


class TextCache:
    """A folder of one-record files, named by the hash of (encoder, prompt)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, text_encoder: str, prompt: str) -> TextEmbedding | None:
        """What was put under these two, or None; a damaged file counts as none."""
        path = self._path(text_encoder, prompt)
        if not path.is_file():
            return None
        try:
            record = next(iter(read_stream(path)))
        except InputError:
            return None
        return TextEmbedding(
            record.torch("text.embeds").clone(),
            record.torch("text.mask").clone(),
            record.torch("text.pooled").clone(),
        )

    def put(self, text_encoder: str, prompt: str, embedding: TextEmbedding) -> None:
        """Keep it. A cache that can't be written is no cache, not an error."""
        path = self._path(text_encoder, prompt)
        tensors = {
            "text.embeds": embedding.embeds,
            "text.mask": embedding.mask,
            "text.pooled": embedding.pooled,
        }
        record = Record.make("text", path.stem, tensors, {"text_encoder": text_encoder})
        with suppress(OSError, VidgenError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.atomic_write(path, force=True) as f:
                write_stream([record], f)

    def _path(self, text_encoder: str, prompt: str) -> Path:
        key = hashlib.sha256(f"{text_encoder}\0{prompt}".encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.safetensors"
