"""Prompts → text records: embeddings of the prompt and of its negative prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from vidgen.io import log
from vidgen.io.record import Record
from vidgen.nn.text import TextEmbedding, Tokenizer
from vidgen.stages.base import Compute, Loading, Notify, Silent, batched
from vidgen.stages.text_cache import TextCache
from vidgen.systems import world
from vidgen.systems.base import ModelFolder


@dataclass(frozen=True)
class Prompt:
    """One row of work: what to make, and what it is called through all stages."""

    text: str
    id: str | None = None  # default: made from the text
    negative: str = ""
    seed: int | None = None
    attrs: dict[str, Any] = field(default_factory=dict)  # passed through to later stages


class Names:
    """Record ids from prompts: readable, and unique in the stream.

    Ids that prompts bring themselves are kept for them, whatever comes before.
    """

    def __init__(self, prompts: Iterable[Prompt] = ()) -> None:
        self.kept = {p.id for p in prompts if p.id is not None}
        self.taken: set[str] = set()

    def of(self, prompt: Prompt) -> str:
        base = prompt.id or slug(prompt.text)
        name, n = base, 1
        while name in self.taken or (name in self.kept and name != prompt.id):
            n += 1
            name = f"{base}-{n}"
        self.taken.add(name)
        return name


def text_ids(prompts: Iterable[Prompt]) -> list[str]:
    """The ids that the records of these prompts will have."""
    prompts = list(prompts)
    names = Names(prompts)
    return [names.of(prompt) for prompt in prompts]


def slug(text: str, length: int = 60) -> str:
    """Lower-case words joined by hyphens, cut at a word: a file name that tells what it shows."""
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if len(words) > length:
        words = words[: length + 1].rpartition("-")[0] or words[:length]
    return words or "prompt"


def encode_text(
    prompts: Iterable[Prompt],
    folder: ModelFolder,
    *,
    cache: TextCache | None = None,
    together: int | None = None,
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Prompts → one text record each, with `text.embeds` `L D`, `text.mask` `L`, `text.pooled` `D`
    and the same of the negative prompt (empty = the unconditional branch of guidance).

    together  so many prompts are encoded before the first of their records is given, and then the
              encoder's memory is given back; None: it stays

    Words that the encoder was never taught are named in a warning, as is text past its length.
    """
    prompts = list(prompts)
    names, space = Names(prompts), folder.text_encoder
    system = folder.released or world
    tokenizer = system.load_tokenizer(folder)
    tower = Loading(lambda: system.load_text_tower(folder))

    def encoded(prompt: Prompt) -> Record:
        _warn_about(prompt.text, tokenizer, folder.name, notify)
        tensors: dict[str, Tensor] = {}
        for text, prefix in ((prompt.text, "text."), (prompt.negative, "text.negative_")):
            embedding = cache.get(space, text) if cache else None
            if embedding is None:
                embedding = tower.get().encode(text)
                if cache:
                    cache.put(space, text, embedding)
            tensors |= _named(embedding, prefix)
        attrs = {**prompt.attrs, "prompt": prompt.text, "text_encoder": space}
        if prompt.negative:
            attrs["negative_prompt"] = prompt.negative
        if prompt.seed is not None:
            attrs["seed"] = prompt.seed
        entry = log.new_entry(
            "encode-text",
            argv=["encode-text"],
            model=folder.identity("text_encoder"),
            **Compute("cpu", "fp32").described(),
        )
        return Record.make("text", names.of(prompt), tensors, attrs, [entry])

    for some in batched(prompts, together or 1):
        records = [encoded(prompt) for prompt in some]
        if together is not None:
            tower = Loading(lambda: system.load_text_tower(folder))
        yield from records


def _named(embedding: TextEmbedding, prefix: str) -> dict[str, Tensor]:
    return {
        prefix + "embeds": embedding.embeds,
        prefix + "mask": embedding.mask,
        prefix + "pooled": embedding.pooled,
    }


def _shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _warn_about(text: str, tokenizer: Tokenizer, model: str, notify: Notify) -> None:
    if overflow := tokenizer.overflow(text):
        notify.warn(
            f"the prompt is {overflow} tokens longer than the {tokenizer.max_length} that"
            f" `{model}` reads: its end is cut, from `{_shortened(tokenizer.beyond(text))}` on"
        )
    if unknown := tokenizer.unknown_words(text):
        shown = [f"{w} (near: {', '.join(near)})" if near else w for w, near in unknown.items()]
        more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
        notify.warn(f"`{model}` does not know: {'; '.join(shown[:8])}{more}")
