"""The log of a record: every step that made it, each naming the one before.

An entry holds nothing that differs between two runs which make the same bytes: no clock time, no
host, no file name. It names the model of the device, since another one rounds differently. Its
`id` is a hash of its content, `previous` included, so the last id stands for the whole history, as
a git commit does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vidgen import __version__
from vidgen.io.layout import canonical_json

if TYPE_CHECKING:
    from vidgen.io.record import Record

PRIVATE = ("prompt", "negative_prompt", "prompts", "caption", "captions", "synopsis")
# Attributes that stages write and that tell nothing of the prompt.
PUBLIC = ("text_encoder", "latent_space", "num_frames", "height", "width", "fps", "seed", "source",
          "sample_rate", "video")  # fmt: skip
NOISE = "sha256-mt19937-f64/1"  # vidgen.diffusion.noise.ALGORITHM; a test holds the two together


def new_entry(
    tool: str,
    *,
    argv: Sequence[str],
    model: dict[str, str] | None = None,
    seed: int | None = None,
    dtype: str | None = None,
    attention: str | None = None,
    approximations: Iterable[str] = (),
    device: str | None = None,
    device_name: str | None = None,
    inputs: Iterable[str] = (),
    **extra: Any,
) -> dict[str, Any]:
    """What one step says of itself. `link` gives it its `previous` and its `id`.

    argv            the subcommand and the options that shape its result, canonical: sorted, no
                    defaults, no file names, no prompts, no device
    model           {"name", "sha256" of its weights}
    attention       the attention kernels that were used
    device          given by steps that compute with torch; adds torch's version
    device_name     its model
    approximations  whatever is not exact: quantized weights, skipped steps, cached features
    inputs          digests of the records or files it read
    extra           more keys of the step's own, JSON values
    """
    entry: dict[str, Any] = {
        "tool": tool,
        "version": __version__,
        "argv": list(argv),
        "model": model,
        "seed": seed,
        "noise": None if seed is None else NOISE,
        "dtype": dtype,
        "attention": attention,
        "approximations": list(approximations),
        "device": device,
        "device_name": device_name,
        "torch": _torch_version() if device else None,
        "inputs": list(inputs),
        **extra,
    }
    return {k: v for k, v in entry.items() if v is not None and v != []}


def _torch_version() -> str:
    from importlib.metadata import version  # not torch.__version__: that would import torch

    return version("torch")


def entry_id(entry: dict[str, Any]) -> str:
    """12 hex digits for an entry's content; its own `id` doesn't count."""
    content = {k: v for k, v in entry.items() if k != "id"}
    return hashlib.sha256(canonical_json(content)).hexdigest()[:12]


def link(log: Iterable[dict[str, Any]], *entries: dict[str, Any]) -> list[dict[str, Any]]:
    """The log with entries added at its end, each naming the one before it."""
    chain = list(log)
    for entry in entries:
        entry = {k: v for k, v in entry.items() if k not in ("id", "previous")}
        if chain:
            entry["previous"] = chain[-1]["id"]
        chain.append({**entry, "id": entry_id(entry)})
    return chain


def broken_links(log: Sequence[dict[str, Any]]) -> list[str]:
    """What doesn't fit in a log, in words; empty for a log that nobody has edited."""
    out = []
    for i, entry in enumerate(log):
        name = f"entry {i + 1} ({entry.get('tool', 'no tool')})"
        if entry.get("id") != entry_id(entry):
            out.append(f"{name}: its id is `{entry.get('id')}`, its content `{entry_id(entry)}`")
        before = log[i - 1].get("id") if i else None
        if entry.get("previous") != before:
            out.append(f"{name}: follows `{entry.get('previous')}`, stands behind `{before}`")
    return out


def strip_log(record: Record) -> Record:
    """The record without its history (`--no-provenance`)."""
    return replace(record, log=[])


def redact(record: Record) -> Record:
    """The record without its prompts (`--redact-prompt`): of its attrs only those that stages write
    stay, and its id, which may have been made from the prompt, gives way to a hash of it.

    Text embeddings, where a record still has them, tell what the prompt was about; `decode` drops
    them.
    """
    attrs = {k: v for k, v in record.attrs.items() if k in PUBLIC}
    if "source" in attrs:
        attrs["source"] = redacted_id(str(attrs["source"]))
    log = record.log
    if any(k in PRIVATE for entry in log for k in entry):
        log = link((), *({k: v for k, v in e.items() if k not in PRIVATE} for e in log))
    return replace(record, id=redacted_id(record.id), attrs=attrs, log=log)


def redacted_id(name: str) -> str:
    """What stands for an id that may tell the prompt; of one that stands for one, itself."""
    if name.startswith("redacted-"):
        return name
    return "redacted-" + hashlib.sha256(name.encode()).hexdigest()[:12]


def format_log(log: Sequence[dict[str, Any]]) -> str:
    """The chain as text, oldest step first: one block of `key  value` lines for each."""
    if not log:
        return "no log: the record was stripped of it, or no vidgen command made it\n"
    return "\n".join(_block(i + 1, entry) for i, entry in enumerate(log))


def outline(log: Sequence[dict[str, Any]]) -> list[str]:
    """The steps' names in a line; and one for each that a model made, with the beginning of its
    weights' hash, its seed and sampler, and what isn't exact."""
    lines = [f"made by: {' → '.join(str(entry.get('tool', '?')) for entry in log)}"]
    for entry in log:
        models = [_name(entry[key]) for key in ("model", "model_2") if key in entry]
        told = [", ".join(models), *(f"{k} {_words(entry[k])}" for k in _OUTLINED if k in entry)]
        if models:
            lines.append(f"  {entry.get('tool', '?')}: {'; '.join(told)}")
    return lines


_HEAD = ("id", "previous", "tool", "version")
_OUTLINED = ("loras", "seed", "sampler", "approximations")


def _block(number: int, entry: dict[str, Any]) -> str:
    head = f"{number}  {entry.get('tool', '?')}  vidgen {entry.get('version', '?')}"
    lines = [f"{head}  {entry.get('id', '?')}"]
    for key, value in entry.items():
        if key not in _HEAD:
            lines.append(f"   {key:<14} {_words(value)}")
    return "\n".join(lines) + "\n"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{k} {_words(v)}" for k, v in sorted(value.items()))
    if isinstance(value, list):
        return " ".join(map(_words, value))
    return str(value)


def _name(model: Any) -> str:
    """`wan/vae@feabdb25055a`; as it is, where nobody of ours wrote it."""
    if not isinstance(model, dict) or {type(model.get(k)) for k in ("name", "sha256")} != {str}:
        return _words(model)
    return f"{model['name']}@{model['sha256'][:12]}"
