"""`vidgen interpolate`: latents of keyframes to latents of more frames."""

from __future__ import annotations

from typing import Annotated, Literal

from vidgen.cli.console import Console
from vidgen.cli.latents import Asked, run_latents
from vidgen.cli.options import DryRun, Given, Inputs, Model, RecordOutput, Running, Steps, option
from vidgen.cli.page import Page

PAGE = Page(
    name="interpolate",
    summary="keyframe latents to denser latents",
    description="""\
Makes three latents between any two neighbors, so that T become 4T-3. All pairs of a clip are worked
on at once, and a pair's three in one pass of the network. What came in stays as it is, to the bit,
at 0, 4, 8 and so on. --passes 2 does the same again with what the first pass made.

Keyframes must be evenly spaced in time. The network is told how far apart the frames are that it
makes, and nothing of the text. A spacing that it was not trained on is taken for the nearest one
that it was, with a warning.

Then the frames between are drawn anew where the model says so, or --refine: they get that share of
noise, and the network of the keyframes samples them from there under the clip's text, as many at a
time as keyframes (SDEdit). Only what that changes much is taken from it, so that what stands still
stays quiet. Of records without text, or of another size than the keyframes that the model makes, a
warning says that they aren't; under --refine it is an error.

--method masked is the baseline of the paper: a network that makes frames one by one, told which of
them are keyframes. --method linear blends the two neighbors; it needs no model, and moving things
fade rather than move. The component of the model is interpolation, that of the baseline
interpolation_masked.""",
    reads="latents records from IN",
    writes="latents records to -o",
    examples=[
        ("vidgen interpolate ball.latents.safetensors -o ball.dense.safetensors",
         "five keyframes to seventeen latents"),
        ("vidgen sample-keyframes ball.text.safetensors | vidgen interpolate --passes 2"
         " | vidgen decode -o ball.mp4",
         "in a pipe: T to 16T-15"),
        ("vidgen interpolate ball.latents.safetensors --refine 0 -o raw.safetensors",
         "as the interpolation alone makes them"),
        ("vidgen interpolate ball.latents.safetensors --method linear -o blend.safetensors",
         "to compare with"),
        ("vidgen interpolate --dry-run ball.latents.safetensors", "shapes, FLOPs, memory, time"),
    ],
    notes={
        "RECORDS": """\
Replaces `latents`, float32 [C, 4T-3, h, w], and `times`, float64 [4T-3]; drops `camera.*`, which is
known of the keyframes alone; keeps all else. Attributes: `num_frames`, and `fps`, which each pass
makes four times what it was. The log names the method, and where a network was used its steps, its
guidance scale and, for each pass, the distance between frames that it was told, in frames of its
training rate; where frames were drawn anew, by which network, with which share of noise, in how
many steps.""",
        "REPRODUCIBILITY": """\
The noise follows from the record's seed, its source (or id), and the number of latents that a pass
begins with. It depends neither on the batch nor on the device; two passes are the same as one after
the other in a pipe.""",
        "PAPERS": """\
arXiv numbers. Groups of three, the skip number and context guidance: FusionFrames, 2311.13073. It
guides by (1 + w) c - w u with w = 0.25, which is --guidance-scale 1.25. Masked frames: 2304.08818.
Velocity: 2202.00512. Drawing anew from a share of noise: SDEdit, 2108.01073.""",
    },
    see_also=["vidgen-sample-keyframes(1)", "vidgen-decode(1)", "vidgen-encode-video(1)"],
)  # fmt: skip

Passes = Annotated[
    int,
    option("--passes", metavar="N", min=1, max=4,
           help="how often; each pass makes 4T-3 latents of T"),
]  # fmt: skip
Method = Annotated[
    Literal["grouped", "masked", "linear"],
    option("--method", metavar="NAME",
           help="grouped (three frames at once), masked (one by one) or linear (blending)"),
]  # fmt: skip
GuidanceScale = Annotated[
    float | None,
    option("--guidance-scale", "--cfg", metavar="X", min=0, max=100, default="the model's own",
           help="how far to follow the keyframes; 1 is off, and twice as fast"),
]  # fmt: skip
Refine = Annotated[
    float | None,
    option("--refine", metavar="S", min=0, max=1, default="the model's own",
           help="share of noise from which frames between are drawn anew by the network of the"
           " keyframes; 0 is off"),
]  # fmt: skip


def interpolate(
    out: RecordOutput,
    running: Running,
    console: Console,
    given: Given,
    inputs: Inputs = None,
    passes: Passes = 1,
    method: Method = "grouped",
    steps: Steps = None,
    guidance_scale: GuidanceScale = None,
    refine: Refine = None,
    model: Model = None,
    dry_run: DryRun = False,
) -> None:
    from vidgen.systems.base import INTERPOLATIONS

    component = INTERPOLATIONS.get(method)  # blending needs none

    def chosen():
        from vidgen.stages import interpolate as stage

        return stage.Choices(passes, method, steps, guidance_scale, refine), stage.interpolate

    def planned():
        from vidgen.stages import plan

        return plan.interpolating

    asked = Asked(out, running, console, inputs, model, dry_run, given)
    run_latents(asked, component, component is not None, chosen, planned)
