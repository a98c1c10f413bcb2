"""`vidgen extend`: latents to latents of longer clips, or of more frames a second."""

from __future__ import annotations

from typing import Annotated

from vidgen.cli.console import Console
from vidgen.cli.options import (
    DryRun,
    Given,
    GuidanceScale,
    Inputs,
    Model,
    RecordOutput,
    Running,
    Steps,
    option,
)
from vidgen.cli.page import Page

PAGE = Page(
    name="extend",
    summary="latents to latents of longer clips",
    description="""\
Makes clips longer than their model makes them, or gives them more frames a second. The network that
makes whole clips of text is given the frames that are known and makes the others, by reconstruction
guidance; it needs no training for that, and takes about three times as long as without.

First the clip grows at its own rate, to --num-frames at --fps: window after window, each beginning
with the last --overlap frames of what is there. One frame says nothing of where things are going,
and what moves may turn back; more of them leave less to be made. Then the rate is multiplied, up to
--fps, by one prime factor after the other: frames that are there stay, and those between are made.
Known frames keep their values to the bit.

Reconstruction guidance adds to each estimate of the clip a step that makes the network's own
estimate of the known frames agree with them; --weight says how large. 1 is right where there is
little noise and where there is much, for data of unit spread; between them more can be better, and
2 is a first guess. A network that was trained on one rate can be told others, with a warning; what
it makes of them is to be looked at. Where frames between keyframes are wanted and the model has a
network for that,
`vidgen interpolate` is better.

Text comes with the records: latents that `vidgen sample` makes keep it. Models of released weights,
whose latents stand for several frames each, can't do this.""",
    reads="latents records from IN",
    writes="latents records to -o",
    examples=[
        ("vidgen extend ball.latents.safetensors --num-frames 9 -o ball.long.safetensors",
         "from five frames to nine"),
        ('vidgen sample --prompt "a red ball spins" --passes 0 | vidgen extend --num-frames 13'
         " | vidgen interpolate | vidgen decode -o ball.mp4",
         "in a pipe: a longer plan, then the frames between"),
        ("vidgen extend ball.latents.safetensors --num-frames 9 --overlap 2 -o x.safetensors",
         "told more of what was there"),
        ("vidgen extend ball.latents.safetensors --fps 4 -o ball.dense.safetensors",
         "twice the rate"),
        ("vidgen extend ball.latents.safetensors --num-frames 9 --dry-run",
         "shapes, FLOPs, memory, time"),
    ],
    notes={
        "RECORDS": """\
Replaces `latents` float32 [C, T, h, w] and `times` float64 [T], and the attributes `num_frames` and
`fps`; keeps all else but `camera.*`, which is known of the old frames alone. The log says how many
windows there were in each pass.""",
        "REPRODUCIBILITY": """\
The noise of a window follows from the record's seed, its source (or id), and the window's place and
rate. It depends neither on the batch nor on the device. A clip that is made longer twice is the
same as in one go, if all windows have their full length.""",
        "PAPERS": """\
arXiv numbers. Reconstruction guidance: 2204.03458, equation 7, where w_r is --weight times 1 +
sigma^2/alpha^2 here, and constant there. Longer clips first, then higher rates: 2402.14797,
appendix C.5.""",
    },
    see_also=["vidgen-sample(1)", "vidgen-interpolate(1)", "vidgen-decode(1)"],
)  # fmt: skip

NumFrames = Annotated[
    int | None,
    option("--num-frames", metavar="N", min=2, max=10_000, default="the record's own",
           settable=False, help="frames of a clip, at --fps"),
]  # fmt: skip
Rate = Annotated[
    float | None,
    option("--fps", metavar="N", min=0.01, max=1000, default="the record's own", settable=False,
           help="frames a second, a whole multiple of the record's"),
]  # fmt: skip
Overlap = Annotated[
    int,
    option("--overlap", metavar="N", min=1, max=1000,
           help="known frames that new ones are told, where the clip grows"),
]  # fmt: skip
Weight = Annotated[
    float,
    option("--weight", metavar="X", min=0, max=1000,
           help="how far known frames pull the others; 0 is not at all"),
]  # fmt: skip


def extend(
    out: RecordOutput,
    running: Running,
    console: Console,
    given: Given,
    inputs: Inputs = None,
    num_frames: NumFrames = None,
    fps: Rate = None,
    overlap: Overlap = 1,
    weight: Weight = 2.0,
    steps: Steps = None,
    guidance_scale: GuidanceScale = None,
    model: Model = None,
    dry_run: DryRun = False,
) -> None:
    from vidgen.cli.latents import Asked, run_latents

    def chosen():
        from vidgen.stages import extend as stage
        from vidgen.stages.extend_choices import Choices

        choices = Choices(num_frames, fps, overlap, weight, steps, guidance_scale)
        return choices, stage.extend

    def planned():
        from vidgen.stages import plan_extend

        return plan_extend.extending

    asked = Asked(out, running, console, inputs, model, dry_run, given)
    run_latents(asked, "transformer", True, chosen, planned)
