"""`vidgen sample`: latents of whole clips, from text records or prompts."""

from __future__ import annotations

from typing import Annotated

from vidgen.cli import prompts as rows
from vidgen.cli.cascade import Passes, passes_of
from vidgen.cli.console import Console
from vidgen.cli.encode_text import NoCache, cache
from vidgen.cli.options import (
    ClipSize,
    Denoising,
    DryRun,
    Given,
    Inputs,
    Keeping,
    LoraFiles,
    Model,
    NumFrames,
    Picture,
    RecordOutput,
    RunningClips,
    option,
)
from vidgen.cli.page import Page
from vidgen.cli.prompt_check import check_prompts
from vidgen.cli.sample_keyframes import Wanted, planned, sample_texts
from vidgen.errors import UsageError

PAGE = Page(
    name="sample",
    summary="text records, or prompts, to latents of whole clips",
    description="""\
Makes the latents of whole clips, at the size that the model begins with: of the shipped model,
keyframes and the frames between them, as sample-keyframes and interpolate do, in one process. What
comes out is what those two in a pipe make, byte for byte; see their pages for what each does, and
for options that only they have.

A model without the component interpolation gives keyframes alone, and that is said; --passes of 1
or more are refused for it before anything is computed.

--model also takes a folder of Wan 2.1, Wan 2.2 or CogVideoX weights as diffusers lays them out.
Such a model makes clips in one go, of any --num-frames and --size that it divides; solver, shift,
steps and guidance are the folder's own unless given. Only its transformer is read here: text may
come from, and decoding go to, a machine that has the other components. Image-to-video models want
--image, the picture that a clip begins with, which is resized to its size; for that their
autoencoder is read, too, and of Wan 2.1 the image encoder.

Any --lora is added to the weights, times the number behind its colon, whether diffusers, the
authors' code or kohya's trainers named its layers; one of another network is refused. With
--checkpoint steps are kept as they come: a run that was stopped, or killed, goes on when it is
called again, and makes the same bytes. With --preview-every a small picture lies beside them: what
the clip would be, by a linear map from latents to colors that is fitted to the model's autoencoder.

Where memory is short, --offload layer has two blocks of a network there at a time: each is read
while the one before it computes, on a CPU from its file, on CUDA from pinned memory. --offload
model has one network there at a time (Wan 2.2 has two), and none while no clip is sampled; the text
encoder of --prompt goes before. Both make the same bytes as none. --weight-dtype fp8 keeps the
matrices of blocks as eight-bit numbers (e4m3), scaled by output channel, and multiplies them out to
compute in --dtype: each is 2.6 % off, which a warning and the log's `approximations` say. On a CPU
it can't be had with --offload layer, beside which it saves nothing.

Text records come from files or standard input. With --prompt none are read: prompts are encoded
first, as encode-text does.""",
    reads="text records from IN, or nothing with --prompt",
    writes="latents records to -o",
    examples=[
        ('vidgen sample --prompt "a red ball bounces" | vidgen upsample | vidgen decode -o x.mp4',
         "from a prompt to a video"),
        ("vidgen sample ball.text.safetensors -o ball.dense.safetensors", "of a text record"),
        ("vidgen sample ball.text.safetensors --seed 0-3 --passes 0 -o '{id}.safetensors'",
         "four seeds, keyframes alone"),
        ("vidgen sample cat.text.vgs --model Wan2.1-T2V-1.3B-Diffusers --size 832x480 -o cat.vgs",
         "by released weights"),
        ("vidgen sample cat.text.vgs --model CogVideoX-5b --offload layer -o cat.vgs",
         "by more weights than there is memory"),
        ('vidgen sample --prompt "a white can" --dry-run', "shapes, FLOPs, memory, time"),
    ],
    notes={
        "RECORDS": """\
As those of `vidgen interpolate`, or with --passes 0 of `vidgen sample-keyframes`; the log holds an
entry for each. Of released weights: `latents` float32 [C, T, h, w], where each latent but the first
stands for four frames, so there are no `times`.""",
    },
    see_also=["vidgen-sample-keyframes(1)", "vidgen-interpolate(1)", "vidgen-upsample(1)",
              "vidgen-decode(1)", "vidgen-generate(1)"],
)  # fmt: skip

Prompt = Annotated[
    list[str] | None,
    option("--prompt", metavar="TEXT", default="none", settable=False,
           help="what a clip is to show, instead of text records; may be repeated"),
]  # fmt: skip
Negative = Annotated[  # not from the settings: it would be in the way of text records
    str | None,
    option("--negative", metavar="TEXT", default="empty", settable=False,
           help="with --prompt: what to steer away from"),
]  # fmt: skip


def sample(
    out: RecordOutput,
    running: RunningClips,
    console: Console,
    given: Given,
    inputs: Inputs = None,
    prompt: Prompt = None,
    negative: Negative = None,
    *,
    denoising: Denoising,
    keeping: Keeping,
    passes: Passes = None,
    num_frames: NumFrames = None,
    size: ClipSize = None,
    image: Picture = None,
    lora: LoraFiles = None,
    model: Model = None,
    no_cache: NoCache = False,
    dry_run: DryRun = False,
) -> None:
    from vidgen.systems.base import ModelFolder

    refuse_mixed(prompt, inputs, negative)
    wanted = Wanted.of(denoising, num_frames, size, image, lora)
    folder = ModelFolder.find(model)
    folder.component("transformer")
    folder.require_whole("transformer", "transformer_2", "image_encoder")
    running.refuse_unused(folder, given)
    passes, checkpoints = passes_of(folder, passes, console), keeping.checkpoints(folder, given)
    if not prompt:
        given.refuse("no_cache", why="text records are encoded already; it is for --prompt")
        sample_texts(
            out, running, console, inputs, folder, wanted, passes=passes, checkpoints=checkpoints,
            dry_run=dry_run,
        )  # fmt: skip
        return

    from vidgen.cli.runner import check_names, check_output, print_text, write_records

    if not dry_run:
        check_output(out)
    folder.component("text_encoder")
    found = rows.gather(prompt, None, negative=negative)
    check_prompts(found, folder, console)
    if dry_run:
        from vidgen.stages import plan

        print_text(plan.encoding(folder, [row["prompt"] for row in found]))
        print_text(planned(folder, running.compute(), wanted, len(found), passes))
        return

    from vidgen.stages import cascade, encode_text, sample_keyframes

    choices, named = wanted.choices(), rows.as_prompts(found)
    cascade.check_choices(folder, choices)
    own = zip(encode_text.text_ids(named), (prompt.seed for prompt in named), strict=True)
    check_names(out, sample_keyframes.sample_ids(own, choices))
    compute = running.compute()
    compute.check()
    texts = encode_text.encode_text(
        named, folder, cache=cache(no_cache), compute=compute,
        together=encode_text.together_before_sampling(folder, compute), notify=console,
    )  # fmt: skip
    latents = cascade.sample(
        texts, folder, choices, passes=passes, checkpoints=checkpoints, compute=compute,
        notify=console,
    )  # fmt: skip
    write_records(latents, out, console)


def refuse_mixed(prompt: list[str] | None, inputs: list[str] | None, negative: str | None) -> None:
    """UsageError for prompts beside text records, and for what only prompts have a use for."""
    if prompt and inputs:
        raise UsageError(
            "text is given both as --prompt and as files", next="choose one of the two"
        )
    if negative is not None and not prompt:
        raise UsageError(
            "--negative is for --prompt: text records have theirs",
            next="vidgen encode-text --negative TEXT …",
        )
