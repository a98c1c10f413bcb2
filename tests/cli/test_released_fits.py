"""What does not fit into memory is refused before anything is computed, and told what would; tiles
are warned of and logged."""

import json
from pathlib import Path

import pytest
from released_folders import write

from vidgen.errors import Exit
from vidgen.stages import decode_clips, fitting, memory, sample_clips
from vidgen.systems import cogvideox, wan


@pytest.fixture(scope="module", params=["wan 2.1", "cogvideox 2b"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write(request.param, folder)
    return folder


@pytest.fixture
def latents(vidgen, model):
    """The model as an option, and latents of it, in latents.vgs."""
    words = ("--model", str(model))
    made = ("--prompt", "a red ball", "--steps", "1", "--num-frames", "9", "--size", "96x64")
    assert vidgen("sample", *made, *words, "-o", "latents.vgs").code == 0
    return words


def has(monkeypatch, free):
    for module in (memory, fitting, sample_clips, decode_clips):
        monkeypatch.setattr(module, "free_bytes", lambda device: free)


def unread(monkeypatch):
    def fail(*args, **kwargs):
        pytest.fail("weights were read")

    for system in (wan, cogvideox):
        for name in ("load_transformer", "load_autoencoder", "load_text_tower"):
            monkeypatch.setattr(system, name, fail)


def test_samples_that_do_not_fit(vidgen, model, monkeypatch):
    words = ("--model", str(model), "--num-frames", "9", "--size", "96x64")
    assert vidgen("encode-text", "a red ball", "--model", str(model), "-o", "text.vgs").code == 0
    unread(monkeypatch)
    has(monkeypatch, 20_000)
    ran = vidgen("sample", "text.vgs", *words, "--steps", "1")
    assert ran.code == Exit.OUT_OF_MEMORY, ran.err
    assert "a sample of 9 frames of 96x64" in ran.err and "next:" in ran.err


def test_nothing_is_computed_before(vidgen, model, monkeypatch):
    """No text is encoded for samples that don't fit, and nothing sampled for frames that don't."""
    unread(monkeypatch)
    words = ("--model", str(model), "--num-frames", "9", "--size", "96x64", "--no-cache")
    with monkeypatch.context() as patch:
        has(patch, 20_000)
        ran = vidgen("sample", "--prompt", "a red ball", *words)
    assert ran.code == Exit.OUT_OF_MEMORY, ran.err
    assert "a sample of 9 frames of 96x64" in ran.err
    with monkeypatch.context() as patch:
        has(patch, 20_000)
        ran = vidgen("generate", "a red ball", *words, "-o", "x.mp4")
    assert ran.code == Exit.OUT_OF_MEMORY and "a sample of 9 frames of 96x64" in ran.err, ran.err
    monkeypatch.setattr(decode_clips, "free_bytes", lambda device: 20_000)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 20_000)
    ran = vidgen("generate", "a red ball", *words, "-o", "x.mp4")
    assert ran.code == Exit.OUT_OF_MEMORY, ran.err
    assert "decoding 96x64 pixels takes about" in ran.err and not Path("x.mp4").exists()


def test_frames_that_do_not_fit_and_tiles_that_do(vidgen, latents, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(decode_clips, "TILES", (64, 32))
        unread(patch)
        has(patch, 300_000)
        ran = vidgen("decode", "latents.vgs", *latents, "--dtype", "bf16")
        assert ran.code == Exit.OUT_OF_MEMORY, ran.err
        assert "decoding 96x64 pixels takes about" in ran.err
        assert "vidgen decode --tile" in ran.err or "latents of a smaller --size" in ran.err
    whole = vidgen("decode", "latents.vgs", *latents, "-o", "whole.vgs")
    assert whole.code == 0 and "warning" not in whole.err
    tiled = vidgen("decode", "latents.vgs", *latents, "--tile", "64x64", "-o", "tiled.vgs")
    assert tiled.code == 0 and "not what the whole frame would be" in tiled.err
    told = json.loads(vidgen("log", "tiled.vgs", "--json").text)
    assert "tiles of 64x64 pixels" in json.dumps(told)
    large = vidgen("decode", "latents.vgs", *latents, "--tile", "96x64", "-o", "large.vgs")
    assert large.code == 0 and "warning" not in large.err
    assert "tiles of 64x64" in vidgen(
        "decode", "latents.vgs", *latents, "--tile", "64x64", "--dry-run"
    ).text  # fmt: skip


def test_sides_that_no_tile_has(vidgen, latents, tiny_model):
    for size in ("100x64", "16x64"):
        ran = vidgen("decode", "latents.vgs", *latents, "--tile", size)
        assert ran.code == Exit.USAGE and f"--tile {size}" in ran.err
    ran = vidgen("decode", "latents.vgs", "--model", str(tiny_model), "--tile", "64x64")
    assert ran.code == Exit.USAGE and "it is for the autoencoders of released models" in ran.err
