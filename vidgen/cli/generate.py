"""`vidgen generate`: prompts to videos, in one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from vidgen.cli import prompts as rows
from vidgen.cli import video_output
from vidgen.cli.cascade import Passes, Scale, passes_of, scale_of
from vidgen.cli.console import Console
from vidgen.cli.decode import Decoder
from vidgen.cli.encode_text import NoCache, PromptFile, Prompts, cache
from vidgen.cli.options import (
    ClipSize,
    Crf,
    Denoising,
    DryRun,
    Fps,
    Given,
    Keeping,
    LoraFiles,
    Model,
    Negative,
    NumFrames,
    Picture,
    RecordOutput,
    RunningClips,
)
from vidgen.cli.page import Page
from vidgen.cli.prompt_check import check_prompts
from vidgen.cli.sample_keyframes import Wanted, planned

if TYPE_CHECKING:
    from vidgen.io.record import Record
    from vidgen.stages.base import Notify

PAGE = Page(
    name="generate",
    summary="prompts to videos, in one process",
    description="""\
Runs encode-text, sample-keyframes, interpolate, upsample and decode in one process. The result is
the same, byte for byte, as that of the five in a pipe; what is missing are the files in between.
See their pages for what each does, and for options that only they have.

What the model has no component for is left out, and that is said. What you ask for by --passes,
--scale or --decoder is done, or refused before anything is computed. --steps, --guidance-scale,
--solver and --shift are those of the keyframes.

With a folder of Wan or CogVideoX weights for --model it runs encode-text, sample and decode, and
--num-frames and --size may be given. With --offload, of which sample's page tells, the networks of
the three are in memory by turn.

On a GPU, where its memory holds both, the next clips of such a folder are sampled while the last
ones are decoded: of more samples than --batch-size and up to 64, without --offload, --compile and
an --attention of your choice.

The names of all videos are checked before anything is computed. A video is written when it is
decoded: what is finished stays when a later one fails.""",
    reads="prompts from arguments, a file, or standard input",
    writes="videos, or frames records, to -o",
    examples=[
        ('vidgen generate "a red ball bounces on sand ground" --seed 7 -o ball.mp4', "one video"),
        ("vidgen generate -i prompts.txt -o 'out/{id}.mp4'", "a prompt a line"),
        ("vidgen generate \"a blue cube spins\" --seed 0-3 -o 'out/{id}.gif'", "four seeds"),
        ('vidgen generate "a white can" --steps 5 --passes 0 --scale 1 -o can.mp4',
         "a quick draft"),
        ('vidgen generate "a cat bakes" --model CogVideoX-5b -o cat.mp4', "by released weights"),
        ('vidgen generate "a white can" --dry-run', "what each stage would take"),
    ],
    notes={
        "REPRODUCIBILITY": """\
The same prompt, id, seed, model and options give the same file on the same machine and torch. A
sample does not depend on the batch it is in: its noise is the same to the bit, its frames to
rounding.""",
    },
    see_also=["vidgen-encode-text(1)", "vidgen-sample-keyframes(1)", "vidgen-interpolate(1)",
              "vidgen-upsample(1)", "vidgen-decode(1)", "vidgen-sample(1)"],
)  # fmt: skip


def generate(
    out: RecordOutput,
    running: RunningClips,
    console: Console,
    given: Given,
    prompts: Prompts = None,
    input: PromptFile = None,
    negative: Negative = None,
    *,
    denoising: Denoising,
    keeping: Keeping,
    passes: Passes = None,
    scale: Scale = None,
    num_frames: NumFrames = None,
    size: ClipSize = None,
    image: Picture = None,
    lora: LoraFiles = None,
    decoder: Decoder = None,
    model: Model = None,
    fps: Fps = None,
    crf: Crf = 18,
    no_cache: NoCache = False,
    dry_run: DryRun = False,
) -> None:
    from vidgen.cli.runner import check_count, print_text, write_records
    from vidgen.systems.base import ModelFolder

    video = (not dry_run or out.output != "-") and video_output.check(out)
    if not dry_run or out.output != "-":
        video_output.refuse_unused(given, out, None, video=video)
    found = rows.gather(prompts or [], input, negative=negative)
    wanted = Wanted.of(denoising, num_frames, size, image, lora)
    count = wanted.samples(len(found))
    quotes = "each argument is a prompt: quotes make one of several words" if prompts else None
    check_count(out, count, single=video, why=quotes)
    folder = ModelFolder.find(model)
    folder.require_whole(*folder.index)
    for component in ("text_encoder", "vae") if folder.released else ():
        folder.weight_files(component)
    running.refuse_unused(folder, given)
    passes, scale = passes_of(folder, passes, console), scale_of(folder, scale, console)
    checkpoints = keeping.checkpoints(folder, given)
    check_prompts(found, folder, console)
    compute = running.compute()

    from vidgen.stages import decode as decoding

    decoding.component_of(folder, decoder)
    if dry_run:
        from vidgen.stages import plan

        encoding = plan.encoding(folder, [row["prompt"] for row in found])
        stages = planned(folder, compute, wanted, len(found), passes)
        if folder.released:
            from vidgen.stages import plan_clips, sample_keyframes

            shapes = plan_clips.to_come(folder, count, wanted.choices())
            after = [plan_clips.decoding(folder, compute, shapes)]
        else:
            after = list(plan.after_sampling(folder, compute, count, passes, scale, decoder))
        parts = [encoding, stages, *after]
        print_text("\n".join(parts))
        return
    named = rows.as_prompts(found)

    from vidgen.stages import ahead, cascade, encode_text, sample_keyframes

    choices = wanted.choices()
    cascade.check_choices(folder, choices)
    own = zip(encode_text.text_ids(named), (prompt.seed for prompt in named), strict=True)
    video_output.check_names(out, sample_keyframes.sample_ids(own, choices), video=video)
    compute.check()
    cascade.check(folder, count, passes, scale, compute)
    if folder.released:
        from vidgen.stages import decode_clips, plan_clips, sample_clips

        sample_clips.require_room(sample_clips.run_of(folder, choices), compute)
        precise = decode_clips.precise(folder, compute)
        for shape in plan_clips.to_come(folder, count, choices):
            decode_clips.require_work(folder, shape, None, precise)

    def sampled(notify: Notify) -> Iterator[Record]:
        texts = encode_text.encode_text(
            named, folder, cache=cache(no_cache), compute=compute,
            together=encode_text.together_before_sampling(folder, compute), notify=notify,
        )  # fmt: skip
        latents = cascade.sample(
            texts, folder, choices, passes=passes, checkpoints=checkpoints, compute=compute,
            notify=notify,
        )  # fmt: skip
        return cascade.enlarge(latents, folder, scale, compute=compute, notify=notify)

    with ExitStack() as closed:
        latents, aside = sampled(console), None
        if ahead.pays(folder, choices, count, compute):
            console.note("the next clips are sampled while the last ones are decoded")
            device, most = compute.torch_device(), compute.batch_size
            latents = closed.enter_context(
                closing(ahead.ahead(sampled, device, console, most=most))
            )
            aside = ahead.Aside(console)
        frames = decoding.decode(
            latents, folder, which=decoder, compute=compute, notify=aside or console
        )
        if video:
            video_output.write_videos(frames, out, console, fps=fps, crf=crf)
        else:
            write_records(frames, out, console)
