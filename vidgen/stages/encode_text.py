"""Prompts → text records: embeddings of the prompt and of its negative prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vidgen.errors import OutOfMemory, VidgenError, is_out_of_memory
from vidgen.io import log
from vidgen.io.record import Record
from vidgen.nn.text import TextEmbedding, TextTower, Tokenizer
from vidgen.stages.base import Compute, Loading, Notify, Silent, batched
from vidgen.stages.text_cache import TextCache
from vidgen.systems import world
from vidgen.systems.base import ModelFolder

ON_CPU = Compute("cpu", "fp32")
TOGETHER = 64  # prompts, where an encoder makes room: their vectors take half a gigabyte at most


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
    compute: Compute = ON_CPU,
    together: int | None = None,
    notify: Notify = Silent(),
) -> Iterator[Record]:
    """Prompts → one text record each, with `text.embeds` `L D`, `text.mask` `L`, `text.pooled` `D`
    and the same of the negative prompt (empty = the unconditional branch of guidance).

    compute   where a released model's encoder runs; the small ones of ours run on the CPU
    together  so many prompts are encoded before the first of their records is given, and then the
              encoder's memory is given back; None: it stays

    Words that the encoder was never taught are named in a warning, as is text past its length.
    """
    prompts = list(prompts)
    names, space = Names(prompts), folder.text_encoder
    tokenizer = (folder.released or world).load_tokenizer(folder)
    compute = compute if folder.released else ON_CPU
    kept = _kept_as(space, compute)
    tower = Loading(lambda: _load(folder, compute))

    def encoded(prompt: Prompt) -> Record:
        _warn_about(prompt.text, tokenizer, folder.name, notify)
        tensors: dict[str, Tensor] = {}
        for text, prefix in ((prompt.text, "text."), (prompt.negative, "text.negative_")):
            embedding = cache.get(kept, text) if cache else None
            if embedding is None:
                embedding = _finite(tower.get().encode(text), folder, compute)
                if cache:
                    cache.put(kept, text, embedding)
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
            **compute.described(),
        )
        return Record.make("text", names.of(prompt), tensors, attrs, [entry])

    for some in batched(prompts, together or 1):
        records = [encoded(prompt) for prompt in some]
        if together is not None:
            tower = Loading(lambda: _load(folder, compute))
            _give_back(compute)
        yield from records


def together_before_sampling(folder: ModelFolder, compute: Compute) -> int | None:
    """How many prompts are encoded before an encoder makes room for networks that sample, in one
    process; None: it needn't, since it takes none of their device's memory."""
    if folder.released and compute.torch_device().type != "cpu":
        return compute.prompts_together or TOGETHER
    return compute.prompts_together


def _load(folder: ModelFolder, compute: Compute) -> TextTower:
    """The text encoder, where it is to run. OutOfMemory where it doesn't fit."""
    if not folder.released:
        return world.load_text_tower(folder)
    try:
        tower = folder.released.load_text_tower(folder, compute.torch_dtype())
        return tower.to(compute.torch_device())
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        smaller = "" if compute.torch_dtype().itemsize < 4 else ", or --dtype bf16"
        raise OutOfMemory(
            f"the text encoder of `{folder.name}` doesn't fit into the memory of"
            f" {compute.torch_device()}",
            next=f"vidgen encode-text --device cpu{smaller}, and sample what it writes",
        ) from error


def _give_back(compute: Compute) -> None:
    """To the device: what torch keeps of its memory for another time."""
    if compute.torch_device().type == "cuda":
        torch.cuda.empty_cache()


def _kept_as(space: str, compute: Compute) -> str:
    """The encoder's name in the cache. Other devices and dtypes give other bits."""
    device, dtype = compute.torch_device().type, compute.torch_dtype()
    return space if (device, dtype) == ("cpu", torch.float32) else f"{space} {device} {dtype}"


def _finite(embedding: TextEmbedding, folder: ModelFolder, compute: Compute) -> TextEmbedding:
    """VidgenError for numbers past what the dtype holds, as T5 has in float16."""
    if not embedding.embeds.isfinite().all():
        raise VidgenError(
            f"the text encoder of `{folder.name}` gives numbers that are none, in"
            f" {str(compute.torch_dtype()).removeprefix('torch.')}",
            next="--dtype bf16 or fp32",
        )
    return embedding


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
