"""`python -m benchmarks [NAME …] [--json]`: every comparison, in one run, on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict

from benchmarks import commands, estimates, evaluate_fvd, offload, released, stream, training, video
from benchmarks.common import Row, machine
from benchmarks.snap_video import fused

BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "startup": commands.startup,
    "stream": stream.rows,
    "pipeline": commands.pipeline,
    "prompt-to-video": commands.prompt_to_video,
    "rendering": training.rendering,
    "training": training.training,
    "fit": fused.rows,
    "sampling": training.sampling,
    "cascade": video.cascade,
    "decoding": video.decoding_memory,
    "offload": offload.rows,
    "interpolating": video.interpolating,
    "features": evaluate_fvd.extracting,
    "distances": evaluate_fvd.distances,
    "estimates": estimates.rows,
    "released": released.rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of: {', '.join(BENCHMARKS)} [all]")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.names) - BENCHMARKS.keys():
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    on = machine()
    rows: list[Row] = []
    for name in options.names or BENCHMARKS:
        print(f"{name} …", file=sys.stderr, flush=True)
        rows += BENCHMARKS[name]()
    if options.json:
        report = {"schema": "vidgen.bench/1", "machine": on, "rows": [asdict(r) for r in rows]}
        print(json.dumps(report, indent=2))
        return
    print(", ".join(f"{k} {v}" for k, v in on.items()))
    width = max(len(r.what) for r in rows)
    for r in rows:
        ratio = f"{r.ratio:7.2f} x" if r.ratio is not None else " " * 9
        print(f"{r.what:<{width}}  {r.ours:>14}  {r.theirs:>14}  {ratio}  {r.note}")


if __name__ == "__main__":
    main()
