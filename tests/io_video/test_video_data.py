"""tests/data holds what its README says, and nothing else."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path


def test_every_file_is_the_one_described(data: Path) -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \| (\d+) \|.*`([0-9a-f]{64})`", (data / "README.md").read_text(), re.M
    )
    described = {name: (int(size), digest) for name, size, digest in rows}
    videos = {".mp4", ".mov", ".webm", ".gif"}
    present = {path.name for path in data.iterdir() if path.suffix in videos}
    assert present == set(described)
    for name, (size, digest) in described.items():
        content = (data / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (size, digest), name
    assert sum(size for size, _ in described.values()) < 4_500_000
