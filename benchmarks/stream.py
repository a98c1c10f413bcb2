"""Records against stock safetensors: write and read back 200 MB of frames, digest and all.

Ours hashes on writing and again on reading, which stock does not. The last two rows say what the
durable write (fsync, rename) that commands use costs on top.
`python -m benchmarks.stream [--folder DIR] [--json]` runs these alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks.common import Row, interleaved, machine, seconds
from vidgen.io.record import Record
from vidgen.io.stream import read_stream, write_stream

SHAPE = (163, 480, 854, 3)  # 200.4 MB of 480p frames


def rows(folder: str | None = None) -> list[Row]:
    """Times of one record of frames, in a folder of the disk that `folder` is on."""
    frames = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    size = f"{frames.nbytes / 1e6:.0f} MB record"
    with tempfile.TemporaryDirectory(prefix="vidgen-bench-", dir=folder) as where:
        ours, theirs = Path(where, "ours.safetensors"), Path(where, "theirs.safetensors")

        def write() -> None:
            with ours.open("wb", buffering=0) as f:
                write_stream([Record.make("frames", "clip", {"frames": frames})], f)

        def read() -> int:
            return next(iter(read_stream(ours))).numpy("frames").shape[0]

        def stock_write() -> None:
            save_file({"frames": frames}, theirs)

        def stock_read() -> int:
            return load_file(theirs)["frames"].shape[0]

        def both() -> None:
            write(), read()
            ours.unlink()  # so that every run writes a new file, as stock's does

        def stock_both() -> None:
            stock_write(), stock_read()
            theirs.unlink()

        def durable() -> None:
            write_stream([Record.make("frames", "clip", {"frames": frames})], ours, force=True)

        out = [_row(f"{size}: write and read", *interleaved(both, stock_both, 9), "safetensors")]
        out.append(_row(f"{size}: write", *interleaved(write, stock_write), "safetensors"))
        out.append(_row(f"{size}: read", *interleaved(read, stock_read), "safetensors"))
        out.append(_row(f"{size}: write, fsync, rename", seconds(durable), seconds(write), "write"))
    return out


def _row(what: str, ours: float, theirs: float, against: str) -> Row:
    ms = f"{ours * 1e3:.0f} ms", f"{theirs * 1e3:.0f} ms"
    return Row(what, *ms, ours / theirs, f"against {against}; below 1 is faster")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__)
    parser.add_argument("--folder", help="where to write, to choose the disk [the system's]")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table, on = rows(options.folder), machine()
    if options.json:
        report = {"schema": "vidgen.bench/1", "machine": on, "rows": [asdict(r) for r in table]}
        print(json.dumps(report, indent=2))
        return
    print(", ".join(f"{k} {v}" for k, v in on.items()))
    for r in table:
        print(f"{r.what:<36}  {r.ours:>8}  {r.theirs:>8}  {r.ratio:5.2f} x  {r.note}")


if __name__ == "__main__":
    main()
