"""`python -m benchmarks.snap_video [CLAIM …]`: the paper's findings, looked at again.

Each claim writes benchmarks/results/snap-video-CLAIM.json and .png. A claim with a report for the
same settings is not measured again, and a training that was stopped goes on.

    a scaling   shrinking the signal by sigma_in      trains eleven networks, some 20 minutes
    b speed     FIT against a U-Net with attention over time, at the published sizes and small ones
    c images    images learned as videos              trains nine networks, some 23 minutes
    d frames    what the upsampler costs as clips get longer; no finding, and no verdict
    e binding   what makes a FIT draw things whole; the same; trains six networks, some 40 minutes

Minutes are of one core of two gigahertz and more that computes in bfloat16.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.claim_report import RESULTS, as_text
from benchmarks.snap_video import binding, frames, images, scaling, speed
from vidgen.systems.base import ModelFolder

CLAIMS = {"a": "scaling", "b": "speed", "c": "images", "d": "frames", "e": "binding"}


def run(claim: str, options: argparse.Namespace) -> dict[str, Any]:
    if claim == "speed":
        settings = speed.SMOKE if options.smoke else speed.Settings()
        return speed.run(options.out, settings, options.device, options.threads)
    if claim == "frames":
        return frames.run(options.out, frames.SMOKE if options.smoke else frames.Settings())
    runs = options.runs / ("smoke" if options.smoke else "full") / f"snap-video-{claim}"
    module = {m.CLAIM: m for m in (scaling, images, binding)}[claim]
    chosen = module.SMOKE if options.smoke else module.Settings()
    return module.run(options.out, ModelFolder.find(options.model), chosen, runs, options.cache)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.snap_video", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="a to e, or their names [all]")
    parser.add_argument(
        "--model", help="a, c and e: whose text, and for e latents, are worked with [world]"
    )
    parser.add_argument("--out", type=Path, default=None, help="of the reports")
    parser.add_argument("--runs", type=Path, default=Path("runs/claims"), help="of the trainings")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="of rendered clips")
    parser.add_argument("--device", default="cpu", help="b: cpu or cuda")
    parser.add_argument("--threads", type=int, default=None, help="[b: 2, others: 1]")
    parser.add_argument("--smoke", action="store_true", help="see in seconds that all of it works")
    options = parser.parse_args(argv)
    if options.out is None:  # a smoke test is no result
        options.out = options.runs / "smoke" if options.smoke else RESULTS
    claims = [CLAIMS.get(claim, claim) for claim in options.claims or CLAIMS]
    if unknown := set(claims) - set(CLAIMS.values()):
        parser.error(f"no claim {', '.join(sorted(unknown))}; there are a to e")
    given = options.threads
    for claim in claims:
        print(f"{claim} …", file=sys.stderr, flush=True)
        options.threads = given or (2 if claim == "speed" else 1)
        torch.set_num_threads(options.threads)
        print(as_text(run(claim, options)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
