"""`vidgen upsample`: latents to latents of a larger picture."""

from __future__ import annotations

from typing import Annotated, Literal

from vidgen.cli.console import Console
from vidgen.cli.latents import Asked, run_latents
from vidgen.cli.options import DryRun, Given, Inputs, Model, RecordOutput, Running, Steps, option
from vidgen.cli.page import Page

PAGE = Page(
    name="upsample",
    summary="latents to latents of a larger picture",
    description="""\
Makes latents whose sides are twice as long, in the space of those that came in: 40 by 64 pixels
become 80 by 128. --scale 4 and --scale 8 do the same again with what came out. Times, rate and text
stay as they are.

The small latents are decoded, their frames enlarged bicubically, and encoded again. A network then
adds the details: it is told these latents with some noise on them (--noise-level), and more noise
hides more of what is wrong with them, and leaves more to the network's fancy. All frames of a clip
go through it at once, since details must stay on their things. It knows nothing of the text.

--method bicubic enlarges the frames and leaves it at that. It is what to compare with. --method
bilinear stretches the latents themselves, which needs no model and makes worse pictures.

Of a model that makes pixels, the upsampler makes clips of one size in one pass, and --scale is what
it was trained for, unless given; another is refused. It is told the small video, enlarged
bilinearly and with noise on it, and the text.

A clip that would not fit into memory is refused before any work is done; --dry-run tells how much
it takes. The components of the model are vae and upsampler.""",
    reads="latents records from IN",
    writes="latents records to -o",
    examples=[
        ("vidgen upsample ball.latents.safetensors -o ball.large.safetensors",
         "twice the width and height"),
        ("vidgen sample-keyframes ball.text.safetensors | vidgen upsample --scale 4"
         " | vidgen decode -o ball.mp4",
         "in a pipe: 40x64 to 160x256 pixels"),
        ("vidgen upsample ball.latents.safetensors --method bicubic -o blurred.safetensors",
         "to compare with"),
        ("vidgen upsample --dry-run ball.latents.safetensors", "shapes, FLOPs, memory, time"),
    ],
    notes={
        "RECORDS": """\
Replaces `latents`, float32 [C, T, 2h, 2w] after one pass; keeps all else. Attributes: `height` and
`width`, doubled too; `latent_space` stays. The log names the method, and where a network was used
its steps, the noise level, and the distance between frames that it was told, in frames of its
training rate. Camera parameters are normalised, and hold for any size.""",
        "REPRODUCIBILITY": """\
Both noises, that of the start and that on what the network is told, follow from the record's seed,
its source (or id), and the size that a pass begins with. They depend neither on the batch nor on
the device; --scale 4 is the same as --scale 2 twice in a pipe.""",
        "PAPERS": """\
arXiv numbers. Cascades, and noise on what the second network is told: 2106.15282. Of video:
2210.02303.""",
    },
    see_also=["vidgen-sample-keyframes(1)", "vidgen-interpolate(1)", "vidgen-decode(1)"],
)  # fmt: skip

Scale = Annotated[
    float | None,
    option("--scale", metavar="X", default="2, or what the model's upsampler makes",
           help="how many times longer the sides become: 2, 4 or 8"),
]  # fmt: skip
Method = Annotated[
    Literal["diffusion", "bicubic", "bilinear"],
    option("--method", metavar="NAME",
           help="diffusion (a network paints details), bicubic (frames are enlarged) or bilinear"
           " (latents are)"),
]  # fmt: skip
NoiseLevel = Annotated[
    float | None,
    option("--noise-level", metavar="X", min=0, max=1, default="the model's own",
           help="how much noise on the small latents the network is told; 0 is none"),
]  # fmt: skip


def upsample(
    out: RecordOutput,
    running: Running,
    console: Console,
    given: Given,
    inputs: Inputs = None,
    scale: Scale = None,
    method: Method = "diffusion",
    steps: Steps = None,
    noise_level: NoiseLevel = None,
    model: Model = None,
    dry_run: DryRun = False,
) -> None:
    component = {"diffusion": "upsampler", "bicubic": "vae"}.get(method)  # stretching needs none

    def chosen():
        from vidgen.stages import upsample as stage

        factor = own_scale(model, component, console) if scale is None else scale
        return stage.Choices(factor, method, steps, noise_level), stage.upsample

    def planned():
        from vidgen.stages import plan

        return plan.enlarging

    asked = Asked(out, running, console, inputs, model, dry_run, given)
    run_latents(asked, component, component == "upsampler", chosen, planned)


def own_scale(model: str | None, component: str | None, console: Console) -> int:
    """What sides are multiplied by where nobody says: 2, but the factor that the upsampler of a
    model of pixels was trained for, and that is said."""
    from vidgen.systems.base import DOUBLINGS, Geometry, ModelFolder

    folder = None if component is None else ModelFolder.find(model)
    if folder is None or not folder.in_pixels or not folder.has("upsampler"):
        return 2
    made, small = folder.sample("upsampler", Geometry), folder.geometry
    factor, rest = divmod(made.height, small.height)
    if rest or factor not in DOUBLINGS:
        return 2  # which is refused for what is wrong with the model
    if factor != 2:
        console.say(f"--scale {factor}: what the upsampler of `{folder.name}` makes")
    return factor
