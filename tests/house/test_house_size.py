"""Files stay short enough to be read."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILES = [
    p for folder in ("vidgen", "tests", "benchmarks", "bin")
    for p in sorted((ROOT / folder).rglob("*"))
    if p.is_file() and (p.suffix in (".py", ".sh") or folder == "bin")
]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_longer_than_a_person_reads(path: Path) -> None:
    limit = 600 if path.parent.name == "systems" and "tests" not in path.parts else 500
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit
