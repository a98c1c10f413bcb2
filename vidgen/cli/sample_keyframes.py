"""`vidgen sample-keyframes`: text records to keyframe latents."""

from __future__ import annotations

from typing import Annotated, Literal

from vidgen.cli.console import Console
from vidgen.cli.options import (
    DryRun,
    GuidanceScale,
    Inputs,
    Model,
    NumSamples,
    RecordOutput,
    Running,
    Seed,
    Seeds,
    Steps,
    option,
)
from vidgen.cli.page import Page

PAGE = Page(
    name="sample-keyframes",
    summary="text records to keyframe latents",
    description="""\
Denoises latents of a clip's keyframes from the text in each record. Keyframes are latents with
gaps between their `times`; `vidgen decode` makes a slow video of them, and later stages may fill
the gaps.

A sample's noise follows from its seed and its text record's id alone: it depends neither on the
batch, nor on the device, nor on what else is in the stream. With several seeds each text record
gives several samples, named ID-sSEED. The text stays in the records for later stages.""",
    reads="text records from IN",
    writes="latents records to -o",
    examples=[
        ("vidgen sample-keyframes ball.text.safetensors -o ball.latents.safetensors",
         "the common case"),
        ("vidgen sample-keyframes ball.text.safetensors --seed 0-3 -o '{id}.safetensors'",
         "four seeds, a file each"),
        ('vidgen encode-text "a can" | vidgen sample-keyframes | vidgen decode -o can.mp4',
         "in a pipe"),
        ("vidgen sample-keyframes --dry-run ball.text.safetensors",
         "shapes, FLOPs, memory, time"),
    ],
    notes={
        "RECORDS": """\
Adds `latents` float32 [C, T, h, w] and `times` float64 [T], seconds. Attributes: `latent_space`,
`num_frames`, `height`, `width` and `fps` of the decoded video, `seed`, and `source`, the text
record's id.""",
        "REPRODUCIBILITY": """\
The same text record, seed, model and options give the same bytes on the same machine and torch.
Between devices, dtypes and batch sizes the noise is the same to the bit and the result to
rounding.""",
        "PAPERS": """\
arXiv numbers. Rectified flow: 2210.02747, 2209.03003. Guidance: 2207.12598. Solvers: euler and heun
2206.00364, dpmpp_2m 2211.01095, unipc 2302.04867, ddim 2010.02502, ancestral 2006.11239.""",
    },
    see_also=["vidgen-encode-text(1)", "vidgen-decode(1)"],
)  # fmt: skip

Solver = Annotated[
    Literal["euler", "heun", "dpmpp_2m", "unipc", "ddim", "ancestral"] | None,
    option("--solver", metavar="NAME", default="the model's own",
           help="euler, heun, dpmpp_2m, unipc, ddim or ancestral"),
]  # fmt: skip
Shift = Annotated[
    float | None,
    option("--shift", metavar="X", min=0.01, max=100, default="the model's own",
           help="above 1, more of the steps are spent at high noise"),
]  # fmt: skip


def sample_keyframes(
    out: RecordOutput,
    running: Running,
    console: Console,
    inputs: Inputs = None,
    seed: Seed = None,
    num_samples: NumSamples = 1,
    steps: Steps = None,
    guidance_scale: GuidanceScale = None,
    solver: Solver = None,
    shift: Shift = None,
    model: Model = None,
    dry_run: DryRun = False,
) -> None:
    from vidgen.cli.runner import Kind, check_names, headers_of, open_inputs, print_text, run_stage
    from vidgen.systems.base import ModelFolder

    takes = Kind("text", "vidgen encode-text")
    seeds = check_seeds(seed, num_samples)
    folder = ModelFolder.find(model)
    folder.component("transformer")

    def make():
        from vidgen.stages import sample_keyframes as stage

        compute = running.compute(preload=not inputs)
        compute.check()
        choices = stage.Choices(seeds, num_samples, steps, guidance_scale, solver, shift)
        texts = ((text.id, stage.own_seed(text)) for text in headers_of(inputs))
        check_names(out, stage.sample_ids(texts, choices))
        return lambda records: stage.sample_keyframes(
            records, folder, choices, compute=compute, notify=console
        )

    if dry_run:
        from vidgen.stages import plan

        count = sum(1 for _ in open_inputs(inputs, takes=takes)) * (
            len(seeds) if seeds else num_samples
        )
        text = plan.sampling(folder, running.compute(), count, steps, guidance_scale, solver)
        print_text(text)
        return
    run_stage(make, inputs, out, console, takes=takes)


def check_seeds(seed: Seeds | None, num_samples: int) -> tuple[int, ...] | None:
    """The seeds to sample: as given, or `num_samples` from the given one on. None: from each
    record's own on. UsageError for a range together with --num-samples."""
    from vidgen.errors import UsageError

    if seed is None or num_samples == 1:
        return None if seed is None else tuple(seed)
    if len(seed) > 1:
        raise UsageError(
            f"--seed names {len(seed)} seeds, and --num-samples {num_samples} wants to count them",
            next="give a range of seeds, or a first seed and --num-samples",
        )
    return tuple(range(seed[0], seed[0] + num_samples))
