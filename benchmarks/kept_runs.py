"""`python -m benchmarks.kept_runs RUN …`: what the model card says of a run, kept in docs/runs.

The folder of a run holds checkpoints, and isn't in the repository. Here its recipe is kept, and of
its metrics the first and the last line with a loss and all evaluations. `make card` writes the card
from what is kept. A run that goes by another name from now on: RUN=NAME.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

KEPT = Path(__file__).parent.parent / "docs" / "runs"


def kept(lines: list[str]) -> list[dict[str, Any]]:
    """Of the lines of metrics.jsonl those that are kept."""
    rows = [json.loads(line) for line in lines]
    losses = [i for i, row in enumerate(rows) if "loss" in row]
    wanted = {losses[0], losses[-1]}
    return [
        row for i, row in enumerate(rows)
        if i in wanted or any(key.startswith("eval.") for key in row)
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kept_runs", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN[=NAME]")
    for words in parser.parse_args().runs:
        run, _, name = words.partition("=")
        source, target = Path(run), KEPT / (name or Path(run).resolve().name)
        rows = kept((source / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        target.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (target / "metrics.jsonl").write_text(text, encoding="utf-8")
        shutil.copy(source / "recipe.yaml", target / "recipe.yaml")
        print(f"{target}: {len(rows)} lines")


if __name__ == "__main__":
    main()
