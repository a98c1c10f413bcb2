"""`python -m benchmarks.snap_video [CLAIM …]`: the paper's findings, looked at again.

Each claim writes benchmarks/results/snap-video-CLAIM.json and .png. A claim with a report for the
same settings and device is not measured again.

    b speed     FIT against a U-Net with attention over time, at the published sizes and small ones

Of the paper's claims a, input scaling, and c, images as videos, are not written yet.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.claim_report import RESULTS, as_text
from benchmarks.snap_video import speed

CLAIMS = {"b": "speed"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.snap_video", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="b, or its name [all]")
    parser.add_argument("--out", type=Path, default=RESULTS, help="of the reports")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--smoke", action="store_true", help="see in seconds that all of it works")
    options = parser.parse_args(argv)
    if options.smoke and options.out == RESULTS:  # a smoke test is no result
        options.out = Path("runs/claims/smoke")
    claims = [CLAIMS.get(claim, claim) for claim in options.claims or CLAIMS]
    if unknown := set(claims) - set(CLAIMS.values()):
        parser.error(f"no claim {', '.join(sorted(unknown))}; there is b, speed")
    settings = speed.SMOKE if options.smoke else speed.Settings()
    print(as_text(speed.run(options.out, settings, options.device, options.threads)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
