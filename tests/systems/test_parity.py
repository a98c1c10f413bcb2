"""Wan and CogVideoX from prompt to frames, by the commands, as diffusers' own pipelines make them.

Tiny random folders that diffusers wrote (`benchmarks/parity_folders.py`). Measured on a CPU in
float32 (docs/parity.md has the table): parts up to 9e-7, latents up to 1.2e-6, frames up to 1.7e-6.
"""

import warnings

import pytest

with warnings.catch_warnings():
    # Its import warns about optional packages and its own old annotations; ours must not.
    warnings.simplefilter("ignore")
    pytest.importorskip("diffusers")
    from benchmarks import parity
    from benchmarks.parity_folders import KINDS

# diffusers turns torch tensors into numpy arrays in a way that numpy 2 is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# The others after the fast tests, so that these take ten seconds.
FIRST = ("wan 2.1", "wan 2.2, two experts", "wan 2.1, picture", "cogvideox 2b", "cogvideox 5b, dpm")


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in FIRST else pytest.mark.slow) for k in KINDS]
)
def test_prompt_to_frames_as_diffusers(kind, tmp_path):
    for name in ("model", "out"):
        (tmp_path / name).mkdir()
    found = parity.measure(kind, tmp_path / "model", tmp_path / "out")
    assert {name: e for name, e in found.items() if e > parity.BOUNDS[name]} == {}


def test_another_prompt_is_beyond_the_bound(tmp_path, monkeypatch):
    """What is held to 1e-4 depends on the prompt by more."""
    theirs = parity.theirs

    def other(*args):
        with monkeypatch.context() as patched:
            patched.setattr(parity, "PROMPT", "a cat on the grass")
            return theirs(*args)

    monkeypatch.setattr(parity, "theirs", other)
    monkeypatch.setattr(parity, "_parts", lambda *args: dict.fromkeys(parity.BOUNDS, 0.0))
    for name in ("model", "out"):
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="8 bits are others"):
        parity.measure("wan 2.1", tmp_path / "model", tmp_path / "out")


def test_the_page_has_a_line_for_each_kind():
    page = (parity.DOCS / "parity.md").read_text(encoding="utf-8")
    assert [line.split("|")[1].strip() for line in page.splitlines() if line[:2] == "| "][1:-1] == [
        "---",
        *KINDS,
    ]
    assert all(f"**{name}**" in page for name in parity.BOUNDS)
