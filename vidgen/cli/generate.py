"""`vidgen generate`: prompts to videos, in one process."""

from __future__ import annotations

from vidgen.cli import prompts as rows
from vidgen.cli import video_output
from vidgen.cli.console import Console
from vidgen.cli.encode_text import NoCache, PromptFile, Prompts, cache
from vidgen.cli.options import (
    Crf,
    DryRun,
    Fps,
    GuidanceScale,
    Model,
    Negative,
    NumSamples,
    RecordOutput,
    Running,
    Seed,
    Steps,
)
from vidgen.cli.page import Page
from vidgen.cli.prompt_check import check_prompts
from vidgen.cli.sample_keyframes import Shift, Solver, check_seeds

PAGE = Page(
    name="generate",
    summary="prompts to videos, in one process",
    description="""\
Runs encode-text, sample-keyframes and decode in one process. The result is the same, byte for byte,
as that of the three in a pipe; what is missing are the files in between. See their pages for what
each does, and for options that only they have.

The names of all videos are checked before anything is computed. A video is written when it is
decoded: what is finished stays when a later one fails.""",
    reads="prompts from arguments, a file, or standard input",
    writes="videos, or frames records, to -o",
    examples=[
        ('vidgen generate "a red ball bounces on sand ground" --seed 7 -o ball.mp4', "one video"),
        ("vidgen generate -i prompts.txt -o 'out/{id}.mp4'", "a prompt a line"),
        ("vidgen generate \"a blue cube spins\" --seed 0-3 -o 'out/{id}.gif'", "four seeds"),
        ('vidgen generate "a white can" --steps 5 --guidance-scale 1 -o can.mp4', "a quick draft"),
    ],
    notes={
        "REPRODUCIBILITY": """\
The same prompt, id, seed, model and options give the same file on the same machine and torch. A
sample does not depend on the batch it is in: its noise is the same to the bit, its frames to
rounding.""",
    },
    see_also=["vidgen-encode-text(1)", "vidgen-sample-keyframes(1)", "vidgen-decode(1)"],
)


def generate(
    out: RecordOutput,
    running: Running,
    console: Console,
    prompts: Prompts = None,
    input: PromptFile = None,
    negative: Negative = None,
    seed: Seed = None,
    num_samples: NumSamples = 1,
    steps: Steps = None,
    guidance_scale: GuidanceScale = None,
    solver: Solver = None,
    shift: Shift = None,
    model: Model = None,
    fps: Fps = None,
    crf: Crf = 18,
    no_cache: NoCache = False,
    dry_run: DryRun = False,
) -> None:
    from vidgen.cli.runner import check_count, print_text, write_records
    from vidgen.systems.base import ModelFolder

    video = not dry_run and video_output.check(out)
    found = rows.gather(prompts or [], input, negative=negative)
    seeds = check_seeds(seed, num_samples)
    count = len(found) * (len(seeds) if seeds else num_samples)
    quotes = "each argument is a prompt: quotes make one of several words" if prompts else None
    check_count(out, count, single=video, why=quotes)
    folder = ModelFolder.find(model)
    check_prompts(found, folder, console)
    if dry_run:
        from vidgen.stages import plan

        parts = [
            plan.encoding(folder, [row["prompt"] for row in found]),
            plan.sampling(folder, running.compute(), count, steps, guidance_scale, solver),
            plan.decoding_of_samples(folder, running.compute(), count),
        ]
        print_text("\n".join(parts))
        return
    named = rows.as_prompts(found)

    from vidgen.stages import decode, encode_text, sample_keyframes

    choices = sample_keyframes.Choices(seeds, num_samples, steps, guidance_scale, solver, shift)
    own = zip(encode_text.text_ids(named), (prompt.seed for prompt in named), strict=True)
    video_output.check_names(out, sample_keyframes.sample_ids(own, choices), video=video)
    compute = running.compute()
    compute.check()
    texts = encode_text.encode_text(named, folder, cache=cache(no_cache), notify=console)
    latents = sample_keyframes.sample_keyframes(
        texts, folder, choices, compute=compute, notify=console
    )
    frames = decode.decode(latents, folder, compute=compute, notify=console)
    if video:
        video_output.write_videos(frames, out, console, fps=fps, crf=crf)
    else:
        write_records(frames, out, console)
