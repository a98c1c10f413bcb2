"""What `vidgen diff` finds between two reports."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from vidgen.cli.compare import Comparison
from vidgen.cli.report_text import difference_line
from vidgen.errors import InputError
from vidgen.metrics.report import Report, compare, plain


def is_json(path: str) -> bool:
    """Whether a file holds JSON, which of what vidgen compares only reports do. A record begins
    with the eight bytes of a length, whose last ones are zero: text has none of these."""
    if not Path(path).is_file():
        return False
    with open(path, "rb") as f:
        head = f.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    return (head.startswith(b"{") and b"\0" not in head) or Path(path).suffix == ".json"


def refuse_report(path: str) -> None:
    """InputError for a report where records or videos are asked for."""
    if is_json(path):
        raise InputError(
            f"{path}: is JSON, as reports of evaluations are, and no record or video",
            next="vidgen diff A B compares two reports",
        )


def compare_reports(a: str, b: str, tolerance: float) -> Comparison:
    """Score by score: what B is, where A is the one before. InputError for what is no report, and
    for two whose numbers don't mean the same."""
    found = compare(Report.read(a), Report.read(b), tolerance, (a, b))
    rows = [plain(asdict(one)) for one in found]
    count = f"{len(found)} score{'s' if len(found) != 1 else ''} within noise"
    return Comparison(
        summary=count,
        report={"scores": rows},
        equal=all(one.verdict == "within noise" for one in found),
        lines=[difference_line(one) for one in found],
    )
