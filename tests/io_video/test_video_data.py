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


def test_the_license_of_every_source_is_there(data: Path) -> None:
    readme = (data / "README.md").read_text()
    sources = set(re.findall(r"\| (\S+/\S+) : ", readme))
    texts = dict(re.findall(r"^\| (\S+/\S+) \|.*\]\((licenses/\S+)\) \|$", readme, re.M))
    assert texts.keys() == sources
    for text in texts.values():
        assert "licens" in (data / text).read_text(encoding="utf-8").lower()
    assert "https://creativecommons.org/licenses/by/3.0/" in readme
