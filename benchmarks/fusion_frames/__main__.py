"""`python -m benchmarks.fusion_frames [CLAIM …]`: the paper's findings, looked at again.

Each claim writes benchmarks/results/fusion-frames-CLAIM.json and .png. A claim with a report for
the same settings and models is not measured again, and a training that was stopped goes on.

    a blocks    temporal blocks against temporal layers       trains seven networks
    b grouped   three frames at once against one by one       needs both interpolation networks
    c guidance  copying of keyframes against guidance         needs the grouped one
    d decoders  the table of video decoders                   trains nine decoders
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.claim_report import RESULTS, as_text
from benchmarks.fusion_frames import blocks, decoders, grouped, guidance
from vidgen.errors import VidgenError
from vidgen.systems.base import INTERPOLATIONS, ModelFolder

CLAIMS = {"a": "blocks", "b": "grouped", "c": "guidance", "d": "decoders"}
RUNS = Path("runs")


def network(path: Path | None, method: str, shipped: ModelFolder) -> ModelFolder:
    """The folder that holds an interpolation network: as told, where its recipe puts it, or the
    shipped model. InputError if none does."""
    trained = {"grouped": "world-interpolation", "masked": "world-interpolation-masked"}
    usual = RUNS / trained[method] / "model"
    if path is None and (usual / "model_index.json").is_file():
        path = usual
    folder = shipped if path is None else ModelFolder.find(str(path))
    folder.component(INTERPOLATIONS[method])
    return folder


def run(claim: str, options: argparse.Namespace) -> dict[str, Any]:
    shipped = ModelFolder.find(options.model)
    runs = options.runs / ("smoke" if options.smoke else "full") / claim
    module = {m.CLAIM: m for m in (blocks, grouped, guidance, decoders)}[claim]
    settings = module.SMOKE if options.smoke else module.Settings()
    if claim == "blocks":
        return blocks.run(options.out, shipped, settings, runs, options.cache)
    if claim == "decoders":
        return decoders.run(options.out, shipped, settings, runs)
    needed = ("grouped", "masked") if claim == "grouped" else ("grouped",)
    models = {name: network(getattr(options, name), name, shipped) for name in needed}
    return module.run(options.out, models, settings)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fusion_frames", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="a to d, or their names [all]")
    parser.add_argument("--model", help="whose latents and text are worked with [world]")
    parser.add_argument("--grouped", type=Path, help="model folder with `interpolation`")
    parser.add_argument("--masked", type=Path, help="model folder with `interpolation_masked`")
    parser.add_argument("--out", type=Path, default=None, help="of the reports")
    parser.add_argument("--runs", type=Path, default=RUNS / "claims", help="of the trainings")
    parser.add_argument("--cache", type=Path, default=RUNS / "cache", help="of rendered latents")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="see in seconds that all of it works")
    options = parser.parse_args(argv)
    if options.out is None:  # a smoke test is no result
        options.out = options.runs / "smoke" if options.smoke else RESULTS
    claims = [CLAIMS.get(claim, claim) for claim in options.claims or CLAIMS]
    if unknown := set(claims) - set(CLAIMS.values()):
        parser.error(f"no claim {', '.join(sorted(unknown))}; there are a to d")
    torch.set_num_threads(options.threads)
    failed = False
    for claim in claims:
        print(f"{claim} …", file=sys.stderr, flush=True)
        try:
            print(as_text(run(claim, options)), flush=True)
        except VidgenError as error:  # a network that isn't trained yet: the others go on
            print(f"{claim}: not measured: {error}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
