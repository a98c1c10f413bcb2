"""`vidgen decode`: latents records to video."""

from __future__ import annotations

from typing import Annotated, Literal

from vidgen.cli import video_output
from vidgen.cli.console import Console
from vidgen.cli.options import (
    Crf,
    DryRun,
    Fps,
    Given,
    Inputs,
    Keep,
    Model,
    Place,
    RecordOutput,
    Size,
    option,
    parse_size,
)
from vidgen.cli.page import Page

Decoder = Annotated[
    Literal["image", "video"] | None,
    option("--decoder", metavar="KIND", default="video where the model has one",
           help="image (frame by frame) or video (frames see each other: less flicker)"),
]  # fmt: skip

Tile = Annotated[
    Size | None,
    option("--tile", metavar="WxH", parse=parse_size, default="the whole frame", settable=False,
           help="decode frames of a released model in tiles of so many pixels: less memory,"
                " approximate"),
]  # fmt: skip

PAGE = Page(
    name="decode",
    summary="latents records to video",
    description="""\
Decodes latents to frames with the model's video decoder, or, where it has none, frame by frame with
its autoencoder; both take the same latents. What is written follows from the name after
-o: .mp4, .mkv, .webm and .gif are videos, a name that ends in / is a folder of PNG files, anything
else, and standard output, is a stream of frames records. --format rgb and --format nut write raw
frames to standard output, for ffmpeg.

Pixels, which models without an autoencoder make, are converted, and need no model. Latents of
another autoencoder are refused before any weights load. Latents are decoded in chunks of
frames, in smaller ones when memory runs out; the latents that came in are never lost by it. Chunks
of a video decoder overlap by all that its convolutions over time can see, so that the result is
that of one piece. Attention over time has no such bound: there, and where memory is too short for
the overlap, chunks are blended, and the log says so under `approximations`.

Causal autoencoders of released weights (Wan, CogVideoX) decode a latent or two at a time, and carry
over what their convolutions need: the same frames as in one piece, in memory that doesn't grow with
the clip. Wan's runs in float32, as released, unless --dtype says otherwise. Where even a latent's
frames are too much, --tile decodes them tile by tile. Tiles overlap by a quarter of their sides and
are blended there; what a decoder sees beyond a tile's edge is missing, so that frames are near to
the exact ones and not the same, as is warned and logged under `approximations`.

Videos carry the record's history; `vidgen log` prints it.""",
    reads="latents records from IN",
    writes="videos, or frames records, to -o",
    examples=[
        ("vidgen decode ball.latents.safetensors -o ball.mp4", "the common case"),
        ("vidgen decode all.latents.safetensors -o 'out/{id}.webm'", "one file a record"),
        ("vidgen decode ball.latents.safetensors | vidgen contact-sheet -o ball.png",
         "frames in a pipe"),
        ("vidgen decode ball.latents.safetensors --decoder image -o image.mp4", "frame by frame"),
        ("vidgen decode cat.vgs --model Wan2.1-T2V-1.3B-Diffusers --tile 416x240 -o cat.mp4",
         "released weights in little memory"),
        ("vidgen decode ball.latents.safetensors --format rgb > ball.rgb", "raw rgb24"),
    ],
    notes={
        "RECORDS": """\
Adds `frames` uint8 [T, H, W, 3], sRGB, full range. Drops `text.*` and `latents`, which are spent,
unless --keep. H.264 is yuv420p, tagged BT.709 limited range; odd sides are made even by repeating
the last row or column.""",
        "REPRODUCIBILITY": """\
The same latents give the same frames on the same machine and torch, and the same frames the same
file: no clock times, one encoder thread.""",
    },
    see_also=["vidgen-sample-keyframes(1)", "vidgen-contact-sheet(1)", "ffmpeg(1)"],
)  # fmt: skip


def decode(
    out: RecordOutput,
    place: Place,
    console: Console,
    given: Given,
    inputs: Inputs = None,
    model: Model = None,
    decoder: Decoder = None,
    tile: Tile = None,
    fps: Fps = None,
    crf: Crf = 18,
    format: video_output.RawFormat = None,
    keep: Keep = False,
    dry_run: DryRun = False,
) -> None:
    from vidgen.cli.runner import Kind, headers_of, open_inputs, print_text, write_records
    from vidgen.systems.base import ModelFolder

    video = not dry_run and video_output.check(out, format)
    if not dry_run:
        video_output.refuse_unused(given, out, format, video=video)
    takes = Kind("latents", "vidgen sample-keyframes")
    folder = ModelFolder.find(model)
    if not folder.in_pixels:
        folder.component("vae")
    records = open_inputs(inputs, takes=takes)
    if dry_run:
        from vidgen.stages import plan

        print_text(plan.decoding(folder, place.compute(), list(records), decoder, tile))
        return
    video_output.check_names(out, (r.id for r in headers_of(inputs)), video=video)

    from vidgen.stages.decode import component_of
    from vidgen.stages.decode import decode as stage
    from vidgen.stages.decode_clips import tiles_of

    component_of(folder, decoder)
    tiles_of(folder, tile)
    compute = place.compute(preload=not inputs)
    compute.check()
    frames = stage(
        records, folder, which=decoder, tile=tile, keep=keep, compute=compute, notify=console
    )
    if video:
        video_output.write_videos(frames, out, console, fps=fps, crf=crf, format=format)
    else:
        write_records(frames, out, console)
