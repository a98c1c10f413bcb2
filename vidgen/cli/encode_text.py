"""`vidgen encode-text`: prompts to text records."""

from __future__ import annotations

from typing import Annotated

from vidgen.cli import prompts as rows
from vidgen.cli.console import Console
from vidgen.cli.options import (
    IO,
    RUNNING,
    DryRun,
    Given,
    Model,
    Negative,
    Place,
    RecordOutput,
    argument,
    option,
)
from vidgen.cli.page import Page
from vidgen.cli.prompt_check import check_prompts

PAGE = Page(
    name="encode-text",
    summary="prompts to text records",
    description="""\
Encodes each prompt, and its negative prompt, with the model's text encoder. Prompts are arguments,
or the lines of a file, or its JSONL rows: objects with `prompt` and, if wanted, `id`,
`negative_prompt` and `seed`; any other key becomes an attribute of the record. The id names the
sample through all later stages and decides its noise together with the seed; without one it is
made from the prompt's words.

Words that the encoder was never taught are named in a warning, with the nearest that it knows. A
prompt longer than the encoder reads is cut, with a warning.

The shipped model shows a small world. A prompt that names nothing of it is refused before anything
is computed, with the words that it may use; the empty prompt asks for nothing and is fine. Of words
that contradict each other one counts, and a warning says which: the color nearest to its noun, the
first of two motions without "then" between them, the first ground and the first camera move.

Of a folder of Wan or CogVideoX weights, only text_encoder and tokenizer are read. Wan's UMT5 takes
512 tokens of a prompt, CogVideoX's T5 226, which shorter prompts are padded to; what is cut is
named in a warning. --device and --dtype are for these encoders: as large as they are, they take
22 GB of memory in fp32, which is the default on a CPU, and half of that in bf16, the default on
CUDA. What they give is kept as float32. The encoders of our own models are small, and always run
on the CPU.

Encoded prompts are remembered on disk, by encoder and prompt, so that later runs need not load the
encoder; --no-cache neither reads nor writes there.""",
    reads="prompts from arguments, a file, or standard input",
    writes="text records to -o",
    examples=[
        ('vidgen encode-text "a red ball bounces" -o ball.text.safetensors', "one prompt"),
        ("vidgen encode-text -i prompts.txt -o all.text.safetensors", "a prompt a line"),
        ("vidgen encode-text -i prompts.jsonl -o rows.text.safetensors", "JSONL rows"),
        ("vidgen encode-text -i prompts.txt --model Wan2.1-T2V-1.3B-Diffusers -o all.text.vgs",
         "for released weights"),
        ("vidgen encode-text -i prompts.txt --model Wan2.1-T2V-1.3B-Diffusers --dtype bf16"
         " -o all.text.vgs", "by half the memory"),
        ("echo 'a blue cube spins' | vidgen encode-text | vidgen inspect", "in a pipe"),
    ],
    notes={
        "RECORDS": """\
`text.embeds` float32 [L, D], `text.mask` bool [L] and `text.pooled` float32 [D] of the prompt;
`text.negative_embeds`, `text.negative_mask` and `text.negative_pooled` of the negative prompt,
which is the unconditional branch of guidance and empty by default. Attributes: `prompt`,
`negative_prompt`, `seed`, `text_encoder`.""",
        "FILES": """\
`$XDG_CACHE_HOME/vidgen/text` (default ~/.cache/vidgen/text) holds what was encoded.""",
        "REPRODUCIBILITY": """\
Prompts are encoded one at a time: what a prompt becomes does not depend on what stood beside it,
nor on the cache. Other devices and dtypes give other bits: the log says which they were.""",
    },
    see_also=["vidgen-sample-keyframes(1)", "vidgen-generate(1)"],
)  # fmt: skip

Prompts = Annotated[list[str] | None, argument("PROMPT", "what the video is to show")]
PromptFile = Annotated[
    str | None,
    option("-i", "--input", metavar="FILE", group=IO, default="none", settable=False,
           help="prompts from a file: one a line, or JSONL rows; - is standard input"),
]  # fmt: skip
NoCache = Annotated[
    bool, option("--no-cache", group=RUNNING, help="encode prompts anew, and remember nothing")
]


def encode_text(
    out: RecordOutput,
    place: Place,
    console: Console,
    given: Given,
    prompts: Prompts = None,
    input: PromptFile = None,
    negative: Negative = None,
    model: Model = None,
    no_cache: NoCache = False,
    dry_run: DryRun = False,
) -> None:
    from vidgen.cli.runner import check_names, check_output, print_text, write_records

    if not dry_run:
        check_output(out)
    found = rows.gather(prompts or [], input, negative=negative)

    from vidgen.systems.base import ModelFolder

    folder = ModelFolder.find(model)
    folder.component("text_encoder")
    if not folder.released:
        why = f"the encoder of `{folder.name}` is small, and runs on the CPU"
        given.refuse("device", "dtype", why=why)
    compute = place.compute()
    if folder.released:
        compute.check()
    check_prompts(found, folder, console)
    if dry_run:
        from vidgen.stages import plan

        print_text(plan.encoding(folder, [row["prompt"] for row in found]))
        return
    from vidgen.stages import encode_text as stage

    prompted = rows.as_prompts(found)
    check_names(out, stage.text_ids(prompted))
    records = stage.encode_text(
        prompted, folder, cache=cache(no_cache), compute=compute, notify=console
    )
    write_records(records, out, console)


def cache(off: bool):
    """The folder of remembered embeddings, or None."""
    from vidgen.io.weights import cache_folder
    from vidgen.stages.text_cache import TextCache

    return None if off else TextCache(cache_folder() / "text")
