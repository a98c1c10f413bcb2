"""`vidgen evaluate-fvd`: how far generated clips are from real ones, as distributions."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vidgen.cli.console import Console
from vidgen.cli.eval_clips import Kept, Sampling, expand
from vidgen.cli.evaluate_fvd_features import (
    Extraction,
    Side,
    check_asked,
    check_weights,
    feature_sets,
    media,
    warn_of,
)
from vidgen.cli.evaluate_fvd_protocols import Protocol, chosen
from vidgen.cli.evaluate_fvd_scores import SCORES, measure, settings
from vidgen.cli.media import content_of
from vidgen.cli.options import (
    RUNNING,
    Device,
    Given,
    Seeds,
    Talk,
    argument,
    option,
    parse_seeds,
)
from vidgen.cli.page import Page
from vidgen.cli.reporting import REPORT_SCHEMA, Reporting, check_files
from vidgen.cli.runner import NoInput, print_json, print_text
from vidgen.errors import Exit, InputError, UsageError
from vidgen.metrics.report import Report, Score

if TYPE_CHECKING:
    from vidgen.metrics.feature_file import FeatureSet

PAGE = Page(
    name="evaluate-fvd",
    summary="how far generated clips are from real ones (FVD, KVD)",
    description="""\
A network turns each clip into a few hundred numbers, its features. The Fréchet distance of the two
sets of features, taken for two Gaussians, is FVD: 0 is the same, lower is better.

A number means something only beside all that decided it, so the report names it all: network and
the SHA-256 of its weights, preprocessing, frames, numbers of clips, divisor of the covariances.
Reports and feature files of other settings are not compared. FVD of few clips is too large, by an
amount that depends on how many: compare numbers of the same N only, or fvd_infinity, where the
number for N without end is extrapolated. It takes more clips of each side than there are features.

The default network is small, knows vidgen's procedural world and nothing else, and comes with
vidgen; its numbers are no published FVD. For those, --protocol with the weights of I3D.

REAL and FAKE are each a folder, a file, a quoted glob, or - for a stream of frames records. Videos,
folders of pictures, records, and files of features that --save-real and --save-fake wrote may stand
in them; several files of features (shards) count as one.""",
    reads="clips or their features from REAL and FAKE",
    writes="a table, or the JSON of a report",
    examples=[
        ("vidgen evaluate-fvd real/ fake/", "two folders of videos"),
        ("vidgen evaluate-fvd real/ fake/ --max fvd=40 --report fvd.json",
         "for CI; exit code 4 above 40"),
        ("vidgen evaluate-fvd real/ fake/ --save-real real.safetensors",
         "keep the features of the real"),
        ("vidgen evaluate-fvd real.safetensors 'runs/*.mp4'", "and use them again"),
        ("vidgen evaluate-fvd real/ fake/ --protocol stylegan-v --weights i3d_torchscript.pt",
         "as StyleGAN-V and most papers since"),
        ("vidgen evaluate-fvd --self-test", "whether this installation computes rightly"),
    ],
    notes={
        "SCORES": """\
fvd: Fréchet distance; its interval is of random halves of the clips.
fvd_infinity: extrapolated over 1/N.
kvd: kernel distance (polynomial of degree 3, unbiased), which may fall below 0.
precision, density: how many fake clips lie where real ones do. recall, coverage: how much of the
real there is among the fakes. Of 5 nearest neighbors.
failed: clips of both sides that --skip-bad left out; --max failed=0 allows none.""",
        "CLIPS": """\
A clip takes as many frames as the network needs, at least: world 16, i3d 9, clip 1.
A video is decoded to its end, also where only its first frames are taken: one that is damaged
anywhere is refused, or left out by --skip-bad. Of long videos this takes most of the time; files
of features take none.""",
        "PROTOCOLS": """\
google: i3d:google, divisor n-1, the first 16 frames.
stylegan-v: i3d:stylegan-v, divisor n, 16 frames from a random place, 2048 clips;
stylegan-v-128: 128 frames; stylegan-v-128-by-8: 16 frames, every eighth.
tats, videogpt: i3d:tats, i3d:videogpt, divisor n-1, the first 16 frames.
content-debiased-128, -256: its loader's sizes, I3D, divisor n, 16 frames from a random place.
What preprocessing each name stands for is in the report. Weights are i3d_torchscript.pt (google,
stylegan-v) or i3d_pretrained_400.pt (the others). model_rgb.pth and rgb_imagenet.pt have the same
layouts and are taken, but they were trained otherwise: their numbers are no published FVD.""",
    },
    see_also=["vidgen-evaluate-world(1)", "vidgen-world(1)", "vidgen-generate(1)"],
)  # fmt: skip

Real = Annotated[
    str | None, argument("REAL", "real clips, or their features: folder, file, glob or -")
]
Fake = Annotated[str | None, argument("FAKE", "generated clips, or their features")]
Features = Annotated[
    str | None,
    option("--features", metavar="NAME", default="world",
           help="the network: world, i3d:google, i3d:stylegan-v, i3d:tats, … or clip"),
]  # fmt: skip
Weights = Annotated[
    str | None,
    option("--weights", metavar="FILE", default="those that come with vidgen",
           help="weights of the network, which i3d and clip need"),
]  # fmt: skip
ProtocolName = Annotated[
    Literal["google", "stylegan-v", "stylegan-v-128", "stylegan-v-128-by-8", "tats", "videogpt",
            "content-debiased-128", "content-debiased-256"] | None,
    option("--protocol", metavar="NAME", default="vidgen's own",
           help="network, preprocessing, frames and divisor of published numbers"),
]  # fmt: skip
NumFrames = Annotated[
    int | None,
    option("--num-frames", metavar="N", min=1, default="16", help="frames taken of each clip"),
]
Stride = Annotated[
    int | None,
    option("--stride", metavar="N", min=1, default="1", help="take every Nth frame"),
]
Rate = Annotated[
    float | None,
    option("--fps", metavar="N", min=0.01, max=1000, default="the clips' own",
           help="bring all clips to so many frames a second first"),
]  # fmt: skip
FvdSeed = Annotated[
    Seeds | None,
    option("--seed", metavar="SEED", parse=parse_seeds, default="0",
           help="seed of random places in clips, of resampling and of subsets"),
]  # fmt: skip
Batch = Annotated[
    int,
    option("--batch-size", metavar="N", min=1, group=RUNNING,
           help="clips computed at once; changes speed and memory only"),
]  # fmt: skip
SkipBad = Annotated[
    bool, option("--skip-bad", help="leave out clips that are broken or too short, and count them")
]
SaveReal = Annotated[
    str | None,
    option("--save-real", metavar="FILE", default="none", settable=False,
           help="write the features of REAL, to be given instead of it"),
]  # fmt: skip
SaveFake = Annotated[
    str | None,
    option("--save-fake", metavar="FILE", default="none", settable=False,
           help="write the features of FAKE"),
]  # fmt: skip
SelfTest = Annotated[
    bool,
    option("--self-test", settable=False,
           help="compute what is known exactly, and exit with 1 if a number is wrong"),
]  # fmt: skip

SCHEMAS = {"vidgen.report/1": REPORT_SCHEMA}


def evaluate_fvd(
    console: Console,
    given: Given,
    reporting: Reporting,
    real: Real = None,
    fake: Fake = None,
    features: Features = None,
    weights: Weights = None,
    protocol: ProtocolName = None,
    num_frames: NumFrames = None,
    stride: Stride = None,
    fps: Rate = None,
    seed: FvdSeed = None,
    skip_bad: SkipBad = False,
    save_real: SaveReal = None,
    save_fake: SaveFake = None,
    self_test: SelfTest = False,
    batch_size: Batch = 8,
    device: Device = "auto",
) -> Exit:
    if self_test:
        return _self_test(given, as_json=reporting.json)
    if real is None or fake is None:
        raise NoInput("FAKE is missing" if real else "REAL and FAKE are missing")
    if real == fake == "-":
        raise UsageError("standard input (`-`) can be REAL or FAKE, not both")
    if seed is not None and len(seed) > 1:
        raise UsageError("--seed: one seed, not a range")
    number = seed[0] if seed else 0
    means = chosen(protocol, features=features, num_frames=num_frames, stride=stride)
    if protocol and fps:
        raise UsageError(f"--fps {fps:g}: --protocol {protocol} takes clips at their own rate")
    sampling = Sampling(means.num_frames, means.stride, fps, means.start, number)
    reporting.check(SCORES, tool="evaluate-fvd", settings=settings(means.divisor, number))
    saved = {"--save-real": save_real, "--save-fake": save_fake}
    check_files(saved | {"--report": reporting.report, "--html": reporting.html},
                force=reporting.force)  # fmt: skip
    warns = Kept(console)
    paths = expand([real], warns), expand([fake], warns)
    if any(content_of(path) == "video" for side in paths for path in side):
        check_weights(means.features, weights)
    sides = Side.of("REAL", real, paths[0]), Side.of("FAKE", fake, paths[1])

    extraction = None
    if not any(side.clips for side in sides):
        given.refuse(
            "weights", "batch_size", "device", "skip_bad", why="both sides are features already"
        )
    else:
        extraction = _extraction(
            means.features, weights, device, sampling, batch_size,
            skip_bad=skip_bad, keep=reporting.html is not None,
        )  # fmt: skip
    first = extraction.expected() if extraction else sides[0].sets[0]
    known = {"protocol": protocol or "vidgen", **first.settings, **settings(means.divisor, number)}
    counts = {side.role.lower(): side.count for side in sides}
    if not skip_bad and None not in counts.values():
        known["clips"] = counts
    reporting.check(SCORES, tool="evaluate-fvd", settings=known)
    found = feature_sets(sides, extraction, console, warns)
    if extraction is None:
        pinned = {"num_frames": num_frames, "stride": stride, "fps": fps}
        if protocol:
            pinned = sampling.settings()
        name = features or (means.features if protocol else None)
        check_asked(found[0], {
            "extractor": {"extractor": name} if name else {},
            "sampling": {k: v for k, v in pinned.items() if v is not None or protocol},
        })  # fmt: skip
    for side, path, of in zip(sides, saved.values(), found, strict=True):
        if path is not None:
            _save(path, side, of, reporting.force)
            console.note(f"wrote {path}")
    report = _report(sides, found, protocol, means, number, warns)
    try:
        return reporting.finish(report, console, media(sides[0].shown, sides[1].shown))
    except InputError as error:
        left_out = [f"{len(side.bad)} of {side.role}" for side in sides if side.bad]
        if not left_out or "clips." not in (error.why or ""):
            raise
        raise InputError(
            error.what,
            why=f"{error.why}; --skip-bad left out {' and '.join(left_out)}",
            next="mend those clips, or make a new baseline of as many",
        ) from None


def _self_test(given: Given, *, as_json: bool) -> Exit:
    from vidgen.cli.evaluate_fvd_self_test import as_report, as_table, checks, require_all

    if "real" in given:
        raise UsageError("--self-test takes no clips", next="vidgen evaluate-fvd --self-test")
    talk = {"self_test", "json", *(f.name for f in fields(Talk))}
    given.refuse(*sorted(given - talk), why="--self-test takes no clips and writes no report")
    done = list(checks())
    if as_json:
        print_json(as_report(done).to_dict())
    else:
        print_text(as_table(done))
    require_all(done)
    return Exit.DONE


def _extraction(
    name: str, weights: str | None, device: str, sampling: Sampling, batch_size: int,
    *, skip_bad: bool, keep: bool,
) -> Extraction:  # fmt: skip
    check_weights(name, weights)

    from vidgen.metrics.extractors import make
    from vidgen.stages.base import Compute

    compute = Compute(device=device)
    compute.check()
    extractor = make(
        name, weights=Path(weights) if weights else None, device=compute.torch_device()
    )
    extraction = Extraction(extractor, sampling, batch_size, skip_bad, keep)
    extraction.check()
    return extraction


def _save(path: str, side: Side, found: FeatureSet, force: bool) -> None:
    from vidgen.io.log import new_entry
    from vidgen.metrics.feature_file import write_features

    entry = new_entry("evaluate-fvd", argv=["evaluate-fvd", side.role, side.given])
    write_features(path, found, entry, force=force)


def _report(
    sides: tuple[Side, Side],
    found: tuple[FeatureSet, FeatureSet],
    protocol: str | None,
    means: Protocol,
    seed: int,
    warns: Kept,
) -> Report:
    real, fake = found
    counts = {"real": len(real), "fake": len(fake)}
    if not real.known:
        warns.warn("plain arrays: nothing says how their features were made, or of which clips")
    if means.clips and {len(fake), means.clips if means.full else len(real)} != {means.clips}:
        of = "of FAKE, and all there are of REAL" if means.full else "of each side"
        warns.warn(
            f"--protocol {protocol} takes {means.clips} clips {of}, here are"
            f" {len(real)} real and {len(fake)} fake: no number to put beside published ones"
        )
    warn_of(real, fake, warns)
    measured = measure(real, fake, means.divisor, seed, warns)
    inputs = [
        {"role": side.role.lower(), "name": side.given, "clips": len(of), "sha256": of.sha256,
         "left_out": len(side.bad)}
        for side, of in zip(sides, found, strict=True)
    ]  # fmt: skip
    left_out: dict[str, Any] = {s.role.lower(): s.bad for s in sides if s.bad}
    failed = sum(len(s.bad) for s in sides)
    failed_score = Score(float(failed), better="lower", n=len(real) + len(fake) + failed)
    return Report(
        tool="evaluate-fvd",
        settings={
            "protocol": protocol or "vidgen", **real.settings, "clips": counts,
            **settings(means.divisor, seed),
        },
        inputs=inputs,
        scores=measured.scores | {"failed": failed_score},
        warnings=warns.warnings,
        details=measured.details | ({"left_out": left_out} if left_out else {}),
    )  # fmt: skip
