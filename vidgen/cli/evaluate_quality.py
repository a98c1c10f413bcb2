"""`vidgen evaluate-quality`: clips against the true ones, pixel by pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vidgen.cli.clip_scores import INTERVAL, PAIRS_ONLY, UNNAMED, SkipBad, mean_scores
from vidgen.cli.console import Console
from vidgen.cli.eval_clips import Clip, Kept, clips
from vidgen.cli.evaluate_quality_inception import Inception, enough
from vidgen.cli.evaluate_quality_measure import ALONE, DEFAULT, WITH_REF, Measure
from vidgen.cli.evaluate_quality_pairs import How, Side, chosen, pairs
from vidgen.cli.options import Device, Given, argument, option
from vidgen.cli.page import Page
from vidgen.cli.reporting import REPORT_SCHEMA, Reporting
from vidgen.errors import Exit, InputError, UsageError
from vidgen.metrics.report import Report, Score

if TYPE_CHECKING:
    import numpy as np

PAGE = Page(
    name="evaluate-quality",
    summary="clips against the true ones: PSNR, SSIM, LPIPS and more",
    description="""\
Compares each clip of MADE with its own of REF, frame by frame: for decoders, codecs, upsampling and
interpolation, where the truth is known. Of clips generated freely these numbers say nothing.

A video is compared with a video whatever their names; of several, clips belong together by their
ids (a video that vidgen wrote knows its own, another has that of its name), or by file names where
no id is on both sides. One without a counterpart is an error, and so are other sizes or
numbers of frames, unless --skip-bad, --resize or --shortest say otherwise.

A score is the mean over clips of the means over frames, with an interval of 95 % from five clips
on (bootstrap of clips). With one input there is no truth, and other scores come of it, under
names of their own.""",
    reads="clips from REF and MADE: videos, folders, quoted globs, or - for frames records",
    writes="a table, or JSON, to standard output",
    examples=[
        ("vidgen evaluate-quality real/ decoded/", "two folders of videos"),
        ("vidgen evaluate-quality real.mp4 made.mp4 --min psnr=30 --min ssim=0.9",
         "for CI; exit code 4 if one is lower"),
        ("vidgen evaluate-quality real/ made/ --metrics lpips --lpips-backbone alexnet.pth",
         "LPIPS, on torchvision's AlexNet"),
        ("vidgen evaluate-quality made/", "what needs no reference"),
    ],
    notes={
        "METRICS": """\
psnr: dB, the mean over frames (ffmpeg pools squares first and prints less) that are not equal;
infinite if all are. ssim: Wang 2004, Gaussian window of 11 pixels, RGB; scikit-image's defaults are
others. ms-ssim: five scales, sides of 161 pixels or more. flicker: the standard deviation over
time, in levels of 0 to 255, of pixels that stand still in REF. error-change: levels by which the
error changes from a frame to the next. lpips: v0.1; its backbone is torchvision's weights of
AlexNet, VGG16 or SqueezeNet 1.1, which don't come with vidgen. vmaf: by an `ffmpeg` that has
libvmaf. warping: mean square, of levels 0 to 1, of what is left between neighbors after REF's own
motion; the optical flow is classical (combined local-global) and not RAFT, so it compares with
other numbers of vidgen only; slow.

Of MADE alone: temporal-flickering, as in VBench but without its filter for static clips, so that
motion counts, too; self-warping, as warping, by the clip's own motion; is: the Inception score of
all clips together, by a C3D tuned on UCF-101, which --weights names: their first 16 frames,
shuffled by seed 42, the mean over 10 parts, as StyleGAN-V has it. It grows with the number of
clips.

The default is psnr, ssim, ms-ssim (where any clip is large enough), flicker and error-change; of
MADE alone temporal-flickering.

failed: the clips that --skip-bad left out, of all; no other score has them, so --max failed=0
belongs to every gate that skips.""",
    },
    see_also=["vidgen-evaluate-fvd(1)", "vidgen-diff(1)", "ffmpeg(1)"],
)  # fmt: skip

Ref = Annotated[
    str, argument("REF", "the true clips; without MADE, clips to look at by themselves")
]
Made = Annotated[str | None, argument("MADE", "the clips to compare with them")]
Metrics = Annotated[
    str | None,
    option("--metrics", metavar="LIST", default="those without extra files",
           help="of psnr, ssim, ms-ssim, flicker, error-change, warping, lpips, vmaf; of"
           " MADE alone temporal-flickering, self-warping, is"),
]  # fmt: skip
Weights = Annotated[
    str | None,
    option("--lpips-backbone", metavar="FILE", default="none",
           help="torchvision's weights of AlexNet, VGG16 or SqueezeNet 1.1, for lpips"),
]  # fmt: skip
C3DWeights = Annotated[
    str | None,
    option("--weights", metavar="FILE", default="none",
           help="a C3D tuned on UCF-101, for is: c3d_ucf101.pt or conv3d_deepnetA_ucf.npz"),
]  # fmt: skip
Pair = Annotated[
    How,
    option("--pair", metavar="HOW",
           help="which clips belong together: by id, name (of files), order or auto"),
]  # fmt: skip
Resize = Annotated[
    bool, option("--resize", help="bring MADE to the size of REF, bicubically, where it differs")
]
Shortest = Annotated[
    bool, option("--shortest", help="compare the frames that both clips have, from the first on")
]

SCHEMAS = {"vidgen.report/1": REPORT_SCHEMA}
SHOWN = 12  # clips on a page


def evaluate_quality(
    console: Console,
    given: Given,
    ref: Ref,
    reporting: Reporting,
    made: Made = None,
    metrics: Metrics = None,
    lpips_backbone: Weights = None,
    weights: C3DWeights = None,
    pair: Pair = "auto",
    resize: Resize = False,
    shortest: Shortest = False,
    skip_bad: SkipBad = False,
    device: Device = "auto",
) -> Exit:
    names = parse_metrics(metrics, with_ref=made is not None)
    if made is None:
        given.refuse("pair", "resize", "shortest", why="there is no reference to compare with")
    if "lpips" not in names:
        given.refuse("lpips_backbone", why="lpips is not among --metrics")
    elif lpips_backbone is None:
        raise UsageError(
            "lpips needs --lpips-backbone",
            why="its linear heads come with vidgen, the network below them doesn't",
            next="--lpips-backbone alexnet-owt-7be5be79.pth, torchvision's weights",
        )
    elif not Path(lpips_backbone).is_file():
        raise UsageError(f"--lpips-backbone {lpips_backbone}: no such file")
    if "is" not in names:
        given.refuse("weights", why="is (the Inception score) is not among --metrics")
    elif weights is None:
        raise UsageError(
            "is needs --weights",
            why="the Inception score's C3D, tuned on UCF-101 and not on Sports-1M, does not come"
            " with vidgen: usually c3d_ucf101.pt or conv3d_deepnetA_ucf.npz, about 310 MB",
            next="--weights FILE",
        )
    elif not Path(weights).is_file():
        raise UsageError(f"--weights {weights}: no such file")
    if ref == made == "-":
        raise UsageError("standard input (`-`) can be REF or MADE, not both")
    scores = [*names, "failed"]
    others = dict.fromkeys(WITH_REF, PAIRS_ONLY if made is None else UNNAMED)
    others |= dict.fromkeys(ALONE, UNNAMED if made is None else "it is of MADE alone")
    reporting.check(scores, others=others, tool=PAGE.name)
    kept = Kept(console)
    first = Side.of("made" if made is None else "reference", ref, kept)
    second = None if made is None else Side.of("made", made, kept)
    if second is not None:
        how = chosen(pair, first, second, skip_bad=skip_bad)

    if "is" in names and first.videos and not skip_bad:
        enough(len(first.sources))
    measure = prepared(names, metrics is not None, lpips_backbone, weights, device)
    settings: dict[str, Any] = {**_settings(measure), **INTERVAL}
    if second is not None:
        settings |= {"pair": pair, "resize": resize and "bicubic", "shortest": shortest}
    reporting.check(scores, tool=PAGE.name, settings=settings)
    found = Found(keep=SHOWN if reporting.html is not None else 0)
    if second is None:
        for clip in clips(first.sources, None, kept, skip_bad=skip_bad, bad=first.bad):
            found.add(measure, clip.id, clip)
            console.step(done := len(found.items), max(done, len(first.sources)), "clip")
    else:
        found.how = how
        for name, true, own in pairs(first, second, how, kept, skip_bad=skip_bad):
            try:
                true, own = fitted(name, true, own, resize=resize, shortest=shortest)
            except InputError as error:
                if not skip_bad:
                    raise
                second.leave_out(name, error)
                continue
            found.add(measure, name, own, true)
            console.step(done := len(found.items), max(done, len(first.sources)), "clip")
    sides = [first] if second is None else [first, second]
    report = found.report(sides, measure, settings, kept)
    for metric, why in measure.without(len(found.items)).items():
        console.say(f"no {metric}: {why}")
    return reporting.finish(report, console, found.shown)


def parse_metrics(text: str | None, *, with_ref: bool) -> tuple[str, ...]:
    """`psnr,ssim` → the names, each once. UsageError for what is none."""
    known, other = (WITH_REF, ALONE) if with_ref else (ALONE, WITH_REF)
    if text is None:
        return DEFAULT[with_ref]
    names = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for name in names:
        if name not in known:
            why = f"with{'' if with_ref else 'out'} a reference there are: {', '.join(known)}"
            if name in other:
                what = "is of MADE alone" if with_ref else "needs REF and MADE"
                raise UsageError(f"--metrics {name}: {what}", why=why)
            raise UsageError(f"--metrics {name}: there is no such metric", why=why)
    return names


def prepared(
    names: Sequence[str], asked: bool, backbone: str | None, c3d: str | None, device: str
) -> Measure:
    """The metrics, their networks loaded. Doubles, which pixels are counted in, some devices don't
    have: there the processor does it."""
    from vidgen.stages.base import Compute

    compute = Compute(device=device)
    compute.check()
    place = compute.torch_device()

    import torch

    measure = Measure(names, asked, place if place.type == "cuda" else torch.device("cpu"))
    if "vmaf" in names:
        from vidgen.metrics.vmaf import Vmaf

        measure.vmaf = Vmaf.find()
    if "lpips" in names and backbone is not None:
        from vidgen.metrics.lpips import load_lpips

        measure.lpips = load_lpips(backbone).to(place)
    if c3d is not None:
        measure.inception = Inception(c3d, place)
    return measure


def _settings(measure: Measure) -> dict[str, Any]:
    """What decides the numbers, of each metric that has a choice."""
    found: dict[str, Any] = {}
    if measure.lpips is not None:
        lpips = measure.lpips
        found["lpips"] = {"version": "0.1", "net": lpips.name, "weights_sha256": lpips.sha256}
    if measure.inception is not None:
        found["is"] = measure.inception.settings
    if measure.vmaf is not None:
        found["vmaf"] = {"ffmpeg": measure.vmaf.version, "model": "its default"}
    if {"warping", "self-warping"} & {*measure.metrics}:
        from vidgen.metrics import warping

        found["flow"] = warping.METHOD
    return found


def fitted(name: str, true: Clip, own: Clip, *, resize: bool, shortest: bool) -> tuple[Clip, Clip]:
    """Both in one shape. InputError that names both where that isn't allowed."""
    from dataclasses import replace

    lengths = len(true.frames), len(own.frames)
    if lengths[0] != lengths[1]:
        least = min(lengths)
        if not shortest:
            raise InputError(
                f"clip `{name}`: the reference has {lengths[0]} frames, the made one {lengths[1]}",
                next=f"--shortest compares the first {least}",
            )
        true, own = (
            replace(c, frames=c.frames[:least], times=c.times[:least]) for c in (true, own)
        )
    if true.frames.shape != own.frames.shape:
        (h, w), (own_h, own_w) = true.frames.shape[1:3], own.frames.shape[1:3]
        if not resize:
            raise InputError(
                f"clip `{name}`: the reference is {w}x{h}, the made one {own_w}x{own_h}",
                next="--resize brings it to the size of the reference",
            )
        own = replace(own, frames=resized(own.frames, h, w))
    return true, own


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """`t h w 3` uint8, bicubically, without aliasing where it shrinks."""
    import numpy as np
    from PIL import Image

    size = (width, height)
    return np.stack([
        np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
        for frame in frames
    ])  # fmt: skip


def lost(sides: Sequence[Side]) -> int:
    """Clips that were left out, a pair counted once: a broken one leaves its reference alone."""
    keys = {key for side in sides for key in (*side.alone, *side.unused)}
    return max(len(keys), *(len(side.bad) for side in sides))


class Found:
    """What has been measured so far. `keep`: clips to show on a page."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.items: list[dict[str, Any]] = []
        self.digests: tuple[list[str], list[str]] = ([], [])  # of the made, of the true
        self.shown: list[tuple[str, np.ndarray, np.ndarray | None]] = []
        self.how: How | None = None  # the clips were paired
        self.rates = 0  # clips whose rate is not the reference's

    def add(self, measure: Measure, name: str, own: Clip, true: Clip | None = None) -> None:
        t, h, w, _ = own.frames.shape
        frames = true.frames if true is not None else None
        measured = measure(name, own.frames, frames)
        self.items.append({"id": name, "frames": t, "size": f"{w}x{h}", **measured})
        for digests, clip in zip(self.digests, (own, true), strict=True):
            if clip is not None:
                shape = str(clip.frames.shape).encode()
                digests.append(hashlib.sha256(shape + clip.frames.tobytes()).hexdigest())
        if true is not None and true.rate and own.rate:
            self.rates += abs(true.rate / own.rate - 1) > 1e-3
        if len(self.shown) < self.keep:
            self.shown.append((name, own.frames, frames))

    def report(
        self, sides: Sequence[Side], measure: Measure, settings: dict[str, Any], kept: Kept
    ) -> Report:
        bad = [line for side in sides for line in side.bad]
        if not self.items:
            raise InputError("no two clips could be compared", why="; ".join(bad[:3]) or None)
        for side in sides:
            side.warn(kept)
        for text in measure.warnings(len(self.items)):
            kept.warn(text)
        if self.rates:
            kept.warn(f"{self.rates} clips have another frame rate than the reference: frames are"
                      " compared in their order, whatever their times")  # fmt: skip
        inputs = []
        for side, digests in zip(sides, reversed(self.digests[: len(sides)]), strict=True):
            whole = hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()
            inputs.append({"role": side.role, "name": side.given, "clips": len(digests),
                           "sha256": whole, "left_out": len(side.bad)})  # fmt: skip
        scores = mean_scores(self.items, {**WITH_REF, **ALONE})
        details: dict[str, Any] = {"left_out": {s.role: s.bad for s in sides}} if bad else {}
        if self.how is not None:
            details["paired_by"] = self.how
        if without := measure.without(len(self.items)):
            details["without"] = without
        if measure.inception is not None:
            scores["is"], details["is_std"] = measure.inception.score()
        failed = lost(sides)
        scores["failed"] = Score(float(failed), better="lower", n=len(self.items) + failed)
        return Report(PAGE.name, settings, inputs, scores, kept.warnings, self.items, details)
