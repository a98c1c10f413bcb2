"""`vidgen encode-video`: videos to latents records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from vidgen.cli.console import Console
from vidgen.cli.options import DryRun, Fps, Model, Place, RecordOutput, argument, option
from vidgen.cli.page import Page

if TYPE_CHECKING:
    from vidgen.stages.encode_video import Reading

PAGE = Page(
    name="encode-video",
    summary="videos to latents records",
    description="""\
Encodes videos to latents with the model's autoencoder: what `vidgen decode` turns back into frames.
Takes video files (whatever FFmpeg's libraries read), folders of pictures, and frames records.

Frames come in as they are to be shown: turned as the file says, in sRGB. A video at a varying rate
is brought to its average rate, or to --fps; its duration stays. Sizes that the autoencoder does not
divide are filled up at the right and the bottom, and `decode` crops them back. Sound is kept in the
record. A damaged video is an error that tells how many frames could be read; it is never silently
shortened.

The shipped autoencoder was trained on the procedural world: real videos come back recognizable, not
faithful.""",
    reads="videos, or frames records, from IN",
    writes="latents records to -o",
    examples=[
        ("vidgen encode-video clip.mp4 -o clip.latents.safetensors", "one video"),
        ("vidgen encode-video clip.mp4 | vidgen decode -o again.mp4", "there and back"),
        ("vidgen encode-video clip.mp4 --fps 8 --frames 17 -o short.latents.safetensors",
         "the first 17 frames at 8 a second"),
    ],
    notes={
        "RECORDS": """\
`latents` float32 [C, T, h, w] and `times` float64 [T]; `audio` float32 [channels, samples] where
there is sound. Attributes: `latent_space`, `num_frames`, `height`, `width`, `fps`.""",
    },
    see_also=["vidgen-decode(1)", "vidgen-convert(1)"],
)  # fmt: skip

Videos = Annotated[
    list[str] | None, argument("IN", "video files, folders of pictures, or frames records")
]
Frames = Annotated[
    int | None,
    option("--frames", metavar="N", min=1, default="all", help="only the first N frames"),
]


def encode_video(
    out: RecordOutput,
    place: Place,
    console: Console,
    inputs: Videos = None,
    model: Model = None,
    fps: Fps = None,
    frames: Frames = None,
    dry_run: DryRun = False,
) -> None:
    from vidgen.cli.runner import (
        check_names,
        check_output,
        print_text,
        require_stdin,
        write_records,
    )
    from vidgen.cli.sources import ids_of, records_of
    from vidgen.systems.base import ModelFolder

    if not dry_run:
        check_output(out)
    folder = ModelFolder.find(model)
    folder.component("vae")
    if not inputs or "-" in inputs:
        require_stdin()
    readings: dict[str, Reading] = {}
    records = records_of(
        inputs or ["-"], "encode-video", fps=fps, num_frames=frames, readings=readings
    )
    if dry_run:
        from vidgen.stages import plan

        print_text(plan.encoding_video(folder, place.compute(), records))
        return
    check_names(out, ids_of(inputs or ()))

    from vidgen.stages.encode_video import encode_video as stage

    compute = place.compute(preload=not inputs)
    compute.check()
    latents = stage(records, folder, readings=readings, compute=compute, notify=console)
    write_records(latents, out, console)
