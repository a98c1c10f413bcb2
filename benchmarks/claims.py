"""`python -m benchmarks.claims SYSTEM [CLAIM …]`: a paper's findings, looked at again.

What a system's claims are, and the options there are, `python -m benchmarks.claims SYSTEM --help`
tells.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path


def systems() -> list[str]:
    """The systems that have claims: a folder each, beside this file."""
    folders = (path.parent.name for path in Path(__file__).parent.glob("*/__main__.py"))
    return sorted(name.replace("_", "-") for name in folders)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claims", description=__doc__, add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("system", metavar="SYSTEM", help=f"of: {', '.join(systems())}")
    system, *rest = list(sys.argv[1:] if argv is None else argv) or [""]
    if system in ("-h", "--help"):
        parser.print_help()
        return 0
    if system not in systems():
        parser.error(f"no claims of a system `{system}`; there are those of {', '.join(systems())}")
    module = importlib.import_module(f"benchmarks.{system.replace('-', '_')}.__main__")
    return module.main(rest)


if __name__ == "__main__":
    sys.exit(main())
